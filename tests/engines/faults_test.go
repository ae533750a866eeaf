package engines_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// odd is a shared store that does something of its own before a call, and can refuse it.
type odd struct {
	store.Store
	get    atomic.Pointer[func(key string) error]
	list   atomic.Pointer[func(prefix string) error]
	commit atomic.Pointer[func(ops []store.Op) error] // for those that write something or have a condition
	ask    atomic.Pointer[func()]                     // for those that do not
	reads  atomic.Int64
}

func (o *odd) onGet(fn func(key string) error)        { o.get.Store(&fn) }
func (o *odd) onList(fn func(prefix string) error)    { o.list.Store(&fn) }
func (o *odd) onCommit(fn func(ops []store.Op) error) { o.commit.Store(&fn) }

func (o *odd) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return o.Store.(store.Watcher).Watch(ctx, prefix, after)
}
func (o *odd) Limits() store.Limits { return store.LimitsOf(o.Store) }
func (o *odd) Get(ctx context.Context, key string) (store.Record, error) {
	o.reads.Add(1)
	if fn := o.get.Load(); fn != nil && *fn != nil {
		if err := (*fn)(key); err != nil {
			return store.Record{}, err
		}
	}
	return o.Store.Get(ctx, key)
}
func (o *odd) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		o.reads.Add(1)
		if fn := o.list.Load(); fn != nil && *fn != nil {
			if err := (*fn)(q.Prefix); err != nil {
				yield(store.Record{}, err)
				return
			}
		}
		o.Store.List(ctx, q)(yield)
	}
}
func (o *odd) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if fn := o.commit.Load(); fn != nil && *fn != nil && len(ops) > 0 {
		if err := (*fn)(ops); err != nil {
			return 0, err
		}
	}
	if fn := o.ask.Load(); fn != nil && len(ops) == 0 {
		(*fn)()
	}
	return o.Store.Commit(ctx, ops...)
}

var away = fmt.Errorf("%w: try again", store.ErrUnavailable)

func oddEngine(t *testing.T, disk *memory.Shared, opts conveyor.Options, drivers map[string]rig.Func) (*conveyor.Engine, *odd) {
	o := &odd{Store: disk.Join()}
	opts.Lease = lease
	e, err := conveyor.New(o, opts)
	require.NoError(t, err)
	for id, f := range drivers {
		require.NoError(t, e.Register(id, rig.DriverOf(f)))
	}
	return e, o
}

func startOdd(t *testing.T, disk *memory.Shared, opts conveyor.Options, drivers map[string]rig.Func) (*conveyor.Engine, *odd) {
	e, o := oddEngine(t, disk, opts, drivers)
	require.NoError(t, e.Start(t.Context()))
	t.Cleanup(func() {
		ctx, c := context.WithTimeout(context.Background(), time.Minute)
		defer c()
		_ = e.Shutdown(ctx)
	})
	return e, o
}

func TestEngines10APauseIsReadUntilItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		var calls atomic.Int64
		first, o := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": func(ctx context.Context, r *conveyor.Request) (conveyor.Result, error) {
			calls.Add(1)
			return conveyor.Done(), nil
		}})
		second, _ := startOdd(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		var once atomic.Bool
		o.onList(func(p string) error {
			if strings.HasPrefix(p, "pse/") && once.CompareAndSwap(false, true) {
				return away
			}
			return nil
		})
		require.NoError(t, second.Pause(t.Context(), conveyor.Target{Pipeline: "p"}, "freeze"))
		time.Sleep(5 * lease)
		require.True(t, once.Load())
		_, err := first.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		time.Sleep(5 * lease)
		require.Zero(t, calls.Load())
	})
}

func TestEngines11AWaitSurvivesAReadThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, _ := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": rig.Taking(10 * lease)})
		second, o := startOdd(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		run, err := first.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		began := time.Now()
		o.onGet(func(key string) error {
			if d := time.Since(began); strings.HasPrefix(key, "run/") && d > 9*lease && d < 11*lease { // a failure of two seconds
				return away
			}
			return nil
		})
		untilEnded(t, second, run.ID, 24*time.Hour)
	})
}

func TestEngines03ManySignalsDoNotHoldUpACancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, o := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": quick})
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a", "nowhere")))
		time.Sleep(5 * lease)
		var ids []string
		for i := range 33 {
			run, err := first.Apply(t.Context(), rig.Object(fmt.Sprintf("x%02d", i), 1))
			require.NoError(t, err)
			ids = append(ids, run.ID)
		}
		time.Sleep(5 * lease)
		time.Sleep(time.Minute)
		for _, id := range ids[:32] {
			require.NoError(t, first.Signal(t.Context(), id, "early", nil))
		}
		time.Sleep(5 * lease)
		n := o.reads.Load()
		time.Sleep(time.Minute)
		require.Less(t, o.reads.Load()-n, int64(60*40), "the entries are not looked at again")
		require.NoError(t, first.Cancel(t.Context(), ids[32], "stop"))
		untilEnded(t, first, ids[32], time.Hour)
	})
}

func TestEngines03APausedResourceDoesNotHoldUpItsLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		p := rig.PipelineOf("a")
		first, _ := oddEngine(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.Register("a", rig.DriverOf(quick), conveyor.Concurrency(1)))
		require.NoError(t, first.Start(t.Context()))
		t.Cleanup(func() { _ = first.Shutdown(context.Background()) })
		client, _ := startOdd(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.SavePipeline(t.Context(), p))
		time.Sleep(5 * lease)
		require.NoError(t, client.Pause(t.Context(), conveyor.Target{Resource: rig.Object("x", nil).Key()}, "freeze"))
		_, err := client.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		time.Sleep(5 * lease)
		y, err := client.Apply(t.Context(), rig.Object("y", 1))
		require.NoError(t, err)
		untilEnded(t, client, y.ID, time.Hour)
	})
}

func TestEngines08ShutdownDoesNotWaitForAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, o := oddEngine(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.Start(t.Context()))
		time.Sleep(5 * lease)
		o.onCommit(func(ops []store.Op) error {
			if strings.HasPrefix(ops[0].Key(), "eng/") {
				time.Sleep(time.Hour)
			}
			return nil
		})
		began := time.Now()
		ctx, c := context.WithTimeout(t.Context(), 5*time.Second)
		defer c()
		_ = first.Shutdown(ctx)
		require.Less(t, time.Since(began), 6*time.Second)
		time.Sleep(time.Hour) // the call of the store returns
	})
}

func TestEngines06ATakeoverThatMeetsConflictsGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		dead, od := oddEngine(t, disk, conveyor.Options{}, map[string]rig.Func{"a": rig.InTurn(rig.Always(conveyor.RequeueAfter(20*time.Second), nil), quick)})
		require.NoError(t, dead.Start(t.Context()))
		var gone atomic.Bool
		fail := func() error {
			if gone.Load() {
				return rig.ErrDied
			}
			return nil
		}
		od.onGet(func(string) error { return fail() })
		od.onList(func(string) error { return fail() })
		od.onCommit(func([]store.Op) error { return fail() })
		second, o := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": quick})
		client, _ := oddEngine(t, disk, conveyor.Options{}, nil)
		require.NoError(t, second.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		run, err := dead.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		time.Sleep(lease)
		n := 0
		o.onCommit(func(ops []store.Op) error {
			for _, op := range ops {
				if strings.HasPrefix(op.Key(), "~own/") && op.Removes() && n < 2 {
					n++
					require.NoError(t, client.Signal(context.Background(), run.ID, "news", n))
				}
			}
			return nil
		})
		gone.Store(true)
		ctx, c := context.WithTimeout(t.Context(), time.Hour)
		defer c()
		_, err = client.Wait(ctx, run.ID)
		cc, c2 := context.WithTimeout(context.Background(), time.Nanosecond)
		defer c2()
		_ = dead.Shutdown(cc)
		_ = client.Shutdown(context.Background())
		require.NoError(t, err)
	})
}

func TestEngines06TwoCallsOfStartJoinOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		var calls atomic.Int64
		e, o := oddEngine(t, disk, conveyor.Options{}, map[string]rig.Func{"a": func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			calls.Add(1)
			return conveyor.Done(), nil
		}})
		n := atomic.Int64{}
		o.onCommit(func(ops []store.Op) error {
			if strings.HasPrefix(ops[0].Key(), "eng/") && n.Add(1) < 3 {
				time.Sleep(time.Duration(n.Load()) * 50 * time.Millisecond)
			}
			return nil
		})
		errs := make(chan error, 2)
		for range 2 {
			go func() { errs <- e.Start(t.Context()) }()
		}
		one, two := <-errs, <-errs
		require.True(t, (one == nil) != (two == nil))
		require.NoError(t, e.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(10 * lease)
		run, err := e.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		ctx, c := context.WithTimeout(t.Context(), time.Hour)
		defer c()
		_, err = e.Wait(ctx, run.ID)
		_ = e.Shutdown(context.Background())
		require.NoError(t, err)
	})
}

func TestEngines05ADriverThatRegistersDuringStartListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		e, o := oddEngine(t, disk, conveyor.Options{}, nil)
		o.onCommit(func(ops []store.Op) error {
			if strings.HasPrefix(ops[0].Key(), "eng/") {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		})
		done := make(chan error)
		go func() { done <- e.Start(t.Context()) }()
		time.Sleep(50 * time.Millisecond)
		require.NoError(t, e.Register("l", rig.DriverOf(quick), conveyor.Listen("loose")))
		require.NoError(t, <-done)
		time.Sleep(5 * lease)
		run, err := e.Apply(t.Context(), rig.Loose("loose", "x", 1))
		require.NoError(t, err)
		ended := untilEnded(t, e, run.ID, time.Hour)
		_ = e.Shutdown(context.Background())
		require.Equal(t, conveyor.StateSucceeded, ended.State, ended.Reason)
	})
}

func TestEngines09ADamagedRunStopsNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, _ := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": rig.Always(conveyor.Await("go", 0), nil), "b": quick})
		second, _ := startOdd(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		require.NoError(t, first.SavePipeline(t.Context(), rig.Named("q", rig.PipelineOf("b"))))
		time.Sleep(5 * lease)
		run, err := first.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		time.Sleep(5 * lease)
		_, err = disk.Join().Commit(t.Context(), store.Put("stp/"+run.ID+"/1", []byte("{")))
		require.NoError(t, err)
		require.NoError(t, second.Signal(t.Context(), run.ID, "go", nil))
		time.Sleep(5 * lease)
		y, err := second.Apply(t.Context(), rig.Along("q", "y"))
		require.NoError(t, err)
		untilEnded(t, second, y.ID, time.Hour)
	})
}

func TestEngines11AnEventSurvivesAReadThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, _ := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": rig.Taking(10 * lease)})
		second, o := startOdd(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		ctx, c := context.WithTimeout(t.Context(), time.Hour)
		defer c()
		events := second.Watch(ctx, conveyor.WatchOptions{})
		synctest.Wait()
		run, err := first.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		began := time.Now()
		o.onGet(func(key string) error {
			if d := time.Since(began); strings.HasPrefix(key, "run/") && d > 9*lease && d < 11*lease {
				return away
			}
			return nil
		})
		for e, err := range events {
			if errors.Is(err, context.DeadlineExceeded) {
				require.NoError(t, err)
			}
			if e.Run == run.ID && e.Kind == conveyor.EventRun && e.State.Final() {
				return
			}
		}
	})
}

func TestEngines07NothingBeginsWithoutAnEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, o := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": quick})
		second, _ := startOdd(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		began := time.Now()
		var joining, done atomic.Bool
		o.onGet(func(string) error {
			if joining.Load() && !done.Load() {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		})
		o.onCommit(func(ops []store.Op) error {
			for _, op := range ops {
				if op.Key() == "" || strings.HasPrefix(op.Key(), "~own/-/") {
				}
			}
			if strings.HasPrefix(ops[0].Key(), "~hbt/") && time.Since(began) < 4*lease {
				return away
			}
			if strings.HasPrefix(ops[0].Key(), "eng/") {
				joining.Store(true)
				time.Sleep(500 * time.Millisecond)
			}
			return nil
		})
		for !joining.Load() {
			time.Sleep(time.Millisecond)
		}
		ids := make(chan string, 100)
		for i := range 100 {
			time.Sleep(10 * time.Millisecond)
			go func() {
				run, err := first.Apply(t.Context(), rig.Object(fmt.Sprint("x", i), 1))
				if err != nil {
					ids <- ""
				} else {
					ids <- run.ID
				}
			}()
		}
		var runs []string
		for range 100 {
			runs = append(runs, <-ids)
		}
		done.Store(true)
		lost := 0
		for _, id := range runs {
			if id == "" {
				continue
			}
			ctx, c := context.WithTimeout(t.Context(), time.Minute)
			_, err := second.Wait(ctx, id)
			c()
			if err != nil {
				lost++
			}
		}
		require.Zero(t, lost)
	})
}

// TestEngines17ALateCommitIsNoBusyLoop has the outcome of a step, or of each of them, put on record a second after the engine was told
// that the commit did not happen. The engine must find out, record the outcome once, and not spin.
func TestEngines17ALateCommitIsNoBusyLoop(t *testing.T) {
	once := func(first conveyor.Result, err error) func() rig.Func {
		return func() rig.Func { return rig.InTurn(rig.Always(first, err), quick) }
	}
	for name, answer := range map[string]func() rig.Func{
		"done":    func() rig.Func { return quick },
		"requeue": once(conveyor.RequeueAfter(time.Second), nil),
		"await":   once(conveyor.Await("go", 3*time.Second), nil),
		"failed":  once(conveyor.Done(), rig.ErrBoom),
	} {
		for _, late := range []string{"1", "2", "3", "123"} {
			t.Run(fmt.Sprintf("%s, late at %s", name, late), func(t *testing.T) { lateOutcomes(t, late, answer) })
		}
	}
}

// TestEngines17ARequestDuringACommitWhoseAnswerIsLost has another engine cancel a run after the commit that makes it, begins it, or begins
// its second step, and before the owner knows that the commit has happened. Each read by which the owner finds out fails in turn.
func TestEngines17ARequestDuringACommitWhoseAnswerIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		mark  string
		busy  time.Duration // how long the only worker has something else to do
		steps []string
	}{
		"the run is made":      {`"phase":"running"`, 0, []string{"b"}},
		"a queued run begins":  {`"phase":"running"`, time.Second, []string{"b"}},
		"its next step begins": {`"output":"made"`, 0, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			for range 4 { // because goroutines read side by side, and each read has to be that of each of them
				n := 1
				for cancelsUnawares(t, c.mark, c.busy, n, c.steps...) && !t.Failed() {
					n++
				}
				require.Greater(t, n, 4)
			}
		})
	}
}

