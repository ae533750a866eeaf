package conveyor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Build is the resource of the examples.
type Build struct {
	conveyor.Meta
	Spec BuildSpec `json:"spec"`
}

// BuildSpec is what a Build wants.
type BuildSpec struct {
	Repository string `json:"repository"`
}

// newBuild returns a build that wants to go along the pipeline "ci".
func newBuild(name, repository string) *Build {
	return &Build{
		Meta: conveyor.Meta{Name: name, Type: "build", Pipeline: "ci"},
		Spec: BuildSpec{Repository: repository},
	}
}

// startEngine starts an engine with the pipeline "ci" for builds: a step for each of these drivers, in order.
func startEngine(drivers ...conveyor.DriverFunc) *conveyor.Engine {
	// Retries come quickly, so that the examples do.
	retry := conveyor.RetryPolicy{Initial: conveyor.Duration(time.Millisecond), Jitter: -1}
	engine, err := conveyor.New(memory.New(), conveyor.Options{Retry: retry})
	check(err)
	ci := conveyor.PipelineSpec{Name: "ci", Resource: "build"}
	for i, d := range drivers {
		name := fmt.Sprintf("driver-%d", i+1)
		check(engine.Register(name, d))
		ci.Steps = append(ci.Steps, conveyor.Step{Driver: name})
	}
	if len(drivers) > 0 {
		check(engine.SavePipeline(context.Background(), ci))
	}
	check(engine.Start(context.Background()))
	return engine
}

// runOnce applies a resource, waits for its run, and shuts the engine down.
func runOnce(engine *conveyor.Engine, r conveyor.Resource) *conveyor.Run {
	ctx := context.Background()
	run, err := engine.Apply(ctx, r)
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	check(engine.Shutdown(ctx))
	return run
}

// say is a driver that prints something.
func say(text string) conveyor.DriverFunc {
	return func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		fmt.Println(text)
		return conveyor.Done(), nil
	}
}

// quiet is a driver that has nothing to do.
func quiet(context.Context, *conveyor.Request) (conveyor.Result, error) { return conveyor.Done(), nil }

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func Example() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	check(engine.Register("git-cloner", say("clone")))
	check(engine.Register("test-runner", say("test")))
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{
		Name: "ci", Resource: "build",
		Steps: []conveyor.Step{{Driver: "git-cloner"}, {Driver: "test-runner"}},
	}))
	check(engine.Start(ctx))

	run, err := engine.Apply(ctx, newBuild("app", "https://example.com/app.git"))
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State)
	check(engine.Shutdown(ctx))
	// Output:
	// clone
	// test
	// succeeded
}

func ExampleNew() {
	engine, err := conveyor.New(memory.New(), conveyor.Options{Workers: 4, StepTimeout: time.Hour})
	check(err)
	stats, err := engine.Stats(context.Background())
	check(err)
	fmt.Println(stats.Workers, "workers")

	// Every bad option is reported.
	_, err = conveyor.New(memory.New(), conveyor.Options{Workers: -1, StepTimeout: -time.Second})
	fmt.Println(err)
	// Output:
	// 4 workers
	// conveyor: invalid: Workers: -1 is not between 0 and 1048576
	// conveyor: invalid: StepTimeout: -1s is negative
}

func ExampleParsePipeline() {
	p, err := conveyor.ParsePipeline(strings.NewReader(`{
		"name": "ci",
		"resource": "build",
		"steps": [
			{"driver": "git-cloner"},
			{"id": "test", "driver": "test-runner", "timeout": "10m"}
		]
	}`))
	check(err)
	for _, step := range p.Steps {
		fmt.Println(step.ID, step.Driver, step.Timeout)
	}

	_, err = conveyor.ParsePipeline(strings.NewReader(`{"name": "ci", "resource": "build", "steps": [{"Driver": "git-cloner"}]}`))
	fmt.Println(err)
	// Output:
	// 1 git-cloner 0s
	// test test-runner 10m0s
	// conveyor: invalid: line 1, column 48: steps[0].Driver: unknown field; did you mean "driver"? Case matters
}

func ExampleParseResource() {
	o, err := conveyor.ParseResource(strings.NewReader(`{
		"name": "app",
		"resource": "build",
		"pipeline": "ci",
		"spec": {"repository": "https://example.com/app.git"}
	}`))
	check(err)
	fmt.Println(o.Key(), o.Pipeline)
	fmt.Println(string(o.Spec))
	// Output:
	// build/app ci
	// {"repository": "https://example.com/app.git"}
}

func ExamplePipelineSpec_Validate() {
	p := conveyor.PipelineSpec{
		Name: "ci", Resource: "build",
		Steps: []conveyor.Step{{ID: "test", Driver: "unit-tests"}, {ID: "test", Driver: "all tests"}},
	}
	fmt.Println(p.Validate())
	// Output:
	// conveyor: invalid: steps[1].driver: "all tests" has a character other than letters, digits, '.', '_' and '-'
	// conveyor: invalid: steps[1].id: "test" is the id of steps[0] too
}

func ExampleFor() {
	cloner := conveyor.For(func(ctx context.Context, req *conveyor.Request, build *Build) (conveyor.Result, error) {
		fmt.Println("clone", build.Spec.Repository)
		return conveyor.Done(), nil
	})
	engine := startEngine(cloner.Reconcile)
	runOnce(engine, newBuild("app", "https://example.com/app.git"))
	// Output: clone https://example.com/app.git
}

func ExampleDriverFunc() {
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	check(engine.Register("hello", conveyor.DriverFunc(
		func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			fmt.Println("hello,", req.Resource.Name)
			return conveyor.Done(), nil
		}), conveyor.Listen("greeting")))
	check(engine.Start(context.Background()))
	runOnce(engine, &conveyor.Object{Meta: conveyor.Meta{Name: "world", Type: "greeting"}})
	// Output: hello, world
}

func ExampleEngine_Register() {
	engine := startEngine()
	defer engine.Shutdown(context.Background())
	check(engine.Register("git-cloner", say("clone"),
		conveyor.Concurrency(4),
		conveyor.Timeout(10*time.Minute),
		conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 5})))

	err := engine.Register("git-cloner", say("clone"))
	fmt.Println(errors.Is(err, conveyor.ErrExists))
	// Output: true
}

func ExampleListen() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	check(engine.Register("mailer", conveyor.DriverFunc(quiet), conveyor.Listen("account")))
	check(engine.Register("auditor", conveyor.DriverFunc(quiet), conveyor.Listen("account", "invoice")))
	check(engine.Start(ctx))

	// The account names no pipeline, so every driver that listens to accounts is called, all at once.
	run := runOnce(engine, &conveyor.Object{Meta: conveyor.Meta{Name: "jo", Type: "account"}})
	for _, step := range run.Steps {
		fmt.Println(step.Driver, step.State)
	}
	// Output:
	// auditor succeeded
	// mailer succeeded
}

