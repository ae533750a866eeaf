package features_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
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
		e.Driver("d", new(rig.Recorder))
		e.Pipeline(slices.Repeat([]string{"d"}, 256)...) // more records than one commit removes
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
		synctest.Wait()
		for key := range rig.Dump(t, e.Store) {
			require.NotContains(t, key, first.ID, "the start has not taken up what was left")
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

// kept returns the numbers of the runs of a resource that are on record.
func kept(e *rig.Engine, o conveyor.Resource) (numbers []int64) {
	for _, run := range e.RunsOf(o) {
		numbers = append(numbers, run.Number)
	}
	return numbers
}

func TestRunsAreNumberedPerResourceOverDeletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		o := rig.Object("x", 1)
		for range 3 {
			e.Finish(o.Clone())
			_, err := e.Trigger(t.Context(), o.Key())
			require.NoError(t, err)
			synctest.Wait()
			_, err = e.Delete(t.Context(), o.Key())
			require.NoError(t, err)
			synctest.Wait()
		}
		require.Equal(t, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9}, kept(e, o))
		e.Finish(rig.Object("y", 1))
		require.Equal(t, []int64{1}, kept(e, rig.Object("y", 1)))
		all := e.RunsOf(o)
		for _, newest := range []bool{false, true} {
			for i, after := range all {
				f := conveyor.RunFilter{Resource: o.Key(), After: after.ID, Newest: newest}
				require.Len(t, rig.Drain(t, e.Runs(t.Context(), f)), map[bool]int{false: len(all) - i - 1, true: i}[newest])
			}
		}
	})
}

func TestRunsAfterOneThatWasRemovedAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		var runs []*conveyor.Run
		for i := range 5 {
			runs = append(runs, e.Finish(rig.Object("x", i)))
		}
		pruned, err := e.Prune(t.Context(), conveyor.PruneOptions{Retention: conveyor.Retention{Runs: 2}})
		require.NoError(t, err)
		require.Equal(t, conveyor.Pruned{Runs: 3}, pruned)
		f := conveyor.RunFilter{Resource: rig.Object("x", nil).Key(), After: runs[1].ID}
		require.Equal(t, runs[3:], rig.Drain(t, e.Runs(t.Context(), f)))
		f.Newest = true
		require.Empty(t, rig.Drain(t, e.Runs(t.Context(), f)))
	})
}

func TestRetentionByAgeAppliesToResourcesAtRest(t *testing.T) {
	for _, c := range []struct {
		name string
		then func(*testing.T, *rig.Engine) *rig.Engine
	}{
		{"in one life", func(_ *testing.T, e *rig.Engine) *rig.Engine { return e }},
		{"after a restart", func(t *testing.T, e *rig.Engine) *rig.Engine {
			e = e.Reborn(conveyor.Options{Retention: conveyor.Retention{Age: time.Hour}})
			e.Driver("d", new(rig.Recorder))
			return e.MustStart()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Retention: conveyor.Retention{Age: time.Hour}}).MustStart()
				e.Driver("d", new(rig.Recorder))
				e.Pipeline("d")
				x, gone := rig.Object("x", 1), rig.Object("gone", 1)
				e.Finish(gone)
				_, err := e.Delete(t.Context(), gone.Key())
				require.NoError(t, err)
				for i := range 4 {
					e.Finish(rig.Object("x", i))
					time.Sleep(10 * time.Minute)
				}
				e = c.then(t, e) // 40 minutes after the first
				synctest.Wait()
				require.Equal(t, []int64{1, 2, 3, 4}, kept(e, x))
				require.Equal(t, []int64{1, 2}, kept(e, gone))
				for _, want := range [][]int64{{2, 3, 4}, {3, 4}, {4}} {
					time.Sleep(time.Until(e.RunsOf(x)[0].EndedAt.Add(time.Hour + 1)))
					synctest.Wait()
					require.Equal(t, want, kept(e, x))
					require.Empty(t, kept(e, gone))
				}
				time.Sleep(100 * time.Hour)
				require.Equal(t, []int64{4}, kept(e, x), "the newest run stays")
				for key := range rig.Dump(t, e.Store) {
					require.False(t, strings.Contains(key, "gone") && !strings.HasPrefix(key, "tmb/"), key)
				}
			})
		})
	}
}

