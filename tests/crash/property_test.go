package crash_test

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

// TestEngineDoesWhatTheModelDoes has a program and its drivers do random things, and compares all that is on record
// after each of them with a model. More cases: -rapid.checks=10000.
func TestEngineDoesWhatTheModelDoes(t *testing.T) {
	for _, c := range []struct {
		name string
		// oneIn is by how much fewer cases are checked.
		oneIn int
		open  func(t *rapid.T, dir string) (st store.Store, reopen func() store.Store)
	}{
		{"memory", 1, func(*rapid.T, string) (store.Store, func() store.Store) {
			st := memory.New()
			return st, func() store.Store { return st }
		}},
		{"file", 5, func(t *rapid.T, dir string) (store.Store, func() store.Store) {
			dir, err := os.MkdirTemp(dir, "")
			require.NoError(t, err)
			open := func() *file.Store {
				st, err := file.Open(context.Background(), filepath.Join(dir, "records"), file.Options{})
				require.NoError(t, err)
				return st
			}
			st := open()
			t.Cleanup(func() { require.NoError(t, st.Close()) })
			return st, func() store.Store {
				require.NoError(t, st.Close())
				st = open()
				return st
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkOneIn(t, c.oneIn)
			dir := t.TempDir()
			rapid.Check(t, func(rt *rapid.T) {
				rapid.SyncTest(rt, func(rt *rapid.T) {
					st, reopen := c.open(rt, dir)
					newMachine(rt, st, reopen).work()
				})
			})
		})
	}
}

// checkOneIn has rapid check fewer cases than it was told to, until the test ends.
func checkOneIn(t *testing.T, n int) {
	t.Helper()
	const name = "rapid.checks"
	told := flag.Lookup(name).Value.String()
	checks, err := strconv.Atoi(told)
	require.NoError(t, err)
	require.NoError(t, flag.Set(name, strconv.Itoa(max(checks/n, 1))))
	t.Cleanup(func() { require.NoError(t, flag.Set(name, told)) })
}

// answer is what a driver does when it is called.
type answer string

const (
	isDone     answer = "done"
	isSlow     answer = "done after a while"
	isSlowFail answer = "error after a while"
	isError    answer = "error"
	isLater    answer = "error, again after a delay of its own"
	isForGood  answer = "permanent error"
	isRequeue  answer = "requeue"
	isSkip     answer = "skip"
	isHalt     answer = "halt"
	isPanic    answer = "panic"
	isGoexit   answer = "goexit"
)

var answers = []answer{isDone, isSlow, isSlowFail, isError, isLater, isForGood, isRequeue, isSkip, isHalt, isPanic, isGoexit}

const (
	slowness    = 3 * time.Second
	ownDelay    = 5 * time.Second
	requeueTime = 2 * time.Second
	maxAnswers  = 6 // after so many, a step is done
)

// script says what drivers answer, in a way that the model and the drivers can both look up.
type script []answer

func (s script) answer(k conveyor.Key, generation int64, cause conveyor.Cause, step string, n int) answer {
	if n >= maxAnswers {
		return isDone
	}
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, k, generation, cause, step, n)
	a := s[h.Sum32()%uint32(len(s))]
	if a == isHalt && k.Type == "loose" {
		return isDone // which of the other listeners have begun by then is left open
	}
	return a
}

// listening says which drivers listen to which type. They, and "m", may be registered or not; "a" and "b" always are.
var listening = map[string]string{"l1": "loose", "l2": "loose"}

var keys = []conveyor.Key{{Type: "r", Name: "x"}, {Type: "r", Name: "y"}, {Type: "loose", Name: "z"}}

// machine drives an engine and the model side by side.
type machine struct {
	*rapid.T
	model  *model
	reopen func() store.Store

	st     *mortal
	engine *conveyor.Engine

	mu      sync.Mutex    // guards what follows
	answers map[place]int // given so far
	seen    map[conveyor.Key][]string
}

