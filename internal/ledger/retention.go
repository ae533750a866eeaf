package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Keep is how much of the history of a resource is kept. A zero field means no limit.
type Keep struct {
	Runs      int           // ended runs
	Age       time.Duration // since the end of a run
	Revisions int           // generations, the newest included
}

// RemoveBatch is the largest number of records that one commit removes.
const RemoveBatch = 256

// Prune removes the ended runs and the generations of a resource that keep does not cover. It never removes the newest run
// of the resource, a run that an unfinished run repeats, the newest generation, or a generation that an unfinished run has
// pinned or is to pin. It also completes the removal of runs that a process began before it ended.
func (l *Ledger) Prune(ctx context.Context, k record.Key, keep Keep, now time.Time) error {
	head, _, err := l.Resource(ctx, k)
	if err != nil {
		return err
	}
	needed := map[int64]bool{} // generations that unfinished runs have pinned or keep
	ended := 0
	repeated := map[string]bool{} // runs that unfinished runs repeat; a repeating run is newer and comes first
	newest := store.Query{Prefix: record.RunsOf(k), Reverse: true}
	for r, err := range l.Store.List(ctx, newest) {
		if err != nil {
			return err
		}
		id := r.Key[len(newest.Prefix):]
		rec, rev, err := Load[record.Run](ctx, l, record.RunKey(id))
		if errors.Is(err, store.ErrNotFound) {
			// A process ended while it removed this run.
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
	needed[head.FixedGeneration] = true
	return l.removeRevisions(ctx, k, head.Generation-int64(keep.Revisions), needed)
}

// removeRun removes an ended run. The record of the run goes first, in a commit of its own. After a crash the rest is found
// through the index of the resource; see removeRest.
func (l *Ledger) removeRun(ctx context.Context, k record.Key, id string, rev store.Revision) error {
	if _, err := l.Commit(ctx, []store.Op{store.Delete(record.RunKey(id)).If(rev), store.Delete(record.PlanKey(id))}); err != nil {
		return err
	}
	return l.removeRest(ctx, k, id)
}

// removeRest removes what is left of a run that has no record any more. The entry in the index of the resource goes last.
// A crash before that leaves the entry, and the next Prune of the resource removes the rest.
func (l *Ledger) removeRest(ctx context.Context, k record.Key, id string) error {
	if err := l.RemoveAll(ctx, append(Leftovers(id), record.StepsOf(id), record.AttemptsOf(id), record.LogsOf(id))...); err != nil {
		return err
	}
	_, err := l.Commit(ctx, []store.Op{store.Delete(record.RunsOf(k) + id)})
	return err
}

// Leftovers returns the prefixes of the records that end with a run: its checkpoints, and the signals that no step took.
func Leftovers(run string) []string {
	return []string{record.CheckpointPrefix + run + "/", record.SignalPrefix + run + "/"}
}

// RemoveAll removes every record whose key has one of the prefixes, in commits of at most [RemoveBatch] records. A crash
// in between leaves the remaining records.
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

// removeRevisions removes the generations up to last, without those that are needed. A run that begins meanwhile pins a
// newer generation.
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
		generation, ok := record.ParseNumber(r.Key[len(prefix):])
		if !ok {
			return record.BadKey(r.Key)
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
