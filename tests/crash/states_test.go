package crash_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
)

// transitions are all there are between the states of a run, as GetRun shows them after one commit and the next. "-"
// stands for no run.
var transitions = map[string][]string{
	"-":        {"queued", "running", "blocked", "succeeded", "failed", "skipped"},
	"queued":   {"running", "blocked", "succeeded", "failed", "skipped", "canceled"},
	"running":  {"retrying", "waiting", "blocked", "succeeded", "failed", "canceled", "superseded"},
	"retrying": {"running", "waiting", "blocked", "succeeded", "failed", "canceled", "superseded"},
	"waiting":  {"running", "blocked", "succeeded", "failed", "canceled", "superseded"},
	"blocked":  {"running", "succeeded", "failed", "canceled", "superseded"},
}

// A passage takes runs from state to state. Each of its lives is a start of the program; all but the last end with its
// death.
type passage struct {
	name  string
	opts  conveyor.Options
	lives []func(l *life)
	paths []string // the states of each run, in the order in which they were created, when nothing goes wrong
}

func starts(plays ...func(l *life)) []func(l *life) { return plays }

var passages = []passage{
	{name: "an ordinary run", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("d", "d"), "d")
		l.apply(1)
	}), paths: []string{"running succeeded"}},
	{name: "applied before the start", lives: starts(func(l *life) {
		l.save(rig.PipelineOf("d"))
		l.drivers("d")
		l.apply(1)
		l.start()
	}), paths: []string{"queued running succeeded"}},
	{name: "before the start, for a driver that is missing", lives: starts(func(l *life) {
		l.save(rig.PipelineOf("d"))
		l.apply(1)
		l.start()
		l.pass(time.Second)
		l.drivers("d")
	}), paths: []string{"queued blocked running succeeded"}},
	{name: "before the start, when nobody listens", lives: starts(func(l *life) {
		l.applyLoose()
		l.start()
	}), paths: []string{"queued skipped"}},
	{name: "before the start, along a pipeline that is deleted", lives: starts(func(l *life) {
		l.once("save", func() error { return l.SavePipeline(l.ctx, rig.PipelineOf("d")) })
		l.apply(1)
		l.once("forget", func() error {
			if err := l.DeletePipeline(l.ctx, "p"); !errors.Is(err, conveyor.ErrNotFound) {
				return err
			}
			return nil // in the life before, which has not heard of it
		})
		l.start()
	}), paths: []string{"queued failed"}},
	{name: "before the start, and canceled", lives: starts(func(l *life) {
		l.save(rig.PipelineOf("d"))
		l.drivers("d")
		l.apply(1)
		l.cancel()
		l.start()
	}), paths: []string{"queued canceled"}},
	{name: "nobody listens", lives: starts(func(l *life) {
		l.start()
		l.applyLoose()
	}), paths: []string{"skipped"}},
	{name: "too many listen", opts: conveyor.Options{Limits: conveyor.Limits{Steps: 1}}, lives: starts(func(l *life) {
		l.listener("a")
		l.listener("b")
		l.start()
		l.applyLoose()
	}), paths: []string{"failed"}},
	{name: "a driver is missing", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("d"))
		l.apply(1)
		l.pass(time.Second)
		l.drivers("d")
	}), paths: []string{"blocked running succeeded"}},
	{name: "a second driver is missing", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("d", "late"), "d")
		l.apply(1)
		l.pass(time.Second)
		l.drivers("late")
	}), paths: []string{"running blocked running succeeded"}},
	{name: "a retry", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("fails-once"), "fails-once")
		l.apply(1)
	}), paths: []string{"running retrying running succeeded"}},
	{name: "a failure", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("fails"), "fails")
		l.apply(1)
	}), paths: []string{"running failed"}},
	{name: "a requeue", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("comes-again"), "comes-again")
		l.apply(1)
	}), paths: []string{"running waiting running succeeded"}},
	{name: "a signal", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("awaits"), "awaits")
		l.apply(1)
		l.pass(time.Second)
		l.signal()
	}), paths: []string{"running waiting running succeeded"}},

	{name: "a cancel during a step", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("takes-long"), "takes-long")
		l.apply(1)
		l.pass(time.Second)
		l.cancel()
	}), paths: []string{"running canceled"}},
	{name: "a cancel during a retry", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("fails-for-long"), "fails-for-long")
		l.apply(1)
		l.pass(time.Second)
		l.cancel()
	}), paths: []string{"running retrying canceled"}},
	{name: "a cancel during a wait", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("awaits"), "awaits")
		l.apply(1)
		l.pass(time.Second)
		l.cancel()
	}), paths: []string{"running waiting canceled"}},
	{name: "a cancel while blocked", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("missing"))
		l.apply(1)
		l.pass(time.Second)
		l.cancel()
	}), paths: []string{"blocked canceled"}},

	{name: "a newer generation during a step", lives: starts(func(l *life) {
		l.begin(superseding(rig.PipelineOf("takes-long")), "takes-long")
		l.supersede()
	}), paths: []string{"running superseded", "queued running succeeded"}},
	{name: "a newer generation during a retry", lives: starts(func(l *life) {
		l.begin(superseding(rig.PipelineOf("fails-for-long")), "fails-for-long")
		l.supersede()
	}), paths: []string{"running retrying superseded", "queued running succeeded"}},
	{name: "a newer generation during a wait", lives: starts(func(l *life) {
		l.begin(superseding(rig.PipelineOf("awaits")), "awaits")
		l.supersede()
	}), paths: []string{"running waiting superseded", "queued running succeeded"}},
	{name: "a newer generation while blocked", lives: starts(func(l *life) {
		l.begin(superseding(rig.PipelineOf("d")))
		l.supersede()
		l.drivers("d")
	}), paths: []string{"blocked superseded", "queued blocked running succeeded"}},

	{name: "time is up during a step", lives: starts(func(l *life) {
		l.begin(limited(rig.PipelineOf("takes-long")), "takes-long")
		l.apply(1)
	}), paths: []string{"running failed"}},
	{name: "time is up during a retry", lives: starts(func(l *life) {
		l.begin(limited(rig.PipelineOf("fails-for-long")), "fails-for-long")
		l.apply(1)
	}), paths: []string{"running retrying failed"}},
	{name: "time is up during a wait", lives: starts(func(l *life) {
		l.begin(limited(rig.PipelineOf("awaits")), "awaits")
		l.apply(1)
	}), paths: []string{"running waiting failed"}},
	{name: "time is up while blocked", lives: starts(func(l *life) {
		l.begin(limited(rig.PipelineOf("missing")))
		l.apply(1)
	}), paths: []string{"blocked failed"}},

	{name: "the next build lacks the driver of a retry", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("fails-once"), "fails-once")
		l.apply(1)
		l.pass(500 * time.Millisecond)
	}, func(l *life) {
		l.begin(rig.PipelineOf("fails-once"))
		l.pass(2 * time.Second)
		l.drivers("fails-once")
	}), paths: []string{"running retrying blocked running succeeded"}},
	{name: "the next build lacks the driver of a wait", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("comes-again"), "comes-again")
		l.apply(1)
		l.pass(500 * time.Millisecond)
	}, func(l *life) {
		l.begin(rig.PipelineOf("comes-again"))
		l.pass(2 * time.Second)
		l.drivers("comes-again")
	}), paths: []string{"running waiting blocked running succeeded"}},
	{name: "the next build lacks the driver of a retry beside a wait", lives: starts(func(l *life) {
		l.begin(beside("fails-once", "awaits"), "fails-once", "awaits")
		l.apply(1)
		l.pass(500 * time.Millisecond)
	}, func(l *life) {
		l.begin(beside("fails-once", "awaits"), "awaits")
		l.pass(2 * time.Second)
		l.drivers("fails-once")
		l.pass(time.Second)
		l.signal()
	}), paths: []string{"running retrying waiting running waiting running succeeded"}},

	{name: "a deletion with nothing to finalize", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("d"), "d")
		l.apply(1)
		l.pass(time.Second)
		l.remove()
	}), paths: []string{"running succeeded", "succeeded"}},
	{name: "a deletion before the start with nothing to finalize", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("d"), "d")
		l.apply(1)
		l.pass(time.Second)
	}, func(l *life) {
		l.save(rig.PipelineOf("d"))
		l.drivers("d")
		l.remove()
		l.start()
	}), paths: []string{"running succeeded", "queued succeeded"}},
	{name: "a deletion that waits for a driver, which has nothing to finalize", lives: starts(func(l *life) {
		l.begin(rig.PipelineOf("d"), "d")
		l.apply(1)
		l.pass(time.Second)
	}, func(l *life) {
		l.begin(rig.PipelineOf("d"))
		l.remove()
		l.pass(time.Second)
		l.drivers("d")
	}), paths: []string{"running succeeded", "blocked succeeded"}},
	{name: "a finalizer that is retried, and gone in the next build", lives: starts(func(l *life) {
		l.finalizer("d", rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Minute, rig.ErrBoom)))
		l.begin(rig.PipelineOf("d"))
		l.apply(1)
		l.pass(time.Second)
		l.remove()
		l.pass(time.Second)
	}, func(l *life) {
		l.begin(rig.PipelineOf("d"), "d")
	}), paths: []string{"running succeeded", "running retrying succeeded"}},
	{name: "a finalizer that waits, and is gone in the next build", lives: starts(func(l *life) {
		l.finalizer("d", rig.Always(conveyor.RequeueAfter(time.Minute), nil))
		l.begin(rig.PipelineOf("d"))
		l.apply(1)
		l.pass(time.Second)
		l.remove()
		l.pass(time.Second)
	}, func(l *life) {
		l.begin(rig.PipelineOf("d"), "d")
	}), paths: []string{"running succeeded", "running waiting succeeded"}},
}