func TestRetentionFindsAtTheStartWhatAnEarlierProcessHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		for name := range 300 {
			for i := range 3 {
				e.Finish(rig.Object(fmt.Sprint("x", name), i))
			}
		}
		_, err := e.Delete(t.Context(), rig.Object("x0", nil).Key())
		require.NoError(t, err)
		synctest.Wait()
		e = e.Reborn(conveyor.Options{Retention: conveyor.Retention{Runs: 1, Revisions: 1}}).MustStart()
		synctest.Wait()
		time.Sleep(time.Second)
		require.Len(t, rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{})), 300)
		require.Equal(t, []int64{4}, kept(e, rig.Object("x0", nil)), "the deletion")
		require.Len(t, rig.Drain(t, e.Revisions(t.Context(), rig.Object("x1", nil).Key())), 1)
	})
}

func TestDefinitionsThatNoRunHasPinnedAreRemovedAtTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{Retention: conveyor.Retention{Age: time.Hour}}
		e := rig.New(t, opts).MustStart()
		e.Driver("d", new(rig.Recorder))
		definitions := func() (names []string) {
			for key := range rig.Dump(t, e.Store) {
				if parts := strings.Split(key, "/"); parts[0] == "pir" {
					names = append(names, parts[1])
				}
			}
			slices.Sort(names)
			return names
		}
		e.PipelineNamed("unused", "d")
		e.PipelineNamed("used", "d")
		e.PipelineNamed("used", "d", "d") // a former definition, and a present one
		e.PipelineNamed("gone", "d")
		run := e.Finish(rig.Along("gone", "x"))
		e.Finish(rig.Along("used", "y"))
		require.NoError(t, e.DeletePipeline(t.Context(), "unused"))
		require.NoError(t, e.DeletePipeline(t.Context(), "gone"))
		pruned, err := e.Prune(t.Context(), conveyor.PruneOptions{})
		require.NoError(t, err)
		require.Zero(t, pruned, "a run that is about to begin may pin what was read in this life")
		require.Equal(t, []string{"gone", "unused", "used", "used"}, definitions())

		e = e.Reborn(opts).MustStart()
		synctest.Wait()
		require.Equal(t, []string{"gone", "used"}, definitions())
		require.Len(t, e.MustGetRun(run.ID).Steps, 1, "its definition is there")

		_, err = e.Delete(t.Context(), rig.Object("x", nil).Key()) // its pipeline is gone, so this fails, and is the newest run
		require.NoError(t, err)
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		e = e.Reborn(opts).MustStart()
		synctest.Wait()
		require.Equal(t, []string{"gone", "used"}, definitions(), "the newest run that has begun says what a deletion finalizes")
	})
}

func TestRetryHoldsItsOriginalUntilItHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{Retention: conveyor.Retention{Age: time.Hour}}
		e := rig.New(t, opts).MustStart()
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.DoneWith("kept"), nil)))
		e.Driver("fails", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Cause == conveyor.CauseRetried {
				return rig.Taking(5*time.Hour)(t.Context(), req)
			}
			return conveyor.Done(), conveyor.Permanent(rig.ErrBoom)
		}))
		e.Pipeline("d", "fails")
		first := e.Finish(rig.Object("x", 1))
		again, err := e.Retry(t.Context(), first.ID, conveyor.RetryFrom{})
		require.NoError(t, err)
		time.Sleep(4 * time.Hour)
		require.Equal(t, []int64{1, 2}, kept(e, rig.Object("x", nil)))
		again = e.Ended(again.ID)
		require.NoError(t, again.Err())
		time.Sleep(time.Minute)
		require.Equal(t, []int64{2}, kept(e, rig.Object("x", nil)))
		require.Equal(t, first.ID, e.MustGetRun(again.ID).Of, "the link points to what is gone")
		require.JSONEq(t, `"kept"`, string(e.MustGetRun(again.ID).Step("1").Output))
	})
}

