package features_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

func TestStatsTellWhatTheEngineIsDoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 3}).MustStart()
		e.Driver("long", rig.DriverOf(rig.Taking(time.Hour)), conveyor.Concurrency(2))
		e.Driver("fail", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.RetryAfter(2*time.Hour, rig.ErrBoom))))
		e.Driver("ask", rig.DriverOf(rig.Always(conveyor.Await("go", 0), nil)))
		for _, driver := range []string{"long", "fail", "ask", "missing", "none"} {
			e.Save(rig.Named(driver, rig.PipelineOf(driver)))
		}
		e.Save(rig.AtMost(rig.Named("one", rig.PipelineOf("ask")), 1))
		require.Equal(t, conveyor.StateSkipped, e.Finish(rig.Loose("nobody", "x", nil)).State)
		for _, p := range []string{"fail", "ask", "missing", "one", "one", "one", "long", "long", "long"} {
			e.MustApply(rig.Along(p, fmt.Sprint(p, time.Now().UnixNano())))
			time.Sleep(100 * time.Millisecond)
		}
		require.NoError(t, e.SavePipeline(t.Context(), rig.NewFanOut()))
		planned := e.Finish(rig.Object("planned", []string{}))
		require.NoError(t, planned.Err())
		synctest.Wait() // a worker is busy for a moment after the end of a run was told

		want := conveyor.Stats{
			Unfinished: 9, Ready: 0, Due: 1, Workers: 3, Busy: 2,
			Runs: map[conveyor.State]int{
				conveyor.StateQueued: 3, conveyor.StateRunning: 2, conveyor.StateRetrying: 1, conveyor.StateWaiting: 2,
				conveyor.StateBlocked: 1,
			},
			Ended:   map[conveyor.State]int64{conveyor.StateSkipped: 1, conveyor.StateSucceeded: 1},
			Blocked: map[string]int{`driver "missing" is not registered`: 1},
			Slots: map[string]conveyor.DriverStats{
				"long": {Busy: 2, Limit: 2, Waiting: 1}, "fail": {}, "ask": {},
			},
			Pipelines: map[string]conveyor.PipelineStats{
				"long": {AtWork: 2}, "fail": {AtWork: 1}, "ask": {AtWork: 1}, "missing": {AtWork: 1},
				"one": {AtWork: 1, Limit: 1, Waiting: 2},
			},
		}
		require.Equal(t, want, e.MustStats())

		e.Save(rig.Named("wide", rig.PipelineOf("wide", "wide")))
		e.Driver("wide", rig.DriverOf(rig.Taking(time.Hour)))
		for i := range 3 {
			e.MustApply(rig.Along("wide", fmt.Sprint("w", i)))
			time.Sleep(time.Second)
		}
		st := e.MustStats()
		require.Equal(t, 3, st.Busy)
		require.Equal(t, 2, st.Ready)
		require.Equal(t, 2*time.Second, time.Since(st.OldestReady))
		require.Equal(t, 5, st.Runs[conveyor.StateQueued])

		before := e.MustStats()
		e = e.Crashed(conveyor.Options{Workers: 3})
		e.MustStart()
		synctest.Wait()
		st = e.MustStats()
		require.Equal(t, before.Unfinished, st.Unfinished)
		require.Empty(t, st.Ended)
		require.Equal(t, 6, st.Pipelines["long"].AtWork+st.Pipelines["one"].AtWork+st.Pipelines["ask"].AtWork+st.Pipelines["fail"].AtWork)
		doc, err := json.Marshal(st)
		require.NoError(t, err)
		require.Contains(t, string(doc), `"queued":`)
		for name := range want.Slots {
			e.Driver(name, new(rig.Recorder))
		}
		e.Driver("missing", new(rig.Recorder))
		e.Driver("wide", new(rig.Recorder))
		for _, run := range rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{Unfinished: true})) {
			if run.State == conveyor.StateWaiting {
				require.NoError(t, e.Signal(t.Context(), run.ID, "go", nil))
			}
		}
		time.Sleep(3 * time.Hour)
		st = e.MustStats()
		require.Zero(t, st.Unfinished)
		require.Empty(t, st.Runs)
		require.Equal(t, map[conveyor.State]int64{conveyor.StateSucceeded: 12}, st.Ended)
		for name, p := range st.Pipelines {
			require.Zero(t, p.AtWork, name)
		}
	})
}