func ExampleConcurrency() {
	ctx := context.Background()
	engine := startEngine()
	var mu sync.Mutex
	atOnce, most := 0, 0
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		atOnce += n
		most = max(most, atOnce)
	}
	check(engine.Register("compiler", conveyor.DriverFunc(
		func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			count(1)
			defer count(-1)
			return conveyor.Done(), nil
		}), conveyor.Listen("program"), conveyor.Concurrency(1)))

	var runs []string
	for _, name := range []string{"a", "b", "c"} {
		run, err := engine.Apply(ctx, &conveyor.Object{Meta: conveyor.Meta{Name: name, Type: "program"}})
		check(err)
		runs = append(runs, run.ID)
	}
	for _, id := range runs {
		_, err := engine.Wait(ctx, id)
		check(err)
	}
	check(engine.Shutdown(ctx))
	fmt.Println("at most", most, "at once")
	// Output: at most 1 at once
}

func ExampleTimeout() {
	engine := startEngine()
	check(engine.Register("sleeper", conveyor.DriverFunc(
		func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			<-ctx.Done()
			return conveyor.Result{}, context.Cause(ctx)
		}),
		conveyor.Listen("nap"), conveyor.Timeout(time.Millisecond), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 1})))
	run := runOnce(engine, &conveyor.Object{Meta: conveyor.Meta{Name: "a", Type: "nap"}})
	fmt.Println(run.State, errors.Is(run.Err(), conveyor.ErrTimeout))
	fmt.Println(run.Steps[0].Reason)
	// Output:
	// failed true
	// conveyor: timed out: the attempt took longer than 1ms
}

func ExampleRetry() {
	engine := startEngine()
	check(engine.Register("flaky", conveyor.DriverFunc(
		func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			fmt.Println("attempt", req.Attempt)
			if req.Attempt < 3 {
				return conveyor.Result{}, errors.New("the network is down")
			}
			return conveyor.Done(), nil
		}),
		conveyor.Listen("upload"),
		conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 5, Initial: conveyor.Duration(time.Millisecond)})))
	run := runOnce(engine, &conveyor.Object{Meta: conveyor.Meta{Name: "a", Type: "upload"}})
	fmt.Println(run.State)
	// Output:
	// attempt 1
	// attempt 2
	// attempt 3
	// succeeded
}

func ExampleEngine_SavePipeline() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	ci := conveyor.PipelineSpec{Name: "ci", Resource: "build", Steps: []conveyor.Step{{Driver: "git-cloner"}}}
	fmt.Println(engine.SavePipeline(ctx, ci))
	ci.Steps = nil
	fmt.Println(engine.SavePipeline(ctx, ci))
	// Output:
	// <nil>
	// pipeline "ci": conveyor: invalid: steps: has none; a pipeline needs at least one
}

func ExampleEngine_GetPipeline() {
	ctx := context.Background()
	engine := startEngine(quiet, quiet)
	defer engine.Shutdown(ctx)
	ci, err := engine.GetPipeline(ctx, "ci")
	check(err)
	fmt.Println(ci.Name, "has", len(ci.Steps), "steps")
	_, err = engine.GetPipeline(ctx, "cd")
	fmt.Println(errors.Is(err, conveyor.ErrNotFound))
	// Output:
	// ci has 2 steps
	// true
}

func ExampleEngine_Pipelines() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	for _, name := range []string{"nightly", "ci"} {
		check(engine.SavePipeline(ctx, conveyor.PipelineSpec{Name: name, Resource: "build", Steps: []conveyor.Step{{Driver: "git-cloner"}}}))
	}
	for p, err := range engine.Pipelines(ctx) {
		check(err)
		fmt.Println(p.Name)
	}
	// Output:
	// ci
	// nightly
}

func ExampleEngine_DeletePipeline() {
	ctx := context.Background()
	engine := startEngine(quiet)
	defer engine.Shutdown(ctx)
	fmt.Println(engine.DeletePipeline(ctx, "ci"))
	fmt.Println(engine.DeletePipeline(ctx, "ci"))
	// Output:
	// <nil>
	// conveyor: not found: pipeline "ci"
}

func ExampleEngine_Start() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	check(engine.Register("hello", say("hello"), conveyor.Listen("greeting")))

	// What is applied before Start is on record, and begins with it.
	run, err := engine.Apply(ctx, &conveyor.Object{Meta: conveyor.Meta{Name: "a", Type: "greeting"}})
	check(err)
	fmt.Println(run.State)
	check(engine.Start(ctx))
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State)
	check(engine.Shutdown(ctx))
	// Output:
	// queued
	// hello
	// succeeded
}

func ExampleEngine_Shutdown() {
	engine := startEngine(quiet)
	// Attempts under way get ten seconds.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println(engine.Shutdown(ctx))
	_, err := engine.Apply(ctx, newBuild("app", ""))
	fmt.Println(err)
	// Output:
	// <nil>
	// conveyor: closed
}

func ExampleEngine_Prune() {
	ctx := context.Background()
	engine := startEngine(quiet)
	defer engine.Shutdown(ctx)
	build := newBuild("app", "")
	for _, build.Spec.Repository = range []string{"first", "second", "third"} {
		run, err := engine.Apply(ctx, build)
		check(err)
		_, err = engine.Wait(ctx, run.ID)
		check(err)
	}
	pruned, err := engine.Prune(ctx, conveyor.PruneOptions{
		Retention: conveyor.Retention{Runs: 1, Revisions: 2},
	})
	check(err)
	fmt.Println(pruned.Runs, "runs and", pruned.Revisions, "revision removed")
	for run, err := range engine.Runs(ctx, conveyor.RunFilter{Resource: build.Key()}) {
		check(err)
		fmt.Println("run", run.Number, "is kept")
	}
	// Output:
	// 2 runs and 1 revision removed
	// run 3 is kept
}

func ExampleEngine_Run() {
	engine, err := conveyor.New(memory.New(), conveyor.Options{ShutdownGrace: 5 * time.Second})
	check(err)
	// A program would take this one from signal.NotifyContext.
	ctx, interrupt := context.WithCancel(context.Background())
	check(engine.Register("hello", conveyor.DriverFunc(
		func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			fmt.Println("hello,", req.Resource.Name)
			interrupt()
			return conveyor.Done(), nil
		}), conveyor.Listen("greeting")))
	_, err = engine.Apply(ctx, &conveyor.Object{Meta: conveyor.Meta{Name: "world", Type: "greeting"}})
	check(err)
	fmt.Println(engine.Run(ctx))
	// Output:
	// hello, world
	// <nil>
}