// Whichever comes first, Retention or Retry: either the original is there when the new run begins, or Retry says that it
// is gone. No run is accepted that fails for this.
func TestRetryThatIsAcceptedHasItsOriginal(t *testing.T) {
	for _, c := range []struct {
		name string
		when string // the first read with this prefix by Retry
	}{
		{"the original goes as Retry has read it", "res/"},
		{"the original goes before the spec is read", "rev/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom))))
				e.Pipeline("d")
				first := e.Finish(rig.Object("x", 1))
				_, err := e.Trigger(t.Context(), first.Resource)
				require.NoError(t, err)
				synctest.Wait()
				probe := &rig.Probe{Store: e.Store}
				probe.Before(rig.Once(c.when, func() {
					pruned, err := e.Prune(t.Context(), conveyor.PruneOptions{Retention: conveyor.Retention{Runs: 1}})
					require.NoError(t, err)
					require.Equal(t, 1, pruned.Runs)
				}))
				other, err := conveyor.New(probe, conveyor.Options{})
				require.NoError(t, err)
				_, err = other.Retry(t.Context(), first.ID, conveyor.RetryFrom{})
				require.ErrorIs(t, err, conveyor.ErrNotFound)
				require.Equal(t, []int64{2}, kept(e, rig.Object("x", nil)))
			})
		})
	}
	for n, reached := 1, true; reached; n++ {
		t.Run(fmt.Sprint("Retry comes after read ", n, " of Retention"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if req.Cause == conveyor.CauseRetried {
						return rig.Taking(time.Hour)(ctx, req)
					}
					return conveyor.Done(), conveyor.Permanent(rig.ErrBoom)
				}))
				e.Pipeline("d")
				first := e.Finish(rig.Object("x", 1))
				_, err := e.Trigger(t.Context(), first.Resource)
				require.NoError(t, err)
				synctest.Wait()
				var again *conveyor.Run
				var refused error
				reads := 0
				probe := &rig.Probe{Store: e.Store}
				probe.After(func(string) {
					if reads++; reads == n {
						again, refused = e.Retry(t.Context(), first.ID, conveyor.RetryFrom{})
					}
				})
				other, err := conveyor.New(probe, conveyor.Options{})
				require.NoError(t, err)
				pruned, err := other.Prune(t.Context(), conveyor.PruneOptions{Retention: conveyor.Retention{Runs: 1}})
				require.NoError(t, err)
				if reached = reads >= n; !reached || refused != nil { // the original was removed
					require.True(t, !reached || errors.Is(refused, conveyor.ErrNotFound), refused)
					require.Equal(t, conveyor.Pruned{Runs: 1}, pruned)
					require.Equal(t, []int64{2}, kept(e, rig.Object("x", nil)))
					require.Greater(t, n, 4)
					return
				}
				require.Zero(t, pruned, "of the ended runs one is kept, and one is repeated")
				require.Equal(t, []int64{1, 2, 3}, kept(e, rig.Object("x", nil)))
				require.NoError(t, e.Ended(again.ID).Err())
			})
		})
	}
}

func TestWhoWaitsForARunGetsItThoughRetentionRemovesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newest := conveyor.PruneOptions{Retention: conveyor.Retention{Runs: 1}}
		probe := &rig.Probe{Store: memory.New()}
		e := rig.NewOn(t, probe, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt == 1 { // an attempt that failed is not in memory when the run ends, so that who waits must read it
				return conveyor.Done(), rig.ErrBoom
			}
			return rig.Taking(time.Minute)(ctx, req)
		}))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("x", 1))
		time.Sleep(30 * time.Second)
		var read atomic.Bool
		probe.Before(func(key string) {
			if key == "run/"+run.ID && read.CompareAndSwap(false, true) { // the run has ended
				e.Finish(rig.Object("x", 2))
				pruned, err := e.Prune(t.Context(), newest)
				require.NoError(t, err)
				require.Zero(t, pruned)
			}
		})
		got := e.Ended(run.ID)
		require.True(t, read.Load())
		require.Equal(t, conveyor.StateSucceeded, got.State)
		require.Len(t, got.Steps[0].Attempts, 2)
		pruned, err := e.Prune(t.Context(), newest)
		require.NoError(t, err)
		require.Equal(t, conveyor.Pruned{Runs: 1}, pruned, "nobody waits for it any more")
	})
}

func TestARunThatSomebodyReadsIsRemovedAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Retention: conveyor.Retention{Runs: 1}}).MustStart()
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 2_000 {
				req.Log.Info("line", "i", i)
			}
			return rig.Taking(time.Minute)(ctx, req)
		}))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("x", 1))
		lines := 0
		for line, err := range e.Logs(t.Context(), run.ID, conveyor.LogOptions{Follow: true}) {
			require.NoError(t, err)
			require.Equal(t, int64(lines+1), line.Seq)
			if lines++; lines == 1 {
				e.Ended(run.ID)
				e.Finish(rig.Object("x", 2))
				e.Finish(rig.Object("x", 3))
				synctest.Wait()
				require.Equal(t, []int64{1, 3}, kept(e, rig.Object("x", nil)))
			}
		}
		require.Equal(t, 2_000, lines)
		synctest.Wait()
		require.Equal(t, []int64{3}, kept(e, rig.Object("x", nil)))
	})
}

