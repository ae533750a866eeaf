package features_test

import (
	"context"
	"errors"
	"fmt"
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

func resyncing(p conveyor.PipelineSpec, after time.Duration) conveyor.PipelineSpec {
	p.Resync = conveyor.Duration(after)
	return p
}

// planned lists the index entries of the resources that are to be run again.
func planned(t *testing.T, e *rig.Engine) (keys []string) {
	for key := range rig.Dump(t, e.Store.Store) {
		if strings.HasPrefix(key, "rsy/") {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestRule10ResyncRunsAResourceAgainSomeTimeAfterASuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := rig.Recording(rig.Taking(time.Minute))
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", work)
		e.Save(resyncing(rig.PipelineOf("d"), time.Hour))
		first := e.Finish(rig.Object("x", 1))
		require.NoError(t, first.Err())
		synctest.Wait()
		stats, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, stats.Unfinished, "nothing is under way while the resource rests")
		time.Sleep(3*time.Hour + 4*time.Minute)
		calls := work.All()
		require.Len(t, calls, 4)
		for i, c := range calls[1:] {
			require.Equal(t, conveyor.CauseResync, c.Cause)
			require.Equal(t, int64(1), c.Generation)
			require.Equal(t, calls[i].Ended.Add(time.Hour), c.Began)
		}
		for _, run := range e.RunsOf(rig.Object("x", nil))[1:] {
			require.Equal(t, conveyor.CauseResync, run.Cause)
		}
		require.Len(t, planned(t, e), 1)
	})
}

func TestRule10ResyncIsPutOffByAnyOtherRun(t *testing.T) {
	for _, c := range []struct {
		name  string
		after func(t *testing.T, e *rig.Engine) // half an hour after a success
		calls []time.Duration                   // since the first call, within three hours
		left  int                               // planned then
	}{
		{"nothing", func(*testing.T, *rig.Engine) {}, []time.Duration{0, time.Hour, 2 * time.Hour}, 1},
		{"a change", func(_ *testing.T, e *rig.Engine) { e.MustApply(rig.Object("x", 2)) },
			[]time.Duration{0, 30 * time.Minute, 90 * time.Minute, 150 * time.Minute}, 1},
		{"a trigger", func(t *testing.T, e *rig.Engine) {
			_, err := e.Trigger(t.Context(), rig.Object("x", nil).Key())
			require.NoError(t, err)
		}, []time.Duration{0, 30 * time.Minute, 90 * time.Minute, 150 * time.Minute}, 1},
		{"the same spec", func(_ *testing.T, e *rig.Engine) { e.MustApply(rig.Object("x", 1)) }, []time.Duration{0, time.Hour, 2 * time.Hour}, 1},
		{"a change that fails", func(_ *testing.T, e *rig.Engine) { e.MustApply(rig.Object("x", "bad")) }, []time.Duration{0, 30 * time.Minute}, 0},
		{"a deletion", func(t *testing.T, e *rig.Engine) {
			_, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
			require.NoError(t, err)
		}, []time.Duration{0}, 0},
		{"a pipeline without", func(_ *testing.T, e *rig.Engine) { e.Pipeline("d") }, []time.Duration{0}, 0},
		{"no pipeline", func(t *testing.T, e *rig.Engine) { require.NoError(t, e.DeletePipeline(t.Context(), "p")) }, []time.Duration{0}, 0},
		{"a slower pipeline", func(_ *testing.T, e *rig.Engine) { e.Save(resyncing(rig.PipelineOf("d"), 90*time.Minute)) },
			[]time.Duration{0, time.Hour, 150 * time.Minute}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work := rig.Recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if string(req.Resource.Spec) == `"bad"` {
						return conveyor.Done(), conveyor.Permanent(rig.ErrBoom)
					}
					return conveyor.Done(), nil
				})
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", work)
				e.Save(resyncing(rig.PipelineOf("d"), time.Hour))
				e.Finish(rig.Object("x", 1))
				time.Sleep(30 * time.Minute)
				c.after(t, e)
				time.Sleep(149 * time.Minute)
				var calls []time.Duration
				for _, call := range work.All() {
					calls = append(calls, call.Began.Sub(work.All()[0].Began))
				}
				require.Equal(t, c.calls, calls)
				require.Len(t, planned(t, e), c.left)
			})
		})
	}
}

func TestRule12ResyncIsDueAfterARestartToo(t *testing.T) {
	for _, c := range []struct {
		name     string
		downtime time.Duration
		want     time.Duration // between the calls
	}{
		{"before it is due", 30 * time.Minute, time.Hour},
		{"after it was due", 5 * time.Hour, 5 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var work rig.Recorder
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", &work)
				e.Save(resyncing(rig.PipelineOf("d"), time.Hour))
				e.Finish(rig.Object("x", 1))
				e = e.Crashed(conveyor.Options{})
				time.Sleep(c.downtime)
				e.Driver("d", &work)
				e.MustStart()
				time.Sleep(50 * time.Minute)
				calls := work.All()
				require.Len(t, calls, 2)
				require.Equal(t, c.want, calls[1].Began.Sub(calls[0].Began))
			})
		})
	}
}

