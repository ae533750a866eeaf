package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
	"github.com/conveyor-go/conveyor/store/memory"
	"github.com/conveyor-go/conveyor/store/storetest"
)

// judging is a store that judges a group as a set, as a database can with one statement: it looks at all conditions of the
// group before it writes anything of the group.
type judging struct {
	*memory.Store
	queue *groupcommit.Queue
}

func newJudging() *judging {
	s := &judging{Store: memory.New()}
	s.queue = groupcommit.New(groupcommit.Options{MaxCommits: 5, Disjoint: true}, func(group []*groupcommit.Commit) {
		for range 10 {
			runtime.Gosched() // the others come meanwhile
		}
		for _, c := range group {
			c.Err = s.judge(c.Ops)
		}
		for _, c := range group {
			if c.Err == nil {
				c.Revision, c.Err = s.Store.Commit(context.Background(), writes(c.Ops)...)
			}
		}
	})
	return s
}

// judge returns an error if a condition does not hold.
func (s *judging) judge(ops []store.Op) error {
	for _, op := range ops {
		rec, err := s.Get(context.Background(), op.Key())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if !op.Holds(rec.Revision) {
			return fmt.Errorf("%w: %s has revision %d", store.ErrConflict, op.Key(), rec.Revision)
		}
	}
	return nil
}

// writes returns what ops write, without conditions.
func writes(ops []store.Op) (bare []store.Op) {
	for _, op := range ops {
		switch {
		case op.Removes():
			bare = append(bare, store.Delete(op.Key()))
		case op.Writes():
			bare = append(bare, store.Put(op.Key(), op.Value()))
		}
	}
	return bare
}

func (s *judging) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return s.queue.Commit(ctx, ops)
}

func TestAStoreThatJudgesDisjointGroupsAsSetsKeepsTheContract(t *testing.T) {
	storetest.Run(t, storetest.Harness{Open: func(testing.TB) store.Store { return newJudging() }})
}
