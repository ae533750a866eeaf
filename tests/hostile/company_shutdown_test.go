package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// captives are drivers that never return, and have not been told to.
func captives(t *testing.T, n int) *company {
	c := newCompany(t, conveyor.Options{Workers: n + 1})
	c.Driver("bad", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		c.stuck()
		return conveyor.DoneWith("late"), nil
	}))
	c.PipelineNamed("bad", "bad", "bad")
	for i := range n {
		c.bad = append(c.bad, c.MustApply(rig.Along("bad", fmt.Sprint("bad", i))))
	}
	synctest.Wait()
	require.Equal(t, n, c.MustStats().Busy)
	return c
}

func TestShutdownReturnsByItsContextHoweverManyDriversAreStuck(t *testing.T) {
	within := func(d time.Duration) func() (context.Context, context.CancelFunc) {
		return func() (context.Context, context.CancelFunc) { return context.WithTimeout(context.Background(), d) }
	}
	t.Cleanup(func() { testenv.Figure(t, "1, 10 and 100 stuck drivers, with six kinds of contexts") })
	for _, n := range []int{1, 10, 100} {
		for _, c := range []struct {
			name string
			ctx  func() (context.Context, context.CancelFunc)
			took time.Duration
		}{
			{"with a minute", within(time.Minute), 59*time.Second + 500*time.Millisecond},
			{"with a second", within(time.Second), 875 * time.Millisecond},
			{"with a nanosecond", within(1), 1},
			{"with no time", within(-time.Hour), 0},
			{"canceled already", func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				return ctx, cancel
			}, 500 * time.Millisecond},
			{"canceled after an hour", func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				time.AfterFunc(time.Hour, cancel)
				return ctx, cancel
			}, time.Hour + 500*time.Millisecond},
		} {
			t.Run(fmt.Sprintf("%d drivers, %s", n, c.name), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := c.ctx()
					defer cancel()
					captivity := captives(t, n)
					began := time.Now()
					err := captivity.Shutdown(ctx)
					require.Equal(t, c.took, time.Since(began))
					captivity.requireLeft(err)
				})
			})
		}
	}
}

// requireLeft makes sure that a Shutdown has named the drivers that are stuck, recorded that they are to be called again, and
// left nothing that writes when they return.
func (c *company) requireLeft(err error) {
	t := c.T
	t.Helper()
	require.Error(t, err)
	for _, run := range c.bad {
		require.ErrorContains(t, err, fmt.Sprintf("run %s step 1 (driver bad, resource %s)", run.ID, run.Resource))
		require.Equal(t, 1, c.MustGetRun(run.ID).Steps[0].Interruptions)
		require.Equal(t, []string{"queued", "pending"}, rig.StatesOf(c.MustGetRun(run.ID)))
	}
	require.NotContains(t, err.Error(), "not recorded")
	before := rig.Dump(t, c.Store)
	st := c.MustStats()
	require.Equal(t, []int{0, len(c.bad)}, []int{st.Busy, st.Stray})
	require.NoError(t, c.Shutdown(context.Background()), "again")

	c.letGo()
	time.Sleep(time.Hour)
	synctest.Wait()
	require.Equal(t, before, rig.Dump(t, c.Store), "what comes late is discarded")
	require.Zero(t, c.MustStats().Stray)

	next := rig.NewOn(t, c.Store.Store, conveyor.Options{})
	d := new(rig.Recorder)
	next.Driver("bad", d)
	next.MustStart()
	for _, run := range c.bad {
		require.NoError(t, next.Ended(run.ID).Err())
	}
	for _, call := range d.All() {
		require.Equal(t, call.Step == "1", call.Resumed)
		require.Equal(t, 1, call.Attempt)
	}
}

