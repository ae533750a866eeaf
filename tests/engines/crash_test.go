package engines_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
)

// load is what several processes do together.
type load struct {
	name    string
	opts    conveyor.Options
	drivers []map[string]rig.Func // of each process
	save    []conveyor.PipelineSpec
	// program is done by two processes: the first, which goes wrong, and the second, which stays. A call of the first that does not
	// succeed because it is dead is made by the second.
	program func(first, second *process) []func(ctx context.Context) error
	// end tells whether the runs have ended as they must.
	end func(t *testing.T, runs []*conveyor.Run)
}

func quick(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return rig.Taking(10*time.Millisecond)(ctx, req)
}

// alike gives several processes the same drivers.
func alike(n int, drivers map[string]rig.Func) (all []map[string]rig.Func) {
	for range n {
		all = append(all, drivers)
	}
	return all
}

func allSucceeded(t *testing.T, runs []*conveyor.Run) {
	for _, run := range runs {
		require.NoError(t, run.Err())
	}
}

func applying(p *process, name string, spec any) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		_, err := p.Apply(ctx, rig.Object(name, spec))
		return err
	}
}

func sleeping(d time.Duration) func(context.Context) error {
	return func(context.Context) error {
		time.Sleep(d)
		return nil
	}
}

var loads = []load{
	{
		name: "three resources, and two engines that can do all", drivers: alike(2, map[string]rig.Func{"a": quick, "b": quick}),
		save: []conveyor.PipelineSpec{rig.PipelineOf("a", "b", "a")},
		program: func(first, second *process) []func(context.Context) error {
			return []func(context.Context) error{applying(first, "x", 1), applying(second, "y", 1), applying(first, "z", 1)}
		},
		end: allSucceeded,
	},
	{
		name: "one worker each, and runs that wait for it", opts: conveyor.Options{Workers: 1},
		drivers: alike(2, map[string]rig.Func{"a": quick}), save: []conveyor.PipelineSpec{rig.PipelineOf("a", "a")},
		program: func(first, second *process) (all []func(context.Context) error) {
			for i := range 6 {
				all = append(all, applying([]*process{first, second}[i%2], fmt.Sprint("x", i), 1))
			}
			return all
		},
		end: allSucceeded,
	},
	{
		name:    "steps whose drivers are in one engine each",
		drivers: []map[string]rig.Func{{"a": quick, "c": quick}, {"b": quick, "c": quick}},
		save:    []conveyor.PipelineSpec{rig.PipelineOf("a", "b", "a", "b", "c")},
		program: func(first, second *process) []func(context.Context) error {
			return []func(context.Context) error{applying(first, "x", 1), applying(second, "y", 1)}
		},
		end: allSucceeded,
	},
	{
		name: "steps that are longer than a lease", drivers: alike(2, map[string]rig.Func{"a": rig.Taking(4 * lease)}),
		save: []conveyor.PipelineSpec{rig.PipelineOf("a", "a")},
		program: func(first, second *process) []func(context.Context) error {
			return []func(context.Context) error{applying(first, "x", 1), applying(second, "y", 1)}
		},
		end: allSucceeded,
	},
	{
		name:    "changes that come while a run is at work",
		drivers: alike(2, map[string]rig.Func{"a": rig.Taking(100 * time.Millisecond)}),
		save:    []conveyor.PipelineSpec{rig.PipelineOf("a", "a")},
		program: func(first, second *process) []func(context.Context) error {
			return []func(context.Context) error{
				applying(first, "x", 1), sleeping(time.Millisecond), applying(second, "x", 2), applying(first, "x", 3), sleeping(time.Second),
				applying(second, "x", 4),
			}
		},
		end: func(t *testing.T, runs []*conveyor.Run) {
			allSucceeded(t, runs)
			require.EqualValues(t, 4, runs[len(runs)-1].Generation)
		},
	},
	{
		name:    "a change that supersedes",
		drivers: alike(2, map[string]rig.Func{"a": rig.Taking(10 * time.Second)}),
		save: []conveyor.PipelineSpec{func() conveyor.PipelineSpec {
			p := rig.PipelineOf("a")
			p.OnChange = conveyor.Supersede
			return p
		}()},
		program: func(first, second *process) []func(context.Context) error {
			return []func(context.Context) error{
				applying(first, "x", 1), sleeping(10 * time.Millisecond), applying(second, "x", 2), sleeping(10 * time.Millisecond), applying(first, "x", 3),
			}
		},
		end: func(t *testing.T, runs []*conveyor.Run) {
			for _, run := range runs[:len(runs)-1] {
				require.Equal(t, conveyor.StateSuperseded, run.State)
			}
			require.NoError(t, runs[len(runs)-1].Err())
			require.EqualValues(t, 3, runs[len(runs)-1].Generation)
		},
	},
	{
		name:    "a deletion of what is at work, with a run in line",
		drivers: alike(2, map[string]rig.Func{"a": rig.Taking(10 * time.Second)}),
		save:    []conveyor.PipelineSpec{rig.Queueing(rig.PipelineOf("a"))},
		program: func(first, second *process) []func(context.Context) error {
			return []func(context.Context) error{
				applying(first, "x", 1), sleeping(10 * time.Millisecond), applying(second, "x", 2), sleeping(10 * time.Millisecond),
				func(ctx context.Context) error {
					_, err := first.Delete(ctx, rig.Object("x", nil).Key())
					return err
				},
			}
		},
		end: func(t *testing.T, runs []*conveyor.Run) {
			for _, run := range runs {
				if run.Cause == conveyor.CauseDeleted {
					require.NoError(t, run.Err())
				} else {
					require.Equal(t, conveyor.StateCanceled, run.State)
				}
			}
		},
	},
	{
		name: "room for one run over all engines", drivers: alike(3, map[string]rig.Func{"a": quick}),
		save: []conveyor.PipelineSpec{rig.AtMost(rig.PipelineOf("a", "a"), 1)},
		program: func(first, second *process) (all []func(context.Context) error) {
			for i := range 4 {
				all = append(all, applying([]*process{first, second}[i%2], fmt.Sprint("x", i), 1))
			}
			return all
		},
		end: func(t *testing.T, runs []*conveyor.Run) {
			allSucceeded(t, runs)
			slices.SortFunc(runs, func(a, b *conveyor.Run) int { return a.StartedAt.Compare(b.StartedAt) })
			for i := range runs[1:] {
				require.False(t, runs[i+1].StartedAt.Before(runs[i].EndedAt), "two at once")
			}
		},
	},
	{
		name: "listeners in two engines", drivers: []map[string]rig.Func{{"listens to loose": quick}, {"b": quick}, {"c": quick}},
		program: func(first, second *process) []func(context.Context) error {
			apply := func(p *process) func(context.Context) error {
				return func(ctx context.Context) error {
					_, err := p.Apply(ctx, rig.Loose("loose", "x", 1))
					return err
				}
			}
			return []func(context.Context) error{apply(first), apply(second)}
		},
		end: allSucceeded,
	},
	{
		name: "signals, sent where the run is not", drivers: alike(2, map[string]rig.Func{"a": quick, "s": rig.Awaiting(0)}),
		save: []conveyor.PipelineSpec{rig.PipelineOf("a", "s", "a")},
		program: crosswise(func(ctx context.Context, other *process, run string) error {
			return other.Signal(ctx, run, "go", "yes")
		}),
		end: allSucceeded,
	},
	{
		name: "a cancel, asked where the run is not", drivers: alike(2, map[string]rig.Func{"a": rig.Taking(time.Hour)}),
		save:    []conveyor.PipelineSpec{rig.PipelineOf("a")},
		program: crosswise(func(ctx context.Context, other *process, run string) error { return other.Cancel(ctx, run, "enough") }),
		end: func(t *testing.T, runs []*conveyor.Run) {
			for _, run := range runs {
				require.Equal(t, conveyor.StateCanceled, run.State)
			}
		},
	},
}

