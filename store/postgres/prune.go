package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// pruneBatch is the largest number of rows that one statement removes.
const pruneBatch = 1000

// Prune removes the rows of the log that are older than age, a thousand at a time, and returns how many. A Watch that has
// not read them gets [store.ErrGap]. The records are not touched. It can be called concurrently; if another handle prunes at the same
// time, Prune leaves the work to it. It returns an error if age is less than ten minutes, since a handle may still need the row
// of a commit whose answer was lost, and the errors of Get.
//
// The store calls Prune by itself (see [Options].PruneEvery).
func (s *Store) Prune(ctx context.Context, age time.Duration) (removed int, err error) {
	if age < leastLogAge {
		return 0, fmt.Errorf("postgres: prune: an age of %v is less than %v", age, leastLogAge)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err := s.gate.Enter(); err != nil {
		return 0, err
	}
	defer s.gate.Leave()
	return s.prune(ctx, age)
}

func (s *Store) prune(ctx context.Context, age time.Duration) (removed int, err error) {
	var clock serverClock
	if err := s.read(ctx, func(ctx context.Context) (err error) { clock, err = s.readClock(ctx); return err }); err != nil {
		return 0, err
	}
	before := clock.shown - age.Microseconds()
	for {
		n := 0
		err := s.read(ctx, func(ctx context.Context) error { return s.row(ctx, s.pruneSQL, []any{before, pruneBatch}, &n) })
		if removed += n; err != nil || n < pruneBatch {
			return removed, err
		}
	}
}

// pruneNowAndThen prunes until the store closes. An error is left to the next time; [Store.Health] shows how old the log is.
func (s *Store) pruneNowAndThen() {
	for {
		// The handles of a store begin at the same time when a program is installed anew everywhere.
		timer := time.NewTimer(s.opts.PruneEvery/2 + rand.N(s.opts.PruneEvery))
		select {
		case <-s.gate.Closing.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		_, _ = s.prune(s.gate.Closing, s.opts.LogAge)
	}
}