func TestShutdownFromManyPlacesReturnsToEachByItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := captives(t, 10)
		began := time.Now()
		var all sync.WaitGroup
		errs := make(chan error, 20)
		for i := range 20 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i+1)*time.Minute)
				defer cancel()
				errs <- c.Shutdown(ctx)
				require.LessOrEqual(t, time.Since(began), time.Minute)
			})
		}
		all.Wait()
		var named error
		for range 20 {
			if err := <-errs; err != nil {
				named = err
			}
		}
		c.requireLeft(named)
	})
}

func TestShutdownWaitsForDriversThatWereGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, conveyor.Options{})
		c.Driver("bad", rig.DriverOf(rig.Deaf(time.Hour, conveyor.Done(), nil)), conveyor.Timeout(time.Second))
		c.PipelineNamed("bad", "bad")
		began := time.Now()
		c.arrive()
		c.requireHealth(3 * time.Minute)
		require.NoError(t, c.Shutdown(context.Background()))
		require.Equal(t, time.Second+rig.Patience+time.Hour, time.Since(began), "the last one began when the first were given up")
	})
}

func TestDriversMayShutDownTheirEngineAllAtOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		ctx     func(ctx context.Context) (context.Context, context.CancelFunc)
		outside bool // the program does so too
		others  bool // there is a driver that never returns
	}{
		{"with their own contexts", context.WithCancel, false, false},
		{"with their own contexts and some time", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}, false, false},
		{"while the program does", context.WithCancel, true, false},
		{"with some time, beside one that is stuck", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}, false, true},
		{"with some time, beside one that is stuck, while the program does", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{})
				release := make(chan struct{})
				stopped := make(chan error, 2)
				e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					time.Sleep(time.Second)
					ctx, cancel := c.ctx(ctx)
					defer cancel()
					err := e.Shutdown(ctx)
					stopped <- err
					return conveyor.DoneWith("did it"), nil
				}))
				e.Driver("stuck", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
					<-release
					return conveyor.Done(), nil
				}))
				e.Pipeline("d", "d")
				e.PipelineNamed("q", "stuck")
				runs := []*conveyor.Run{e.MustApply(rig.Object("a", 1)), e.MustApply(rig.Object("b", 1))}
				if c.others {
					e.MustApply(rig.Along("q", "c"))
				}
				e.MustStart()
				began := time.Now()
				if c.outside {
					time.Sleep(2 * time.Second)
					ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
					defer cancel()
					err := e.Shutdown(ctx)
					require.Equal(t, c.others, err != nil, err)
				}
				for range runs {
					if err := <-stopped; err != nil {
						require.True(t, c.others)
						require.NotContains(t, err.Error(), "driver d,")
					}
				}
				require.LessOrEqual(t, time.Since(began), time.Hour)
				close(release)
				synctest.Wait()
				require.Zero(t, e.MustStats().Busy)
				for _, run := range runs {
					require.Equal(t, []string{"succeeded", "pending"}, rig.StatesOf(e.MustGetRun(run.ID)), "what they answer counts")
				}
			})
		})
	}
}

func TestShutdownWaitsForADriverThatHasCalledItBefore(t *testing.T) {
	for _, c := range []struct {
		name  string
		after time.Duration // the program calls it
		limit time.Duration // 0 for none
	}{
		{"at the same time", 0, 0},
		{"long after", time.Minute, 0},
		{"with time enough", time.Minute, 3 * time.Hour},
		{"with too little time", time.Minute, 10 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
					err := e.Shutdown(ctx)
					time.Sleep(time.Hour)
					return conveyor.Done(), err
				}))
				e.Pipeline("d", "d")
				began := time.Now()
				run := e.MustApply(rig.Object("a", 1))
				time.Sleep(c.after)
				ctx, cancel := context.WithCancel(context.Background())
				if c.limit > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.limit)
				}
				defer cancel()
				err := e.Shutdown(ctx)
				if c.limit > 0 && c.limit < time.Hour {
					require.ErrorContains(t, err, "driver d,")
					require.LessOrEqual(t, time.Since(began), c.after+c.limit)
					require.Equal(t, 1, e.MustGetRun(run.ID).Steps[0].Interruptions)
					time.Sleep(time.Hour)
					return
				}
				require.NoError(t, err)
				require.Equal(t, time.Hour, time.Since(began))
				require.Equal(t, []string{"succeeded", "pending"}, rig.StatesOf(e.MustGetRun(run.ID)), "what it answers is on record")
			})
		})
	}
}

