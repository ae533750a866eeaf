package conveyor_test

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
)

// wordy logs a line, saves a checkpoint, and fails once.
func wordy(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	req.Log.Info("here")
	if err := req.Checkpoint(ctx, 1); err != nil {
		return conveyor.Result{}, err
	}
	if req.Attempt == 1 {
		return conveyor.Result{}, errBoom
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
				e := newEngine(t, conveyor.Options{Retention: c.keep}).start()
				e.driver("d", driverOf(wordy))
				e.pipeline("d")
				var ids []string
				for i := range 10 {
					began := time.Now()
					run := e.apply(object("x", i))
					require.NoError(t, e.Signal(t.Context(), run.ID, "unheard", 1))
					e.ended(run.ID)
					ids = append(ids, run.ID)
					if i < 9 {
						time.Sleep(time.Until(began.Add(time.Minute)))
					}
				}
				synctest.Wait()
				var kept []string
				for _, run := range e.runs(object("x", nil)) {
					kept = append(kept, run.ID)
				}
				require.Equal(t, ids[10-c.want:], kept)
				for key := range dump(t, e.store) {
					for _, gone := range ids[:10-c.want] {
						require.NotContains(t, key, gone)
					}
				}
				require.Len(t, drain(t, e.Logs(t.Context(), kept[0], conveyor.LogOptions{})), 2)
			})
		})
	}
}

func TestRetentionFinishesARemovalThatADeathCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{Retention: conveyor.Retention{Runs: 1}}
		e := newEngine(t, opts).start()
		e.driver("d", driverOf(wordy))
		e.pipeline("d")
		first := e.finish(object("x", 1))
		e.store.refusing(func(keys []string) error {
			if slices.ContainsFunc(keys, func(key string) bool { return strings.HasPrefix(key, "stp/"+first.ID) }) {
				return errDied // its own record is gone already
			}
			return nil
		})
		e.finish(object("x", 2))
		synctest.Wait()
		_, err := e.GetRun(t.Context(), first.ID)
		require.ErrorIs(t, err, conveyor.ErrNotFound)

		e = e.crashed(opts).start()
		e.driver("d", driverOf(wordy))
		e.finish(object("x", 3))
		synctest.Wait()
		for key := range dump(t, e.store) {
			require.NotContains(t, key, first.ID)
		}
	})
}

func TestRetentionNeverTouchesUnfinishedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{Retention: conveyor.Retention{Runs: 1, Age: 1, Revisions: 1}}
		e := newEngine(t, opts).start()
		lasts := time.Duration(0)
		drivers := func() {
			e.driver("d", driverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				return taking(lasts)(ctx, req)
			}))
		}
		drivers()
		e.pipeline("d", "d")
		for i := range 3 {
			e.finish(object("x", i))
		}
		lasts = time.Hour
		working := e.apply(object("x", "pinned"))
		synctest.Wait()
		for i := range 3 {
			e.apply(object("x", fmt.Sprint("later ", i)))
		}
		require.NoError(t, e.Cancel(t.Context(), e.resource(object("x", nil)).Status.Run, "a run that ends"))
		synctest.Wait()
		require.Equal(t, conveyor.StateRunning, e.run(working.ID).State)
		e = e.crashed(opts) // what the run has pinned must be there to be read
		drivers()
		e.start()
		require.NoError(t, e.ended(working.ID).Err())
	})
}

func TestRetentionOfRevisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Retention: conveyor.Retention{Revisions: 2}}).start()
		e.driver("d", new(recorder))
		e.pipeline("d")
		for i := range 5 {
			e.finish(object("x", i))
			e.finish(object("y", i))
		}
		synctest.Wait()
		var kept []int64
		for _, o := range drain(t, e.Revisions(t.Context(), object("x", nil).Key())) {
			kept = append(kept, o.Generation)
		}
		require.Equal(t, []int64{4, 5}, kept)
		_, err := e.Rollback(t.Context(), object("x", nil).Key(), 3)
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		require.False(t, slices.ContainsFunc(e.runs(object("x", nil)), func(r *conveyor.Run) bool { return strings.Contains(r.Reason, "generation") }))
	})
}

func TestRetentionOptionsAreChecked(t *testing.T) {
	_, err := conveyor.New(newEngine(t, conveyor.Options{}).store, conveyor.Options{Retention: conveyor.Retention{Runs: -1, Age: -1, Revisions: -1}})
	for _, field := range []string{"Retention.Runs", "Retention.Age", "Retention.Revisions"} {
		require.ErrorContains(t, err, field)
	}
}

func TestRetentionOfARunThatIsBeingReadIsNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Retention: conveyor.Retention{Runs: 1}}).start()
		e.driver("d", new(recorder))
		e.plan(newFanOut()) // the plan of its runs is a record of theirs, and goes with them
		first := e.finish(object("x", []string{"a"}))
		b := &probe{Store: e.store, before: once("pln/", func() {
			e.finish(object("x", []string{"a", "b"}))
			synctest.Wait()
		})}
		other, err := conveyor.New(b, conveyor.Options{})
		require.NoError(t, err)
		_, err = other.GetRun(t.Context(), first.ID)
		require.ErrorIs(t, err, conveyor.ErrNotFound)
	})
}
