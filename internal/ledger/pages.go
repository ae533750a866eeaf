package ledger

import (
	"context"
	"errors"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Found is what was read of one of several runs, or why it could not be read: Err wraps [fault.NotFound] or [store.ErrCorrupt].
type Found struct {
	Run *record.RunState
	Err error
}

// Runs is [Ledger.Run] for several runs, whose ids are sorted. It reads them by pages. It returns an error of the store that does not
// concern one of the runs.
func Runs(ctx context.Context, l *Ledger, ids []string) ([]Found, error) {
	all := make([]Found, len(ids))
	var begun []string
	var of []int // the place of each of them
	err := recordsOf(ctx, l, record.RunPrefix, ids, func(i int, found store.Record) {
		if found.Key != record.RunKey(ids[i]) {
			return // nobody can have made it
		}
		r := &record.RunState{ID: ids[i], Rev: found.Revision}
		if err := record.Decode(found, &r.Rec); err != nil {
			all[i].Err = err
			return
		}
		if all[i].Run = r; r.Rec.Started != 0 {
			begun, of = append(begun, ids[i]), append(of, i)
		}
	})
	if err != nil {
		return nil, err
	}
	steps := make([][]store.Record, len(begun))
	if err := recordsOf(ctx, l, record.StepPrefix, begun, func(i int, found store.Record) { steps[i] = append(steps[i], found) }); err != nil {
		return nil, err
	}
	for i, found := range steps {
		to := &all[of[i]]
		if err := addSteps(ctx, l, to.Run, found); errors.Is(err, store.ErrCorrupt) || errors.Is(err, fault.NotFound) {
			*to = Found{Err: err}
		} else if err != nil {
			return nil, err
		}
	}
	for i := range all {
		if all[i].Run == nil && all[i].Err == nil {
			all[i].Err = NoRun(ids[i])
		}
	}
	return all, nil
}

// SignaledOf returns which of several runs, whose ids are sorted, have a signal that no step has taken.
func SignaledOf(ctx context.Context, l *Ledger, ids []string) (map[string]bool, error) {
	signaled := map[string]bool{}
	err := recordsOf(ctx, l, record.SignalPrefix, ids, func(i int, _ store.Record) { signaled[ids[i]] = true })
	return signaled, err
}

// The largest and the smallest number of records that recordsOf reads at once.
const (
	largestPage  = 256
	smallestPage = 8
)

// recordsOf calls do for the records whose keys are a prefix and one of several ids, or begin so and go on with a slash. The ids are
// sorted. A page has records of other ids too: the fewer of them are wanted, the smaller is the next page, which begins
// at the next id.
func recordsOf(ctx context.Context, l *Ledger, prefix string, ids []string, do func(i int, found store.Record)) error {
	size := min(max(2*len(ids), smallestPage), largestPage)
	for i, after := 0, ""; i < len(ids); {
		first := prefix + ids[i]
		after = max(after, first[:len(first)-1]) // few keys can be between
		read, wanted := 0, 0
		for found, err := range l.Store.List(ctx, store.Query{Prefix: prefix, After: after, Limit: size}) {
			if err != nil {
				return err
			}
			read++
			after = found.Key
			id, _, _ := strings.Cut(found.Key[len(prefix):], "/")
			for i < len(ids) && ids[i] < id {
				i++
			}
			if i == len(ids) {
				return nil
			}
			if ids[i] == id {
				wanted++
				do(i, found)
			}
		}
		switch {
		case read < size:
			return nil
		case wanted < size/4:
			size = max(size/4, smallestPage)
		default:
			size = min(2*size, largestPage)
		}
	}
	return nil
}