// dam is a store whose calls do not return while it is shut, or fail.
type dam struct {
	store.Store

	mu   sync.Mutex
	gate chan struct{} // nil when open
	err  error         // instead of waiting
	only string        // of get, list, commit; empty for all
}

func (d *dam) shut(only string, err error) (open func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gate := make(chan struct{})
	d.gate, d.err, d.only = gate, err, only
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.gate == gate {
			close(gate)
			d.gate, d.err = nil, nil
		}
	}
}

func (d *dam) pass(call string) error {
	d.mu.Lock()
	gate, err := d.gate, d.err
	if d.only != "" && d.only != call {
		gate = nil
	}
	d.mu.Unlock()
	switch {
	case gate == nil:
		return nil
	case err != nil:
		return err
	}
	<-gate
	return nil
}

func (d *dam) Get(ctx context.Context, key string) (store.Record, error) {
	if err := d.pass("get"); err != nil {
		return store.Record{}, err
	}
	return d.Store.Get(ctx, key)
}

func (d *dam) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		if err := d.pass("list"); err != nil {
			yield(store.Record{}, err)
			return
		}
		d.Store.List(ctx, q)(yield)
	}
}

func (d *dam) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := d.pass("commit"); err != nil {
		return 0, err
	}
	return d.Store.Commit(ctx, ops...)
}

var errDisk = errors.New("disk on fire")

func TestAStoreThatFailsOrDoesNotAnswerDoesNotHoldUpShutdown(t *testing.T) {
	const grace = 20 * time.Second // ShutdownGrace
	for _, sick := range []struct {
		name string
		only string
		err  error
	}{
		{"that fails", "", errDisk},
		{"that does not answer", "", nil},
		{"that does not answer commits", "commit", nil},
		{"that does not answer reads", "get", nil},
		{"that does not answer lists", "list", nil},
	} {
		for _, c := range []struct {
			name string
			ctx  func() (context.Context, context.CancelFunc)
			took time.Duration // at most
		}{
			{"with a minute", func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), time.Minute)
			}, time.Minute},
			{"with a second", func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), time.Second)
			}, time.Second},
			{"with a tenth of a second", func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), time.Second/10)
			}, time.Second / 10},
			{"with no time", func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), -1)
			}, time.Second / 4},
			{"canceled already", func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				return ctx, cancel
			}, 2 * time.Second},
			{"without a deadline", func() (context.Context, context.CancelFunc) {
				return context.WithCancel(context.Background())
			}, time.Hour - 30*time.Second + 2*grace + time.Second},
		} {
			t.Run("a store "+sick.name+", "+c.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					disk := &dam{Store: memory.New()}
					e := rig.NewOn(t, disk, conveyor.Options{ShutdownGrace: grace}).MustStart()
					e.Driver("quick", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
						req.Log.Info("working")
						return rig.Taking(time.Second)(ctx, req)
					}))
					e.Driver("slow", rig.DriverOf(rig.Deaf(time.Hour, conveyor.Done(), nil)))
					e.Pipeline("quick", "quick")
					e.PipelineNamed("q", "slow")
					quick, slow := e.MustApply(rig.Object("a", 1)), e.MustApply(rig.Along("q", "b"))
					open := disk.shut(sick.only, sick.err)
					defer open()
					time.Sleep(30 * time.Second)
					ctx, cancel := c.ctx()
					defer cancel()
					began := time.Now()
					err := e.Shutdown(ctx)
					require.LessOrEqual(t, time.Since(began), c.took)
					if sick.only == "" || sick.only == "commit" {
						require.ErrorContains(t, err, fmt.Sprintf("run %s (resource r/a)", quick.ID))
						require.ErrorContains(t, err, "not recorded")
						if sick.err != nil {
							require.ErrorIs(t, err, sick.err)
						}
						if time.Since(began) < time.Hour {
							require.ErrorContains(t, err, fmt.Sprintf("run %s (resource r/b)", slow.ID))
						}
					}
					open()
					time.Sleep(2 * time.Hour)
					next := rig.NewOn(t, disk, conveyor.Options{})
					d := new(rig.Recorder)
					next.Driver("quick", d)
					next.Driver("slow", d)
					next.MustStart()
					require.NoError(t, next.Ended(quick.ID).Err())
					require.NoError(t, next.Ended(slow.ID).Err())
				})
			})
		}
	}
}

