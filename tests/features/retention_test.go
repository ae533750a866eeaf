package features_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// wordy logs a line, saves a checkpoint, and fails once.
func wordy(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	req.Log.Info("here")
	if err := req.Checkpoint(ctx, 1); err != nil {
		return conveyor.Result{}, err
	}
	if req.Attempt == 1 {
		return conveyor.Result{}, rig.ErrBoom
	}
	return conveyor.Done(), nil
}

func TestRetentionKeepsTheNewestRunsAndLeavesNothingOfTheOthers(t *testing.T) {
	for _, c := range []struct {
		name string
		keep conveyor.Retention
		want int // of ten runs, a minute apart and the last of them just ended
	}{
		{"all of them", conveyor.Retention{}, 10},
		{"by number", conveyor.Retention{Runs: 3}, 3},
		{"more than there are", conveyor.Retention{Runs: 11}, 10},
		{"by age", conveyor.Retention{Age: 4*time.Minute + 30*time.Second}, 5},
		{"by age, but always the newest", conveyor.Retention{Age: 1}, 1},
		{"by both", conveyor.Retention{Runs: 7, Age: 4*time.Minute + 30*time.Second}, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Retention: c.keep}).MustStart()
				e.Driver("d", rig.DriverOf(wordy))
				e.Pipeline("d")
				var ids []string
				for i := range 10 {
					began := time.Now()
					run := e.MustApply(rig.Object("x", i))
					require.NoError(t, e.Signal(t.Context(), run.ID, "unheard", 1))
					e.Ended(run.ID)
					ids = append(ids, run.ID)
					if i < 9 {
						time.Sleep(time.Until(began.Add(time.Minute)))
					}
				}
				synctest.Wait()
				var kept []string
				for _, run := range e.RunsOf(rig.Object("x", nil)) {
					kept = append(kept, run.ID)
				}
				require.Equal(t, ids[10-c.want:], kept)
				for key := range rig.Dump(t, e.Store) {
					for _, gone := range ids[:10-c.want] {
						require.NotContains(t, key, gone)
					}
				}
				require.Len(t, rig.Drain(t, e.Logs(t.Context(), kept[0], conveyor.LogOptions{})), 2)
			})
		})
	}
}

func TestRetentionFinishesARemovalThatADeathCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{Retention: conveyor.Retention{Runs: 1}}
		e := rig.New(t, opts).MustStart()
		e.Driver("d", rig.DriverOf(wordy))
		e.Pipeline("d")
		first := e.Finish(rig.Object("x", 1))
		e.Store.Refusing(func(keys []string) error {
			if slices.ContainsFunc(keys, func(key string) bool { return strings.HasPrefix(key, "stp/"+first.ID) }) {
				return rig.ErrDied // its own record is gone already
			}
			return nil
		})
		e.Finish(rig.Object("x", 2))
		synctest.Wait()
		_, err := e.GetRun(t.Context(), first.ID)
		require.ErrorIs(t, err, conveyor.ErrNotFound)

		e = e.Crashed(opts).MustStart()
		e.Driver("d", rig.DriverOf(wordy))
		e.Finish(rig.Object("x", 3))
		synctest.Wait()
		for key := range rig.Dump(t, e.Store) {
			require.NotContains(t, key, first.ID)
		}
	})
}

func TestRetentionNeverTouchesUnfinishedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{Retention: conveyor.Retention{Runs: 1, Age: 1, Revisions: 1}}
		e := rig.New(t, opts).MustStart()
		lasts := time.Duration(0)
		drivers := func() {
			e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				return rig.Taking(lasts)(ctx, req)
			}))
		}
		drivers()
		e.Pipeline("d", "d")
		for i := range 3 {
			e.Finish(rig.Object("x", i))
		}
		lasts = time.Hour
		working := e.MustApply(rig.Object("x", "pinned"))
		synctest.Wait()
		for i := range 3 {
			e.MustApply(rig.Object("x", fmt.Sprint("later ", i)))
		}
		require.NoError(t, e.Cancel(t.Context(), e.MustGet(rig.Object("x", nil)).Status.Run, "a run that ends"))
		synctest.Wait()
		require.Equal(t, conveyor.StateRunning, e.MustGetRun(working.ID).State)
		e = e.Crashed(opts) // what the run has pinned must be there to be read
		drivers()
		e.MustStart()
		require.NoError(t, e.Ended(working.ID).Err())
	})
}

func TestRetentionOfRevisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Retention: conveyor.Retention{Revisions: 2}}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		for i := range 5 {
			e.Finish(rig.Object("x", i))
			e.Finish(rig.Object("y", i))
		}
		synctest.Wait()
		var kept []int64
		for _, o := range rig.Drain(t, e.Revisions(t.Context(), rig.Object("x", nil).Key())) {
			kept = append(kept, o.Generation)
		}
		require.Equal(t, []int64{4, 5}, kept)
		_, err := e.Rollback(t.Context(), rig.Object("x", nil).Key(), 3)
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		require.False(t, slices.ContainsFunc(e.RunsOf(rig.Object("x", nil)), func(r *conveyor.Run) bool { return strings.Contains(r.Reason, "generation") }))
	})
}

func TestRetentionOptionsAreChecked(t *testing.T) {
	_, err := conveyor.New(rig.New(t, conveyor.Options{}).Store, conveyor.Options{Retention: conveyor.Retention{Runs: -1, Age: -1, Revisions: -1}})
	for _, field := range []string{"Retention.Runs", "Retention.Age", "Retention.Revisions"} {
		require.ErrorContains(t, err, field)
	}
}

func TestRetentionOfARunThatIsBeingReadIsNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Retention: conveyor.Retention{Runs: 1}}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.SavePlanned(rig.NewFanOut()) // the plan of its runs is a record of theirs, and goes with them
		first := e.Finish(rig.Object("x", []string{"a"}))
		b := &rig.Probe{Store: e.Store}
		b.Before(rig.Once("pln/", func() {
			e.Finish(rig.Object("x", []string{"a", "b"}))
			synctest.Wait()
		}))
		other, err := conveyor.New(b, conveyor.Options{})
		require.NoError(t, err)
		_, err = other.GetRun(t.Context(), first.ID)
		require.ErrorIs(t, err, conveyor.ErrNotFound)
	})
}