// crosswise applies a resource in each of two processes, and has the other one ask something of its run.
func crosswise(ask func(ctx context.Context, other *process, run string) error) func(first, second *process) []func(context.Context) error {
	return func(first, second *process) (all []func(context.Context) error) {
		for i, p := range []*process{first, second} {
			other, name := []*process{second, first}[i], fmt.Sprint("x", i)
			all = append(all, applying(p, name, 1), sleeping(50*time.Millisecond), func(ctx context.Context) error {
				run, err := newestRun(ctx, other, name)
				if err != nil {
					return err
				}
				return ask(ctx, other, run)
			})
		}
		return all
	}
}

func newestRun(ctx context.Context, p *process, name string) (string, error) {
	o, err := p.Get(ctx, rig.Object(name, nil).Key())
	if err != nil {
		return "", err
	}
	return o.Status.Run, nil
}

// faults are tried at each commit of the first process.
var faults = []fault{diesBefore, diesAfter, refused, unknownUndone, unknownDone, unknownLater, pauses, cutOff, slow, answersLate, unknownAsked}

// endure plays a load with a fault at commit n of the first process, and with a second one at commit m of the second process
// after that. It reports whether each was reached.
func endure(t *testing.T, l load, first fault, n int, second fault, m int) (struck, again bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() {
			if t.Failed() {
				t.Logf("with %q at %d, and %q at %d", first, n, second, m)
			}
		}()
		var hit, hitAgain atomic.Bool
		var after atomic.Int64
		var all []*process
		for i, drivers := range l.drivers {
			strike := func(_ *process, at int) fault {
				if at == n && hit.CompareAndSwap(false, true) {
					return first
				}
				return fine
			}
			if i > 0 {
				strike = func(*process, int) fault {
					if hit.Load() && m > 0 && int(after.Add(1)) == m && hitAgain.CompareAndSwap(false, true) {
						return second
					}
					return fine
				}
			}
			all = append(all, w.start(fmt.Sprint("process-", i), l.opts, drivers, strike))
		}
		w.asker.Store(all[1])
		var late []*process
		revive := func() { // another process takes the place of a dead one
			for i, p := range all {
				if p.isDead() {
					late = append(late, p)
					all[i] = w.start(p.name+"-again", l.opts, l.drivers[i], nil)
				}
			}
		}
		for _, p := range l.save {
			w.insist(revive, func() error { return all[1].SavePipeline(context.Background(), p) })
		}
		for i := range l.program(all[0], all[1]) {
			w.insist(revive, func() error { return l.program(all[0], all[1])[i](context.Background()) })
		}
		time.Sleep(20 * time.Millisecond)
		revive()
		w.settle(revive)
		w.check()
		rig.RequireAtRest(t, w.disk)
		runs := rig.Drain(t, all[1].Runs(t.Context(), conveyor.RunFilter{}))
		l.end(t, runs)
		time.Sleep(10 * lease)
		for _, p := range append(all, late...) {
			require.NoError(t, p.stop())
		}
		time.Sleep(2 * time.Second) // a commit can be on its way
		w.check()
		for key := range w.records() {
			require.NotRegexp(t, "^(own|ask|rdy|slt|act)/", key, "left when all is done")
		}
		struck, again = hit.Load(), hitAgain.Load()
	})
	return struck, again
}