func ExampleEngine_Apply() {
	ctx := context.Background()
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		fmt.Println(req.Cause, "generation", req.Resource.Generation)
		return conveyor.Done(), nil
	})
	build := newBuild("app", "https://example.com/app.git")
	apply := func() {
		run, err := engine.Apply(ctx, build)
		check(err)
		_, err = engine.Wait(ctx, run.ID)
		check(err)
	}
	apply()
	apply() // nothing has changed, so nothing runs
	build.Spec.Repository = "https://example.com/fork.git"
	apply()

	build.Version = 1 // somebody else's copy, read before the change
	_, err := engine.Apply(ctx, build)
	fmt.Println(errors.Is(err, conveyor.ErrConflict))
	check(engine.Shutdown(ctx))
	// Output:
	// created generation 1
	// updated generation 2
	// true
}

func ExampleEngine_Create() {
	ctx := context.Background()
	engine := startEngine(quiet)
	defer engine.Shutdown(ctx)
	_, err := engine.Create(ctx, newBuild("app", ""))
	fmt.Println(err)
	_, err = engine.Create(ctx, newBuild("app", ""))
	fmt.Println(err)
	// Output:
	// <nil>
	// resource build/app: conveyor: already exists
}

func ExampleEngine_Get() {
	ctx := context.Background()
	engine := startEngine(quiet)
	runOnce(engine, newBuild("app", "https://example.com/app.git"))
	o, err := engine.Get(ctx, conveyor.Key{Type: "build", Name: "app"})
	check(err)
	fmt.Println(string(o.Spec))
	fmt.Println(o.Generation, o.Status.ObservedGeneration, o.Status.Phase)
	// Output:
	// {"repository":"https://example.com/app.git"}
	// 1 1 succeeded
}

func ExampleEngine_List() {
	ctx := context.Background()
	engine := startEngine(quiet)
	defer engine.Shutdown(ctx)
	for _, name := range []string{"app-2", "tool", "app-1"} {
		_, err := engine.Apply(ctx, newBuild(name, ""))
		check(err)
	}
	for o, err := range engine.List(ctx, conveyor.ResourceFilter{Type: "build", NamePrefix: "app-"}) {
		check(err)
		fmt.Println(o.Key())
	}
	// Output:
	// build/app-1
	// build/app-2
}

func ExampleEngine_Revisions() {
	ctx := context.Background()
	engine := startEngine(quiet)
	defer engine.Shutdown(ctx)
	for _, repository := range []string{"app.git", "fork.git"} {
		_, err := engine.Apply(ctx, newBuild("app", repository))
		check(err)
	}
	for o, err := range engine.Revisions(ctx, conveyor.Key{Type: "build", Name: "app"}) {
		check(err)
		fmt.Println(o.Generation, string(o.Spec))
	}
	// Output:
	// 1 {"repository":"app.git"}
	// 2 {"repository":"fork.git"}
}

func ExampleEngine_Trigger() {
	ctx := context.Background()
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		fmt.Println(req.Cause, "generation", req.Resource.Generation)
		return conveyor.Done(), nil
	})
	run, err := engine.Apply(ctx, newBuild("app", ""))
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)

	run, err = engine.Trigger(ctx, run.Resource)
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)
	check(engine.Shutdown(ctx))
	// Output:
	// created generation 1
	// triggered generation 1
}

func ExampleEngine_Wait() {
	ctx := context.Background()
	engine := startEngine(say("clone"), say("test"))
	defer engine.Shutdown(ctx)
	run, err := engine.Apply(ctx, newBuild("app", ""))
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State, run.Err())
	// Output:
	// clone
	// test
	// succeeded <nil>
}

func ExampleEngine_GetRun() {
	ctx := context.Background()
	engine := startEngine(quiet, quiet)
	id := runOnce(engine, newBuild("app", "")).ID
	run, err := engine.GetRun(ctx, id)
	check(err)
	fmt.Println(run.Resource, run.Cause, run.State)
	for _, step := range run.Steps {
		fmt.Println(step.ID, step.Driver, step.State, step.Attempt)
	}
	// Output:
	// build/app created succeeded
	// 1 driver-1 succeeded 1
	// 2 driver-2 succeeded 1
}

func ExampleEngine_Runs() {
	ctx := context.Background()
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if req.Resource.Name == "broken" {
			return conveyor.Result{}, conveyor.Permanent(errors.New("it does not compile"))
		}
		return conveyor.Done(), nil
	})
	defer engine.Shutdown(ctx)
	for _, name := range []string{"app", "broken", "tool"} {
		run, err := engine.Apply(ctx, newBuild(name, ""))
		check(err)
		_, err = engine.Wait(ctx, run.ID)
		check(err)
	}
	failed := conveyor.RunFilter{States: []conveyor.State{conveyor.StateFailed}}
	for run, err := range engine.Runs(ctx, failed) {
		check(err)
		fmt.Println(run.Resource, run.Reason)
	}
	// Output: build/broken step 1 (driver driver-1): it does not compile
}

func ExampleEngine_Cancel() {
	ctx := context.Background()
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		<-ctx.Done() // a long piece of work
		return conveyor.Result{}, context.Cause(ctx)
	})
	run, err := engine.Apply(ctx, newBuild("app", ""))
	check(err)
	check(engine.Cancel(ctx, run.ID, "no longer wanted"))
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State, run.Reason)
	fmt.Println(errors.Is(run.Err(), conveyor.ErrCanceled))
	check(engine.Shutdown(ctx))
	// Output:
	// canceled no longer wanted
	// true
}

func ExampleEngine_Watch() {
	ctx := context.Background()
	engine := startEngine(quiet)
	defer engine.Shutdown(ctx)
	events := engine.Watch(ctx, conveyor.WatchOptions{Resource: conveyor.Key{Type: "build", Name: "app"}})
	_, err := engine.Apply(ctx, newBuild("app", ""))
	check(err)
	for event, err := range events {
		check(err)
		fmt.Println(event.Kind, event.Step, event.State)
		if event.Kind == conveyor.EventRun && event.State.Final() {
			break
		}
	}
	// Output:
	// resource  unset
	// run  running
	// step 1 running
	// step 1 succeeded
	// run  succeeded
}

func ExampleEngine_Logs() {
	ctx := context.Background()
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		req.Log.Info("cloning")
		req.Log.Warn("no tests", "folder", "cmd")
		return conveyor.Done(), nil
	})
	defer engine.Shutdown(ctx)
	run, err := engine.Apply(ctx, newBuild("app", ""))
	check(err)
	// Follow goes on until the run has ended.
	for line, err := range engine.Logs(ctx, run.ID, conveyor.LogOptions{Follow: true}) {
		check(err)
		fmt.Println(line.Seq, line.Step, line.Level, line.Message)
	}
	// Output:
	// 1 1 INFO cloning
	// 2 1 WARN no tests
}