func TestGetRunTellsWhatARunWaitsFor(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		maxRuns int
		before  []string // the drivers of the runs that come first, one after the other
		of      conveyor.PipelineSpec
		after   time.Duration
		state   conveyor.State
		want    []string
	}{
		{"a worker", 1, 0, []string{"d"}, rig.PipelineOf("free"), 0, conveyor.StateQueued, []string{"a worker"}},
		{"a slot", 9, 0, []string{"d"}, rig.PipelineOf("d"), 0, conveyor.StateQueued, []string{`a slot of driver "d"`}},
		{"a slot with room", 9, 1, []string{"d"}, rig.PipelineOf("d"), 0, conveyor.StateQueued, []string{`a slot of driver "d"`}},
		{"a slot for its second step", 9, 0, []string{"d"}, rig.PipelineOf("free", "d"), time.Minute, conveyor.StateRunning, []string{`a slot of driver "d"`}},
		{"nothing but the end of its steps", 9, 0, nil, rig.PipelineOf("d"), 0, conveyor.StateRunning, nil},
		{"a driver", 9, 0, nil, rig.PipelineOf("missing"), 0, conveyor.StateBlocked, nil},
		{"nothing any more", 9, 0, nil, rig.PipelineOf("free"), time.Minute, conveyor.StateSucceeded, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: c.workers}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)), conveyor.Concurrency(1))
				e.Driver("free", rig.DriverOf(rig.Taking(time.Second)))
				for _, d := range c.before {
					e.Save(rig.Named("of-"+d, rig.PipelineOf(d)))
					e.MustApply(rig.Along("of-"+d, "before-"+d))
					synctest.Wait()
				}
				e.Save(rig.AtMost(c.of, c.maxRuns))
				id := e.MustApply(rig.Object("x", 1)).ID
				synctest.Wait()
				time.Sleep(c.after)
				run := e.MustGetRun(id)
				require.Equal(t, c.state, run.State)
				require.Equal(t, c.want, run.WaitsFor)
				require.Equal(t, []*conveyor.Run{run}, e.RunsOf(rig.Object("x", nil)))
			})
		})
	}
}

func TestGetRunTellsThatARunWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
		e.Save(rig.AtMost(rig.PipelineOf("d"), 1))
		holder := e.MustApply(rig.Object("holder", 1))
		require.Empty(t, e.MustGetRun(holder.ID).WaitsFor, "the engine does not work yet")
		e.MustStart()
		synctest.Wait()
		run := e.MustApply(rig.Object("x", 1))
		synctest.Wait()
		require.Equal(t, []string{`room in pipeline "p"`}, e.MustGetRun(run.ID).WaitsFor)
		doc, err := json.Marshal(e.MustGetRun(run.ID))
		require.NoError(t, err)
		require.Contains(t, string(doc), `"waitsFor":["room in pipeline \"p\""]`)
		behind := e.MustApply(rig.Object("holder", 2))
		synctest.Wait()
		require.Empty(t, e.MustGetRun(behind.ID).WaitsFor, "it waits for the end of a run, as its reason says")
		require.Contains(t, e.MustGetRun(behind.ID).Reason, "waits for the end of run")
	})
}

func TestGetRunTellsOfEachSlotThatARunWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		for _, name := range []string{"d", "e"} {
			e.Driver(name, rig.DriverOf(rig.Taking(time.Hour)), conveyor.Concurrency(1), conveyor.Listen("loose"))
		}
		e.MustApply(rig.Loose("loose", "holder", nil))
		run := e.MustApply(rig.Loose("loose", "x", nil))
		synctest.Wait()
		require.Equal(t, []string{`a slot of driver "d"`, `a slot of driver "e"`}, e.MustGetRun(run.ID).WaitsFor)
	})
}

func TestARunThatWaitsForAnAbandonedCallHoldsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("stuck", rig.DriverOf(rig.InTurn(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			<-release
			return conveyor.Done(), nil
		}, rig.Always(conveyor.Done(), nil))))
		e.Save(rig.AtMost(rig.PipelineOf("stuck"), 1))
		first := e.MustApply(rig.Object("x", 1))
		synctest.Wait()
		require.NoError(t, e.Cancel(t.Context(), first.ID, "it is stuck"))
		require.ErrorIs(t, e.Ended(first.ID).Err(), conveyor.ErrCanceled)
		held := e.MustApply(rig.Object("x", 2))
		synctest.Wait()
		require.Equal(t, []string{"the return of an abandoned call"}, e.MustGetRun(held.ID).WaitsFor)
		require.Equal(t, 1, e.MustStats().Held)
		require.NoError(t, e.Finish(rig.Object("y", 1)).Err(), "another resource has room")
		close(release)
		require.NoError(t, e.Ended(held.ID).Err())
		require.Zero(t, e.MustStats().Held)
		rig.RequireAtRest(t, e.Store)
	})
}

func TestStatsDoNotCountAsReadyWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
		e.Pipeline("d")
		e.MustApply(rig.Object("holder", 1))
		for i := range 3 {
			run := e.MustApply(rig.Object(fmt.Sprint("x", i), 1))
			time.Sleep(time.Second)
			require.NoError(t, e.Cancel(t.Context(), run.ID, ""))
		}
		require.Zero(t, e.MustStats().Ready)
		require.Zero(t, e.MustStats().OldestReady)
	})
}

func TestStatsDoNotCountWhatWaitedForRoomAndHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.Recording(rig.Taking(100*time.Hour)))
		p := rig.PipelineOf("d")
		p.MaxRuns = 1
		e.Save(p)
		e.MustApply(rig.Object("holder", 1))
		for i := range 3 {
			require.NoError(t, e.Cancel(t.Context(), e.MustApply(rig.Object("x", i)).ID, ""))
		}
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, st.Unfinished)
		require.Equal(t, 0, st.Pipelines["p"].Waiting)
	})
}

func TestStatsDoNotCountABlockedStepThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("cleanup", rig.Recording(rig.Taking(time.Hour)))
		p := rig.PipelineOf("absent")
		p.Finally = []conveyor.Step{{Driver: "cleanup"}}
		e.Save(p)
		run := e.MustApply(rig.Object("x", 1))
		require.NoError(t, e.Cancel(t.Context(), run.ID, ""))
		synctest.Wait()
		require.Equal(t, conveyor.StateRunning, e.MustGetRun(run.ID).State)
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Empty(t, st.Blocked)
	})
}
