package ledger

import (
	"context"
	"errors"
	"slices"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// maxWorkRuns is the number of runs of a resource that Work reads at most, unless none of them has had steps.
const maxWorkRuns = 100

// Work returns what the runs of a resource with the given id have done, apart from deletions. No run of the resource that
// is not a deletion may be active. If earlier runs are no longer on record, have no numbers, or are many, any step may have
// been called.
func (l *Ledger) Work(ctx context.Context, k record.Key, resourceID string) (*record.Work, error) {
	w := new(record.Work)
	whole, last := true, int64(0) // whole is set while no run was left out; last is the number of the last one
	read := 0
	for r, err := range l.Store.List(ctx, store.Query{Prefix: record.RunsOf(k), Reverse: true}) {
		if err != nil {
			return nil, err
		}
		number, id, err := record.ParseRunIndexKey(r.Key)
		if err != nil {
			return nil, err
		}
		whole = whole && number > 0 && (last == 0 || number == last-1) && (w.Plan == nil || read < maxWorkRuns)
		last = number
		if w.Plan != nil && !whole {
			break
		}
		read++
		run, err := l.Run(ctx, id)
		switch {
		case errors.Is(err, fault.NotFound), errors.Is(err, store.ErrCorrupt) && w.Plan != nil:
			whole = false
		case err != nil:
			return nil, err
		case run.Rec.ResourceID != resourceID: // of a resource that had the name before
			return w, nil
		case run.Rec.Cause != record.Deleted && run.Plan != nil:
			w.Add(run)
		}
		if w.Plan != nil && !slices.Contains(w.Called, false) {
			return w, nil
		}
	}
	if !whole || last != 1 {
		for i := range w.Called {
			w.Called[i] = true
		}
	}
	return w, nil
}