// cancelsUnawares cancels a run after the first commit that has the mark in one of its values. It has the nth read fail from there on,
// and reports whether there were as many.
func cancelsUnawares(t *testing.T, mark string, busy time.Duration, n int, steps ...string) (reached bool) {
	t.Run(fmt.Sprint("read ", n), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			disk := memory.NewShared()
			first, o := startOdd(t, disk, conveyor.Options{Workers: 1}, map[string]rig.Func{
				"busy": func(context.Context, *conveyor.Request) (conveyor.Result, error) {
					time.Sleep(busy)
					return conveyor.Done(), nil
				},
				"a": rig.Always(conveyor.DoneWith("made"), nil),
				"b": func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
					<-ctx.Done()
					return conveyor.Done(), context.Cause(ctx)
				},
			})
			second, _ := startOdd(t, disk, conveyor.Options{}, nil)
			require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf(steps...)))
			other := rig.PipelineOf("busy")
			other.Name = "other"
			require.NoError(t, first.SavePipeline(t.Context(), other))
			time.Sleep(5 * lease)
			if busy > 0 {
				_, err := first.Apply(t.Context(), rig.Along("other", "y"))
				require.NoError(t, err)
				synctest.Wait()
			}

			var lost, told atomic.Bool
			var reads atomic.Int64
			o.onCommit(func(ops []store.Op) error {
				marked := func(op store.Op) bool { return strings.Contains(string(op.Value()), mark) }
				if !slices.ContainsFunc(ops, marked) || !lost.CompareAndSwap(false, true) {
					return nil
				}
				_, err := o.Store.Commit(t.Context(), ops...)
				require.NoError(t, err)
				i := slices.IndexFunc(ops, func(op store.Op) bool { return strings.HasPrefix(op.Key(), "run/") })
				require.NoError(t, second.Cancel(t.Context(), strings.TrimPrefix(ops[i].Key(), "run/"), "stop it"))
				told.Store(true)
				return fmt.Errorf("%w: it has happened", store.ErrUnknown)
			})
			fail := func(string) error {
				if told.Load() && reads.Add(1) == int64(n) {
					return errors.New("a bad day")
				}
				return nil
			}
			o.onGet(fail)
			o.onList(fail)
			run, err := first.Apply(t.Context(), rig.Object("x", 1))
			require.NoError(t, err)
			ended := untilEnded(t, second, run.ID, time.Minute)
			require.True(t, told.Load())
			require.Equal(t, conveyor.StateCanceled, ended.State)
			require.Equal(t, "stop it", ended.Reason)
			reached = reads.Load() >= int64(n)
		})
	})
	return reached
}

func lateOutcomes(t *testing.T, late string, answer func() rig.Func) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		drivers := map[string]rig.Func{}
		for i, name := range []string{"a", "b", "c"} {
			then := rig.Func(quick)
			if strings.Contains(late, fmt.Sprint(i+1)) {
				then = answer()
			}
			drivers[name] = func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				time.Sleep(time.Second)
				if i > 0 {
					var from string
					if err := req.Output(fmt.Sprint(i), &from); err != nil {
						return conveyor.Done(), conveyor.Permanent(err)
					}
				}
				result, err := then(ctx, req)
				if err == nil && result == conveyor.Done() {
					result = conveyor.DoneWith(name)
				}
				return result, err
			}
		}
		first, o := startOdd(t, disk, conveyor.Options{}, drivers)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a", "b", "c")))
		time.Sleep(5 * lease)
		run, err := first.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		var mu sync.Mutex
		at := map[string]time.Time{} // when an outcome was kept back, by the step
		tries := 0
		o.onCommit(func(ops []store.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if tries++; tries > 1000 {
				panic("it spins")
			}
			for _, op := range ops {
				step, of := strings.CutPrefix(op.Key(), "stp/"+run.ID+"/")
				if !of || !strings.Contains(late, step) || strings.Contains(string(op.Value()), `"running"`) {
					continue
				}
				if at[step].IsZero() {
					at[step] = time.Now()
					ops = cloned(ops)
					go func() {
						time.Sleep(time.Second)
						_, _ = o.Store.Commit(context.Background(), ops...)
					}()
					return fmt.Errorf("%w: later", store.ErrUnknown)
				}
				if time.Since(at[step]) < 2*time.Second {
					return away
				}
				if r, err := disk.Get(context.Background(), op.Key()); err == nil && strings.Contains(string(r.Value), `"succeeded"`) {
					if rev, _ := op.Condition(); rev == r.Revision {
						t.Errorf("the outcome of step %s is on record, and is recorded again", step)
					}
				}
			}
			return nil
		})
		ended := untilEnded(t, first, run.ID, time.Hour)
		require.Equal(t, conveyor.StateSucceeded, ended.State)
		require.Len(t, at, len(late))
	})
}

