package hostile_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store/memory"
)

// strewn lists the checkpoints and the signals on record.
func strewn(r *rig.Engine) (keys []string) {
	r.T.Helper()
	for key := range rig.Dump(r.T, r.Store.Store) {
		if strings.HasPrefix(key, "ckp/") || strings.HasPrefix(key, "sig/") {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestCheckpointsAndSignalsThatNobodyTookGoWithTheEndOfTheirRun(t *testing.T) {
	for _, c := range []struct {
		name    string
		signals int
		restart bool
		cancel  bool
	}{
		{"a few", 3, false, false},
		{"a few, after a restart", 3, true, false},
		{"a few, of a run that is canceled", 3, false, true},
		{"more than go into a commit", 1_000, false, false},
		{"more than go into a commit, after a restart", 1_000, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work := rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if err := req.Checkpoint(ctx, req.Step.ID); err != nil {
						return conveyor.Done(), err
					}
					if ok, _ := req.Signal(nil); !ok && req.Step.ID == "2" {
						return conveyor.Await("go", 0), nil
					}
					return conveyor.Done(), nil
				})
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", work)
				e.Pipeline("d", "d", "d")
				run := e.MustApply(rig.Object("x", nil))
				synctest.Wait()
				for i := range c.signals {
					require.NoError(t, e.Signal(t.Context(), run.ID, fmt.Sprint("other-", i%10), i))
				}
				if c.restart {
					e = e.Reborn(conveyor.Options{})
					e.Driver("d", work)
					e.MustStart()
				}
				require.Len(t, strewn(e), c.signals+2)
				if c.cancel {
					require.NoError(t, e.Cancel(t.Context(), run.ID, ""))
				} else {
					require.NoError(t, e.Signal(t.Context(), run.ID, "go", 1))
				}
				ended := e.Ended(run.ID)
				require.Equal(t, c.cancel, ended.State == conveyor.StateCanceled)
				synctest.Wait()
				require.Empty(t, strewn(e))
			})
		})
	}
}

func TestASignalThatComesWithTheEndOfItsRunIsNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("x", nil))
		var sent atomic.Bool
		e.Store.Refusing(func(keys []string) error { // before the last commit, all of which has been decided
			if slices.Contains(keys, "act/"+run.ID) && sent.CompareAndSwap(false, true) {
				require.NoError(t, e.Signal(t.Context(), run.ID, "late", 1))
				require.Len(t, strewn(e), 1)
			}
			return nil
		})
		require.NoError(t, e.Ended(run.ID).Err())
		require.True(t, sent.Load())
		synctest.Wait()
		require.Empty(t, strewn(e))
	})
}

func TestARunWhoseGenerationIsRemovedWhileItBeginsTakesUpTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &rig.Probe{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{Workers: 1, Retention: conveyor.Retention{Revisions: 2}}).MustStart()
		release := make(chan struct{})
		e.Driver("d", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			<-release
			return conveyor.Done(), nil
		}))
		e.Pipeline("d")
		e.MustApply(rig.Object("x", 0))
		e.MustApply(rig.Object("x", 1))
		next := e.MustApply(rig.Object("x", 2)) // with which its run would begin
		synctest.Wait()
		var overtaken, removed atomic.Bool
		st.Before(func(key string) {
			if strings.HasPrefix(key, "rev/") && overtaken.CompareAndSwap(false, true) {
				for i := range 600 {
					e.MustApply(rig.Object("x", 3+i))
				}
				time.Sleep(time.Second) // until what is too old is gone
				_, there := rig.Dump(t, st.Store)[key]
				removed.Store(!there)
			}
		})
		close(release)
		require.NoError(t, e.Ended(next.ID).Err())
		require.True(t, removed.Load())
		require.JSONEq(t, "602", string(e.MustGet(rig.Object("x", nil)).Spec))
		require.EqualValues(t, 603, e.MustGet(rig.Object("x", nil)).Status.ObservedGeneration)
	})
}

func TestRetentionRemovesGenerationsThoughARunHoldsAnOlderOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Retention: conveyor.Retention{Revisions: 3}}).MustStart()
		release := make(chan struct{})
		var specs []string
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			<-release
			specs = append(specs, string(req.Resource.Spec))
			return conveyor.Done(), nil
		}))
		e.Pipeline("d", "d")
		for i := range 1_000 {
			e.MustApply(rig.Object("x", i))
		}
		synctest.Wait()
		kept := len(rig.Drain(t, e.Revisions(t.Context(), rig.Object("x", nil).Key())))
		require.LessOrEqual(t, kept, 3+256+2)
		close(release)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []string{"0", "0", "999", "999"}, specs)
		require.Len(t, rig.Drain(t, e.Revisions(t.Context(), rig.Object("x", nil).Key())), 3)
	})
}