func newMachine(t *rapid.T, st store.Store, reopen func() store.Store) *machine {
	m := &machine{T: t, reopen: reopen, answers: map[place]int{}, seen: map[conveyor.Key][]string{}}
	m.model = &model{
		now: time.Now(), pipelines: map[string]*modelPipeline{}, drivers: map[string]bool{"a": true, "b": true},
		pauses: map[conveyor.Target]bool{}, resources: map[conveyor.Key]*modelResource{}, seen: map[conveyor.Key][]string{},
		script: rapid.SliceOfN(rapid.SampledFrom(answers), 8, 8).Draw(t, "script"),
	}
	m.start(st)
	t.Cleanup(m.stop)
	return m
}

func (m *machine) start(st store.Store) {
	m.st = &mortal{Store: st, die: func() {}}
	var err error
	m.engine, err = conveyor.New(m.st, conveyor.Options{
		Limits: conveyor.Limits{Interruptions: 1000}, Retry: conveyor.RetryPolicy{Jitter: -1},
	})
	require.NoError(m, err)
	for name := range m.model.drivers {
		m.register(name)
	}
	require.NoError(m, m.engine.Start(context.Background()))
}

func (m *machine) register(name string) {
	var opts []conveyor.DriverOption
	if kind := listening[name]; kind != "" {
		opts = append(opts, conveyor.Listen(kind))
	}
	require.NoError(m, m.engine.Register(name, rig.DriverOf(m.drive), opts...))
}

// stop ends the engine as the death of the process would, but for its goroutines.
func (m *machine) stop() {
	m.st.kill()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.engine.Shutdown(ended)
	synctest.Wait()
}

// drive is every driver.
func (m *machine) drive(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	p, k := place{req.Run, req.Step.ID}, req.Resource.Key()
	m.mu.Lock()
	m.seen[k] = append(m.seen[k], sight(req.Resource.Generation, req.Cause, req.Step.ID, req.Attempt, req.Resumed))
	a := m.model.script.answer(k, req.Resource.Generation, req.Cause, req.Step.ID, m.answers[p])
	m.mu.Unlock()
	if a == isSlow || a == isSlowFail {
		select {
		case <-time.After(slowness):
		case <-ctx.Done():
			return conveyor.Done(), context.Cause(ctx)
		}
	}
	m.mu.Lock()
	m.answers[p]++
	m.mu.Unlock()
	switch a {
	case isError, isSlowFail:
		return conveyor.Done(), rig.ErrBoom
	case isLater:
		return conveyor.Done(), conveyor.RetryAfter(ownDelay, rig.ErrBoom)
	case isForGood:
		return conveyor.Done(), conveyor.Permanent(rig.ErrBoom)
	case isRequeue:
		return conveyor.RequeueAfter(requeueTime), nil
	case isSkip:
		return conveyor.Skip("not needed"), nil
	case isHalt:
		return conveyor.Halt("enough"), nil
	case isPanic:
		panic("kaboom")
	case isGoexit:
		runtime.Goexit()
	}
	return conveyor.DoneWith(req.Step.ID), nil
}

func sight(generation int64, cause conveyor.Cause, step string, attempt int, resumed bool) string {
	return fmt.Sprintf("generation %d %s: step %s attempt %d resumed %t", generation, cause, step, attempt, resumed)
}

// work does random things, and in the end lets all runs end.
func (m *machine) work() {
	m.Repeat(map[string]func(*rapid.T){
		"":                m.compare,
		"apply":           m.apply,
		"apply once more": m.apply,
		"trigger":         m.trigger,
		"cancel":          m.cancel,
		"save pipeline":   m.savePipeline,
		"delete pipeline": m.deletePipeline,
		"register":        m.registerOne,
		"pause":           m.pause,
		"resume":          m.resume,
		"let time pass":   m.letTimePass,
		"restart":         m.restart,
	})
	for _, name := range []string{"m", "l1", "l2"} {
		if !m.model.drivers[name] {
			m.model.register(name)
			m.register(name)
			synctest.Wait()
		}
	}
	for _, target := range pausable {
		m.resumeTarget(target)
	}
	const enough = 24 * time.Hour
	time.Sleep(enough)
	m.model.pass(enough)
	m.compare(m.T)
	rig.RequireAtRest(m, m.st)
	for _, k := range keys {
		if r := m.model.resources[k]; r != nil {
			require.Nil(m, r.active)
			require.Empty(m, r.line)
			require.Equal(m, r.generation, r.observed, "the last generation of %s was not reconciled", k)
		}
	}
}