func superseding(p conveyor.PipelineSpec) conveyor.PipelineSpec {
	p.OnChange = conveyor.Supersede
	return p
}

func limited(p conveyor.PipelineSpec) conveyor.PipelineSpec {
	p.Timeout = conveyor.Duration(30 * time.Second)
	return p
}

// beside is a pipeline whose steps have no order between them, but for the last one.
func beside(drivers ...string) conveyor.PipelineSpec {
	p := rig.PipelineOf(append(drivers, "joins")...)
	p.Steps[len(drivers)].Driver = drivers[0]
	for i := range drivers {
		p.Steps[i].After = conveyor.AtOnce()
	}
	return p
}

// behaviours are what drivers do, by their names. All of them are done at once with the spec that supersedes another,
// and for a second that one of them is asked to do.
var behaviours = map[string]rig.Func{
	"d":          rig.Always(conveyor.Done(), nil),
	"late":       rig.Always(conveyor.Done(), nil),
	"takes-long": rig.Taking(time.Hour),
	"fails":      rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)),
	"fails-once": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if req.Attempt == 1 && req.Step.ID == "1" {
			return conveyor.Done(), rig.ErrBoom
		}
		return conveyor.Done(), nil
	},
	"fails-for-long": rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom)),
	"comes-again": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if time.Since(req.Resource.CreatedAt) < time.Second {
			return conveyor.RequeueAfter(time.Second), nil
		}
		return conveyor.Done(), nil
	},
	"awaits": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if got, err := req.Signal(nil); got || err != nil {
			return conveyor.Done(), err
		}
		return conveyor.Await("go", 0), nil
	},
}