// occupy registers a driver of one slot at an engine. It returns another engine, which has saved a pipeline of the driver, and a run that
// has had the slot for a while and keeps it for some time.
func occupy(t *testing.T, disk *memory.Shared, at *conveyor.Engine, keeps time.Duration) (client *conveyor.Engine, run *conveyor.Run) {
	require.NoError(t, at.Register("a", rig.DriverOf(rig.Taking(keeps)), conveyor.Concurrency(1)))
	client, _ = startOdd(t, disk, conveyor.Options{}, nil)
	require.NoError(t, client.SavePipeline(t.Context(), rig.PipelineOf("a")))
	time.Sleep(5 * lease)
	run, err := client.Apply(t.Context(), rig.Object("x", 1))
	require.NoError(t, err)
	time.Sleep(5 * lease)
	return client, run
}

func TestEngines02APipelineThatIsSavedElsewhereIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, _ := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"b": quick})
		client, _ := occupy(t, disk, first, time.Hour)
		y, err := client.Apply(t.Context(), rig.Object("y", 1))
		require.NoError(t, err)
		time.Sleep(5 * lease)
		require.NoError(t, client.SavePipeline(t.Context(), rig.PipelineOf("b")))
		untilEnded(t, client, y.ID, 30*time.Minute)
	})
}

// TestEngines02APipelineThatIsMadeAgainAsItsRemovalIsNoticed has another engine save a pipeline between the moments at which
// an engine finds that it was removed and at which the engine asks for the revision of the removal.
func TestEngines02APipelineThatIsMadeAgainAsItsRemovalIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, o := startOdd(t, disk, conveyor.Options{}, nil)
		client, x := occupy(t, disk, first, time.Minute)
		var removed, again atomic.Bool
		o.onGet(func(key string) error {
			if key == record.PipelineKey("p") && !removed.Load() {
				_, err := o.Store.Get(context.Background(), key)
				removed.Store(errors.Is(err, store.ErrNotFound))
			}
			return nil
		})
		ask := func() {
			if removed.Load() && again.CompareAndSwap(false, true) {
				require.NoError(t, client.SavePipeline(context.Background(), rig.PipelineOf("a")))
				require.NoError(t, client.SavePipeline(context.Background(), rig.Named("q", rig.PipelineOf("a"))))
			}
		}
		o.ask.Store(&ask)
		require.NoError(t, client.DeletePipeline(t.Context(), "p"))
		time.Sleep(5 * lease)
		require.True(t, again.Load(), "the pipeline was not made again")
		var reads, at atomic.Int64 // the reads of the pipeline within a second
		o.onGet(func(key string) error {
			if now := time.Now().Unix(); at.Swap(now) != now {
				reads.Store(0)
			}
			if key == record.PipelineKey("p") && reads.Add(1) > 100 {
				return store.ErrClosed
			}
			return nil
		})
		y, err := client.Apply(t.Context(), rig.Object("y", 1))
		require.NoError(t, err)
		untilEnded(t, client, x.ID, 2*time.Minute)
		require.LessOrEqual(t, reads.Load(), int64(100), "the engine looks at a run that waits again and again")
		untilEnded(t, client, y.ID, 2*time.Minute)
	})
}

