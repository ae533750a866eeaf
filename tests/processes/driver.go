package processes

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor"
)

// The drivers, and the type without a pipeline.
const (
	anyStep    = "worker"
	ear1, ear2 = "ear1", "ear2"
	loose      = "loose"
)

// AllDrivers are the drivers of the pipelines of a world, but for those of the docker pipeline.
var AllDrivers = []string{anyStep, ear1, ear2}

// DockerDrivers are the drivers of the docker pipeline, in the order of its steps.
var DockerDrivers = []string{"git-cloner", "test-runner", "builder", "image-generator", "image-pusher"}

// Docker is the kind of resources that go along the docker pipeline.
const Docker = "docker-resource"

// AllKinds are the kinds of resources that clients apply, but for [Docker].
var AllKinds = []string{"line", "line", "ask", "graph", "limited", "replace", loose}

// maxLimited bounds the runs of pipeline "limited" that are under way.
const maxLimited = 2

// pipelines returns the pipeline of each kind that has one. Kind and pipeline have the same name.
func pipelines() (all []conveyor.PipelineSpec) {
	of := func(name string, steps ...string) conveyor.PipelineSpec {
		p := conveyor.PipelineSpec{Name: name, Resource: name}
		for _, id := range steps {
			p.Steps = append(p.Steps, conveyor.Step{ID: id, Driver: anyStep})
		}
		return p
	}
	graph := of("graph", "a", "b", "c", "d")
	graph.Steps[1].After, graph.Steps[2].After, graph.Steps[3].After = []string{"a"}, []string{"a"}, []string{"b", "c"}
	limited := of("limited", "a", "b")
	limited.MaxRuns = maxLimited
	replace := of("replace", "a", "save", "c")
	replace.OnChange = conveyor.Supersede
	docker := of(Docker, "1", "2", "3", "4", "5")
	for i, name := range DockerDrivers {
		docker.Steps[i].Driver = name
	}
	return []conveyor.PipelineSpec{of("line", "a", "save", "c"), of("ask", "a", "ask", "c"), graph, limited, replace, docker}
}

// precedes lists the steps that must be done before a step begins.
func precedes(kind, step string) []string {
	if kind == "graph" {
		return map[string][]string{"b": {"a"}, "c": {"a"}, "d": {"b", "c"}}[step]
	}
	for _, p := range pipelines() {
		if p.Name != kind {
			continue
		}
		var before []string
		for _, s := range p.Steps {
			if s.ID == step {
				return before
			}
			before = append(before, s.ID)
		}
	}
	return nil
}

// errNoOutput is why a step fails that does not get what a step before it has returned. It must not.
const errNoOutput = "no output"

// errTransient is why attempts fail that are repeated.
var errTransient = errors.New("it does so now and then")

// worker is the driver of all steps. What it does depends on the idempotency key, so that it is the same in every process. It returns
// soon when its context ends.
type worker struct{ *life }

// progress is a checkpoint, and the payload of a log line: who has written it, and how far the step was.
type progress struct{ Token, Call, N int64 }

// steps of progress that the step "save" makes, each of which takes some time.
const (
	saves    = 8
	saveTime = 25 * time.Millisecond
)

// Reconcile implements [conveyor.Driver].
func (w *worker) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return w.call(ctx, req, w.answer)
}

// Finalize implements [conveyor.Finalizer].
func (w *worker) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return w.call(ctx, req, func(context.Context, *conveyor.Request, int64, func(string, int64)) (string, conveyor.Result, error) {
		return "done", conveyor.Done(), nil
	})
}

// answer is what a driver does. It returns how the call has ended, for the journal, beside the answer.
type answer = func(ctx context.Context, req *conveyor.Request, call int64, note func(what string, n int64)) (string, conveyor.Result, error)

