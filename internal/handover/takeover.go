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

// Together is how many runs are taken over in one commit.
const Together = 32

// TakeOver makes runs of an engine that is marked dead those of another engine, and returns the runs that are its own now, as they
// were before. It leaves out the runs that somebody else has taken over, and removes their entries. damaged is called for a run
// that cannot be read, or that only a newer program can take over. It stays where it is.
//
// After an error, the runs that are returned have been taken over, and nobody knows of the others.
func TakeOver(ctx context.Context, l *ledger.Ledger, from string, runs []string, by *run.Member, damaged func(run string, err error)) (taken []*record.RunState, err error) {
	for some := range slices.Chunk(runs, min(Together, max(l.Batch/opsOfRun, 1))) {
		var all []*record.RunState
		for _, id := range some {
			r, err := l.Run(ctx, id)
			switch {
			case errors.Is(err, store.ErrCorrupt):
				damaged(id, err)
				continue
			case errors.Is(err, fault.NotFound):
				r, err = nil, nil
			}
			if err != nil {
				return taken, err
			}
			if r != nil {
				if err := record.Rewritable(r.Rec.Needs); err != nil {
					damaged(id, err)
					continue
				}
			}
			if r == nil || r.Rec.Owner != from {
				if err := forget(ctx, l, from, id); err != nil {
					return taken, err
				}
				continue
			}
			all = append(all, r)
		}
		mine, err := takeOver(ctx, l, all, by)
		taken = append(taken, mine...)
		if err != nil {
			return taken, err
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
