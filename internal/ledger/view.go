package ledger

import (
	"context"
	"slices"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// View is a ledger bound to a context: it reads what a decision about a run depends on.
type View struct {
	ctx context.Context
	l   *Ledger
}

// View returns the ledger bound to a context.
func (l *Ledger) View(ctx context.Context) View { return View{ctx, l} }

// Resource returns the record of a resource, or nil with revision 0 if there is none.
func (v View) Resource(k record.Key) (*record.Resource, store.Revision, error) {
	return v.l.Resource(v.ctx, k)
}

// Target returns what the first pending run of a resource takes up when it begins.
func (v View) Target(k record.Key, head *record.Resource) (*record.Target, error) {
	return v.l.Target(v.ctx, k, head)
}

// IsPending reports whether a queued run waits behind another pending run.
func (v View) IsPending(run string, rec *record.Run) (bool, error) {
	return v.l.IsPending(v.ctx, run, rec)
}

// NextPending returns the run that waits behind the first pending run, and the key of its record.
func (v View) NextPending(k record.Key) (*record.Pending, string, error) {
	return v.l.NextPending(v.ctx, k)
}

// Definition returns the steps that a definition of a pipeline lists.
func (v View) Definition(pipeline, hash string) (*plan.Plan, error) {
	return v.l.Definition(v.ctx, pipeline, hash)
}

// Plan returns the steps that a run has pinned.
func (v View) Plan(run string, rec *record.Run) (*plan.Plan, error) { return v.l.Plan(v.ctx, run, rec) }

// Work returns what the runs of a resource have done, apart from deletions.
func (v View) Work(k record.Key, resourceID string) (*record.Work, error) {
	return v.l.Work(v.ctx, k, resourceID)
}

// Run returns the records of a run, or fault.NotFound.
func (v View) Run(id string) (*record.RunState, error) { return v.l.Run(v.ctx, id) }

// Signal returns the oldest signal of a run with a name for which taken reports false; a record without a key if there
// is none.
func (v View) Signal(run, name string, taken func(key string) bool) (store.Record, error) {
	for r, err := range v.l.Store.List(v.ctx, store.Query{Prefix: record.SignalsOf(run, name)}) {
		if err != nil || !taken(r.Key) {
			return r, err
		}
	}
	return store.Record{}, nil
}

// RevisionKeys returns the keys of the revisions of a resource.
func (v View) RevisionKeys(k record.Key) ([]string, error) {
	return v.l.keys(v.ctx, store.Query{Prefix: record.RevisionsOf(k)})
}

// Slots returns the places among the active runs of a pipeline that are taken.
func (v View) Slots(pipeline string) (map[int64]bool, error) {
	used := map[int64]bool{}
	prefix := record.SlotsOf(pipeline)
	for r, err := range v.l.Store.List(v.ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		slot, ok := record.ParseNumber(r.Key[len(prefix):])
		if !ok {
			return nil, record.BadKey(r.Key)
		}
		used[slot] = true
	}
	return used, nil
}

// Leftovers returns the keys of the checkpoints and signals of a run, as many as one commit removes, and whether there
// are more.
func (v View) Leftovers(run string) (keys []string, more bool, err error) {
	for _, prefix := range Leftovers(run) {
		left := v.l.Batch - len(keys)
		found, err := v.l.keys(v.ctx, store.Query{Prefix: prefix, Limit: left + 1})
		if err != nil {
			return nil, false, err
		}
		keys = append(keys, found[:min(len(found), left)]...)
		if len(found) > left {
			return keys, true, nil
		}
	}
	return slices.Clip(keys), false, nil
}

func (l *Ledger) keys(ctx context.Context, q store.Query) (keys []string, err error) {
	for r, err := range l.Store.List(ctx, q) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, r.Key)
	}
	return keys, nil
}