// compare holds the records against the model.
func (m *machine) compare(t *rapid.T) {
	synctest.Wait()
	require.Equal(t, m.model.render(), m.render())
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		want, got := m.model.seen[k], m.seen[k]
		if k.Type == "loose" { // its steps are called in any order
			want, got = slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))
		}
		require.Equal(t, want, got, "the calls for %s", k)
	}
}

func (m *machine) render() string {
	ctx := context.Background()
	var b strings.Builder
	unfinished := 0
	for o, err := range m.engine.List(ctx, conveyor.ResourceFilter{}) {
		require.NoError(m, err)
		same, err := m.engine.Get(ctx, o.Key())
		require.NoError(m, err)
		require.Equal(m, same, o)
		fmt.Fprintf(&b, "%s: version %d, generation %d, pipeline %q, spec %s, metadata %v, %s, observed %d\n", o.Key(),
			o.Version, o.Generation, o.Pipeline, o.Spec, o.Metadata, o.Status.Phase, o.Status.ObservedGeneration)
		for run, err := range m.engine.Runs(ctx, conveyor.RunFilter{Resource: o.Key()}) {
			require.NoError(m, err)
			if !run.State.Final() {
				unfinished++
			}
			fmt.Fprintf(&b, "  run of generation %d along %q by %q, %s: %s\n", run.Generation, run.Pipeline, run.By, run.Cause, run.State)
			for _, s := range run.Steps {
				var failures []string
				for _, a := range s.Attempts {
					if a.Error != "" {
						failures = append(failures, fmt.Sprintf("%d %s", a.Number, a.Error))
					}
				}
				writeStep(&b, s.ID, s.State, s.Attempt, s.Requeues, s.Interruptions, s.Due, failures)
			}
		}
	}
	for _, err := range m.engine.Runs(ctx, conveyor.RunFilter{Unfinished: true}) {
		require.NoError(m, err)
		unfinished--
	}
	require.Zero(m, unfinished, "the list of unfinished runs is another one than theirs")
	return b.String()
}

func writeStep(b *strings.Builder, id string, state conveyor.State, attempt, requeues, interruptions int, due time.Time, failures []string) {
	fmt.Fprintf(b, "    step %s: %s, attempt %d, requeues %d, interruptions %d", id, state, attempt, requeues, interruptions)
	if !due.IsZero() {
		fmt.Fprintf(b, ", due %s", due.UTC().Format(time.TimeOnly))
	}
	fmt.Fprintf(b, ", failures %q\n", failures)
}

// agree holds the answer of a call against the model's.
func (m *machine) agree(t *rapid.T, k conveyor.Key, run *conveyor.Run, err error, want *modelRun, wantErr error) {
	if wantErr != nil {
		require.ErrorIs(t, err, wantErr)
		return
	}
	require.NoError(t, err)
	i := slices.Index(m.model.resources[k].runs, want)
	var ids []string
	for r, err := range m.engine.Runs(context.Background(), conveyor.RunFilter{Resource: k}) {
		require.NoError(t, err)
		ids = append(ids, r.ID)
	}
	require.Less(t, i, len(ids))
	require.Equal(t, ids[i], run.ID)
}

func (m *machine) apply(t *rapid.T) {
	k := rapid.SampledFrom(keys).Draw(t, "resource")
	pipeline := ""
	if k.Type == "r" {
		pipeline = rapid.SampledFrom([]string{"p", "p", "q", ""}).Draw(t, "pipeline")
	}
	spec := rapid.IntRange(1, 3).Draw(t, "spec")
	var metadata map[string]string
	if rapid.Bool().Draw(t, "labelled") {
		metadata = map[string]string{"label": "yes"}
	}
	version := rapid.SampledFrom([]int64{0, 0, 0, 1, 2}).Draw(t, "version")
	o := &conveyor.Object{Meta: conveyor.Meta{Type: k.Type, Name: k.Name, Pipeline: pipeline, Metadata: metadata, Version: version}, Spec: rig.JSON(spec)}
	create := rapid.Bool().Draw(t, "create")
	apply := m.engine.Apply
	if create {
		apply = m.engine.Create
	}
	by := rapid.SampledFrom([]string{"", "ada", "bob"}).Draw(t, "by")
	run, err := apply(conveyor.As(context.Background(), by), o)
	want, wantErr := m.model.apply(k, pipeline, spec, metadata, version, create, by)
	m.agree(t, k, run, err, want, wantErr)
	m.model.settle()
}

