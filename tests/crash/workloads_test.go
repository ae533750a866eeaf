package crash_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
)

// workload is a program, and drivers for it.
type workload struct {
	name      string
	pipelines []conveyor.Pipeline
	drivers   []string            // registered in every life
	listeners map[string][]string // types by driver
	late      map[string][]string // the same, registered when the program has done everything else
	opts      conveyor.Options
	steps     map[string]rig.Func // by id; a step that is not here is done at once, with an output
	undo      rig.Func            // of all drivers, which have a Finalize if this is not nil
	early     int                 // operations before Start
	program   []operation
	ordered   bool        // the steps of a run come one after the other; if they do not, their After counts
	epilogue  []operation // in a life of its own in which nothing goes wrong, after all others
	forgets   bool        // runs are removed, although opts say nothing of it
	// vague is the step whose reason, attempts and requeues depend on when the process died.
	vague string
}

var workloads = []workload{
	{
		name: "five steps", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b", "c", "d", "e")}, drivers: []string{"a", "b", "c", "d", "e"},
		steps: map[string]rig.Func{"5": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for _, step := range []string{"1", "2", "3", "4"} {
				var output string
				if err := req.Output(step, &output); err != nil || output != "of step "+step {
					return conveyor.Done(), conveyor.Permanent(fmt.Errorf("output %q of step %s: %w", output, step, err))
				}
			}
			return conveyor.DoneWith([]int{5}), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name: "retries, then success", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(rig.PipelineOf("a", "b", "c"), 3)}, drivers: []string{"a", "b", "c"},
		steps: map[string]rig.Func{"2": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt < 3 {
				return conveyor.Done(), fmt.Errorf("attempt %d is not enough", req.Attempt)
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name: "requeues", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		steps: map[string]rig.Func{"1": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if time.Since(req.Resource.CreatedAt) < 114*time.Second { // no death is made up for in more than some seconds
				return conveyor.RequeueAfter(time.Minute), nil
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a skip and a halt", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b", "c", "d")}, drivers: []string{"a", "b", "c", "d"},
		steps: map[string]rig.Func{
			"2": rig.Always(conveyor.Skip("not needed"), nil),
			"3": rig.Always(conveyor.Halt("that is enough"), nil),
		},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a run that fails", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(rig.PipelineOf("a", "b", "c"), 2)}, drivers: []string{"a", "b", "c"},
		steps:   map[string]rig.Func{"2": rig.Always(conveyor.Done(), rig.ErrBoom)},
		program: []operation{apply("x", 1), settle, apply("x", 2)},
	},
	{
		name: "errors of several kinds, and metadata of any JSON", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(rig.PipelineOf("a", "b"), 2)}, drivers: []string{"a", "b"},
		steps: map[string]rig.Func{"2": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if string(req.Resource.MetadataJSON["deleting"]) != "true" || req.Resource.Metadata["team"] != "ci" {
				return conveyor.Done(), conveyor.Permanent(errors.New("the metadata is lost"))
			}
			return conveyor.Done(), errors.Join(conveyor.ErrInvalid, conveyor.ErrConflict, store.ErrUnknown, &conveyor.FieldError{Field: "spec.x", Problem: "is odd"})
		}},
		program: []operation{applyLabeled("x", 1, `true`), settle, applyLabeled("x", 1, `{"since":[1.0]}`), applyLabeled("x", 2, `true`)},
	},
	{
		name: "a driver that panics", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(rig.PipelineOf("a", "b"), 2)}, drivers: []string{"a", "b"},
		steps: map[string]rig.Func{"1": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt == 1 {
				panic("at the disco")
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name:      "listeners without a pipeline",
		listeners: map[string][]string{"l1": {"loose"}, "l2": {"loose"}, "l3": {"loose", "other"}},
		steps: map[string]rig.Func{
			"l1": rig.Taking(time.Second),
			"l2": rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)),
		},
		program: []operation{applyLoose("loose", "x", 1), applyLoose("other", "y", 1), applyLoose("nobody", "z", 1)},
	},
	{
		name:    "listeners that come late",
		late:    map[string][]string{"l1": {"loose"}, "l2": {"other"}},
		program: []operation{applyLoose("loose", "x", 1), applyLoose("loose", "y", 1), applyLoose("other", "z", 1)},
	},
	{
		name: "changes during a run", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b", "c")}, drivers: []string{"a", "b", "c"},
		steps:   map[string]rig.Func{"2": rig.Taking(2 * time.Second)},
		program: []operation{apply("x", 1), pause(time.Second), apply("x", 2), apply("x", 3)},
	},
	{
		name: "a queue of generations", ordered: true,
		pipelines: []conveyor.Pipeline{rig.Queueing(rig.PipelineOf("a", "b"))}, drivers: []string{"a", "b"},
		steps:   map[string]rig.Func{"2": rig.Taking(time.Second)},
		early:   2,
		program: []operation{apply("x", 1), apply("x", 2), apply("x", 3), pause(500 * time.Millisecond), apply("x", 4)},
	},
	{
		name: "steps that are planned", ordered: true,
		pipelines: []conveyor.Pipeline{rig.NewFanOut()}, drivers: []string{"d"},
		program: []operation{applying(rig.Object("x", []string{"a", "b", "c"}))},
	},
	{
		name: "one driver at two steps", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b", "a", "a")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a triggered run", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1), settle, trigger("x")},
	},
	{
		name: "a cancel during a step", ordered: true, vague: "2",
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b", "c")}, drivers: []string{"a", "b", "c"},
		steps:   map[string]rig.Func{"2": rig.Taking(time.Minute)},
		program: []operation{apply("x", 1), pause(time.Second), cancelRun("x")},
	},
	{
		name: "runs queued before the start and for a worker", ordered: true, early: 3, opts: conveyor.Options{Workers: 1},
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1), apply("y", 1), apply("x", 2), apply("z", 1)},
	},
	{
		name: "a step that logs for a while", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		steps: map[string]rig.Func{"1": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("begun")
			result, err := rig.Taking(1500*time.Millisecond)(ctx, req)
			req.Log.Info("ended", "error", err)
			return result, err
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name:      "a graph",
		pipelines: []conveyor.Pipeline{rig.GraphOf("1", "2<", "3<1", "4<1,2", "5")}, drivers: []string{"d"},
		steps: map[string]rig.Func{
			"2": rig.Taking(time.Second),
			"3": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				if req.Attempt == 1 {
					return conveyor.Done(), rig.ErrBoom
				}
				return conveyor.Done(), nil
			},
		},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a failure that is tolerated, and a cleanup", ordered: true,
		pipelines: []conveyor.Pipeline{tolerating(cleaning(retrying(rig.PipelineOf("a", "b", "c"), 2), "f"), "1")}, drivers: []string{"a", "b", "c", "f"},
		steps: map[string]rig.Func{
			"1": rig.Always(conveyor.Done(), errForGood),
			"3": rig.Always(conveyor.Done(), rig.ErrBoom),
		},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a run that is out of time, and a cleanup", ordered: true, vague: "2",
		pipelines: []conveyor.Pipeline{cleaning(limited(rig.PipelineOf("a", "b", "c")), "f")}, drivers: []string{"a", "b", "c", "f"},
		steps:   map[string]rig.Func{"2": rig.Taking(time.Hour)},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a step that awaits a signal", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b", "c")}, drivers: []string{"a", "b", "c"},
		steps:   map[string]rig.Func{"2": rig.Awaiting(0)},
		program: []operation{apply("x", 1), pause(time.Second), signalRun("x", "2")},
	},
	{
		name: "a signal that comes early", ordered: true, early: 2,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		steps:   map[string]rig.Func{"2": rig.Awaiting(0)},
		program: []operation{apply("x", 1), signalRun("x", "2")},
	},
	{
		name: "a signal that does not come", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		steps:   map[string]rig.Func{"1": rig.Awaiting(5 * time.Second)},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a resource that is deleted, and comes back", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(rig.PipelineOf("a", "b"), 2)}, drivers: []string{"a", "b"},
		undo: func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Step.ID == "2" && req.Attempt == 1 {
				return conveyor.Done(), rig.ErrBoom
			}
			return conveyor.Done(), nil
		},
		program: []operation{apply("x", 1), settle, apply("y", 1), remove("x"), settle, apply("x", 2)},
	},
	{
		name: "a resource that is deleted during its run", ordered: true, vague: "2",
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b", "c")}, drivers: []string{"a", "b", "c"},
		steps:   map[string]rig.Func{"2": rig.Taking(time.Minute)},
		undo:    rig.Always(conveyor.Done(), nil),
		program: []operation{apply("x", 1), pause(time.Second), remove("x")},
	},
	{
		name: "a resource that is deleted after its pipeline has changed", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b", "c")}, drivers: []string{"a", "b", "c", "d"},
		steps:   map[string]rig.Func{"2": rig.Always(conveyor.Done(), errForGood)},
		undo:    rig.Always(conveyor.Done(), nil),
		program: []operation{apply("x", 1), settle, save(rig.PipelineOf("d", "c")), remove("x"), settle},
	},
	{
		name: "a queued run that a deletion cancels", ordered: true, early: 2,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		undo:    rig.Always(conveyor.Done(), nil),
		program: []operation{apply("x", 1), remove("x"), settle, apply("x", 2)},
	},
	{
		name: "a newer generation that supersedes the run", ordered: true, vague: "2",
		pipelines: []conveyor.Pipeline{superseding(rig.PipelineOf("a", "b", "c"))}, drivers: []string{"a", "b", "c"},
		steps: map[string]rig.Func{"2": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if string(req.Resource.Spec) == "1" {
				return rig.Taking(time.Hour)(ctx, req)
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1), pause(time.Second), apply("x", 2)},
	},
	{
		name: "checkpoints", ordered: true, vague: "1",
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		steps:   map[string]rig.Func{"1": checkpointing(3)},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a run that is retried", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(rig.PipelineOf("a", "b", "c"), 1)}, drivers: []string{"a", "b", "c"},
		steps: map[string]rig.Func{"2": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Cause != conveyor.CauseRetried {
				return conveyor.Done(), rig.ErrBoom
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1), settle, retryRun("x")},
	},
	{
		name: "a generation that comes back", ordered: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a")}, drivers: []string{"a"},
		program: []operation{apply("x", 1), settle, apply("x", 2), settle, rollBack("x", 1)},
	},
	{
		name: "history that is not kept", ordered: true, opts: conveyor.Options{Retention: conveyor.Retention{Runs: 1, Revisions: 1}},
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1), settle, apply("x", 2), settle},
		// History is looked through after the end of a run, which comes in the middle of nowhere.
		epilogue: []operation{apply("x", 3), settle, pause(time.Minute)},
	},
	{
		name: "history that goes by age", ordered: true, opts: conveyor.Options{Retention: conveyor.Retention{Age: time.Minute}},
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		undo:     rig.Always(conveyor.Done(), nil),
		program:  []operation{apply("x", 1), settle, remove("x"), settle, apply("y", 1), settle, apply("y", 2), settle, pause(2 * time.Minute)},
		epilogue: []operation{pause(10 * time.Minute)},
	},
	{
		name: "history that goes while it is repeated", ordered: true, opts: conveyor.Options{Retention: conveyor.Retention{Runs: 1}},
		pipelines: []conveyor.Pipeline{retrying(rig.PipelineOf("a", "b", "c"), 1)}, drivers: []string{"a", "b", "c"},
		steps: map[string]rig.Func{"2": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Cause != conveyor.CauseRetried {
				return conveyor.Done(), rig.ErrBoom
			}
			return rig.Taking(time.Second)(ctx, req)
		}},
		program:  []operation{apply("x", 1), settle, retryRun("x"), settle, pause(time.Minute)},
		epilogue: []operation{pause(time.Minute)},
	},
	{
		name: "history that is pruned when the program says so", ordered: true, forgets: true,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		program:  []operation{apply("x", 1), settle, apply("x", 2), settle, apply("y", 1), settle, apply("y", 2), settle, pause(3 * time.Second), prune},
		epilogue: []operation{pause(3 * time.Second), prune}, // a shared store keeps an ended run for two leases
	},
	{
		name: "a pause in the middle of a run, and before another begins", ordered: true,
		pipelines: []conveyor.Pipeline{rig.AtMost(rig.PipelineOf("a", "b", "c"), 2)}, drivers: []string{"a", "b", "c"},
		steps: map[string]rig.Func{"1": rig.Taking(2 * time.Second)},
		program: []operation{
			apply("x", 1), pause(time.Second), stopLine("b"), apply("y", 1), pause(time.Minute), stopLine("a"), apply("y", 2), apply("z", 1), pause(time.Minute),
			goOn("b"), pause(time.Minute), goOn("a"),
		},
	},
	{
		name: "a pause that is in force before the start", ordered: true, early: 2,
		pipelines: []conveyor.Pipeline{rig.PipelineOf("a", "b")}, drivers: []string{"a", "b"},
		program: []operation{stopLine("a"), apply("x", 1), pause(time.Minute), remove("x"), settle, apply("x", 2), pause(time.Minute), goOn("a")},
	},
	{
		name: "a pipeline with room for one run", ordered: true, early: 3,
		pipelines: []conveyor.Pipeline{rig.AtMost(rig.PipelineOf("a", "b"), 1)}, drivers: []string{"a", "b"},
		steps:   map[string]rig.Func{"2": rig.Taking(time.Second)},
		program: []operation{apply("x", 1), apply("y", 1), apply("z", 1)},
	},
}