func TestEngines03ManyDeletionsDoNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, _ := oddEngine(t, disk, conveyor.Options{}, map[string]rig.Func{"a": quick})
		require.NoError(t, first.Start(t.Context()))
		second, _ := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"b": quick})
		client, _ := oddEngine(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		require.NoError(t, first.SavePipeline(t.Context(), rig.Named("q", rig.PipelineOf("b"))))
		time.Sleep(5 * lease)
		for i := range 33 {
			run, err := first.Apply(t.Context(), rig.Object(fmt.Sprint("x", i), 1))
			require.NoError(t, err)
			_, err = first.Wait(t.Context(), run.ID)
			require.NoError(t, err)
		}
		y, err := second.Apply(t.Context(), rig.Along("q", "y"))
		require.NoError(t, err)
		_, err = second.Wait(t.Context(), y.ID)
		require.NoError(t, err)
		require.NoError(t, first.Shutdown(t.Context()))
		time.Sleep(5 * lease)
		for i := range 33 {
			_, err := second.Delete(t.Context(), rig.Object(fmt.Sprint("x", i), 1).Key())
			require.NoError(t, err)
		}
		time.Sleep(5 * lease)
		d, err := client.Delete(t.Context(), rig.Along("q", "y").Key())
		require.NoError(t, err)
		ctx, c := context.WithTimeout(t.Context(), time.Hour)
		defer c()
		_, err = client.Wait(ctx, d.ID)
		_ = client.Shutdown(context.Background())
		require.NoError(t, err)
	})
}

type slowZero struct{ *odd }

func (s slowZero) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if len(ops) == 0 {
		time.Sleep(50 * time.Millisecond)
	}
	return s.odd.Commit(ctx, ops...)
}

func TestEngines11NothingIsMissedAfterWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, _ := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": quick})
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		second, err := conveyor.New(slowZero{&odd{Store: disk.Join()}}, conveyor.Options{Lease: lease})
		require.NoError(t, err)
		require.NoError(t, second.Start(t.Context()))
		t.Cleanup(func() { _ = second.Shutdown(context.Background()) })
		time.Sleep(5 * lease)
		ctx, c := context.WithTimeout(t.Context(), time.Hour)
		defer c()
		events := second.Watch(ctx, conveyor.WatchOptions{})
		run, err := first.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		for e, err := range events {
			require.NoError(t, err)
			if e.Run == run.ID && e.Kind == conveyor.EventRun && e.State.Final() {
				return
			}
		}
	})
}

func TestEngines08ADriverThatCallsShutdownKeepsItsLease(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var e *conveyor.Engine
		var ended atomic.Value
		first := w.start("first", conveyor.Options{}, map[string]rig.Func{"a": func(ctx context.Context, r *conveyor.Request) (conveyor.Result, error) {
			_ = e.Shutdown(ctx)
			select {
			case <-time.After(10 * lease):
				return conveyor.Done(), nil
			case <-ctx.Done():
				ended.Store(context.Cause(ctx))
				return conveyor.Result{}, context.Cause(ctx)
			}
		}}, nil)
		e = first.Engine
		second := w.begin("second", nil)
		first.mustSave(rig.PipelineOf("a"))
		time.Sleep(5 * lease)
		run := first.mustApply(rig.Object("x", 1))
		require.NoError(t, second.Register("a", rig.DriverOf(w.around(second, quick))))
		_ = untilEnded(t, second.Engine, run.ID, time.Minute)
		time.Sleep(20 * lease)
		require.NoError(t, first.stop())
	})
}

