package handover

import (
	"context"
	"errors"
	"hash/fnv"
	"slices"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/store"
)

// Owned returns the runs that are listed under an engine, in the order of their ids.
func Owned(ctx context.Context, l *ledger.Ledger, engine string) (runs []string, err error) {
	prefix := record.OwnedKey(engine, "")
	for r, err := range l.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		runs = append(runs, r.Key[len(prefix):])
	}
	return runs, nil
}

// FallsTo returns the one of several engines that a run falls to. All engines that know the same engines say the same of a run, and
// the runs are divided about evenly.
func FallsTo(run string, engines []string) (engine string) {
	var highest uint64
	for _, candidate := range slices.Sorted(slices.Values(engines)) {
		h := fnv.New64a()
		_, _ = h.Write([]byte(run + "/" + candidate))
		weight := h.Sum64()
		weight = (weight ^ weight>>33) * 0xff51afd7ed558ccd // the last bytes have changed the low bits alone
		if weight ^= weight >> 33; engine == "" || weight > highest {
			engine, highest = candidate, weight
		}
	}
	return engine
}

// How many runs are read at once, and how many are taken over in one commit.
const (
	ReadTogether = 256
	Together     = 32
)

// TakeOver makes runs of an engine that is marked dead those of another engine, and returns the runs that are its own now, as they
// were before. The runs are in the order of their ids. TakeOver leaves out the runs that somebody else has taken over, and removes their
// entries. damaged is called for a run that cannot be read, or that only a newer program can take over. It stays where it is.
//
// After an error, the runs that are returned have been taken over, and nobody knows of the others.
func TakeOver(ctx context.Context, l *ledger.Ledger, from string, runs []string, by *run.Member, damaged func(run string, err error)) (taken []*record.RunState, err error) {
	for page := range slices.Chunk(runs, ReadTogether) {
		found, err := ledger.Runs(ctx, l, page)
		if err != nil {
			return taken, err
		}
		var all []*record.RunState
		for i, f := range found {
			err := f.Err
			if f.Run != nil {
				err = record.Rewritable(f.Run.Rec.Needs)
			}
			switch {
			case err != nil && !errors.Is(err, fault.NotFound):
				damaged(page[i], err)
			case f.Run != nil && f.Run.Rec.Owner == from:
				all = append(all, f.Run)
			default:
				if err := forget(ctx, l, from, page[i]); err != nil {
					return taken, err
				}
			}
		}
		for some := range slices.Chunk(all, min(Together, max(l.Batch/opsOfRun, 1))) {
			mine, err := takeOver(ctx, l, some, by)
			if taken = append(taken, mine...); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}

// opsOfRun is how many ops the takeover of one run has at most.
const opsOfRun = 6

// takeOver takes runs over in one commit, or one by one if somebody has changed one of them.
func takeOver(ctx context.Context, l *ledger.Ledger, runs []*record.RunState, by *run.Member) (taken []*record.RunState, err error) {
	if len(runs) == 0 {
		return nil, nil
	}
	var ops []store.Op
	for _, r := range runs {
		ops = append(ops, run.TakeOver(r, by)...)
	}
	ops = append(ops, by.Live)
	switch _, err = l.Commit(ctx, ops); {
	case err == nil:
		return runs, nil
	case !errors.Is(err, store.ErrConflict), len(runs) == 1:
		if errors.Is(err, store.ErrConflict) {
			return nil, nil // it is looked at again
		}
		return nil, err
	}
	for _, r := range runs {
		one, err := takeOver(ctx, l, []*record.RunState{r}, by)
		if taken = append(taken, one...); err != nil {
			return taken, err
		}
	}
	return taken, nil
}

// forget removes the entry of a run that is not the engine's.
func forget(ctx context.Context, l *ledger.Ledger, engine, run string) error {
	key := record.OwnedKey(engine, run)
	r, err := l.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	rec, rev, err := ledger.Load[record.Run](ctx, l, record.RunKey(run))
	switch {
	case err == nil && rec.Owner == engine:
		return nil
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	}
	_, err = l.Commit(ctx, []store.Op{store.Delete(key).If(r.Revision), store.Check(record.RunKey(run), rev)})
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}