// cleaning is a pipeline with a cleanup, whose steps are "f1", "f2", ...
func cleaning(p conveyor.PipelineSpec, drivers ...string) conveyor.PipelineSpec {
	for i, d := range drivers {
		p.Finally = append(p.Finally, conveyor.Step{ID: fmt.Sprint("f", i+1), Driver: d})
	}
	return p
}

// tolerating is a pipeline that goes on when a step fails.
func tolerating(p conveyor.PipelineSpec, step string) conveyor.PipelineSpec {
	for i := range p.Steps {
		p.Steps[i].ContinueOnError = fmt.Sprint(i+1) == step
	}
	return p
}

var errForGood = conveyor.Permanent(rig.ErrBoom)

// checkpointing saves its progress n times, in two calls. It finds what was acknowledged, or what it saved last.
func checkpointing(n int) rig.Func {
	return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		from := 0
		_, err := req.Restore(&from)
		if err != nil {
			_, err = req.Restore(&from) // a store goes wrong once
		}
		if err != nil {
			return conveyor.Done(), err
		}
		w := ctx.Value(witnessKey{}).(*witness)
		w.restored(req, from)
		for i := from + 1; i <= n; i++ {
			w.saving(req, i)
			err := req.Checkpoint(ctx, i)
			if err != nil {
				err = req.Checkpoint(ctx, i)
			}
			if err != nil {
				return conveyor.Done(), err
			}
			w.saved(req, i)
			if i == n-1 {
				return conveyor.RequeueAfter(time.Second), nil
			}
		}
		return conveyor.Done(), nil
	}
}

