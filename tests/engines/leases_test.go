package engines_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// startLeased starts a process with a lease of its own.
func (w *world) startLeased(name string, lease time.Duration, drivers map[string]rig.Func) *process {
	p := &process{disk: w.disk.Join(), w: w, name: name}
	e, err := conveyor.New(line{p}, conveyor.Options{Lease: lease, Name: name})
	require.NoError(w.t, err)
	p.Engine = e
	for id, answer := range drivers {
		require.NoError(w.t, e.Register(id, rig.DriverOf(w.around(p, answer))))
	}
	require.NoError(w.t, e.Start(w.t.Context()))
	w.t.Cleanup(func() { require.NoError(w.t, p.stop()) })
	return p
}

// TestEngines06LeasesThatDiffer has an engine with a lease of five seconds and one of thirty. One of them stands still, or dies, in a step.
// Each is judged by its own lease: it stops after two thirds of it, and the other one takes over after the whole of it.
func TestEngines06LeasesThatDiffer(t *testing.T) {
	const short, long = 5 * time.Second, 30 * time.Second
	for _, c := range []struct {
		name          string
		lease, others time.Duration
		stands        time.Duration // 0 if it dies
		fenced, taken bool
	}{
		{"two of the other's leases", long, short, 2 * short, false, false},
		{"more than two thirds of the long lease", long, short, 24 * time.Second, true, false},
		{"two long leases", long, short, 2 * long, true, true},
		{"for ever, with the long lease", long, short, 0, false, true},
		{"half of the short lease", short, long, 2 * time.Second, false, false},
		{"more than two thirds of the short lease", short, long, 4 * time.Second, true, false},
		{"three short leases", short, long, 15 * time.Second, true, true},
		{"for ever, with the short lease", short, long, 0, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var cause atomic.Value
				first := w.startLeased("first", c.lease, map[string]rig.Func{"a": rig.InTurn(caused(&cause, 2*time.Minute), quick)})
				var elsewhere atomic.Pointer[time.Time]
				second := w.startLeased("second", c.others, map[string]rig.Func{"a": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					now := time.Now()
					elsewhere.Store(&now)
					return quick(ctx, req)
				}})
				time.Sleep(2 * time.Minute)
				first.mustSave(rig.PipelineOf("a"))
				run := first.mustApply(rig.Object("x", 1))
				synctest.Wait()
				time.Sleep(20 * time.Second)
				began := time.Now()
				if c.stands == 0 {
					first.kill()
				} else {
					first.hold(c.stands)
				}
				require.NoError(t, untilEnded(t, second.Engine, run.ID, 3*time.Minute).Err())
				if c.stands > 0 {
					require.Equal(t, c.fenced, cause.Load() != nil)
				}
				if c.fenced {
					require.ErrorIs(t, cause.Load().(error), conveyor.ErrLeaseLost)
				}
				require.Equal(t, c.taken, elsewhere.Load() != nil, "taken over")
				if c.taken {
					took := elsewhere.Load().Sub(began)
					require.GreaterOrEqual(t, took, c.lease*5/6, "since its last heartbeat")
					require.LessOrEqual(t, took, 2*c.lease+c.others/6)
				}
			})
		})
	}
}