const superseder = 99

// life is one start of the program of a passage. When it has died, its methods do nothing any more.
type life struct {
	*conveyor.Engine
	t    *testing.T
	ctx  context.Context // ends with the life
	done map[string]bool // what was acknowledged, in this life or an earlier one of the same play
	path *pathfinder
}

// once makes a call until it is acknowledged, in whatever life.
func (l *life) once(name string, call func() error) {
	if l.ctx.Err() != nil || l.done[name] {
		return
	}
	if err := call(); l.ctx.Err() == nil {
		require.NoError(l.t, err, name)
		l.done[name] = true
	}
}

// always makes a call in every life.
func (l *life) always(call func() error) {
	if l.ctx.Err() != nil {
		return
	}
	if err := call(); l.ctx.Err() == nil {
		require.NoError(l.t, err)
	}
}

func (l *life) drivers(names ...string) {
	for _, name := range names {
		l.always(func() error {
			return l.Register(name, rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				if string(req.Resource.Spec) == fmt.Sprint(superseder) {
					return conveyor.Done(), nil
				}
				return behaviours[name](ctx, req)
			}))
		})
	}
}

func (l *life) listener(name string) {
	l.always(func() error { return l.Register(name, new(rig.Recorder), conveyor.Listen("loose")) })
}

func (l *life) finalizer(name string, undo rig.Func) {
	l.always(func() error { return l.Register(name, rig.Undoing(new(rig.Recorder), rig.Recording(undo))) })
}