func (m *machine) trigger(t *rapid.T) {
	k := rapid.SampledFrom(keys).Draw(t, "resource")
	run, err := m.engine.Trigger(conveyor.As(context.Background(), "trigger"), k)
	want, wantErr := m.model.trigger(k)
	m.agree(t, k, run, err, want, wantErr)
	m.model.settle()
}

func (m *machine) cancel(t *rapid.T) {
	k := rapid.SampledFrom(keys).Draw(t, "resource")
	r := m.model.resources[k]
	if r == nil {
		t.Skip("there is no such resource")
	}
	newest := rapid.IntRange(1, min(len(r.runs), 3)).Draw(t, "newest")
	i := len(r.runs) - newest
	var ids []string
	for run, err := range m.engine.Runs(context.Background(), conveyor.RunFilter{Resource: k}) {
		require.NoError(t, err)
		ids = append(ids, run.ID)
	}
	err := m.engine.Cancel(context.Background(), ids[i], "why")
	require.ErrorIs(t, err, m.model.cancel(r, r.runs[i]))
	m.model.settle()
}

func (m *machine) savePipeline(t *rapid.T) {
	p := conveyor.PipelineSpec{
		Name: rapid.SampledFrom([]string{"p", "q"}).Draw(t, "pipeline"), Resource: "r",
		Retry:    &conveyor.RetryPolicy{MaxAttempts: rapid.IntRange(1, 3).Draw(t, "attempts")},
		OnChange: rapid.SampledFrom([]conveyor.ChangePolicy{conveyor.Coalesce, conveyor.Queue}).Draw(t, "policy"),
	}
	saved := &modelPipeline{attempts: p.Retry.MaxAttempts, queues: p.OnChange == conveyor.Queue}
	for i, driver := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "m"}), 1, 3).Draw(t, "drivers") {
		step := modelStep{id: fmt.Sprint(i + 1), driver: driver, state: conveyor.StatePending}
		saved.steps = append(saved.steps, step)
		p.Steps = append(p.Steps, conveyor.Step{Driver: driver})
	}
	require.NoError(t, m.engine.SavePipeline(context.Background(), p))
	m.model.pipelines[p.Name] = saved
	m.model.settle()
}

func (m *machine) deletePipeline(t *rapid.T) {
	name := rapid.SampledFrom([]string{"p", "q"}).Draw(t, "pipeline")
	err := m.engine.DeletePipeline(context.Background(), name)
	if m.model.pipelines[name] == nil {
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		return
	}
	require.NoError(t, err)
	delete(m.model.pipelines, name)
	m.model.settle()
}

func (m *machine) registerOne(t *rapid.T) {
	name := rapid.SampledFrom([]string{"m", "l1", "l2"}).Draw(t, "driver")
	if m.model.drivers[name] {
		require.ErrorIs(t, m.engine.Register(name, rig.DriverOf(m.drive)), conveyor.ErrExists)
		return
	}
	m.register(name)
	m.model.register(name)
}

// pausable are the targets of pauses.
var pausable = []conveyor.Target{
	{All: true}, {Type: "r"}, {Type: "loose"}, {Pipeline: "p"}, {Driver: "a"}, {Driver: "m"}, {Driver: "l1"}, {Resource: keys[0]}, {Resource: keys[2]},
}

func (m *machine) pause(t *rapid.T) {
	target := rapid.SampledFrom(pausable).Draw(t, "target")
	require.NoError(t, m.engine.Pause(context.Background(), target, "model"))
	m.model.pauses[target] = true
	m.model.settle()
}

