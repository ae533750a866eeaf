package engines_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
)

// crossing is the way of a process to the store on which somebody else comes between: the calls are counted, and at one of them another
// process does something, before the call or when it is done and not yet answered.
type crossing struct {
	line
	at    int  // the call, counted from 1
	after bool // when it is done
	do    func()

	mu    sync.Mutex // guards what follows; not held while do is called
	calls int        // since the count began
	armed bool
	what  string // the call that was met
}

// meet counts a call. It returns what is to be done when the call is done.
func (c *crossing) meet(what string) (done func()) {
	c.mu.Lock()
	hit := false
	if c.armed {
		c.calls++
		if hit = c.calls == c.at; hit {
			c.what = what
		}
	}
	c.mu.Unlock()
	switch {
	case !hit:
		return func() {}
	case c.after:
		return c.do
	}
	c.do()
	return func() {}
}

func (c *crossing) arm(armed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = armed
}

// met returns the call at which something was done. It is empty if there was none.
func (c *crossing) met() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.what
}

func (c *crossing) Get(ctx context.Context, key string) (store.Record, error) {
	defer c.meet("Get " + key)()
	return c.line.Get(ctx, key)
}

func (c *crossing) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		done := c.meet("List " + q.Prefix)
		var found []store.Record
		var failed error
		for r, err := range c.line.List(ctx, q) {
			if failed = err; err != nil {
				break
			}
			found = append(found, r)
		}
		done()
		for _, r := range found {
			if !yield(r, nil) {
				return
			}
		}
		if failed != nil {
			yield(store.Record{}, failed)
		}
	}
}

func (c *crossing) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if len(ops) > 0 && strings.HasPrefix(ops[0].Key(), "~hbt/") {
		return c.line.Commit(ctx, ops...)
	}
	var keys []string
	for _, op := range ops {
		keys = append(keys, op.Key())
	}
	defer c.meet(fmt.Sprint("Commit ", keys))()
	return c.line.Commit(ctx, ops...)
}

// passage is what a run goes through while somebody else comes between.
type passage struct {
	name                 string
	watched, other, dead map[string]rig.Func // the drivers of the process whose calls are counted, of the other one, and of one that is killed; nil if there is none
	by                   string              // who applies the resource
	steps                []string            // the drivers; "s" awaits a signal
	shutDown             bool                // the watched process is shut down when the run waits
}

var passages = []passage{
	{name: "begin, wait and end", watched: map[string]rig.Func{"a": quick, "s": rig.Awaiting(0)}, by: "watched", steps: []string{"a", "s", "a"}},
	{name: "a step that is requeued", watched: map[string]rig.Func{"a": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if time.Since(req.Resource.CreatedAt) < lease/2 {
			return conveyor.RequeueAfter(lease / 2), nil
		}
		return conveyor.Done(), nil
	}, "s": rig.Awaiting(0)}, by: "watched", steps: []string{"a", "s"}},
	{name: "claim", watched: map[string]rig.Func{"a": quick, "s": rig.Awaiting(0)}, by: "other", steps: []string{"s", "a"}},
	{name: "release and claim", watched: map[string]rig.Func{"a": quick}, other: map[string]rig.Func{"s": rig.Awaiting(0)}, by: "watched", steps: []string{"a", "s", "a"}},
	{name: "claim and release", watched: map[string]rig.Func{"s": rig.Awaiting(0)}, other: map[string]rig.Func{"a": quick}, by: "other", steps: []string{"a", "s", "a"}},
	{name: "takeover of a step at work", watched: map[string]rig.Func{"a": quick, "s": rig.Awaiting(0)}, dead: map[string]rig.Func{"a": rig.Taking(long)}, by: "dead", steps: []string{"a", "s"}},
	{name: "takeover of a wait", watched: map[string]rig.Func{"a": quick, "s": rig.Awaiting(0)}, dead: map[string]rig.Func{"s": rig.Awaiting(0)}, by: "dead", steps: []string{"s", "a"}},
	{name: "takeover, and release", watched: map[string]rig.Func{"b": quick}, other: map[string]rig.Func{"s": rig.Awaiting(0)}, dead: map[string]rig.Func{"s": rig.Awaiting(0)}, by: "dead", steps: []string{"s", "b"}},
	{name: "shutdown", watched: map[string]rig.Func{"a": quick, "s": rig.Awaiting(0)}, other: map[string]rig.Func{"a": quick, "s": rig.Awaiting(0)}, by: "watched", steps: []string{"a", "s", "a"}, shutDown: true},
}

// request is what another process asks of the run.
type request struct {
	name  string
	early bool // the signal that the run awaits is sent at the beginning
	ask   func(ctx context.Context, p *process, run string) error
	// ended tells whether the run has ended as it must, if the request was accepted.
	ended func(t *testing.T, run *conveyor.Run)
}

var asked = []request{
	{
		name:  "Signal",
		ask:   func(ctx context.Context, p *process, run string) error { return p.Signal(ctx, run, "go", "yes") },
		ended: succeededWith("yes"),
	},
	{
		name: "Signal that nobody awaits", early: true,
		ask:   func(ctx context.Context, p *process, run string) error { return p.Signal(ctx, run, "another", "no") },
		ended: succeededWith("early"),
	},
	{
		name:  "Cancel",
		ask:   func(ctx context.Context, p *process, run string) error { return p.Cancel(ctx, run, "enough") },
		ended: isCanceled,
	},
	{
		name: "Cancel of a run that has its signal", early: true,
		ask:   func(ctx context.Context, p *process, run string) error { return p.Cancel(ctx, run, "enough") },
		ended: isCanceled,
	},
}