func ExampleEngine_Stats() {
	ctx := context.Background()
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return conveyor.RequeueAfter(time.Hour), nil
	})
	defer engine.Shutdown(ctx)
	events := engine.Watch(ctx, conveyor.WatchOptions{})
	_, err := engine.Apply(ctx, newBuild("app", ""))
	check(err)
	for event, err := range events {
		check(err)
		if event.State == conveyor.StateWaiting {
			break
		}
	}
	stats, err := engine.Stats(ctx)
	check(err)
	fmt.Println(stats.Unfinished, "unfinished,", stats.Ready, "ready")
	// Output: 1 unfinished, 0 ready
}

func ExampleRequest_Output() {
	clone := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return conveyor.DoneWith(map[string]string{"folder": "/src/app"}), nil
	}
	test := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var cloned struct {
			Folder string `json:"folder"`
		}
		if err := req.Output("1", &cloned); err != nil {
			return conveyor.Result{}, err
		}
		fmt.Println("test", cloned.Folder)
		return conveyor.Done(), nil
	}
	runOnce(startEngine(clone, test), newBuild("app", ""))
	// Output: test /src/app
}

func ExampleRequest_Settings() {
	ctx := context.Background()
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		settings := struct{ Race bool }{Race: true} // unless the step says otherwise
		if err := req.Settings(&settings); err != nil {
			return conveyor.Result{}, conveyor.Permanent(err)
		}
		fmt.Println("race detector:", settings.Race)
		return conveyor.Done(), nil
	})
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{
		Name: "ci", Resource: "build",
		Steps: []conveyor.Step{
			{Driver: "driver-1"},
			{Driver: "driver-1", With: []byte(`{"race": false}`)},
		},
	}))
	runOnce(engine, newBuild("app", ""))
	// Output:
	// race detector: true
	// race detector: false
}

func ExampleRequest_IdempotencyKey() {
	var keys []string
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		keys = append(keys, req.IdempotencyKey())
		if req.Attempt == 1 {
			return conveyor.Result{}, errors.New("no answer; the payment may have been made or not")
		}
		return conveyor.Done(), nil
	})
	run := runOnce(engine, newBuild("app", ""))
	fmt.Println(len(keys), "attempts, one key:", keys[0] == keys[1])
	fmt.Println(keys[0] == run.ResourceID+"/"+run.ID+"/1")
	// Output:
	// 2 attempts, one key: true
	// true
}

// startShared starts an engine on a shared store, as each process does.
func startShared(st *memory.Shared, name string, drivers ...string) *conveyor.Engine {
	engine, err := conveyor.New(st.Join(), conveyor.Options{Name: name})
	check(err)
	for _, driver := range drivers {
		check(engine.Register(driver, conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), nil
		}), conveyor.Listen("build")))
	}
	check(engine.Start(context.Background()))
	return engine
}

// A program that has no engine asks those on a shared store to apply a resource. Where the store is in the database of the program, the
// letter can be part of a transaction of the program.
func ExampleNewLetter() {
	ctx := context.Background()
	st := memory.NewShared()
	id, letter, err := conveyor.NewLetter(conveyor.As(ctx, "web"), newBuild("app", ""), conveyor.LetterOptions{ID: "order-17"})
	check(err)
	_, err = st.Commit(ctx, letter)
	check(err)

	engine := startPostman(st)
	run, err := engine.Wait(ctx, awaitLetter(engine, id).Run)
	check(err)
	fmt.Println(run.Resource, "for", run.By, run.State)
	check(engine.Shutdown(ctx))
	// Output: build/app for web succeeded
}

// startPostman starts an engine that applies letters.
func startPostman(st *memory.Shared) *conveyor.Engine {
	ctx := context.Background()
	engine, err := conveyor.New(st.Join(), conveyor.Options{Letters: true})
	check(err)
	check(engine.Register("driver-1", conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		return conveyor.Done(), nil
	})))
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{Name: "ci", Resource: "build", Steps: []conveyor.Step{{Driver: "driver-1"}}}))
	check(engine.Start(ctx))
	return engine
}

// awaitLetter waits until a letter is answered.
func awaitLetter(engine *conveyor.Engine, id string) *conveyor.Letter {
	for {
		letter, err := engine.Letter(context.Background(), id)
		check(err)
		if !letter.AnsweredAt.IsZero() {
			return letter
		}
		time.Sleep(time.Millisecond)
	}
}

func ExampleEngine_Letter() {
	ctx := context.Background()
	st := memory.NewShared()
	stale := newBuild("app", "")
	stale.Version = 3
	id, letter, err := conveyor.NewLetter(ctx, stale, conveyor.LetterOptions{})
	check(err)
	_, err = st.Commit(ctx, letter)
	check(err)
	engine := startPostman(st)
	defer engine.Shutdown(ctx)
	answer := awaitLetter(engine, id)
	fmt.Println(answer.Resource, errors.Is(answer.Err, conveyor.ErrConflict))
	// Output: build/app true
}

func ExampleEngine_Letters() {
	ctx := context.Background()
	st := memory.NewShared()
	for _, name := range []string{"app", "tool"} {
		_, letter, err := conveyor.NewLetter(ctx, newBuild(name, ""), conveyor.LetterOptions{ID: "letter-" + name})
		check(err)
		_, err = st.Commit(ctx, letter)
		check(err)
	}
	reader, err := conveyor.New(st.Join(), conveyor.Options{}) // reading needs no start
	check(err)
	for letter, err := range reader.Letters(ctx) {
		check(err)
		fmt.Println(letter.ID, letter.Resource, "waits:", letter.AnsweredAt.IsZero())
	}
	// Output:
	// letter-app build/app waits: true
	// letter-tool build/tool waits: true
}

func ExampleEngine_Engines() {
	ctx := context.Background()
	st := memory.NewShared()
	first, second := startShared(st, "host-1", "builder"), startShared(st, "host-2", "builder", "tester")
	defer first.Shutdown(ctx)
	defer second.Shutdown(ctx)
	engines, err := first.Engines(ctx)
	check(err)
	for _, e := range engines {
		fmt.Println(e.Name, e.Lease, e.Drivers)
	}
	// Output:
	// host-1 30s [builder]
	// host-2 30s [builder tester]
}

func ExampleEngine_Listeners() {
	ctx := context.Background()
	st := memory.NewShared()
	first, second := startShared(st, "host-1", "builder"), startShared(st, "host-2", "builder", "tester")
	defer first.Shutdown(ctx)
	check(second.Shutdown(ctx)) // its driver is waited for
	listeners, err := first.Listeners(ctx)
	check(err)
	for _, l := range listeners {
		fmt.Println(l.Type, l.Driver, len(l.Engines))
	}
	// Output:
	// build builder 1
	// build tester 0
}