func TestALogThatIsRemovedWhileItIsReadEndsWithAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(wordy))
		e.Pipeline("d")
		run := e.Finish(rig.Object("x", 1))
		e.Finish(rig.Object("x", 2))
		probe := &rig.Probe{Store: e.Store}
		other, err := conveyor.New(probe, conveyor.Options{}) // another engine knows nothing of the readers of this one
		require.NoError(t, err)
		probe.After(rig.Once("run/"+run.ID, func() {
			_, err := e.Prune(t.Context(), conveyor.PruneOptions{Retention: conveyor.Retention{Runs: 1}})
			require.NoError(t, err)
		}))
		var last error
		for _, err := range other.Logs(t.Context(), run.ID, conveyor.LogOptions{Follow: true}) {
			last = err
		}
		require.ErrorIs(t, last, conveyor.ErrNotFound)
	})
}

func TestPruneChecksWhatItIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		_, err := e.Prune(t.Context(), conveyor.PruneOptions{Retention: conveyor.Retention{Age: -1}, Resource: conveyor.Key{Type: "a/b"}})
		for _, field := range []string{"Retention.Age", "Resource.Type", "Resource.Name"} {
			require.ErrorContains(t, err, field)
		}
		require.ErrorIs(t, err, conveyor.ErrInvalid)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(rig.ErrBoom)
		_, err = e.Prune(ctx, conveyor.PruneOptions{})
		require.ErrorIs(t, err, rig.ErrBoom)
		e.Stop()
		_, err = e.Prune(t.Context(), conveyor.PruneOptions{})
		require.ErrorIs(t, err, conveyor.ErrClosed)
	})
}

func TestPruneOfOneResourceLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		for i := range 3 {
			e.Finish(rig.Object("x", i))
			e.Finish(rig.Object("y", i))
		}
		pruned, err := e.Prune(t.Context(), conveyor.PruneOptions{
			Retention: conveyor.Retention{Runs: 1, Revisions: 2}, Resource: rig.Object("x", nil).Key(),
		})
		require.NoError(t, err)
		require.Equal(t, conveyor.Pruned{Runs: 2, Revisions: 1}, pruned)
		require.Equal(t, []int64{1, 2, 3}, kept(e, rig.Object("y", nil)))
	})
}

// The file was written before runs had numbers, by a program with these drivers and with resources that say by their names
// what they are for. Its unfinished runs go on, and their runs go as those with numbers do.
func TestRetentionOfRecordsFromBeforeRunsHadNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, err := os.ReadFile("testdata/retention_format1.json")
		require.NoError(t, err)
		records := map[string]json.RawMessage{}
		require.NoError(t, json.Unmarshal(text, &records))
		disk := memory.New()
		for key, value := range records {
			var compact bytes.Buffer
			require.NoError(t, json.Compact(&compact, value))
			_, err := disk.Commit(t.Context(), store.Put(key, compact.Bytes()))
			require.NoError(t, err)
		}
		e := rig.NewOn(t, disk, conveyor.Options{Retention: conveyor.Retention{Runs: 2, Revisions: 2}})
		e.Driver("done", new(rig.Recorder))
		e.Driver("fails", new(rig.Recorder)) // it does not any more
		named := func(name string) *conveyor.Object { return rig.Along("q", name) }
		before := e.RunsOf(named("retried"))
		require.Len(t, before, 5)
		e.MustStart()
		synctest.Wait()
		rig.RequireAtRest(t, disk)
		retried := e.RunsOf(named("retried"))
		require.Equal(t, []string{before[3].ID, before[4].ID}, []string{retried[0].ID, retried[1].ID})
		require.Equal(t, []int64{0, 0}, kept(e, named("retried")))
		require.NoError(t, retried[1].Err())
		require.JSONEq(t, `"old"`, string(retried[1].Step("1").Output), "what the original has done is kept")
		for _, name := range []string{"rests", "deleted", "queued"} {
			require.Equal(t, []int64{0, 0}, kept(e, named(name)), name)
		}
		require.Equal(t, []int64{6, 7}, generationsShown(e.RunsOf(named("queued"))))
		require.Len(t, rig.Drain(t, e.Revisions(t.Context(), named("rests").Key())), 2)
		for _, want := range [][]int64{{0, 1}, {1, 2}, {2, 3}} {
			o := named("rests")
			o.Spec = []byte(fmt.Sprint(100 + want[1]))
			last := e.Finish(o)
			synctest.Wait()
			require.Equal(t, want, kept(e, o))
			require.Empty(t, rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{Resource: o.Key(), After: last.ID})))
		}
		r, err := disk.Get(t.Context(), "format")
		require.NoError(t, err)
		require.JSONEq(t, `{"format":3}`, string(r.Value), "an older program must not misread the index")
		require.Len(t, e.RunsOf(named("left"))[0].Steps, 1, "the definition of the deleted pipeline is kept for its run")
	})
}