func TestShutdownWithoutADeadlineGivesAStoreTimeOnlyWhenTheLastDriverHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &dam{Store: memory.New()}
		e := rig.NewOn(t, disk, conveyor.Options{ShutdownGrace: time.Minute}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		open := disk.shut("", errDisk)
		time.AfterFunc(time.Hour+50*time.Second, open)
		require.NoError(t, e.Shutdown(context.Background()))
		require.NoError(t, e.MustGetRun(run.ID).Err())
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(run.ID).State)
	})
}

// A call that was abandoned and returns at last takes nothing from a driver that called Shutdown itself: Shutdown without a
// deadline waits until that driver has returned, and its outcome is recorded.
func TestAnAbandonedCallThatReturnsEndsNoOtherCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, begin := make(chan struct{}), make(chan struct{})
		e := rig.New(t, conveyor.Options{})
		e.Driver("deaf", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			<-release
			return conveyor.Done(), nil
		}), conveyor.Timeout(time.Second))
		e.Driver("ender", rig.DriverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			<-begin
			_ = e.Shutdown(ctx)
			time.Sleep(time.Minute)
			return conveyor.Done(), nil
		}))
		e.PipelineNamed("p1", "deaf")
		e.PipelineNamed("p2", "ender")
		e.MustStart()
		e.MustApply(rig.Along("p1", "a"))
		run := e.MustApply(rig.Along("p2", "b"))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, e.MustStats().Stray)

		stopped := make(chan error)
		go func() { stopped <- e.Shutdown(context.Background()) }()
		close(begin)
		synctest.Wait()
		close(release)
		require.NoError(t, <-stopped)
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(run.ID).State)
	})
}

// TestDriversThatEndTheirGoroutineAfterShutdownHarmNobody has drivers that Shutdown has given up end their goroutines, as
// testing.T.FailNow does, around the time at which Shutdown returns.
func TestDriversThatEndTheirGoroutineAfterShutdownHarmNobody(t *testing.T) {
	const drivers = 32
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{Workers: drivers}).MustStart()
			over := make(chan struct{})
			e.Driver("d", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
				<-over
				time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
				runtime.Goexit()
				return conveyor.Done(), nil
			}))
			e.Pipeline("d")
			var runs []string
			for i := range drivers {
				runs = append(runs, e.MustApply(rig.Object(fmt.Sprint(i), 1)).ID)
			}
			synctest.Wait()
			time.AfterFunc(2*time.Millisecond, func() { close(over) })
			for _, limit := range []time.Duration{3 * time.Millisecond, time.Second} {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				_ = e.Shutdown(ctx) // it names those that have not returned
				cancel()
			}
			time.Sleep(time.Minute)
			require.Zero(t, e.MustStats().Stray)
			for _, id := range runs {
				require.Contains(t, []string{"queued", "retrying"}, rig.StatesOf(e.MustGetRun(id))[0], "the next process goes on with it")
			}
		})
	}
}