func ExampleEngine_Forget() {
	ctx := context.Background()
	st := memory.NewShared()
	first, second := startShared(st, "host-1", "builder"), startShared(st, "host-2", "tester")
	defer first.Shutdown(ctx)
	fmt.Println(first.Forget(ctx, "tester") != nil, "while it is there")
	check(second.Shutdown(ctx))
	fmt.Println(first.Forget(ctx, "tester"), "when it does not come back")
	// Output:
	// true while it is there
	// <nil> when it does not come back
}

// On a shared store, several processes work on the runs. An external service that keeps the highest token of each run can refuse a
// process that was taken for dead, and does not know it yet.
func ExampleRequest_Token() {
	highest := map[string]int64{} // what the external service keeps
	deploy := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if req.Token() < highest[req.Run] {
			return conveyor.Result{}, conveyor.Permanent(errors.New("another process has taken this run over"))
		}
		highest[req.Run] = req.Token()
		fmt.Println("deploy with token", req.Token())
		return conveyor.Done(), nil
	}
	ctx := context.Background()
	engine, err := conveyor.New(memory.NewShared(), conveyor.Options{})
	check(err)
	defer func() { check(engine.Shutdown(ctx)) }()
	check(engine.Register("driver-1", conveyor.DriverFunc(deploy)))
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{Name: "ci", Resource: "build", Steps: []conveyor.Step{{Driver: "driver-1"}}}))
	check(engine.Start(ctx))
	runOnce(engine, newBuild("app", ""))
	// Output: deploy with token 1
}

// What a driver logs is kept with its step, and is passed on to the engine's logger.
func ExampleRequest_log() {
	ctx := context.Background()
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		req.Log.Info("pushed", slog.Group("image", "name", "app", "size", 42))
		return conveyor.Done(), nil
	})
	run := runOnce(engine, newBuild("app", ""))
	for line, err := range engine.Logs(ctx, run.ID, conveyor.LogOptions{Step: "1"}) {
		check(err)
		fmt.Println(line.Message, string(line.Attrs))
	}
	// Output: pushed {"image":{"name":"app","size":42}}
}

func ExampleDone() {
	run := runOnce(startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return conveyor.Done(), nil
	}), newBuild("app", ""))
	fmt.Println(run.Steps[0].State)
	// Output: succeeded
}

func ExampleDoneWith() {
	run := runOnce(startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return conveyor.DoneWith("sha256:2cf24d"), nil
	}), newBuild("app", ""))
	fmt.Println(run.Steps[0].State, string(run.Steps[0].Output))
	// Output: succeeded "sha256:2cf24d"
}

func ExampleSkip() {
	run := runOnce(startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return conveyor.Skip("there are no tests"), nil
	}, quiet), newBuild("app", ""))
	fmt.Println(run.State)
	for _, step := range run.Steps {
		fmt.Println(step.ID, step.State, step.Reason)
	}
	// Output:
	// succeeded
	// 1 skipped there are no tests
	// 2 succeeded
}

func ExampleHalt() {
	run := runOnce(startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return conveyor.Halt("this commit was built before"), nil
	}, quiet), newBuild("app", ""))
	fmt.Println(run.State)
	for _, step := range run.Steps {
		fmt.Println(step.ID, step.State, step.Reason)
	}
	// Output:
	// succeeded
	// 1 succeeded this commit was built before
	// 2 skipped this commit was built before
}

func ExampleRequeueAfter() {
	polls := 0
	run := runOnce(startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if polls++; polls < 3 {
			return conveyor.RequeueAfter(time.Millisecond), nil // the cluster is still being made
		}
		return conveyor.Done(), nil
	}), newBuild("app", ""))
	fmt.Println(run.Steps[0].State, "after", run.Steps[0].Requeues, "requeues, in attempt", run.Steps[0].Attempt)
	// Output: succeeded after 2 requeues, in attempt 1
}

func ExamplePermanent() {
	run := runOnce(startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return conveyor.Result{}, conveyor.Permanent(errors.New("no such repository"))
	}), newBuild("app", ""))
	fmt.Println(run.State, "in attempt", run.Steps[0].Attempt)
	// Output: failed in attempt 1
}

func ExampleRetryAfter() {
	run := runOnce(startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if req.Attempt == 1 {
			// The registry said when to come back.
			return conveyor.Result{}, conveyor.RetryAfter(2*time.Millisecond, errors.New("too many requests"))
		}
		return conveyor.Done(), nil
	}), newBuild("app", ""))
	for _, attempt := range run.Steps[0].Attempts {
		fmt.Println(attempt.Number, attempt.Error)
	}
	// Output:
	// 1 too many requests
	// 2
}

func ExampleObject_Decode() {
	o := &conveyor.Object{
		Meta: conveyor.Meta{Name: "app", Type: "build"},
		Spec: []byte(`{"repository": "https://example.com/app.git", "added": "by a newer program"}`),
	}
	var build Build
	check(o.Decode(&build))
	fmt.Println(build.Name, build.Spec.Repository)
	// Output: app https://example.com/app.git
}

func ExampleRun_Err() {
	run := runOnce(startEngine(quiet, func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return conveyor.Result{}, conveyor.Permanent(errors.New("2 of 7 tests failed"))
	}), newBuild("app", ""))
	var failed *conveyor.StepError
	if errors.As(run.Err(), &failed) {
		fmt.Printf("step %s, driver %s, attempt %d: %v\n", failed.Step, failed.Driver, failed.Attempt, failed.Err)
	}
	// Output: step 2, driver driver-2, attempt 1: 2 of 7 tests failed
}

func ExampleEngine_Delete() {
	engine := startEngine(finalizing)
	ctx := context.Background()
	build := newBuild("app", "example.com/app")
	run, err := engine.Apply(ctx, build)
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)

	run, err = engine.Delete(ctx, build.Key())
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.Cause, run.State)
	_, err = engine.Get(ctx, build.Key())
	fmt.Println(errors.Is(err, conveyor.ErrNotFound))
	check(engine.Shutdown(ctx))
	// Output:
	// deleted succeeded
	// true
}

// finalizing does nothing, and as a mere function has nothing to finalize.
func finalizing(context.Context, *conveyor.Request) (conveyor.Result, error) {
	return conveyor.Done(), nil
}

// vmMaker is a driver that makes something, and takes it away when the resource is deleted.
type vmMaker struct{}

func (vmMaker) Reconcile(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
	fmt.Println("make", req.Resource.Name)
	return conveyor.Done(), nil
}

func (vmMaker) Finalize(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
	fmt.Println("take away", req.Resource.Name)
	return conveyor.Done(), nil
}