// stride returns the distance of the places at which something goes wrong, and the first place.
func places(t *testing.T, some int, tried ...any) (first, stride int) {
	if testenv.Race {
		some *= 3
	}
	stride = testenv.Some(t, some, 1)
	h := fnv.New32a()
	fmt.Fprint(h, tried...)
	return 1 + int(h.Sum32()%uint32(stride)), stride
}

// TestEngines06EveryCommitOfOneCanGoWrong has one of several engines go wrong at each of its commits, in each way, while the others go
// on.
func TestEngines06EveryCommitOfOneCanGoWrong(t *testing.T) {
	var tried atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, l := range loads {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				for _, f := range faults {
					first, stride := places(t, 5, l.name, f)
					for n := first; ; n += stride {
						struck, _ := endure(t, l, f, n, fine, 0)
						if t.Failed() || !struck {
							break
						}
						tried.Add(1)
						require.Less(t, n, 500, "it does not come to an end")
					}
				}
			})
		}
	})
	testenv.Figure(t, "%d faults at the commits of one of several engines, with %d workloads", tried.Load(), len(loads))
}

// TestEngines06ATakeoverCanGoWrong has an engine die at each of its commits, and the engine that takes its runs over die at, or not know
// the outcome of, each of the commits after that.
func TestEngines06ATakeoverCanGoWrong(t *testing.T) {
	var tried atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, l := range loads {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				for _, f := range []fault{diesBefore, diesAfter, unknownDone} {
					first, stride := places(t, 6, l.name, f, "takeover")
					for n := first; ; n += stride {
						from, step := places(t, 6, l.name, f, n)
						struck := false
						for m := from; ; m += step {
							hit, again := endure(t, l, diesAfter, n, f, m)
							struck = struck || hit
							if t.Failed() || !again {
								break
							}
							tried.Add(1)
							require.Less(t, m, 500, "it does not come to an end")
						}
						if t.Failed() || !struck {
							break
						}
					}
				}
			})
		}
	})
	testenv.Figure(t, "%d deaths of an engine, with a second fault during the takeover", tried.Load())
}