func TestRule12ResyncSurvivesAStopAtEveryCommit(t *testing.T) {
	for n := 1; ; n++ {
		var reached atomic.Bool
		synctest.Test(t, func(t *testing.T) {
			var work rig.Recorder
			records := memory.New()
			e := rig.NewOn(t, records, conveyor.Options{})
			first := e
			var commits atomic.Int64
			e.Store.Refusing(func([]string) error {
				if commits.Add(1) < int64(n) {
					return nil
				}
				reached.Store(true)
				first.Store.CutOff()
				return errors.New("the process is dead")
			})
			e.Driver("d", &work)
			live := func() error {
				if err := e.SavePipeline(t.Context(), resyncing(rig.PipelineOf("d", "d"), time.Hour)); err != nil {
					return err
				}
				if err := e.Start(t.Context()); err != nil {
					return err
				}
				for i := range 3 {
					if _, err := e.Apply(t.Context(), rig.Object(fmt.Sprint("x", i), 1)); err != nil {
						return err
					}
				}
				time.Sleep(155 * time.Minute)
				return nil
			}
			err := live()
			if reached.Load() {
				e = rig.NewOn(t, records, conveyor.Options{})
				e.Driver("d", &work)
				err = live()
			}
			require.NoError(t, err)
			for i := range 3 {
				o := rig.Object(fmt.Sprint("x", i), nil)
				runs := e.RunsOf(o)
				require.Equal(t, conveyor.CauseResync, runs[len(runs)-1].Cause, "stopped at commit %d", n)
				require.Less(t, time.Since(runs[len(runs)-1].EndedAt), time.Hour, "stopped at commit %d", n)
			}
			require.Len(t, planned(t, e), 3)
		})
		if !reached.Load() {
			break
		}
		require.Less(t, n, 200)
	}
}

func TestRule10ResourcesRestBetweenTheirRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 1000
		var work rig.Recorder
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", &work)
		e.Save(resyncing(rig.PipelineOf("d"), time.Hour))
		for i := range many {
			e.Finish(rig.Object(fmt.Sprint("x", i), 1))
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		require.Len(t, planned(t, e), many)
		time.Sleep(time.Hour)
		calls := work.All()
		require.Len(t, calls, 2*many)
		for i, c := range calls[many:] {
			require.Equal(t, calls[i].Resource, c.Resource, "in the order in which they are due")
		}
	})
}

func TestResyncGoesOnBesideAPipelineThatIsForAnotherTypeNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := new(rig.Recorder)
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", work)
		for _, name := range []string{"p", "q"} {
			p := rig.PipelineOf("d")
			p.Name, p.Resync = name, conveyor.Duration(time.Hour)
			e.Save(p)
		}
		e.Finish(rig.Object("x", 1))
		y := rig.Object("y", 1)
		y.Pipeline = "q"
		e.Finish(y)
		p := rig.PipelineOf("d")
		p.Resource, p.Resync = "other", conveyor.Duration(time.Hour)
		e.Save(p)
		time.Sleep(10*time.Hour + time.Minute)
		require.Len(t, e.RunsOf(y), 11, "y is run again, whatever became of the pipeline of x")
	})
}

func TestResyncIsNotPlannedForAResourceThatIsToBeDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Driver("cleanup", rig.Recording(rig.Taking(time.Minute)))
		p := rig.PipelineOf("d")
		p.Finally = []conveyor.Step{{Driver: "cleanup"}}
		p.Resync = conveyor.Duration(time.Hour)
		e.Save(p)
		first := e.MustApply(rig.Object("x", 1))
		time.Sleep(time.Second) // its cleanup is under way, and is left to end
		gone, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err)
		require.NoError(t, e.Cancel(t.Context(), gone.ID, "not yet"))
		require.NoError(t, e.Ended(first.ID).Err())
		time.Sleep(100 * time.Hour)
		for key := range rig.Dump(t, e.Store.Store) {
			require.False(t, strings.HasPrefix(key, "rsy/"), "%s is due for days, and will be for ever", key)
		}
	})
}

func TestResyncOfTwoRunsThatEndInTheSameInstantIsPlannedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), nil)))
		p := rig.PipelineOf("d")
		p.Resync = conveyor.Duration(time.Hour)
		e.Save(p)
		run := e.Finish(rig.Object("a", nil))
		for range 2 {
			again, err := e.Retry(t.Context(), run.ID, conveyor.RetryFrom{}) // there is nothing left to do
			require.NoError(t, err)
			require.Equal(t, conveyor.StateSucceeded, e.Ended(again.ID).State)
		}
		time.Sleep(90 * time.Minute)
		runs := e.RunsOf(rig.Object("a", nil))
		require.Len(t, runs, 4)
		require.Equal(t, conveyor.CauseResync, runs[3].Cause)
	})
}