func ExampleFinalizer() {
	engine := startEngine()
	ctx := context.Background()
	check(engine.Register("machine", vmMaker{}, conveyor.Listen("vm")))
	vm := &conveyor.Object{Meta: conveyor.Meta{Name: "db-1", Type: "vm"}}
	run, err := engine.Apply(ctx, vm)
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)
	run, err = engine.Delete(ctx, vm.Key())
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)
	check(engine.Shutdown(ctx))
	// Output:
	// make db-1
	// take away db-1
}

func ExampleEngine_Signal() {
	engine := startEngine(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var by string
		switch ok, err := req.Signal(&by); {
		case err != nil:
			return conveyor.Halt("nobody approved it in time"), nil
		case !ok:
			return conveyor.Await("approved", 24*time.Hour), nil
		}
		fmt.Println("approved by", by)
		return conveyor.Done(), nil
	})
	ctx := context.Background()
	run, err := engine.Apply(ctx, newBuild("app", "example.com/app"))
	check(err)
	check(engine.Signal(ctx, run.ID, "approved", "ann"))
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State)
	check(engine.Shutdown(ctx))
	// Output:
	// approved by ann
	// succeeded
}

func ExampleRequest_Checkpoint() {
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var done int
		if _, err := req.Restore(&done); err != nil {
			return conveyor.Result{}, err
		}
		for done < 3 {
			done++
			fmt.Println("file", done)
			if err := req.Checkpoint(ctx, done); err != nil {
				return conveyor.Result{}, err
			}
			if done == 2 && req.Attempt == 1 {
				return conveyor.Result{}, errors.New("the network is down")
			}
		}
		return conveyor.Done(), nil
	})
	runOnce(engine, newBuild("app", "example.com/app"))
	// Output:
	// file 1
	// file 2
	// file 3
}

func ExampleAtOnce() {
	release := conveyor.PipelineSpec{
		Name: "release", Resource: "app",
		Steps: []conveyor.Step{
			{ID: "build", Driver: "builder"},
			{ID: "notes", Driver: "writer", After: conveyor.AtOnce()}, // starts at once
			{ID: "test", Driver: "tester", After: []string{"build"}},  // after the build alone
			{ID: "scan", Driver: "scanner", After: []string{"build"}},
			{ID: "push", Driver: "pusher"}, // after all the steps above
		},
		Finally: []conveyor.Step{{ID: "tidy", Driver: "cleaner"}},
	}
	var picture strings.Builder
	check(release.Mermaid(&picture))
	fmt.Print(picture.String())
	// Output:
	// flowchart LR
	//   s1["build<br/>builder"]
	//   s2["notes<br/>writer"]
	//   s3["test<br/>tester"]
	//   s4["scan<br/>scanner"]
	//   s5["push<br/>pusher"]
	//   s6["tidy<br/>cleaner"]
	//   s1 --> s3
	//   s1 --> s4
	//   s2 --> s5
	//   s3 --> s5
	//   s4 --> s5
	//   s5 -. finally .-> s6
}

func ExamplePipelineSpec_Mermaid() {
	release := conveyor.PipelineSpec{
		Name: "release", Resource: "app",
		Steps: []conveyor.Step{
			{ID: "build", Driver: "builder"},
			{ID: "test", Driver: "tester", After: []string{"build"}},
			{ID: "scan", Driver: "scanner", After: []string{"build"}},
			{ID: "push", Driver: "pusher", After: []string{"test", "scan"}},
		},
		Finally: []conveyor.Step{{ID: "tidy", Driver: "cleaner"}},
	}
	var picture strings.Builder
	check(release.Mermaid(&picture))
	fmt.Print(picture.String())
	// Output:
	// flowchart LR
	//   s1["build<br/>builder"]
	//   s2["test<br/>tester"]
	//   s3["scan<br/>scanner"]
	//   s4["push<br/>pusher"]
	//   s5["tidy<br/>cleaner"]
	//   s1 --> s2
	//   s1 --> s3
	//   s2 --> s4
	//   s3 --> s4
	//   s4 -. finally .-> s5
}

func ExampleRun_Mermaid() {
	engine := startEngine(
		func(context.Context, *conveyor.Request) (conveyor.Result, error) { return conveyor.Done(), nil },
		func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Result{}, conveyor.Permanent(errors.New("two tests failed"))
		},
	)
	run := runOnce(engine, newBuild("app", "example.com/app"))
	var picture strings.Builder
	check(run.Mermaid(&picture))
	fmt.Print(picture.String())
	// Output:
	// flowchart LR
	//   s1["1<br/>driver-1<br/>succeeded"]
	//   s2["2<br/>driver-2<br/>failed"]
	//   s1 --> s2
	//   classDef succeeded fill:#a6e9b5,color:#000
	//   class s1 succeeded
	//   classDef failed fill:#ff9e9e,color:#000
	//   class s2 failed
}

func ExampleRequest_Restore() {
	engine := startEngine(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var upload string
		found, err := req.Restore(&upload)
		if err != nil {
			return conveyor.Result{}, err
		}
		fmt.Printf("attempt %d found %q\n", req.Attempt, upload)
		if !found {
			return conveyor.Result{}, errors.Join(req.Checkpoint(ctx, "upload-7"), errors.New("the connection was lost"))
		}
		return conveyor.Done(), nil
	})
	runOnce(engine, newBuild("app", "example.com/app"))
	// Output:
	// attempt 1 found ""
	// attempt 2 found "upload-7"
}

func ExampleRequest_Signal() {
	engine := startEngine(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var answer struct{ Approved bool }
		switch ok, err := req.Signal(&answer); {
		case errors.Is(err, conveyor.ErrTimeout):
			return conveyor.Result{}, conveyor.Permanent(errors.New("nobody answered"))
		case err != nil:
			return conveyor.Result{}, conveyor.Permanent(err)
		case !ok:
			return conveyor.Await("answer", 0), nil
		}
		fmt.Printf("%+v\n", answer)
		return conveyor.Done(), nil
	})
	ctx := context.Background()
	run, err := engine.Apply(ctx, newBuild("app", "example.com/app"))
	check(err)
	check(engine.Signal(ctx, run.ID, "answer", map[string]bool{"approved": true}))
	_, err = engine.Wait(ctx, run.ID)
	check(err)
	check(engine.Shutdown(ctx))
	// Output: {Approved:true}
}

func ExampleAwait() {
	engine := startEngine(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if _, err := req.Signal(nil); err != nil {
			fmt.Println(err)
			return conveyor.Skip("went on without it"), nil
		}
		return conveyor.Await("go", time.Millisecond), nil
	})
	run := runOnce(engine, newBuild("app", "example.com/app"))
	fmt.Println(run.Steps[0].State, run.Steps[0].Waits[0].TimedOut)
	// Output:
	// conveyor: timed out: step "1" waited for a signal that did not come
	// skipped true
}