func (w *worker) call(ctx context.Context, req *conveyor.Request, do answer) (conveyor.Result, error) {
	id := w.calls.Add(1)
	note := func(what string, n int64) {
		w.note(entry{
			What: what, Call: id, Resource: req.Resource.Key().String(), Run: req.Run, Step: req.Step.ID, Idem: req.IdempotencyKey(),
			Attempt: req.Attempt, Token: req.Token(), Resumed: req.Resumed, Undo: req.Kind == conveyor.CallFinalize, N: n,
		})
	}
	note("begin", 0)
	ended, result, err := do(ctx, req, id, note)
	if ctx.Err() != nil {
		ended, result, err = "cut", conveyor.Result{}, context.Cause(ctx)
	}
	note(ended, 0)
	return result, err
}

func (w *worker) answer(ctx context.Context, req *conveyor.Request, call int64, note func(string, int64)) (string, conveyor.Result, error) {
	luck := luckOf(req.IdempotencyKey())
	pass(ctx, time.Duration(luck%20)*time.Millisecond)
	for _, before := range precedes(req.Resource.Type, req.Step.ID) {
		var by progress
		if err := req.Output(before, &by); err != nil || by.Token == 0 {
			return "fail", conveyor.Result{}, conveyor.Permanent(fmt.Errorf("%s: %w: %+v", errNoOutput, err, by))
		}
	}
	switch req.Step.ID {
	case "save":
		return w.save(ctx, req, call, note)
	case "ask":
		return w.ask(ctx, req)
	}
	switch n := luck >> 8 % 32; {
	case n == 0:
		return "fail", conveyor.Result{}, conveyor.Permanent(errTransient)
	case n <= 4 && req.Attempt == 1:
		return "fail", conveyor.Result{}, errTransient
	case n <= 6:
		var before bool
		if _, err := req.Restore(&before); err != nil || !before {
			if err := errors.Join(err, req.Checkpoint(ctx, true)); err != nil {
				return "fail", conveyor.Result{}, err
			}
			return "requeue", conveyor.RequeueAfter(20 * time.Millisecond), nil
		}
	}
	return "done", conveyor.DoneWith(progress{Token: req.Token()}), nil
}

// save makes progress, keeps it in a checkpoint, and logs it.
func (w *worker) save(ctx context.Context, req *conveyor.Request, call int64, note func(string, int64)) (string, conveyor.Result, error) {
	at := progress{Token: req.Token(), Call: call}
	var before progress
	if _, err := req.Restore(&before); err != nil {
		return "fail", conveyor.Result{}, err
	}
	note("restored", before.N)
	for at.N = before.N; at.N < saves; {
		pass(ctx, saveTime)
		req.Log.Info("saving", "token", at.Token, "call", at.Call, "n", at.N+1)
		at.N++
		if err := req.Checkpoint(ctx, at); err != nil {
			return "fail", conveyor.Result{}, err
		}
		note("saved", at.N)
	}
	return "done", conveyor.DoneWith(at), nil
}

// taken is the checkpoint of the step "ask", and its output: the signals that it has taken.
type taken struct {
	Token   int64
	Signals []int64
}

// ask takes two signals. What it has taken is in its checkpoint, so that one that comes again is known.
func (w *worker) ask(ctx context.Context, req *conveyor.Request) (string, conveyor.Result, error) {
	var have taken
	if _, err := req.Restore(&have); err != nil {
		return "fail", conveyor.Result{}, err
	}
	have.Token = req.Token()
	var n int64
	got, err := req.Signal(&n)
	if err != nil {
		return "fail", conveyor.Result{}, err
	}
	if got && !slices.Contains(have.Signals, n) {
		have.Signals = append(have.Signals, n)
		if err := req.Checkpoint(ctx, have); err != nil {
			return "fail", conveyor.Result{}, err
		}
	}
	if len(have.Signals) < 2 {
		return "await", conveyor.Await("go", 0), nil
	}
	return "done", conveyor.DoneWith(have), nil
}

// pass lets time pass, less if the context ends.
func pass(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func luckOf(key string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, key)
	return rand.New(rand.NewPCG(h.Sum64(), 0)).Uint64()
}