func retrying(p conveyor.PipelineSpec, attempts int) conveyor.PipelineSpec {
	p.Retry = &conveyor.RetryPolicy{MaxAttempts: attempts, Jitter: -1}
	return p
}

// operation is one call of the program's. Until it was acknowledged, the program makes it again in its next life.
type operation func(ctx context.Context, w *world, e *conveyor.Engine) error

func apply(name string, spec int) operation { return applying(rig.Object(name, spec)) }

// applyLabeled applies a resource with metadata, of which one value is no text.
func applyLabeled(name string, spec int, deleting string) operation {
	o := rig.Object(name, spec)
	o.Metadata = map[string]string{"team": "ci"}
	o.MetadataJSON = map[string]json.RawMessage{"deleting": json.RawMessage(deleting)}
	return applying(o)
}

func applyLoose(kind, name string, spec int) operation { return applying(rig.Loose(kind, name, spec)) }

func applying(wanted *conveyor.Object) operation {
	return func(ctx context.Context, w *world, e *conveyor.Engine) error {
		o := wanted.Clone()
		if _, err := e.Apply(ctx, o); err != nil {
			return err
		}
		w.applied[o.Key()] = o
		delete(w.deleted, o.Key())
		delete(w.leaving, o.Key())
		return nil
	}
}

