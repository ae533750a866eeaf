package features_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// TestLogsKeepTheBeginningAndTheEndOfAStep has two steps at once: one logs more than its limit, over attempts and
// restarts, and the other logs a little. A reader that follows misses nothing, and one that comes later gets the ends, and
// the number of the lines between them.
func TestLogsKeepTheBeginningAndTheEndOfAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{Limits: conveyor.Limits{LogLines: 20}}
		e := rig.New(t, opts).MustStart()
		var mu sync.Mutex
		logged := 0
		loud := func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for range 50 {
				mu.Lock()
				logged++
				req.Log.Info(fmt.Sprint("line ", logged))
				mu.Unlock()
				time.Sleep(130 * time.Millisecond)
			}
			if req.Attempt < 3 {
				return conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom)
			}
			return conveyor.Done(), nil
		}
		quiet := func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 5 {
				req.Log.Info(fmt.Sprint("quiet ", i+1))
				time.Sleep(time.Second)
			}
			return conveyor.Done(), nil
		}
		begin := func() {
			e.Driver("loud", rig.DriverOf(loud))
			e.Driver("quiet", rig.DriverOf(quiet))
		}
		begin()
		p := rig.PipelineOf("loud", "quiet")
		p.Steps[0].ID, p.Steps[1].ID = "loud", "quiet"
		p.Steps[1].After = conveyor.AtOnce()
		p.Steps = append(p.Steps, conveyor.Step{ID: "end", Driver: "quiet", After: []string{"loud", "quiet"}})
		e.Save(p)
		run := e.MustApply(rig.Object("a", 1))
		followed := 0
		follow := func() {
			after := int64(0)
			for line, err := range e.Logs(t.Context(), run.ID, conveyor.LogOptions{Step: "loud", Follow: true, After: after}) {
				if err != nil {
					return
				}
				require.Zero(t, line.Dropped)
				followed++
				require.Equal(t, fmt.Sprint("line ", followed), line.Message)
			}
		}
		var following sync.WaitGroup
		following.Go(follow)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		require.Equal(t, 50, followed)
		check := func() {
			total, lines, marks := 0, 0, 0
			for _, line := range e.AllLogs(run.ID, conveyor.LogOptions{Step: "loud"}) {
				if total += int(max(line.Dropped, 1)); line.Dropped > 0 {
					require.Equal(t, 10, lines, "the first half is kept")
					require.Equal(t, fmt.Sprintf("log: %d lines of the step are not kept", line.Dropped), line.Message)
					marks++
					continue
				}
				require.Equal(t, fmt.Sprint("line ", total), line.Message)
				lines++
			}
			require.Equal(t, logged, total)
			require.Equal(t, 1, marks)
			require.LessOrEqual(t, lines, 20)
			require.GreaterOrEqual(t, lines, 17)
			require.Equal(t, []string{"quiet 1", "quiet 2", "quiet 3", "quiet 4", "quiet 5"}, messages(e.AllLogs(run.ID, conveyor.LogOptions{Step: "quiet"})))
		}
		check()
		e = e.Reborn(opts)
		following.Wait()
		begin()
		e.MustStart()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, 100, logged)
		check()
		e.Ended(run.ID)
		synctest.Wait()
		require.Equal(t, 150, logged)
		check()
		all := e.AllLogs(run.ID, conveyor.LogOptions{})
		for i, line := range all {
			require.Equal(t, all[i:], e.AllLogs(run.ID, conveyor.LogOptions{After: line.Seq - 1}), "a reader goes on anywhere")
		}
	})
}
