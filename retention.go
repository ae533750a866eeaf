package conveyor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/store"
)

// Retention bounds what is kept of the past of each resource. The zero value keeps everything. Retention is applied
// each time a run of the resource ends, and after every 256th generation. A resource without activity is not pruned.
//
// Some records are never removed, with any setting: runs that have not ended, runs that an unfinished run repeats,
// the newest run of a resource, its current generation, and the generations that unfinished runs have pinned. The
// steps, the attempts and the log of a run are removed together with the run. Its checkpoints, and the signals that
// no step took, are removed when the run ends.
type Retention struct {
	// Runs is the number of ended runs to keep, the newest ones. 0 means all.
	Runs int
	// Age is the maximum age of a kept run, counted from its end. 0 means no limit.
	Age time.Duration
	// Revisions is the number of generations to keep, the newest ones. 0 means all.
	Revisions int
}

func (r Retention) validate(f *fault.Fields) {
	if r.Runs < 0 {
		f.Add(fault.Invalidf("Retention.Runs", "%d is negative", r.Runs))
	}
	if r.Age < 0 {
		f.Add(fault.Invalidf("Retention.Age", "%s is negative", r.Age))
	}
	if r.Revisions < 0 {
		f.Add(fault.Invalidf("Retention.Revisions", "%d is negative", r.Revisions))
	}
}

// tidyEvery is after how many generations the past of a resource is looked through, if no run of it has ended meanwhile.
const tidyEvery = 256

// keepRules say what of the past is kept; see [Retention].
type keepRules struct {
	Runs      int
	Age       time.Duration
	Revisions int
}

// tidy removes what of a resource's past is not to be kept.
func (l *ledger) tidy(ctx context.Context, k Key, keep keepRules, now time.Time) error {
	head, _, err := l.resource(ctx, k)
	if err != nil {
		return err
	}
	needed := map[int64]bool{} // generations, by unfinished runs
	ended := 0
	repeated := map[string]bool{} // by unfinished runs, which are newer and come first
	newest := store.Query{Prefix: runsOf(k), Reverse: true}
	for r, err := range l.store.List(ctx, newest) {
		if err != nil {
			return err
		}
		id := r.Key[len(newest.Prefix):]
		rec, rev, err := load[runRecord](ctx, l, runKey(id))
		if errors.Is(err, store.ErrNotFound) {
			// The process died while it removed this one.
			if err := l.removeRest(ctx, k, id); err != nil {
				return fmt.Errorf("run %s: %w", id, err)
			}
			continue
		}
		if err != nil {
			return err
		}
		if !rec.State.Final() {
			needed[rec.Generation] = true
			repeated[rec.Of] = true
			continue
		}
		ended++
		tooMany := keep.Runs > 0 && ended > keep.Runs
		tooOld := keep.Age > 0 && rec.Ended.time().Before(now.Add(-keep.Age))
		if (tooMany || tooOld) && (head == nil || head.Status.Run != id) && !repeated[id] {
			if err := l.removeRun(ctx, k, id, rev); err != nil {
				return fmt.Errorf("run %s: %w", id, err)
			}
		}
	}
	if head == nil || keep.Revisions == 0 {
		return nil
	}
	needed[head.Keeps] = true
	return l.removeRevisions(ctx, k, head.Generation-int64(keep.Revisions), needed)
}

// removeRun takes an ended run off the record.
func (l *ledger) removeRun(ctx context.Context, k Key, id string, rev store.Revision) error {
	if _, err := l.commit(ctx, []store.Op{store.Delete(runKey(id)).If(rev), store.Delete(planKey(id))}); err != nil {
		return err
	}
	return l.removeRest(ctx, k, id)
}

// removeRest removes what is left of a run without a record. The index by which it is found goes last, so that after a
// crash in between the rest is found, and removed, when the resource is looked through again.
func (l *ledger) removeRest(ctx context.Context, k Key, id string) error {
	if err := l.removeAll(ctx, append(strewnOf(id), stepsOf(id), attemptsOf(id), logsOf(id))...); err != nil {
		return err
	}
	_, err := l.commit(ctx, []store.Op{store.Delete(runsOf(k) + id)})
	return err
}

// removeBatch bounds the records that one commit removes.
const removeBatch = 256

// removeAll removes every record under some prefixes.
func (l *ledger) removeAll(ctx context.Context, prefixes ...string) error {
	for len(prefixes) > 0 {
		var ops []store.Op
		for r, err := range l.store.List(ctx, store.Query{Prefix: prefixes[0], Limit: removeBatch}) {
			if err != nil {
				return err
			}
			ops = append(ops, store.Delete(r.Key))
		}
		if len(ops) > 0 {
			if _, err := l.commit(ctx, ops); err != nil {
				return err
			}
		}
		if len(ops) < removeBatch {
			prefixes = prefixes[1:]
		}
	}
	return nil
}

// removeRevisions removes the generations up to the last one to go, but for those that are needed. Those that a run takes
// up meanwhile are newer.
func (l *ledger) removeRevisions(ctx context.Context, k Key, last int64, needed map[int64]bool) error {
	var ops []store.Op
	remove := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, err := l.commit(ctx, ops)
		ops = ops[:0]
		return err
	}
	prefix := revisionsOf(k)
	for r, err := range l.store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return err
		}
		if r.Key > revisionKey(k, last) {
			break
		}
		generation, err := strconv.ParseInt(r.Key[len(prefix):], 16, 64)
		if err != nil {
			return fmt.Errorf("%w: key %s", store.ErrCorrupt, r.Key)
		}
		if needed[generation] {
			continue
		}
		if ops = append(ops, store.Delete(r.Key)); len(ops) == removeBatch {
			if err := remove(); err != nil {
				return err
			}
		}
	}
	return remove()
}