func ExampleLogLine_String() {
	line := conveyor.LogLine{Level: slog.LevelWarn, Message: "slow", Attrs: []byte(`{"seconds":7}`)}
	fmt.Println(line)
	// Output: WARN slow {"seconds":7}
}

func ExampleEngine_Retry() {
	down := true
	engine := startEngine(
		func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			fmt.Println("build")
			return conveyor.DoneWith("app.tar"), nil
		},
		func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var file string
			if err := req.Output("1", &file); err != nil {
				return conveyor.Result{}, err
			}
			if down {
				return conveyor.Result{}, conveyor.Permanent(errors.New("the registry is down"))
			}
			fmt.Println("push", file)
			return conveyor.Done(), nil
		},
	)
	ctx := context.Background()
	run, err := engine.Apply(ctx, newBuild("app", "example.com/app"))
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State)

	down = false
	run, err = engine.Retry(ctx, run.ID, conveyor.RetryFrom{}) // from the failed step
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State)
	check(engine.Shutdown(ctx))
	// Output:
	// build
	// failed
	// push app.tar
	// succeeded
}

// A retry keeps the outputs of the steps that were done. If Finally has removed what they point to, the retry must begin
// with the step that makes it.
func ExampleRetryFrom() {
	folders := map[string]bool{} // on the disk
	clones := 0
	engine := startEngine(
		func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			clones++
			folder := fmt.Sprintf("/work/%d", clones)
			folders[folder] = true
			fmt.Println("clone to", folder)
			return conveyor.DoneWith(folder), nil
		},
		func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var folder string
			if err := req.Output("clone", &folder); err != nil {
				return conveyor.Result{}, err
			}
			if !folders[folder] {
				return conveyor.Result{}, conveyor.Permanent(errors.New(folder + " is gone"))
			}
			fmt.Println("test", folder)
			if clones == 1 {
				return conveyor.Result{}, conveyor.Permanent(errors.New("2 tests failed"))
			}
			return conveyor.Done(), nil
		},
		func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			clear(folders)
			return conveyor.Done(), nil
		},
	)
	ctx := context.Background()
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{
		Name: "ci", Resource: "build",
		Steps:   []conveyor.Step{{ID: "clone", Driver: "driver-1"}, {ID: "test", Driver: "driver-2"}},
		Finally: []conveyor.Step{{ID: "tidy", Driver: "driver-3"}},
	}))
	run, err := engine.Apply(ctx, newBuild("app", "example.com/app"))
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State, run.Reason)
	for _, from := range []conveyor.RetryFrom{{}, {Step: "clone"}} {
		run, err = engine.Retry(ctx, run.ID, from)
		check(err)
		run, err = engine.Wait(ctx, run.ID)
		check(err)
		fmt.Println(run.State, run.Reason)
	}
	check(engine.Shutdown(ctx))
	// Output:
	// clone to /work/1
	// test /work/1
	// failed step test (driver driver-2): 2 tests failed
	// failed step test (driver driver-2): /work/1 is gone
	// clone to /work/2
	// test /work/2
	// succeeded
}

func ExampleEngine_Rollback() {
	engine := startEngine(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		fmt.Printf("generation %d: %s\n", req.Resource.Generation, req.Resource.Spec)
		return conveyor.Done(), nil
	})
	ctx := context.Background()
	build := newBuild("app", "example.com/app")
	for _, repository := range []string{"example.com/app", "example.com/broken"} {
		build.Spec.Repository = repository
		run, err := engine.Apply(ctx, build)
		check(err)
		_, err = engine.Wait(ctx, run.ID)
		check(err)
	}
	run, err := engine.Rollback(ctx, build.Key(), 1)
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)
	check(engine.Shutdown(ctx))
	// Output:
	// generation 1: {"repository":"example.com/app"}
	// generation 2: {"repository":"example.com/broken"}
	// generation 3: {"repository":"example.com/app"}
}

func ExampleObserver() {
	ended := map[conveyor.State]int{} // a metric
	observer := conveyor.ObserverFunc(func(_ context.Context, e conveyor.Event) {
		if e.Kind == conveyor.EventRun && e.State.Final() {
			ended[e.State]++
		}
	})
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{Observer: observer})
	check(err)
	check(engine.Start(ctx))
	run, err := engine.Apply(ctx, &conveyor.Object{Meta: conveyor.Meta{Name: "app", Type: "thing"}})
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)
	check(engine.Shutdown(ctx)) // the observer has been told all when it returns
	fmt.Println(ended)
	// Output: map[skipped:1]
}

func ExampleAdmission() {
	busy := true // the host, when the step is to start
	admission := conveyor.AdmissionFunc(func(_ context.Context, s conveyor.StepInfo) (func(), time.Duration, error) {
		if busy {
			busy = false
			fmt.Println("no room for", s.Step.Driver)
			return nil, time.Millisecond, nil // ask again then; the attempt does not count
		}
		fmt.Println("room for", s.Step.Driver)
		return func() { fmt.Println("room again") }, 0, nil
	})
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{Admission: admission})
	check(err)
	check(engine.Register("builder", conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		fmt.Println("build")
		return conveyor.Done(), nil
	})))
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{
		Name: "ci", Resource: "build", Steps: []conveyor.Step{{Driver: "builder"}},
	}))
	check(engine.Start(ctx))
	run, err := engine.Apply(ctx, &conveyor.Object{Meta: conveyor.Meta{Name: "app", Type: "build", Pipeline: "ci"}})
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State, "at attempt", run.Steps[0].Attempt)
	check(engine.Shutdown(ctx))
	// Output:
	// no room for builder
	// room for builder
	// build
	// room again
	// succeeded at attempt 1
}

// Matrix is a pipeline whose steps depend on the resource: one for each version that it names.
type Matrix struct{ conveyor.PipelineSpec }

// Plan makes Matrix a [conveyor.Planner].
func (Matrix) Plan(_ context.Context, res *conveyor.Object) (steps []conveyor.Step, err error) {
	var spec struct{ Versions []string }
	if err := json.Unmarshal(res.Spec, &spec); err != nil {
		return nil, conveyor.Permanent(err)
	}
	for _, v := range spec.Versions {
		with, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		steps = append(steps, conveyor.Step{ID: "test-" + v, Driver: "tester", With: with})
	}
	return steps, nil
}