func (l *life) save(p conveyor.PipelineSpec) {
	l.always(func() error { return l.SavePipeline(l.ctx, p) })
}

func (l *life) start() { l.always(func() error { return l.Start(l.ctx) }) }

func (l *life) begin(p conveyor.PipelineSpec, drivers ...string) {
	l.save(p)
	l.drivers(drivers...)
	l.start()
}

func (l *life) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
}

func (l *life) apply(spec int) {
	l.once(fmt.Sprint("apply ", spec), func() error {
		_, err := l.Apply(l.ctx, rig.Object("x", spec))
		return err
	})
}

func (l *life) applyLoose() {
	l.once("apply", func() error {
		_, err := l.Apply(l.ctx, rig.Loose("loose", "x", 1))
		return err
	})
}

// supersede applies a generation, and a second later one that supersedes it.
func (l *life) supersede() {
	l.apply(1)
	l.pass(time.Second)
	l.apply(superseder)
	l.pass(time.Second)
}

func (l *life) remove() {
	l.once("delete", func() error {
		_, err := l.Delete(l.ctx, rig.Object("x", nil).Key())
		if l.path.gone() {
			return nil // in the life before, which has not heard of it
		}
		return err
	})
}

// signal has the newest run go on, unless it has.
func (l *life) signal() {
	l.once("signal", func() error {
		run, err := l.GetRun(l.ctx, l.newest())
		if err != nil || run.State.Final() {
			return err
		}
		return l.Signal(l.ctx, run.ID, "go", nil)
	})
}

// cancel ends the newest run, unless that has happened.
func (l *life) cancel() {
	l.once("cancel", func() error {
		run, err := l.GetRun(l.ctx, l.newest())
		if err != nil || run.State == conveyor.StateCanceled {
			return err
		}
		return l.Cancel(l.ctx, run.ID, "not needed")
	})
}

// newest is the id of the newest run.
func (l *life) newest() (id string) {
	for run, err := range l.Runs(l.ctx, conveyor.RunFilter{Newest: true, Limit: 1}) {
		if err == nil {
			id = run.ID
		}
	}
	return id
}

// pathfinder looks at all runs after each commit.
type pathfinder struct {
	store.Store
	reader *conveyor.Engine // on the store below; never started

	mu    sync.Mutex // held across a commit, so that none goes unseen
	runs  []string   // in the order of creation
	paths map[string][]string
}

func (p *pathfinder) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rev, err := p.Store.Commit(ctx, ops...)
	for run, err := range p.reader.Runs(context.Background(), conveyor.RunFilter{}) {
		if err != nil {
			return 0, err
		}
		path, known := p.paths[run.ID]
		if !known {
			p.runs = append(p.runs, run.ID)
		}
		if state := run.State.String(); len(path) == 0 || path[len(path)-1] != state {
			p.paths[run.ID] = append(path, state)
		}
	}
	return rev, err
}

// gone says that there is no resource.
func (p *pathfinder) gone() bool {
	for range p.reader.List(context.Background(), conveyor.ResourceFilter{}) {
		return false
	}
	return true
}

func (p *pathfinder) all() (paths []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, run := range p.runs {
		paths = append(paths, strings.Join(p.paths[run], " "))
	}
	return paths
}