func (m *machine) resume(t *rapid.T) {
	m.resumeTarget(rapid.SampledFrom(pausable).Draw(t, "target"))
}

func (m *machine) resumeTarget(target conveyor.Target) {
	err := m.engine.Resume(context.Background(), target)
	if !m.model.pauses[target] {
		require.ErrorIs(m, err, conveyor.ErrNotFound)
		return
	}
	require.NoError(m, err)
	delete(m.model.pauses, target)
	m.model.settle()
	synctest.Wait()
}

func (m *machine) letTimePass(t *rapid.T) {
	d := time.Duration(rapid.IntRange(1, 40).Draw(t, "tenths")) * 100 * time.Millisecond
	time.Sleep(d)
	m.model.pass(d)
}

func (m *machine) restart(t *rapid.T) {
	switch rapid.SampledFrom([]string{"killed", "shut down at once", "shut down patiently"}).Draw(t, "how") {
	case "killed":
		m.st.kill()
		m.stop()
		m.model.interrupt()
	case "shut down at once":
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.NoError(t, m.engine.Shutdown(ended))
		m.model.interrupt()
	case "shut down patiently":
		require.NoError(t, m.engine.Shutdown(context.Background()))
		m.model.drain()
	}
	for _, name := range []string{"m", "l1", "l2"} {
		m.model.drivers[name] = rapid.Bool().Draw(t, name)
		if !m.model.drivers[name] {
			delete(m.model.drivers, name)
		}
	}
	st := m.reopen()
	downtime := time.Duration(rapid.IntRange(1, 50).Draw(t, "downtime")) * 100 * time.Millisecond
	time.Sleep(downtime)
	m.model.now = time.Now()
	m.start(st)
	m.model.settle()
	m.model.hear()
	m.model.settle()
}

// model is the engine as one would explain it: nothing is concurrent, nothing is lost, and a call takes either no time
// at all or slowness.
type model struct {
	now       time.Time
	pipelines map[string]*modelPipeline
	drivers   map[string]bool
	pauses    map[conveyor.Target]bool
	resources map[conveyor.Key]*modelResource
	script    script
	seen      map[conveyor.Key][]string
}

type modelPipeline struct {
	attempts int
	queues   bool // every generation
	steps    []modelStep
}

type modelResource struct {
	key                 conveyor.Key
	pipeline            string
	spec                int
	metadata            map[string]string
	version, generation int64
	observed            int64
	phase               conveyor.State
	runs                []*modelRun
	active              *modelRun
	line                []*modelRun // that have not begun
}

type modelRun struct {
	generation int64
	pipeline   string
	cause      conveyor.Cause
	by         string
	state      conveyor.State // queued, running or final
	loose      bool           // no pipeline: the steps do not wait for one another
	own        bool           // it keeps its generation, spec and pipeline
	attempts   int
	steps      []modelStep
	halted     bool
}

type modelStep struct {
	id, driver    string
	state         conveyor.State
	attempt       int
	cleared       int  // attempts before the newest requeue
	again         bool // the next call has the same number
	resumed       bool
	requeues      int
	interruptions int
	failures      []string
	answers       int
	doing         answer    // while it runs
	due           time.Time // of the end of a call, of a retry or of a requeue
}

func (m *model) apply(k conveyor.Key, pipeline string, spec int, metadata map[string]string, version int64, create bool, by string) (*modelRun, error) {
	r := m.resources[k]
	changed := r == nil || r.pipeline != pipeline || r.spec != spec
	switch {
	case r != nil && create:
		return nil, conveyor.ErrExists
	case version != 0 && (r == nil || r.version != version):
		return nil, conveyor.ErrConflict
	case changed && pipeline != "" && m.pipelines[pipeline] == nil:
		return nil, conveyor.ErrNotFound
	}
	cause := conveyor.CauseUpdated
	if r == nil {
		r = &modelResource{key: k}
		m.resources[k] = r
		cause = conveyor.CauseCreated
	}
	if changed || len(r.metadata) != len(metadata) {
		r.version++
	}
	r.pipeline, r.spec, r.metadata = pipeline, spec, metadata
	if !changed {
		return r.runs[len(r.runs)-1], nil
	}
	r.generation++
	return r.queue(cause, pipeline != "" && m.pipelines[pipeline].queues, by), nil
}