func succeededWith(payload string) func(t *testing.T, run *conveyor.Run) {
	return func(t *testing.T, run *conveyor.Run) {
		require.NoError(t, run.Err())
		for _, step := range run.Steps {
			if step.Driver == "s" {
				require.Equal(t, string(rig.JSON(payload)), string(step.Output))
			}
		}
	}
}

func isCanceled(t *testing.T, run *conveyor.Run) {
	require.Equal(t, conveyor.StateCanceled, run.State, run.Reason)
}

// cross has somebody ask something of a run on its passage, at a call of the store of the watched process, before or after it. It reports
// whether there was such a call.
func cross(t *testing.T, p passage, ask request, at int, after bool) (struck bool) {
	inWorld(t, func(t *testing.T, w *world) {
		var other *process
		var accepted atomic.Bool
		c := &crossing{at: at, after: after}
		c.do = func() {
			run := w.onlyRun()
			if run == "" {
				return // there is nothing yet of which to ask something
			}
			err := ask.ask(context.Background(), other, run)
			accepted.Store(err == nil)
			if err != nil && !(errors.Is(err, conveyor.ErrConflict) && w.hasEnded(run)) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.blame("%s: %v", ask.name, err)
			}
		}
		defer func() {
			if t.Failed() {
				t.Logf("with %s at call %d, %s, after it: %v", ask.name, at, c.met(), after)
			}
		}()
		watched := &process{disk: w.disk.Join(), w: w, name: "watched"}
		c.line = line{watched}
		e, err := conveyor.New(c, conveyor.Options{Lease: lease, Name: watched.name})
		require.NoError(t, err)
		watched.Engine = e
		for id, answer := range p.watched {
			require.NoError(t, e.Register(id, rig.DriverOf(w.around(watched, answer))))
		}
		require.NoError(t, e.Start(t.Context()))
		t.Cleanup(func() { require.NoError(t, watched.stop()) })
		other = w.begin("other", p.other)
		of := map[string]*process{"watched": watched, "other": other}
		if p.dead != nil {
			of["dead"] = w.start("dead", conveyor.Options{}, p.dead, nil)
		}
		time.Sleep(3 * lease)
		other.mustSave(rig.PipelineOf(p.steps...))
		time.Sleep(3 * lease)

		c.arm(p.dead == nil)
		run := of[p.by].mustApply(rig.Object("x", 1)).ID
		if ask.early {
			if err := other.Signal(t.Context(), run, "go", "early"); err != nil {
				require.ErrorIs(t, err, conveyor.ErrConflict)
				require.True(t, w.hasEnded(run), err)
			}
		}
		if p.dead != nil {
			synctest.Wait()
			c.arm(true)
			of["dead"].kill()
			require.NoError(t, of["dead"].stop())
			time.Sleep(2 * lease)
		}
		time.Sleep(2 * lease)
		if p.shutDown {
			require.NoError(t, watched.stop())
			time.Sleep(2 * lease)
		}
		c.arm(false)
		struck = c.met() != ""
		if !accepted.Load() && !ask.early {
			_ = other.Signal(t.Context(), run, "go", "yes") // it is let go
		}
		ended := untilEnded(t, other.Engine, run, 10*lease)
		switch {
		case accepted.Load():
			ask.ended(t, ended)
		case ask.early:
			require.NoError(t, ended.Err())
		}
		rig.RequireAtRest(t, w.disk)
		time.Sleep(2 * lease)
		for key := range w.records() {
			require.NotRegexp(t, "^~(own|ask|rdy|slt|act|sig)/", key, "left when all is done")
		}
	})
	return struck
}

// onlyRun returns the run that is on record.
func (w *world) onlyRun() string {
	for r := range w.disk.List(context.Background(), store.Query{Prefix: "run/"}) {
		return strings.TrimPrefix(r.Key, "run/")
	}
	return ""
}

// hasEnded reports whether a run is over.
func (w *world) hasEnded(run string) bool {
	_, err := w.disk.Get(context.Background(), "~act/"+run)
	return err != nil
}

// TestEngines09ARequestAtEveryCallOfTheStore has another process send a signal to a run, or cancel it, just before and just after each
// call of the store that an engine makes while it begins, claims, takes over, releases and ends the run, and while the run waits. What was
// accepted must come about.
func TestEngines09ARequestAtEveryCallOfTheStore(t *testing.T) {
	var tried atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, p := range passages {
			for _, ask := range asked {
				t.Run(p.name+"/"+ask.name, func(t *testing.T) {
					t.Parallel()
					for _, after := range []bool{false, true} {
						first, stride := places(t, 24, p.name, ask.name, after)
						for n := first; ; n += stride {
							if struck := cross(t, p, ask, n, after); t.Failed() || !struck {
								break
							}
							tried.Add(1)
							require.Less(t, n, 1000, "it does not come to an end")
						}
					}
				})
			}
		}
	})
	testenv.Figure(t, "%d requests just before and just after calls of the store by the engine that has the run, all of them carried out", tried.Load())
}
