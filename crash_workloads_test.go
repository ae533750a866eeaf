package conveyor_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor"
)

// workload is a program, and drivers for it.
type workload struct {
	name      string
	pipelines []conveyor.Pipeline
	drivers   []string            // registered in every life
	listeners map[string][]string // types by driver
	late      map[string][]string // the same, registered when the program has done everything else
	workers   int
	steps     map[string]driverFunc // by id; a step that is not here is done at once, with an output
	early     int                   // operations before Start
	program   []operation
	ordered   bool // the steps of a run come one after the other
	// vague is the step whose reason and attempts depend on when the process died.
	vague string
}

var workloads = []workload{
	{
		name: "five steps", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "c", "d", "e")}, drivers: []string{"a", "b", "c", "d", "e"},
		steps: map[string]driverFunc{"5": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
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
		pipelines: []conveyor.Pipeline{retrying(pipelineOf("a", "b", "c"), 3)}, drivers: []string{"a", "b", "c"},
		steps: map[string]driverFunc{"2": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt < 3 {
				return conveyor.Done(), fmt.Errorf("attempt %d is not enough", req.Attempt)
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name: "requeues", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b")}, drivers: []string{"a", "b"},
		steps: map[string]driverFunc{"1": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if time.Since(req.Resource.CreatedAt) < 2*time.Second {
				return conveyor.RequeueAfter(time.Second), nil
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a skip and a halt", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "c", "d")}, drivers: []string{"a", "b", "c", "d"},
		steps: map[string]driverFunc{
			"2": always(conveyor.Skip("not needed"), nil),
			"3": always(conveyor.Halt("that is enough"), nil),
		},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a run that fails", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(pipelineOf("a", "b", "c"), 2)}, drivers: []string{"a", "b", "c"},
		steps:   map[string]driverFunc{"2": always(conveyor.Done(), errBoom)},
		program: []operation{apply("x", 1), settle, apply("x", 2)},
	},
	{
		name: "a driver that panics", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(pipelineOf("a", "b"), 2)}, drivers: []string{"a", "b"},
		steps: map[string]driverFunc{"1": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
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
		steps: map[string]driverFunc{
			"l1": taking(time.Second),
			"l2": always(conveyor.Done(), conveyor.Permanent(errBoom)),
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
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "c")}, drivers: []string{"a", "b", "c"},
		steps:   map[string]driverFunc{"2": taking(2 * time.Second)},
		program: []operation{apply("x", 1), pause(time.Second), apply("x", 2), apply("x", 3)},
	},
	{
		name: "a queue of generations", ordered: true,
		pipelines: []conveyor.Pipeline{queueing(pipelineOf("a", "b"))}, drivers: []string{"a", "b"},
		steps:   map[string]driverFunc{"2": taking(time.Second)},
		early:   2,
		program: []operation{apply("x", 1), apply("x", 2), apply("x", 3), pause(500 * time.Millisecond), apply("x", 4)},
	},
	{
		name: "steps that are planned", ordered: true,
		pipelines: []conveyor.Pipeline{newFanOut()}, drivers: []string{"d"},
		program: []operation{applying(object("x", []string{"a", "b", "c"}))},
	},
	{
		name: "one driver at two steps", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "a", "a")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a triggered run", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1), settle, trigger("x")},
	},
	{
		name: "a cancel during a step", ordered: true, vague: "2",
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "c")}, drivers: []string{"a", "b", "c"},
		steps:   map[string]driverFunc{"2": taking(time.Minute)},
		program: []operation{apply("x", 1), pause(time.Second), cancelRun("x")},
	},
	{
		name: "runs queued before the start and for a worker", ordered: true, workers: 1, early: 3,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1), apply("y", 1), apply("x", 2), apply("z", 1)},
	},
	{
		name: "a step that logs for a while", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b")}, drivers: []string{"a", "b"},
		steps: map[string]driverFunc{"1": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("begun")
			result, err := taking(1500*time.Millisecond)(ctx, req)
			req.Log.Info("ended", "error", err)
			return result, err
		}},
		program: []operation{apply("x", 1)},
	},
}

func retrying(p conveyor.PipelineSpec, attempts int) conveyor.PipelineSpec {
	p.Retry = &conveyor.RetryPolicy{MaxAttempts: attempts, Jitter: -1}
	return p
}

// operation is one call of the program's. Until it was acknowledged, the program makes it again in its next life.
type operation func(ctx context.Context, w *world, e *conveyor.Engine) error

func apply(name string, spec int) operation { return applying(object(name, spec)) }

func applyLoose(kind, name string, spec int) operation { return applying(loose(kind, name, spec)) }

func applying(wanted *conveyor.Object) operation {
	return func(ctx context.Context, w *world, e *conveyor.Engine) error {
		o := wanted.Clone()
		if _, err := e.Apply(ctx, o); err != nil {
			return err
		}
		w.applied[o.Key()] = o
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

// trigger makes sure that there is a triggered run.
func trigger(name string) operation {
	return func(ctx context.Context, _ *world, e *conveyor.Engine) error {
		k := conveyor.Key{Type: "r", Name: name}
		for run, err := range e.Runs(ctx, conveyor.RunFilter{Resource: k, Newest: true, Limit: 1}) {
			if err != nil || run.Cause == conveyor.CauseTriggered {
				return err
			}
		}
		_, err := e.Trigger(ctx, k)
		return err
	}
}

// cancelRun makes sure that the newest run is canceled.
func cancelRun(name string) operation {
	return func(ctx context.Context, _ *world, e *conveyor.Engine) error {
		for run, err := range e.Runs(ctx, conveyor.RunFilter{Resource: conveyor.Key{Type: "r", Name: name}, Newest: true, Limit: 1}) {
			if err != nil || run.State == conveyor.StateCanceled {
				return err
			}
			return e.Cancel(ctx, run.ID, "changed my mind")
		}
		return errors.New("there is no run")
	}
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
