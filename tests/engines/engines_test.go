package engines_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store/memory"
)

// fleet is a shared store and the engines on it.
type fleet struct {
	*testing.T
	disk *memory.Shared
	made int
}

func inBubble(t *testing.T, test func(t *testing.T, f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, &fleet{T: t, disk: memory.NewShared()}) })
}

// engine starts another engine with drivers.
func (f *fleet) engine(opts conveyor.Options, drivers map[string]conveyor.Driver) *rig.Engine {
	f.Helper()
	f.made++
	opts.Name = fmt.Sprint("engine", f.made)
	e := rig.NewOn(f.T, f.disk.Join(), opts)
	for name, d := range drivers {
		e.Driver(name, d)
	}
	return e.MustStart()
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestOneEngineOnASharedStoreWorksAsOnAnyOther(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		d := new(rig.Recorder)
		e := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"d": d})
		e.Pipeline("d", "d")
		for i := range 5 {
			require.NoError(t, e.Finish(rig.Object("a", i)).Err())
		}
		require.Len(t, d.All(), 10)
		rig.RequireAtRest(t, f.disk)
	})
}

func TestEngines02ARunIsBegunWhereItsDriverIs(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		d := new(rig.Recorder)
		pure := rig.NewOn(t, f.disk.Join(), conveyor.Options{}) // never started
		a := f.engine(conveyor.Options{}, nil)
		b := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"d": d})
		after(time.Minute)
		a.Pipeline("d")
		began := time.Now()
		for i, e := range []*rig.Engine{pure, a, b} {
			run := e.MustApply(rig.Object(fmt.Sprint("r", i), 1))
			ended := e.Ended(run.ID)
			require.NoError(t, ended.Err())
		}
		require.Less(t, time.Since(began), time.Second, "it is told, and not only found")
		require.Len(t, d.All(), 3)
		rig.RequireAtRest(t, f.disk)
	})
}

func TestEngines04ARunGoesFromEngineToEngine(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		one, two := new(rig.Recorder), new(rig.Recorder)
		a := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"one": one})
		b := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"two": two})
		after(time.Minute)
		a.Pipeline("one", "two", "one", "two")
		run := b.MustApply(rig.Object("a", 1))
		require.NoError(t, a.Ended(run.ID).Err())
		require.Equal(t, []string{"1", "3"}, one.Steps())
		require.Equal(t, []string{"2", "4"}, two.Steps())
		rig.RequireAtRest(t, f.disk)
	})
}

func TestEngines06RunsOfAnEngineThatDiedGoOn(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		stuck := rig.Recording(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			<-ctx.Done()
			return conveyor.Result{}, context.Cause(ctx)
		})
		a := f.engine(conveyor.Options{Lease: 6 * time.Second}, map[string]conveyor.Driver{"d": stuck})
		a.Pipeline("d")
		run := a.MustApply(rig.Object("a", 1))
		synctest.Wait()
		require.Len(t, stuck.All(), 1)
		d := new(rig.Recorder)
		b := f.engine(conveyor.Options{Lease: 6 * time.Second}, map[string]conveyor.Driver{"d": d})
		after(time.Minute)
		require.Empty(t, d.All(), "the other engine is live")
		a.Store.CutOff()
		began := time.Now()
		ended := b.Ended(run.ID)
		require.NoError(t, ended.Err())
		require.Less(t, time.Since(began), 2*6*time.Second, "within two leases")
		require.Equal(t, []string{"1+"}, d.Steps())
		rig.RequireAtRest(t, f.disk)
	})
}

func TestEngines08AnEngineThatIsShutDownIsNotWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		slow := rig.Recording(rig.Taking(time.Hour))
		a := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"d": slow})
		a.Pipeline("d")
		run := a.MustApply(rig.Object("a", 1))
		d := new(rig.Recorder)
		b := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"d": d})
		after(time.Minute)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, a.Shutdown(ctx))
		require.NoError(t, b.Ended(run.ID).Err())
		require.Less(t, time.Since(began), 2*time.Second, "the lease has 30 seconds")
		require.Equal(t, []string{"1+"}, d.Steps())
		rig.RequireAtRest(t, f.disk)
	})
}

func TestEngines09AnyEngineCancelsAndSignalsAnyRun(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		a := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"d": rig.DriverOf(rig.Taking(time.Hour)), "s": rig.DriverOf(rig.Awaiting(0))})
		b := f.engine(conveyor.Options{}, nil)
		pure := rig.NewOn(t, f.disk.Join(), conveyor.Options{})
		after(time.Minute)
		a.PipelineNamed("long", "d")
		a.PipelineNamed("wait", "s")
		for i, other := range []*rig.Engine{b, pure, a} {
			run := a.MustApply(rig.Along("long", fmt.Sprint("l", i)))
			synctest.Wait()
			began := time.Now()
			require.NoError(t, other.Cancel(t.Context(), run.ID, "enough"))
			ended := other.Ended(run.ID)
			require.Equal(t, conveyor.StateCanceled, ended.State)
			require.Less(t, time.Since(began), time.Second)

			run = a.MustApply(rig.Along("wait", fmt.Sprint("w", i)))
			synctest.Wait()
			require.NoError(t, other.Signal(t.Context(), run.ID, "go", "yes"))
			require.NoError(t, other.Ended(run.ID).Err())
		}
		rig.RequireAtRest(t, f.disk)
	})
}
