package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Keep say what of the past is kept; see [Retention].
type Keep struct {
	Runs      int
	Age       time.Duration
	Revisions int
}

// RemoveBatch bounds the records that one commit removes.
const RemoveBatch = 256

// Prune removes what of a resource's past is not to be kept.
func (l *Ledger) Prune(ctx context.Context, k record.Key, keep Keep, now time.Time) error {
	head, _, err := l.Resource(ctx, k)
	if err != nil {
		return err
	}
	needed := map[int64]bool{} // generations, by unfinished runs
	ended := 0
	repeated := map[string]bool{} // by unfinished runs, which are newer and come first
	newest := store.Query{Prefix: record.RunsOf(k), Reverse: true}
	for r, err := range l.Store.List(ctx, newest) {
		if err != nil {
			return err
		}
		id := r.Key[len(newest.Prefix):]
		rec, rev, err := Load[record.Run](ctx, l, record.RunKey(id))
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
		tooOld := keep.Age > 0 && rec.Ended.Time().Before(now.Add(-keep.Age))
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
func (l *Ledger) removeRun(ctx context.Context, k record.Key, id string, rev store.Revision) error {
	if _, err := l.Commit(ctx, []store.Op{store.Delete(record.RunKey(id)).If(rev), store.Delete(record.PlanKey(id))}); err != nil {
		return err
	}
	return l.removeRest(ctx, k, id)
}

// removeRest removes what is left of a run without a record. The index by which it is found goes last, so that after a
// crash in between the rest is found, and removed, when the resource is looked through again.
func (l *Ledger) removeRest(ctx context.Context, k record.Key, id string) error {
	if err := l.RemoveAll(ctx, append(Leftovers(id), record.StepsOf(id), record.AttemptsOf(id), record.LogsOf(id))...); err != nil {
		return err
	}
	_, err := l.Commit(ctx, []store.Op{store.Delete(record.RunsOf(k) + id)})
	return err
}

// Leftovers lists the prefixes of those: checkpoints, and signals that nobody took.
func Leftovers(run string) []string {
	return []string{record.CheckpointPrefix + run + "/", record.SignalPrefix + run + "/"}
}

// RemoveAll removes every record under some prefixes.
func (l *Ledger) RemoveAll(ctx context.Context, prefixes ...string) error {
	for len(prefixes) > 0 {
		var ops []store.Op
		for r, err := range l.Store.List(ctx, store.Query{Prefix: prefixes[0], Limit: RemoveBatch}) {
			if err != nil {
				return err
			}
			ops = append(ops, store.Delete(r.Key))
		}
		if len(ops) > 0 {
			if _, err := l.Commit(ctx, ops); err != nil {
				return err
			}
		}
		if len(ops) < RemoveBatch {
			prefixes = prefixes[1:]
		}
	}
	return nil
}

// removeRevisions removes the generations up to the last one to go, but for those that are needed. Those that a run takes
// up meanwhile are newer.
func (l *Ledger) removeRevisions(ctx context.Context, k record.Key, last int64, needed map[int64]bool) error {
	var ops []store.Op
	remove := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, err := l.Commit(ctx, ops)
		ops = ops[:0]
		return err
	}
	prefix := record.RevisionsOf(k)
	for r, err := range l.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return err
		}
		if r.Key > record.RevisionKey(k, last) {
			break
		}
		generation, err := strconv.ParseInt(r.Key[len(prefix):], 16, 64)
		if err != nil {
			return fmt.Errorf("%w: key %s", store.ErrCorrupt, r.Key)
		}
		if needed[generation] {
			continue
		}
		if ops = append(ops, store.Delete(r.Key)); len(ops) == RemoveBatch {
			if err := remove(); err != nil {
				return err
			}
		}
	}
	return remove()
}