func ExamplePlanner() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	check(engine.Register("tester", conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var version string
		if err := req.Settings(&version); err != nil {
			return conveyor.Result{}, err
		}
		fmt.Println("test with", version)
		return conveyor.Done(), nil
	})))
	check(engine.SavePipeline(ctx, Matrix{conveyor.PipelineSpec{Name: "matrix", Resource: "suite"}}))
	check(engine.Start(ctx))
	run, err := engine.Apply(ctx, &conveyor.Object{
		Meta: conveyor.Meta{Name: "app", Type: "suite", Pipeline: "matrix"},
		Spec: json.RawMessage(`{"versions": ["1.26", "1.27"]}`),
	})
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	for _, step := range run.Steps {
		fmt.Println(step.ID, step.State)
	}
	check(engine.Shutdown(ctx))
	// Output:
	// test with 1.26
	// test with 1.27
	// .plan succeeded
	// test-1.26 succeeded
	// test-1.27 succeeded
}

func ExampleAs() {
	engine := startEngine(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		fmt.Println("asked for by", req.By)
		return conveyor.Done(), nil
	})
	ctx := conveyor.As(context.Background(), "ada")
	run, err := engine.Apply(ctx, newBuild("app", ""))
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println("on record:", run.By)
	check(engine.Shutdown(ctx))
	// Output:
	// asked for by ada
	// on record: ada
}

func ExampleOptions_wrap() {
	// A middleware sees every call of user code for a step, and a panic of it as an error.
	traced := func(next conveyor.Call) conveyor.Call {
		return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			result, err := next(ctx, req)
			fmt.Println(req.Kind, req.Step.Driver, req.Carried["trace"], err)
			return result, err
		}
	}
	type traceKey struct{}
	engine, err := conveyor.New(memory.New(), conveyor.Options{
		Wrap: []func(conveyor.Call) conveyor.Call{traced},
		Carry: func(ctx context.Context) map[string]string {
			trace, _ := ctx.Value(traceKey{}).(string)
			return map[string]string{"trace": trace}
		},
	})
	check(err)
	check(engine.Register("tester", conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		panic("no tests")
	}), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 1})))
	ctx := context.WithValue(context.Background(), traceKey{}, "4bf92f35")
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{Name: "ci", Resource: "build", Steps: []conveyor.Step{{Driver: "tester"}}}))
	check(engine.Start(ctx))
	run, err := engine.Apply(ctx, newBuild("app", ""))
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)
	check(engine.Shutdown(ctx))
	// Output: reconcile tester 4bf92f35 driver panicked: no tests
}

func ExampleReason() {
	engine := startEngine(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		err := errors.New("pull example.com/app:1.4.2: manifest unknown")
		return conveyor.Result{}, conveyor.Permanent(conveyor.Reason(err, "image-not-found"))
	})
	run := runOnce(engine, newBuild("app", ""))
	fmt.Println(run.ErrorKind, run.ErrorReason)
	fmt.Println(run.Reason)
	// Output:
	// failure image-not-found
	// step 1 (driver driver-1): pull example.com/app:1.4.2: manifest unknown
}

func ExampleRequest_SignalFrom() {
	engine := startEngine(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if ok, _ := req.Signal(nil); !ok {
			return conveyor.Await("approved", 0), nil
		}
		by, _ := req.SignalFrom()
		fmt.Println("approved by", by)
		return conveyor.Done(), nil
	})
	ctx := context.Background()
	run, err := engine.Apply(ctx, newBuild("app", ""))
	check(err)
	check(engine.Signal(conveyor.As(ctx, "grace"), run.ID, "approved", nil))
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println("on record:", run.Steps[0].Waits[0].By)
	check(engine.Shutdown(ctx))
	// Output:
	// approved by grace
	// on record: grace
}

func ExampleEngine_Pause() {
	engine := startEngine(quiet)
	ctx := conveyor.As(context.Background(), "ada")
	freeze := conveyor.Target{Pipeline: "ci"}
	check(engine.Pause(ctx, freeze, "freeze"))
	run, err := engine.Apply(ctx, newBuild("app", "")) // is accepted, and held
	check(err)
	giveUp, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err = engine.Wait(giveUp, run.ID)
	fmt.Println(strings.Replace(err.Error(), run.ID, "RUN", 1))
	check(engine.Resume(ctx, freeze))
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State)
	check(engine.Shutdown(ctx))
	// Output:
	// run RUN has not ended: blocked: paused by ada: freeze: context deadline exceeded
	// succeeded
}

func ExampleEngine_Resume() {
	engine := startEngine(quiet)
	ctx := context.Background()
	check(engine.Pause(ctx, conveyor.Target{All: true}, "the cluster moves"))
	fmt.Println(engine.Resume(ctx, conveyor.Target{All: true}))
	fmt.Println(engine.Resume(ctx, conveyor.Target{All: true}))
	check(engine.Shutdown(ctx))
	// Output:
	// <nil>
	// resume everything: conveyor: not found: it is not paused
}

func ExampleEngine_Pauses() {
	engine := startEngine(quiet)
	ctx := conveyor.As(context.Background(), "ada")
	check(engine.Pause(ctx, conveyor.Target{Driver: "driver-1"}, "the registry is down"))
	check(engine.Pause(ctx, conveyor.Target{Resource: conveyor.Key{Type: "build", Name: "app"}}, ""))
	for pause, err := range engine.Pauses(ctx) {
		check(err)
		fmt.Printf("%s, by %s: %s\n", pause.Target, pause.By, pause.Reason)
	}
	check(engine.Shutdown(ctx))
	// Output:
	// driver "driver-1", by ada: the registry is down
	// resource "build/app", by ada:
}

func Example_operating() {
	ctx, st, build := context.Background(), memory.New(), newBuild("app", "")
	observe := func(step, tenant string, took time.Duration, err error) {
		fmt.Println("step", step, "for", tenant, "ended:", err)
	}
	tenantOf := func(context.Context) map[string]string { return map[string]string{"tenant": "acme"} }

	timed := func(next conveyor.Call) conveyor.Call {
		return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			began := time.Now()
			result, err := next(ctx, req)
			observe(req.Step.ID, req.Carried["tenant"], time.Since(began), err)
			return result, err
		}
	}
	engine, err := conveyor.New(st, conveyor.Options{Wrap: []func(conveyor.Call) conveyor.Call{timed}, Carry: tenantOf})

	check(err)
	check(engine.Register("tester", conveyor.DriverFunc(quiet)))
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{Name: "ci", Resource: "build", Steps: []conveyor.Step{{Driver: "tester"}}}))
	check(engine.Start(ctx))

	ctx = conveyor.As(ctx, "ada")
	err = engine.Pause(ctx, conveyor.Target{Pipeline: "ci"}, "freeze")
	run, err := engine.Apply(ctx, build) // accepted, and held: "paused by ada: freeze"
	fmt.Println(run.By)                  // ada
	err = engine.Resume(ctx, conveyor.Target{Pipeline: "ci"})

	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)
	check(engine.Shutdown(ctx))
	// Output:
	// ada
	// step 1 for acme ended: <nil>
}