func pause(d time.Duration) operation {
	return func(ctx context.Context, _ *world, _ *conveyor.Engine) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// onNewestRun makes a call with the newest run of a resource, unless it shows that the call was made.
func onNewestRun(name string, made func(*conveyor.Run) bool, call func(context.Context, *conveyor.Engine, *conveyor.Run) error) operation {
	return func(ctx context.Context, _ *world, e *conveyor.Engine) error {
		filter := conveyor.RunFilter{Resource: conveyor.Key{Type: "r", Name: name}, Newest: true, Limit: 1}
		for run, err := range e.Runs(ctx, filter) {
			if err != nil || made(run) {
				return err
			}
			return call(ctx, e, run)
		}
		return errors.New("there is no run")
	}
}

// trigger makes sure that there is a triggered run.
func trigger(name string) operation {
	return onNewestRun(name, func(run *conveyor.Run) bool { return run.Cause == conveyor.CauseTriggered },
		func(ctx context.Context, e *conveyor.Engine, run *conveyor.Run) error {
			_, err := e.Trigger(ctx, run.Resource)
			return err
		})
}

// cancelRun makes sure that the newest run is canceled.
func cancelRun(name string) operation {
	return onNewestRun(name, func(run *conveyor.Run) bool { return run.State == conveyor.StateCanceled },
		func(ctx context.Context, e *conveyor.Engine, run *conveyor.Run) error {
			return e.Cancel(ctx, run.ID, "changed my mind")
		})
}

// retryRun makes sure that the newest run repeats an earlier one.
func retryRun(name string) operation {
	return onNewestRun(name, func(run *conveyor.Run) bool { return run.Cause == conveyor.CauseRetried },
		func(ctx context.Context, e *conveyor.Engine, run *conveyor.Run) error {
			_, err := e.Retry(ctx, run.ID, conveyor.RetryFrom{})
			return err
		})
}

// signalRun makes sure that the newest run got the signal that its step awaits.
func signalRun(name, step string) operation {
	return onNewestRun(name, func(run *conveyor.Run) bool {
		return run.Step(step) != nil && run.Step(step).State == conveyor.StateSucceeded
	},
		func(ctx context.Context, e *conveyor.Engine, run *conveyor.Run) error {
			return e.Signal(ctx, run.ID, "go", "it came")
		})
}

// rollBack goes back to a generation, which makes no generation the second time.
func rollBack(name string, generation int64) operation {
	return func(ctx context.Context, w *world, e *conveyor.Engine) error {
		k := conveyor.Key{Type: "r", Name: name}
		if _, err := e.Rollback(ctx, k, generation); err != nil {
			return err
		}
		o, err := e.Get(ctx, k)
		if err == nil {
			w.applied[k] = o
		}
		return err
	}
}

// stopLine pauses a driver. Until goOn, the witness sees no step of it begin.
func stopLine(driver string) operation {
	return func(ctx context.Context, w *world, e *conveyor.Engine) error {
		err := e.Pause(conveyor.As(ctx, "ada"), conveyor.Target{Driver: driver}, "freeze")
		w.witness.holds(driver, err == nil)
		return err
	}
}

// goOn makes sure that a driver is not paused.
func goOn(driver string) operation {
	return func(ctx context.Context, w *world, e *conveyor.Engine) error {
		w.witness.holds(driver, false)
		if err := e.Resume(ctx, conveyor.Target{Driver: driver}); !errors.Is(err, conveyor.ErrNotFound) {
			return err
		}
		return nil
	}
}

// save saves a pipeline in the middle of the program. The next life begins with the pipelines of the workload.
func save(p conveyor.Pipeline) operation {
	return func(ctx context.Context, _ *world, e *conveyor.Engine) error { return e.SavePipeline(ctx, p) }
}

// remove makes sure that a resource is being deleted, or gone.
func remove(name string) operation {
	return func(ctx context.Context, w *world, e *conveyor.Engine) error {
		k := conveyor.Key{Type: "r", Name: name}
		w.leaving[k] = true
		if _, err := e.Delete(ctx, k); err != nil && !errors.Is(err, conveyor.ErrNotFound) {
			return err
		}
		if o := w.applied[k]; o != nil {
			w.deleted[k] = o.ID
		}
		delete(w.applied, k)
		return nil
	}
}

// prune keeps the newest run and the newest generation.
func prune(ctx context.Context, _ *world, e *conveyor.Engine) error {
	_, err := e.Prune(ctx, conveyor.PruneOptions{Retention: conveyor.Retention{Runs: 1, Revisions: 1}})
	return err
}

// settle waits until every run has ended.
func settle(ctx context.Context, _ *world, e *conveyor.Engine) error {
	for run, err := range e.Runs(ctx, conveyor.RunFilter{Unfinished: true}) {
		if err == nil {
			_, err = e.Wait(ctx, run.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