func (m *model) trigger(k conveyor.Key) (*modelRun, error) {
	r := m.resources[k]
	if r == nil || r.pipeline != "" && m.pipelines[r.pipeline] == nil {
		return nil, conveyor.ErrNotFound
	}
	return r.queue(conveyor.CauseTriggered, false, "trigger"), nil
}

// queue asks for a run. If the newest one is queued, it will do, and stands for what the resource wants now; unless it
// keeps what it was made for, or the new one shall, and something has changed.
func (r *modelResource) queue(cause conveyor.Cause, own bool, by string) *modelRun {
	n := len(r.line)
	if n > 0 && own {
		r.line[0].own = true // what was before stays with it
	}
	own = own || n > 0 && r.line[n-1].own
	if r.phase == conveyor.StateQueued && (!own || cause != conveyor.CauseUpdated) {
		newest := r.line[n-1]
		if !newest.own {
			newest.generation, newest.pipeline = r.generation, r.pipeline
			if cause == conveyor.CauseUpdated {
				newest.cause, newest.by = cause, by
			}
		}
		return newest
	}
	run := &modelRun{state: conveyor.StateQueued, cause: cause, by: by, own: own, generation: r.generation, pipeline: r.pipeline}
	r.runs, r.line, r.phase = append(r.runs, run), append(r.line, run), conveyor.StateQueued
	return run
}

func (m *model) cancel(r *modelResource, run *modelRun) error {
	if run.state.Final() {
		return conveyor.ErrConflict
	}
	for i := range run.steps {
		s := &run.steps[i]
		switch s.state {
		case conveyor.StateRunning:
			s.failures = append(s.failures, fmt.Sprintf("%d conveyor: canceled: why", s.attempt))
			s.state = conveyor.StateCanceled
		case conveyor.StateRetrying, conveyor.StateWaiting, conveyor.StateBlocked:
			s.state = conveyor.StateCanceled
		}
	}
	m.end(r, run, conveyor.StateCanceled)
	return nil
}

func (m *model) end(r *modelResource, run *modelRun, state conveyor.State) {
	run.state = state
	for i := range run.steps {
		if !run.steps[i].state.Final() {
			run.steps[i].state = conveyor.StateSkipped
		}
	}
	if r.active == run {
		r.active = nil
	}
	r.line = slices.DeleteFunc(r.line, func(queued *modelRun) bool { return queued == run })
	if r.runs[len(r.runs)-1] == run {
		r.phase = state
	}
	r.observed = max(r.observed, run.generation)
}

func (m *model) register(name string) {
	m.drivers[name] = true
	m.settle()
	m.hear()
	m.settle()
}

// hear makes runs for what no driver had listened to.
func (m *model) hear() {
	for _, r := range m.resources {
		if r.pipeline == "" && r.phase == conveyor.StateSkipped && len(m.listeners(r.key.Type)) > 0 {
			r.queue(conveyor.CauseCreated, false, "conveyor")
		}
	}
}

