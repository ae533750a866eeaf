package crash_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

// TestADeathCountsAgainstAStepThatIsAloneAndMakesNoProgress kills the process again and again while steps are at work.
func TestADeathCountsAgainstAStepThatIsAloneAndMakesNoProgress(t *testing.T) {
	const limit, deaths = 2, 10
	forever := rig.Taking(1000 * time.Hour)
	for _, c := range []struct {
		name   string
		work   rig.Func
		runs   int
		failed bool
	}{
		{"alone", forever, 1, true},
		{"beside another", forever, 2, false},
		{"alone, and it logs", func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("got so far")
			return forever(ctx, req)
		}, 1, false},
		{"alone, and it makes checkpoints", func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if err := req.Checkpoint(ctx, req.Attempt); err != nil {
				return conveyor.Done(), err
			}
			return forever(ctx, req)
		}, 1, false},
	} {
		for name, open := range map[string]func(*testing.T) store.Store{
			"memory": func(*testing.T) store.Store { return memory.New() },
			"file": func(t *testing.T) store.Store {
				st, err := file.Open(t.Context(), filepath.Join(t.TempDir(), "records"), file.Options{})
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, st.Close()) })
				return st
			},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					disk := open(t)
					opts := conveyor.Options{Limits: conveyor.Limits{Interruptions: limit}}
					begin := func(e *rig.Engine) *rig.Engine {
						e.Driver("d", rig.DriverOf(c.work))
						e.MustStart()
						time.Sleep(time.Minute)
						return e
					}
					e := begin(rig.NewOn(t, disk, opts))
					e.Pipeline("d")
					var runs []string
					for i := range c.runs {
						runs = append(runs, e.MustApply(rig.Object(fmt.Sprint(i), 1)).ID)
					}
					time.Sleep(time.Minute)
					for died := 1; died <= deaths; died++ {
						old := e
						e = old.Crashed(opts)
						old.Stop()
						begin(e)
						for _, id := range runs {
							run := e.MustGetRun(id)
							require.Equal(t, c.failed && died > limit, run.State == conveyor.StateFailed, "after %d deaths: %s", died, run.Reason)
						}
					}
				})
			})
		}
	}
}

// TestAnAnswerWithoutAnErrorEndsTheSeriesOfFailures polls a thousand times, and fails now and then.
func TestAnAnswerWithoutAnErrorEndsTheSeriesOfFailures(t *testing.T) {
	for name, answer := range map[string]conveyor.Result{
		"a requeue": conveyor.RequeueAfter(time.Minute),
		"a wait":    conveyor.Await("tick", time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				calls := 0
				e.Driver("poll", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
					switch calls++; {
					case calls == 1000:
						return conveyor.Done(), nil
					case calls%10 < 2: // two in a row of the three that are allowed
						return conveyor.Done(), rig.ErrBoom
					}
					return answer, nil
				}))
				e.Pipeline("poll")
				run := e.Finish(rig.Object("x", 1))
				require.NoError(t, run.Err())
				require.Equal(t, 1000, calls)
			})
		})
	}
}

func TestFailuresInARowStillExhaustTheAttemptsOfAPollingStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.InTurn(rig.Always(conveyor.RequeueAfter(time.Minute), nil), rig.Always(conveyor.Done(), rig.ErrBoom)))
		e.Driver("poll", d)
		e.Pipeline("poll")
		require.ErrorContains(t, e.Finish(rig.Object("x", 1)).Err(), "boom")
		require.Len(t, d.All(), 4)
	})
}
