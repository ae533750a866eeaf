package conveyor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

func (r *rig) stats() conveyor.Stats {
	r.t.Helper()
	st, err := r.Stats(context.Background())
	require.NoError(r.t, err)
	return st
}

func TestStatsTellWhatTheEngineIsDoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Workers: 3}).start()
		e.driver("long", driverOf(taking(time.Hour)), conveyor.Concurrency(2))
		e.driver("fail", driverOf(always(conveyor.Done(), conveyor.RetryAfter(2*time.Hour, errBoom))))
		e.driver("ask", driverOf(always(conveyor.Await("go", 0), nil)))
		for _, driver := range []string{"long", "fail", "ask", "missing", "none"} {
			e.save(named(driver, pipelineOf(driver)))
		}
		e.save(atMost(named("one", pipelineOf("ask")), 1))
		require.Equal(t, conveyor.StateSkipped, e.finish(loose("nobody", "x", nil)).State)
		for _, p := range []string{"fail", "ask", "missing", "one", "one", "one", "long", "long", "long"} {
			e.apply(along(p, fmt.Sprint(p, time.Now().UnixNano())))
			time.Sleep(100 * time.Millisecond)
		}
		require.NoError(t, e.SavePipeline(t.Context(), newFanOut()))
		planned := e.finish(object("planned", []string{}))
		require.NoError(t, planned.Err())

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
		require.Equal(t, want, e.stats())

		e.save(named("wide", pipelineOf("wide", "wide")))
		e.driver("wide", driverOf(taking(time.Hour)))
		for i := range 3 {
			e.apply(along("wide", fmt.Sprint("w", i)))
			time.Sleep(time.Second)
		}
		st := e.stats()
		require.Equal(t, 3, st.Busy)
		require.Equal(t, 2, st.Ready)
		require.Equal(t, 2*time.Second, time.Since(st.OldestReady))
		require.Equal(t, 5, st.Runs[conveyor.StateQueued])

		before := e.stats()
		e = e.crashed(conveyor.Options{Workers: 3})
		e.start()
		synctest.Wait()
		st = e.stats()
		require.Equal(t, before.Unfinished, st.Unfinished)
		require.Empty(t, st.Ended)
		require.Equal(t, 6, st.Pipelines["long"].AtWork+st.Pipelines["one"].AtWork+st.Pipelines["ask"].AtWork+st.Pipelines["fail"].AtWork)
		doc, err := json.Marshal(st)
		require.NoError(t, err)
		require.Contains(t, string(doc), `"queued":`)
		for name := range want.Slots {
			e.driver(name, new(recorder))
		}
		e.driver("missing", new(recorder))
		e.driver("wide", new(recorder))
		for _, run := range drain(t, e.Runs(t.Context(), conveyor.RunFilter{Unfinished: true})) {
			if run.State == conveyor.StateWaiting {
				require.NoError(t, e.Signal(t.Context(), run.ID, "go", nil))
			}
		}
		time.Sleep(3 * time.Hour)
		st = e.stats()
		require.Zero(t, st.Unfinished)
		require.Empty(t, st.Runs)
		require.Equal(t, map[conveyor.State]int64{conveyor.StateSucceeded: 12}, st.Ended)
		for name, p := range st.Pipelines {
			require.Zero(t, p.AtWork, name)
		}
	})
}

func TestStatsDoNotCountWhatWaitedForRoomAndHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", recording(taking(100*time.Hour)))
		p := pipelineOf("d")
		p.MaxRuns = 1
		e.save(p)
		e.apply(object("holder", 1))
		for i := range 3 {
			require.NoError(t, e.Cancel(t.Context(), e.apply(object("x", i)).ID, ""))
		}
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, st.Unfinished)
		require.Equal(t, 0, st.Pipelines["p"].Waiting)
	})
}

func TestStatsDoNotCountABlockedStepThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("cleanup", recording(taking(time.Hour)))
		p := pipelineOf("absent")
		p.Finally = []conveyor.Step{{Driver: "cleanup"}}
		e.save(p)
		run := e.apply(object("x", 1))
		require.NoError(t, e.Cancel(t.Context(), run.ID, ""))
		synctest.Wait()
		require.Equal(t, conveyor.StateRunning, e.run(run.ID).State)
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Empty(t, st.Blocked)
	})
}