// travel plays a passage. The store goes wrong once, at some commit; the life in which it does is then played again.
func travel(t *testing.T, d disk, p passage, fault mishap) (paths []string, struck bool) {
	t.Helper()
	reopen := d.insert(t)
	path := &pathfinder{paths: map[string][]string{}}
	for i, play := range p.lives {
		done := map[string]bool{}
		for again := true; again; {
			path.Store = reopen()
			var err error
			path.reader, err = conveyor.New(path.Store, conveyor.Options{})
			require.NoError(t, err)
			ctx, die := context.WithCancelCause(context.Background())
			st := &mortal{Store: path, fault: fault, die: func() { die(rig.ErrDied) }}
			e, err := conveyor.New(st, p.opts)
			require.NoError(t, err)
			l := &life{Engine: e, t: t, ctx: ctx, done: done, path: path}
			play(l)
			if i == len(p.lives)-1 {
				l.always(func() error { return settle(ctx, nil, e) })
			}
			if ctx.Err() == nil && i == len(p.lives)-1 {
				if err := e.Shutdown(ctx); ctx.Err() == nil { // the store can still go wrong
					require.NoError(t, err)
				}
			} else {
				st.kill()
				expired, cancel := context.WithDeadline(context.Background(), time.Now())
				_ = e.Shutdown(expired) // has its goroutines end
				cancel()
				time.Sleep(downtime)
			}
			die(nil)
			synctest.Wait()
			again = st.struck
			if fault.at -= st.seen; again {
				struck, fault = true, mishap{}
			}
		}
	}
	rig.RequireAtRest(t, path.Store)
	return path.all(), struck
}

// TestRunsGoThroughEveryStateAndTransition plays every passage undisturbed, and then on both stores with a death at
// each of its commits, before and after it.
func TestRunsGoThroughEveryStateAndTransition(t *testing.T) {
	seen := map[string][]string{}
	for _, p := range passages {
		synctest.Test(t, func(t *testing.T) {
			paths, _ := travel(t, disks[0], p, mishap{})
			require.Equal(t, p.paths, paths, p.name)
			for _, path := range paths {
				last := "-"
				for _, state := range strings.Fields(path) {
					if !slices.Contains(seen[last], state) {
						seen[last] = append(seen[last], state)
					}
					last = state
				}
			}
		})
	}
	for from, to := range transitions {
		require.ElementsMatch(t, to, seen[from], "what comes after %s", from)
	}
	require.Len(t, seen, len(transitions))
	for _, d := range disks {
		for _, p := range passages {
			t.Run(d.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				for _, kind := range d.deaths {
					n := 1
					for ; dieOnTheWay(t, d, p, mishap{kind, n}); n++ {
						require.Less(t, n, 100)
					}
					t.Logf("%s: %d commits", kind, n-1)
				}
			})
		}
	}
}

// dieOnTheWay reports whether the fault was reached. Wherever it struck, the runs have gone from state to state as they
// may, and ended as they would have.
func dieOnTheWay(t *testing.T, d disk, p passage, fault mishap) (struck bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var paths []string
		paths, struck = travel(t, d, p, fault)
		require.Len(t, paths, len(p.paths), "%v: %v", fault, paths)
		for i, path := range paths {
			states := strings.Fields(path)
			last := "-"
			for _, state := range states {
				require.Contains(t, transitions[last], state, "%v: %s", fault, path)
				last = state
			}
			want := strings.Fields(p.paths[i])
			require.Equal(t, want[len(want)-1], last, "%v: %s", fault, path)
		}
	})
	return struck
}

// TestAStepThatARunOutOfTimeFindsAtWorkHasFailed has the time of a run be up while a step waits, and while it was at
// work in a process that died.
func TestAStepThatARunOutOfTimeFindsAtWorkHasFailed(t *testing.T) {
	for _, c := range []struct {
		name string
		d    rig.Func
	}{
		{"while it waits", rig.Always(conveyor.Await("go", 0), nil)},
		{"while it is to be called again", rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom))},
		{"while it was under way when the process died", rig.Taking(time.Hour)},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(c.d))
				e.Save(limited(rig.PipelineOf("d", "d")))
				run := e.MustApply(rig.Object("x", 1))
				time.Sleep(time.Second)
				e = e.Crashed(conveyor.Options{})
				time.Sleep(time.Minute)
				e.MustStart()
				run = e.Ended(run.ID)
				require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				require.Equal(t, []string{"failed", "skipped"}, rig.StatesOf(run))
				for _, s := range run.Steps {
					require.Equal(t, "the run took longer than 30s", s.Reason)
				}
			})
		})
	}
}