// TestEngines02ARunThatIsMadeWhileItsPipelineIsSavedIsKept applies while the engine gives all runs of the pipeline a turn.
func TestEngines02ARunThatIsMadeWhileItsPipelineIsSavedIsKept(t *testing.T) {
	runs := testenv.Some(t, 5000, 50000)
	inBubble(t, func(t *testing.T, f *fleet) {
		d := rig.Recording(rig.Taking(time.Second))
		e := f.engine(conveyor.Options{Workers: 1000}, map[string]conveyor.Driver{"d": d})
		after(time.Minute)
		for round := range runs / 100 {
			for i := range 100 {
				p := rig.PipelineOf("d")
				p.Description = fmt.Sprint(round, i) // another one
				require.NoError(t, e.SavePipeline(t.Context(), p))
				e.MustApply(rig.Object(fmt.Sprint("r", i), round))
			}
			synctest.Wait()
			stats, err := e.Stats(t.Context())
			require.NoError(t, err)
			require.Equal(t, 100, stats.Runs[conveyor.StateRunning])
			after(2 * time.Second)
		}
		after(2 * time.Minute)
		require.Len(t, d.All(), runs)
		rig.RequireAtRest(t, f.disk)
	})
}

// TestEngines09AWaitIsNotLostWithARead waits in an engine that is about to claim the run, which another one has claimed and ended, and to
// which the store does not answer at that moment.
func TestEngines09AWaitIsNotLostWithARead(t *testing.T) {
	for failing := range 4 {
		synctest.Test(t, func(t *testing.T) {
			disk := memory.NewShared()
			drivers := map[string]rig.Func{"a": quick}
			first, _ := startOdd(t, disk, conveyor.Options{}, drivers)
			second, o := startOdd(t, disk, conveyor.Options{}, drivers)
			client, _ := oddEngine(t, disk, conveyor.Options{}, nil)
			require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
			require.NoError(t, first.SavePipeline(t.Context(), rig.Named("nobodys", rig.PipelineOf("missing"))))
			time.Sleep(5 * lease)
			o.onCommit(func(ops []store.Op) error {
				if slices.ContainsFunc(ops, func(op store.Op) bool { return strings.HasPrefix(op.Key(), "run/") }) {
					time.Sleep(lease / 2)
				}
				return nil
			})
			run, err := client.Apply(t.Context(), rig.Object("x", 1))
			require.NoError(t, err)
			untilEnded(t, first, run.ID, lease/4)
			another, err := client.Apply(t.Context(), rig.Along("nobodys", "y"))
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var waiting sync.WaitGroup
			defer waiting.Wait()
			waiting.Go(func() { _, _ = second.Wait(ctx, another.ID) })
			synctest.Wait() // by now it follows the runs of others
			var reads atomic.Int64
			o.onGet(func(key string) error {
				if strings.HasPrefix(key, "run/") && reads.Add(1) <= int64(failing) {
					return away
				}
				return nil
			})
			if ended, err := second.Wait(ctx, run.ID); !errors.Is(err, store.ErrUnavailable) {
				require.NoError(t, err, "%d reads fail", failing)
				require.Equal(t, conveyor.StateSucceeded, ended.State)
			}
		})
	}
}

// TestEngines09AWaitAtAnEngineThatHasLostTheRun waits at an engine whose driver is at work, and which cannot renew its lease meanwhile.
// Another engine takes the run over and ends it. The first engine is told of the end while it believes that the run is its own, and finds out
// when the driver returns.
func TestEngines09AWaitAtAnEngineThatHasLostTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, o := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			time.Sleep(5 * lease) // whatever its context says
			return conveyor.Done(), nil
		}})
		second, _ := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": quick})
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		run, err := first.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var ended *conveyor.Run
		var waiting sync.WaitGroup
		waiting.Go(func() { ended, err = first.Wait(ctx, run.ID) })
		synctest.Wait()
		o.onCommit(func(ops []store.Op) error {
			if slices.ContainsFunc(ops, func(op store.Op) bool { return strings.HasPrefix(op.Key(), "~hbt/") }) {
				return away
			}
			return nil
		})
		untilEnded(t, second, run.ID, 3*lease)
		waiting.Wait()
		o.onCommit(nil)
		require.NoError(t, err)
		require.Equal(t, conveyor.StateSucceeded, ended.State)
	})
}