func (m *model) listeners(kind string) (names []string) {
	for name := range m.drivers {
		if listening[name] == kind {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// settle does all that takes no time.
func (m *model) settle() {
	for _, r := range m.resources {
		for {
			if r.active == nil && len(r.line) > 0 && !m.holdsBegin(r) {
				m.begin(r)
				continue // it may have ended at once
			}
			if r.active == nil || !m.goOn(r, r.active) {
				break
			}
		}
	}
}

// holds reports whether a pause holds a step with a driver.
func (m *model) holds(r *modelResource, pipeline, driver string) bool {
	return m.pauses[conveyor.Target{All: true}] || m.pauses[conveyor.Target{Type: r.key.Type}] || m.pauses[conveyor.Target{Resource: r.key}] ||
		pipeline != "" && m.pauses[conveyor.Target{Pipeline: pipeline}] || driver != "" && m.pauses[conveyor.Target{Driver: driver}]
}

// holdsBegin reports whether the first run in the line cannot begin: a pause holds it, or all the steps with which it would.
func (m *model) holdsBegin(r *modelResource) bool {
	run := r.line[0]
	if m.holds(r, run.pipeline, "") {
		return true
	}
	first := m.listeners(r.key.Type)
	if run.pipeline != "" {
		p := m.pipelines[run.pipeline]
		if p == nil {
			return false
		}
		first = []string{p.steps[0].driver}
	}
	held := func(driver string) bool { return m.holds(r, run.pipeline, driver) }
	return len(first) > 0 && !slices.ContainsFunc(first, func(driver string) bool { return !held(driver) })
}

func (m *model) begin(r *modelResource) {
	run := r.line[0]
	r.active, r.line = run, r.line[1:]
	run.state = conveyor.StateRunning
	if r.runs[len(r.runs)-1] == run {
		r.phase = conveyor.StateRunning
	}
	if run.pipeline != "" {
		p := m.pipelines[run.pipeline]
		if p == nil {
			m.end(r, run, conveyor.StateFailed)
			return
		}
		run.steps, run.attempts = slices.Clone(p.steps), p.attempts
		return
	}
	run.loose, run.attempts = true, 3
	for _, name := range m.listeners(r.key.Type) {
		run.steps = append(run.steps, modelStep{id: name, driver: name, state: conveyor.StatePending})
	}
	if len(run.steps) == 0 {
		m.end(r, run, conveyor.StateSkipped)
	}
}

// goOn starts what may start, and ends the run if it is over. It reports whether there is more to do.
func (m *model) goOn(r *modelResource, run *modelRun) (more bool) {
	m.endIfOver(r, run)
	if run.state.Final() {
		return true // the next one may begin
	}
	for i := range run.steps {
		s := &run.steps[i]
		if s.state == conveyor.StateSucceeded || s.state == conveyor.StateSkipped {
			continue
		}
		more = m.startStep(r, run, s) || more
		if !run.loose {
			break
		}
	}
	return more
}

func (m *model) startStep(r *modelResource, run *modelRun, s *modelStep) bool {
	switch s.state {
	case conveyor.StatePending, conveyor.StateQueued, conveyor.StateBlocked:
	case conveyor.StateRetrying, conveyor.StateWaiting:
		if s.due.After(m.now) {
			return false
		}
	default:
		return false
	}
	s.due = time.Time{}
	if s.attempt == 0 && m.holds(r, run.pipeline, s.driver) || !m.drivers[s.driver] {
		s.state = conveyor.StateBlocked
		return false
	}
	if !s.again {
		s.attempt++
	}
	m.seen[r.key] = append(m.seen[r.key], sight(run.generation, run.cause, s.id, s.attempt, s.resumed))
	s.state, s.doing = conveyor.StateRunning, m.script.answer(r.key, run.generation, run.cause, s.id, s.answers)
	if s.doing == isSlow || s.doing == isSlowFail {
		s.due = m.now.Add(slowness)
		return false
	}
	m.answer(run, s)
	return true
}

func (m *model) answer(run *modelRun, s *modelStep) {
	s.answers++
	s.again, s.resumed, s.due = false, false, time.Time{}
	delay := time.Second << (s.attempt - s.cleared - 1)
	text := "boom"
	switch s.doing {
	case isDone, isSlow:
		s.state = conveyor.StateSucceeded
		return
	case isSkip:
		s.state = conveyor.StateSkipped
		return
	case isHalt:
		s.state, run.halted = conveyor.StateSucceeded, true
		return
	case isRequeue:
		s.state, s.again, s.due = conveyor.StateWaiting, true, m.now.Add(requeueTime)
		s.cleared = s.attempt - 1
		s.requeues++
		return
	case isPanic:
		text = "driver panicked: kaboom"
	case isGoexit:
		text = "driver panicked: runtime.Goexit was called"
	case isLater:
		delay = ownDelay
	}
	s.failures = append(s.failures, fmt.Sprintf("%d %s", s.attempt, text))
	if s.doing == isForGood || s.attempt-s.cleared >= run.attempts {
		s.state = conveyor.StateFailed
		return
	}
	s.state, s.due = conveyor.StateRetrying, m.now.Add(delay)
}

func (m *model) endIfOver(r *modelResource, run *modelRun) {
	failed, left := false, false
	for _, s := range run.steps {
		failed = failed || s.state == conveyor.StateFailed
		left = left || !s.state.Final()
	}
	switch {
	case run.state.Final():
	case failed && (!run.loose || !left):
		m.end(r, run, conveyor.StateFailed)
	case !left, run.halted:
		m.end(r, run, conveyor.StateSucceeded)
	}
}

// pass lets time go by.
func (m *model) pass(d time.Duration) {
	end := m.now.Add(d)
	for {
		m.settle()
		next := m.next(func(s *modelStep) bool { return !s.due.IsZero() })
		if next.IsZero() || next.After(end) {
			break
		}
		m.now = next
		m.answerSlow()
	}
	m.now = end
}

// next is the earliest due time among the steps that are wanted.
func (m *model) next(wanted func(*modelStep) bool) (next time.Time) {
	for _, s := range m.underWay() {
		if wanted(s) && (next.IsZero() || s.due.Before(next)) {
			next = s.due
		}
	}
	return next
}

func (m *model) underWay() (steps []*modelStep) {
	for _, r := range m.resources {
		if r.active != nil {
			for i := range r.active.steps {
				steps = append(steps, &r.active.steps[i])
			}
		}
	}
	return steps
}

// answerSlow has the calls answer whose time has come.
func (m *model) answerSlow() {
	for _, r := range m.resources {
		if run := r.active; run != nil {
			for i := range run.steps {
				if s := &run.steps[i]; s.state == conveyor.StateRunning && !s.due.After(m.now) {
					m.answer(run, s)
				}
			}
			m.endIfOver(r, run)
		}
	}
}

// interrupt cuts the calls short that are under way.
func (m *model) interrupt() {
	for _, s := range m.underWay() {
		if s.state == conveyor.StateRunning {
			s.state, s.again, s.resumed, s.due = conveyor.StateQueued, true, true, time.Time{}
			s.interruptions++
		}
	}
}

// drain lets the calls end that are under way, and starts nothing.
func (m *model) drain() {
	for {
		next := m.next(func(s *modelStep) bool { return s.state == conveyor.StateRunning })
		if next.IsZero() {
			return
		}
		m.now = next
		m.answerSlow()
	}
}

func (m *model) render() string {
	var b strings.Builder
	sorted := slices.SortedFunc(slices.Values(keys), func(a, b conveyor.Key) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range sorted {
		r := m.resources[k]
		if r == nil {
			continue
		}
		fmt.Fprintf(&b, "%s: version %d, generation %d, pipeline %q, spec %d, metadata %v, %s, observed %d\n", r.key,
			r.version, r.generation, r.pipeline, r.spec, r.metadata, r.phase, r.observed)
		for _, run := range r.runs {
			state := run.shown()
			if r.active == nil && len(r.line) > 0 && r.line[0] == run && m.holdsBegin(r) {
				state = conveyor.StateBlocked
			}
			fmt.Fprintf(&b, "  run of generation %d along %q by %q, %s: %s\n", run.generation, run.pipeline, run.by, run.cause, state)
			for _, s := range run.steps {
				due := s.due
				if s.state == conveyor.StateRunning || s.state.Final() {
					due = time.Time{}
				}
				writeStep(&b, s.id, s.state, s.attempt, s.requeues, s.interruptions, due, s.failures)
			}
		}
	}
	return b.String()
}

// shown is the liveliest state of a run's steps while it runs.
func (r *modelRun) shown() conveyor.State {
	if r.state != conveyor.StateRunning {
		return r.state
	}
	for _, state := range []conveyor.State{conveyor.StateRunning, conveyor.StateRetrying, conveyor.StateWaiting, conveyor.StateBlocked} {
		if slices.ContainsFunc(r.steps, func(s modelStep) bool { return s.state == state }) {
			return state
		}
	}
	return r.state
}
