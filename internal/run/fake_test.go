package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// start is the time at which every test begins.
const start = record.Time(1_000_000 * time.Second)

// resource is the key of the resource that the runs of a test belong to.
var resource = record.Key{Type: "thing", Name: "one"}

var ctx = context.Background()

// tester is a *testing.T or a *rapid.T.
type tester interface {
	require.TestingT
	Helper()
}

// world is what surrounds the runs of one resource: a store, a clock, and a host. It does what the engine does with a
// Transition, one call after the other, and checks what must hold after each commit.
type world struct {
	tester
	store  *memory.Store
	ledger *ledger.Ledger
	host   *fakeHost
	limits run.Limits
	now    record.Time
	runs   map[string]*heldRun // the unfinished ones
	nextID int
	check  func(c *change) // is called after each commit, if it is set

	// memberOf returns the engine that decides about a run. It is nil unless the store is shared. acting is what it returned last.
	memberOf func(k *heldRun) *run.Member
	acting   *run.Member
}

// heldRun is an unfinished run as an engine holds it.
type heldRun struct {
	id        string
	state     run.State    // its Run is nil if it must be read from the store
	calls     map[int]call // by the position of the step
	pipeline  string       // in which the run has a place; empty for none
	leftovers bool
	lines     *fakeLines
}

// call is a call of a driver that has not returned.
type call struct {
	driver  string
	attempt int
}

// change is what a commit has changed.
type change struct {
	run           *heldRun
	in            *run.Input
	ops           []store.Op
	before, after map[string]store.Record
	over, idle    bool
	more          bool     // another decision follows at once
	starts        []string // ids of the steps that start
	due           record.Time
}

func newWorld(t tester) *world {
	w := &world{
		tester: t, store: memory.New(), now: start, runs: map[string]*heldRun{},
		limits: run.Limits{ErrorText: 200, Attempts: 10, Interruptions: 5, Steps: 10},
	}
	w.ledger = ledger.New(w.store)
	w.host = &fakeHost{world: w, drivers: map[string]*fakeDriver{}, workers: many, places: map[string]int{}, paused: map[string]string{}}
	return w
}

// many is more than any test takes.
const many = 1_000

// fakeDriver is a driver that a fakeHost knows.
type fakeDriver struct {
	finalizer bool
	slots     int // that are free
}

// fakeHost is a run.Host. The grants since the last commit are in granted and entered, until a commit makes them the
// run's own or Release takes them back.
type fakeHost struct {
	world     *world
	drivers   map[string]*fakeDriver
	workers   int            // that are free
	places    map[string]int // that are free, by pipeline; a pipeline that is not in it has no limit
	listeners []string
	held      bool // an abandoned call of the resource has not returned
	draining  bool
	paused    map[string]string // why, by "driver NAME" or "pipeline NAME"
	lacks     map[string]bool   // "ENGINE DRIVER": the driver is not registered in the engine, and another engine has it

	granted []string // drivers
	entered string   // pipeline
}

// register adds drivers that have a Finalize and any number of slots.
func (h *fakeHost) register(names ...string) {
	for _, name := range names {
		h.drivers[name] = &fakeDriver{finalizer: true, slots: many}
	}
}

func (h *fakeHost) Start(name string, finalize bool) run.Grant {
	d := h.drivers[name]
	switch {
	case d == nil:
		return run.NoDriver
	case h.world.acting != nil && h.lacks[h.world.acting.ID+" "+name]:
		return run.Elsewhere
	case finalize && !d.finalizer:
		return run.NotNeeded
	case h.held:
		return run.Later
	case h.workers == 0:
		return run.NoWorker
	case d.slots == 0:
		return run.Later
	}
	h.workers--
	d.slots--
	h.granted = append(h.granted, name)
	return run.Granted
}

func (h *fakeHost) Paused(pipeline, driver string) string {
	if why := h.paused["pipeline "+pipeline]; why != "" {
		return why
	}
	return h.paused["driver "+driver]
}

func (h *fakeHost) Enter(name string, rec *record.Pipeline) (bool, *record.Pipeline, error) {
	rec, _, err := h.world.ledger.Pipeline(ctx, name)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return false, nil, err
	}
	require.Empty(h.world, h.entered, "one run enters one pipeline")
	if free, limited := h.places[name]; limited && rec != nil {
		if free == 0 {
			return false, rec, nil
		}
		h.places[name]--
	}
	h.entered = name
	return true, rec, nil
}

func (h *fakeHost) Release() {
	for _, name := range h.granted {
		h.returned(name)
	}
	h.granted = nil
	h.leave(h.entered)
	h.entered = ""
}

func (h *fakeHost) Listeners(string) ([]string, error) { return h.listeners, nil }
func (h *fakeHost) Stray() bool                        { return h.held }
func (h *fakeHost) IsLive(engine string) (bool, error) {
	return h.world.has(record.EngineKey(engine)), nil
}
func (h *fakeHost) Draining() bool { return h.draining }

// returned gives back what a call has held.
func (h *fakeHost) returned(driver string) {
	h.workers++
	if d := h.drivers[driver]; d != nil {
		d.slots++
	}
}

// leave gives back the place of a run in a pipeline.
func (h *fakeHost) leave(pipeline string) {
	if _, limited := h.places[pipeline]; limited {
		h.places[pipeline]++
	}
}

// fakeLines is the log of a run, whose lines are all the same.
type fakeLines struct {
	run     string
	last    int64
	pending int
	kept    map[string]int
}

func (l *fakeLines) Ops() (ops []store.Op, last int64) {
	if l.pending == 0 {
		return nil, l.last
	}
	return []store.Op{store.Put(record.LogKey(l.run, l.last+1), []byte("[]"))}, l.last + int64(l.pending)
}

func (l *fakeLines) Kept(step string) int { return l.kept[step] }

// put writes records of a test's beginning.
func (w *world) put(key string, rec any) store.Revision {
	w.Helper()
	return w.write(store.Put(key, record.Encode(rec)))
}

func (w *world) write(ops ...store.Op) store.Revision {
	w.Helper()
	rev, err := w.store.Commit(ctx, ops...)
	require.NoError(w, err)
	return rev
}

// savePipeline writes a pipeline and its definition.
func (w *world) savePipeline(name string, p *plan.Plan, change ...func(*record.Pipeline)) *record.Pipeline {
	w.Helper()
	doc, err := document.Marshal(p)
	require.NoError(w, err)
	rec := &record.Pipeline{Hash: ledger.DefinitionHash(doc), Resource: resource.Type, OnChange: record.Coalesce, Saved: w.now}
	for _, c := range change {
		c(rec)
	}
	w.write(store.Put(record.DefinitionKey(name, rec.Hash), doc))
	w.put(record.PipelineKey(name), rec)
	return rec
}

// saveResource writes the record of the resource, in generation 1, and its revision.
func (w *world) saveResource(pipeline string, change ...func(*record.Resource)) *record.Resource {
	w.Helper()
	head := &record.Resource{
		ID: "r1", Pipeline: pipeline, Version: 1, Generation: 1, First: 1, Created: start, Updated: start,
		Status: record.Status{Phase: plan.Queued, Run: "none"},
	}
	for _, c := range change {
		c(head)
	}
	w.put(record.RevisionKey(resource, head.Generation), &record.Revision{Pipeline: pipeline, Version: head.Version, At: start, Spec: []byte(`{"a":1}`)})
	w.put(record.ResourceKey(resource), head)
	return head
}

// queuedRun writes a run that is the first pending one of a resource.
func (w *world) queuedRun(pipeline string, cause record.Cause, change ...func(*record.Run, *record.Resource)) *heldRun {
	w.Helper()
	id := w.newID()
	rec := &record.Run{
		Type: resource.Type, Name: resource.Name, ResourceID: "r1", Cause: cause, State: plan.Queued,
		Generation: 1, Pipeline: pipeline, Created: w.now,
	}
	w.saveResource(pipeline, func(head *record.Resource) {
		head.Pending, head.Cause = id, cause
		head.Status = record.Status{Phase: plan.Queued, Run: id}
		if cause == record.Deleted {
			head.Deleted = w.now
		}
		for _, c := range change {
			c(rec, head)
		}
	})
	w.put(record.RunKey(id), rec)
	w.write(store.Put(record.ActiveKey(id), []byte("{}")))
	return w.hold(id)
}

// activeRun writes a run that has begun, with the records of some of its steps. A step whose state is Unset has none.
func (w *world) activeRun(p *plan.Plan, steps []record.Step, change ...func(*record.Run, *record.Resource)) *heldRun {
	w.Helper()
	id := w.newID()
	rec := &record.Run{
		Type: resource.Type, Name: resource.Name, ResourceID: "r1", Cause: record.Created, State: plan.Running,
		Generation: 1, Version: 1, Created: start, Started: start,
	}
	if p.Finalize {
		rec.Cause, rec.DeletedAt = record.Deleted, start
	}
	w.saveResource("", func(head *record.Resource) {
		head.Active, head.Deleted = id, rec.DeletedAt
		head.Status = record.Status{Phase: plan.Running, Run: id}
		for _, c := range change {
			c(rec, head)
		}
	})
	w.put(record.RunKey(id), rec)
	w.put(record.PlanKey(id), p)
	w.write(store.Put(record.ActiveKey(id), []byte("{}")))
	for i := range steps {
		if steps[i].State != plan.Unset {
			w.put(record.StepKey(id, p.Step(i).ID), &steps[i])
		}
	}
	k := w.hold(id)
	for i := range steps {
		if steps[i].State == plan.Running {
			k.calls[i] = call{p.Step(i).Driver, steps[i].Attempt}
			w.host.workers--
			if d := w.host.drivers[p.Step(i).Driver]; d != nil {
				d.slots--
			}
		}
	}
	return k
}

func (w *world) newID() string {
	w.nextID++
	return fmt.Sprintf("run%04d", w.nextID)
}

func (w *world) hold(id string) *heldRun {
	k := &heldRun{id: id, calls: map[int]call{}, lines: &fakeLines{run: id, kept: map[string]int{}}}
	w.runs[id] = k
	return k
}

// open reads a run. A step that is running on record, and for which there is no call, was interrupted by the death of
// the process.
func (w *world) open(k *heldRun) *record.RunState {
	w.Helper()
	r, err := w.ledger.Run(ctx, k.id)
	require.NoError(w, err)
	for i := range r.Steps {
		if _, runs := k.calls[i]; r.Steps[i].Rec.State == plan.Running && !runs {
			r.Steps[i].Rec.Interrupt()
			r.Steps[i].Rec.Crashes++
		}
	}
	return r
}

// load reads a run that is not held in memory.
func (w *world) load(k *heldRun) {
	w.Helper()
	if k.state.Run != nil {
		return
	}
	k.state = run.State{Run: w.open(k)}
	if k.state.Run.Plan != nil {
		revision, err := w.ledger.Revision(ctx, resource, k.state.Run.Rec.Generation)
		require.NoError(w, err)
		k.state.Spec = revision.Spec
	}
}

// crash forgets all that is in memory of all runs.
func (w *world) crash() {
	for _, k := range w.runs {
		for _, c := range k.calls {
			w.host.returned(c.driver)
		}
		clear(k.calls)
		k.state = run.State{}
		k.leftovers = true // it is not known
		k.lines.pending = 0
	}
}

// input completes an input.
func (w *world) input(k *heldRun, in run.Input) *run.Input {
	in.Now, in.Leftovers = w.now, k.leftovers
	if w.memberOf != nil {
		w.acting = w.memberOf(k)
		in.Member = w.acting
		if urgent := record.ReadyKey(record.Ready{Lane: record.Urgent, Run: k.id}); w.has(urgent) {
			in.Found = urgent
		}
	}
	if k.lines != nil {
		in.Lines = k.lines
	}
	return &in
}

// next decides. It decides twice, and gives the first decision up, which must leave no trace.
func (w *world) next(k *heldRun, in *run.Input) *run.Transition {
	w.Helper()
	w.load(k)
	return w.twice(&k.state, func() (*run.Transition, error) {
		return run.Next(&k.state, in, w.ledger.View(ctx), w.host, w.limits)
	})
}

func (w *world) twice(s *run.State, decide func() (*run.Transition, error)) *run.Transition {
	w.Helper()
	s.Run.Key() // is computed once, and kept
	before, free := cloneState(s), w.host.workers
	places := maps.Clone(w.host.places)
	given, err := decide()
	if err != nil && before.Rev != 0 && w.changed(s) {
		// What the resource's record refers to was gone when it was read. It is read again, as after a conflict.
		w.host.Release()
		given.Recycle()
		return w.twice(s, decide)
	}
	require.NoError(w, err)
	ops := cloneOps(given.Ops())
	starts := slices.Clone(given.Starts())
	w.host.Release()
	given.Recycle()
	head, rev := s.Head, s.Rev // what is read stays, and is no trace
	if before.Rev == 0 {
		s.Head, s.Rev = before.Head, before.Rev
	}
	require.Equal(w, before, cloneState(s), "the state after a transition that was not committed")
	s.Head, s.Rev = head, rev
	require.Equal(w, free, w.host.workers, "free workers after a transition that was not committed")
	require.Equal(w, places, w.host.places, "free places after a transition that was not committed")

	t, err := decide()
	require.NoError(w, err)
	require.Equal(w, ops, cloneOps(t.Ops()), "the writes of the same decision")
	require.True(w, slices.Equal(starts, t.Starts()), "the starts of the same decision")
	return t
}

// changed reads the record of the resource again, and reports whether it is another one than before.
func (w *world) changed(s *run.State) bool {
	w.Helper()
	before := s.Rev
	head, rev, err := w.ledger.Resource(ctx, resource)
	require.NoError(w, err)
	s.Head, s.Rev = head, rev
	return rev != before
}

func cloneState(s *run.State) *run.State {
	c := *s
	c.Spec = bytes.Clone(s.Spec)
	c.Head = plan.ClonePtr(s.Head)
	r := *s.Run
	c.Run = &r
	r.Steps = slices.Clone(r.Steps)
	for i := range r.Steps {
		rec := &r.Steps[i].Rec
		rec.Waits, rec.Output, rec.Signal = slices.Clone(rec.Waits), bytes.Clone(rec.Output), bytes.Clone(rec.Signal)
	}
	return &c
}

func cloneOps(ops []store.Op) []string {
	texts := make([]string, len(ops))
	for i, op := range ops {
		texts[i] = fmt.Sprintf("%+v %s", op, op.Value())
	}
	return texts
}

// records returns all that is in the store.
func (w *world) records() map[string]store.Record {
	w.Helper()
	all := map[string]store.Record{}
	for r, err := range w.store.List(ctx, store.Query{}) {
		require.NoError(w, err)
		all[r.Key] = r
	}
	return all
}

// result is what a transition came to.
type result struct {
	starts      []string
	ops         []string // keys, of a removal with a minus in front, of a check with a question mark
	over        bool
	begun       bool
	idle        bool
	needsWorker bool
	stop        error
	preempts    *run.Preemption
	leftovers   bool
	more        bool
	due         record.Time
	changes     []run.Change
	head        *record.Resource
}

// keys describes the writes.
func keys(ops []store.Op) (texts []string) {
	for _, op := range ops {
		mark := ""
		switch {
		case op.Removes():
			mark = "-"
		case !op.Writes():
			mark = "?"
		}
		texts = append(texts, mark+op.Key())
	}
	return texts
}

// drive decides on an input and commits. It returns nil if the commit was refused because the resource has changed.
func (w *world) drive(k *heldRun, given run.Input) *result {
	w.Helper()
	in := w.input(k, given)
	return w.commit(k, in, w.next(k, in))
}

// commit writes a transition and does what it asks for, as the engine does.
func (w *world) commit(k *heldRun, in *run.Input, t *run.Transition) *result {
	w.Helper()
	ops := t.Ops()
	r := &result{
		ops: keys(ops), over: t.Over(), begun: t.Begun(), idle: t.Idle(), needsWorker: t.NeedsWorker(), more: t.More(), stop: t.Stop(),
		preempts: t.Preempts(), leftovers: t.LeavesLeftovers(),
	}
	if most := w.limits.Changes; most > 0 {
		require.LessOrEqual(w, len(ops), most*run.OpsOfStep+run.OpsOfRest+1, "and one record of log lines: %v", r.ops)
		steps := 0
		for _, op := range ops {
			if strings.HasPrefix(op.Key(), record.StepsOf(k.id)) {
				steps++
			}
		}
		require.LessOrEqual(w, steps, most, "the steps that change: %v", r.ops)
	}
	before := w.records()
	w.checkFenced(k, ops)
	if len(ops) > 0 {
		rev, err := w.store.Commit(ctx, ops...)
		if errors.Is(err, store.ErrConflict) {
			w.host.Release()
			t.Recycle()
			require.True(w, w.changed(&k.state), "a conflict that the resource's record does not explain: %v", r.ops)
			return nil
		}
		require.NoError(w, err)
		t.Committed(rev)
	}
	if t.Logged() > 0 {
		k.lines.last, k.lines.pending = t.Logged(), 0
	}
	if r.idle {
		w.host.leave(w.host.entered)
		w.host.entered = ""
	}
	if w.host.entered != "" {
		require.NotEqual(w, plan.Queued, k.state.Run.Rec.State, "a run that has not begun has no place")
		k.pipeline = w.host.entered
	}
	for _, o := range in.Outcomes {
		delete(k.calls, o.Step)
	}
	require.Len(w, w.host.granted, len(t.Starts()), "what was granted is what starts")
	for n, i := range t.Starts() {
		require.NotContains(w, k.calls, i, "the step is being called")
		k.calls[i] = call{w.host.granted[n], t.Step(i).Attempt}
		require.Equal(w, t.Plan().Step(i).Driver, w.host.granted[n])
		r.starts = append(r.starts, t.StepID(i))
	}
	w.host.granted, w.host.entered = nil, ""
	r.changes = slices.Clone(t.Changes())
	r.head = plan.ClonePtr(t.Head())
	if !r.over {
		due, deadline := t.NextDue()
		if r.due = due; due == 0 || deadline != 0 && deadline < due {
			r.due = deadline
		}
	}
	w.checkState(k, r.over)
	c := &change{run: k, in: in, ops: slices.Clone(ops), before: before, after: w.records(), over: r.over, idle: r.idle, more: r.more, starts: r.starts, due: r.due}
	if r.over {
		require.Empty(w, k.calls, "a run ends without a call under way")
		w.host.leave(k.pipeline)
		delete(w.runs, k.id)
		if r.leftovers {
			require.NoError(w, w.ledger.RemoveAll(ctx, ledger.Leftovers(k.id)...))
		}
	}
	t.Recycle()
	if w.check != nil {
		w.check(c)
	}
	if len(k.calls) == 0 && !r.needsWorker {
		k.state = run.State{} // it is read again when it goes on
	}
	return r
}

// checkFenced checks that nobody else can have written the run when a commit succeeds, and that the first write under a
// condition tells whether a commit has happened.
func (w *world) checkFenced(k *heldRun, ops []store.Op) {
	w.Helper()
	require.NoError(w, store.CheckOps(ops))
	if len(ops) == 0 {
		return
	}
	fenced, first := false, ""
	for _, op := range ops {
		if !op.Conditional() {
			continue
		}
		fenced = fenced || op.Key() == record.RunKey(k.id)
		if first == "" {
			first = op.Key()
		}
	}
	require.True(w, fenced, "a commit without a condition on the run's record: %v", keys(ops))
	require.True(w, first == record.RunKey(k.id) || strings.HasPrefix(first, record.StepsOf(k.id)),
		"the first condition is on %s, which others write too", first)
}

// checkState checks that the state in memory is what is on record.
func (w *world) checkState(k *heldRun, over bool) {
	w.Helper()
	read, held := w.open(k), k.state.Run
	require.Equal(w, read.Rec, held.Rec, "the run in memory and on record")
	require.Equal(w, read.Rev, held.Rev)
	require.Equal(w, read.Plan, held.Plan)
	require.Len(w, held.Steps, len(read.Steps))
	for i := range read.Steps {
		require.Equal(w, read.Steps[i].Rec, held.Steps[i].Rec, "step %d in memory and on record", i)
		require.Equal(w, read.Steps[i].Rev, held.Steps[i].Rev, "step %d", i)
	}
	if k.state.Rev != 0 && !over {
		head, rev, err := w.ledger.Resource(ctx, resource)
		require.NoError(w, err)
		if rev == k.state.Rev { // or else somebody else has changed it
			require.Equal(w, head, k.state.Head, "the resource in memory and on record")
		}
	}
	if read.Plan != nil && !over {
		revision, err := w.ledger.Revision(ctx, resource, read.Rec.Generation)
		require.NoError(w, err)
		require.JSONEq(w, string(revision.Spec), string(k.state.Spec))
	}
}

// outcome is the answer of a call that is under way. The call has returned then.
func (w *world) outcome(k *heldRun, step int, change func(*run.Outcome)) *run.Outcome {
	w.Helper()
	require.Contains(w, k.calls, step, "a call is under way")
	c := k.calls[step]
	w.host.returned(c.driver)
	o := &run.Outcome{Step: step, Attempt: c.attempt, Ended: w.now, Policy: steady}
	change(o)
	return o
}

// steady is a policy whose delays are not random.
var steady = retry.Policy{MaxAttempts: 3, Initial: document.Duration(time.Second), Max: document.Duration(time.Minute), Multiplier: 2, Jitter: -1}

// answer drives a run with the answer of one step.
func (w *world) answer(k *heldRun, step int, change func(*run.Outcome)) *result {
	w.Helper()
	w.load(k)
	return w.drive(k, run.Input{Outcomes: []*run.Outcome{w.outcome(k, step, change)}})
}

// recOf returns what is on record of a run.
func (w *world) recOf(k *heldRun) *record.RunState {
	w.Helper()
	r, err := w.ledger.Run(ctx, k.id)
	require.NoError(w, err)
	return r
}

// head returns the record of the resource; nil if there is none.
func (w *world) head() *record.Resource {
	w.Helper()
	head, _, err := w.ledger.Resource(ctx, resource)
	require.NoError(w, err)
	return head
}

// has reports whether there is a record.
func (w *world) has(key string) bool {
	_, err := w.store.Get(ctx, key)
	return err == nil
}

// The answers of a driver.
func done(*run.Outcome)             {}
func cut(o *run.Outcome)            { o.Kind = run.Cut }
func halted(o *run.Outcome)         { o.Kind, o.Reason = run.Halt, "enough" }
func skipped(o *run.Outcome)        { o.Kind, o.Reason = run.Skip, "not today" }
func requeued(o *run.Outcome)       { o.Kind, o.Delay = run.Requeue, time.Minute }
func refused(o *run.Outcome)        { o.Kind, o.Delay = run.Refused, time.Minute }
func failed(o *run.Outcome)         { o.Kind, o.Failure = run.Failed, &run.Failure{Text: "boom"} }
func failedForGood(o *run.Outcome)  { failed(o); o.Failure.Permanent = true }
func awaitsGo(o *run.Outcome)       { o.Kind, o.Reason = run.Await, "go" }
func awaitsGoAWhile(o *run.Outcome) { o.Kind, o.Reason, o.Delay = run.Await, "go", time.Hour }
func doneWith(output string) func(*run.Outcome) {
	return func(o *run.Outcome) { o.Output = json.RawMessage(output) }
}

// listOf is a plan of steps in order. The driver of each has its id.
func listOf(ids ...string) *plan.Plan {
	p := &plan.Plan{}
	for _, id := range ids {
		p.Steps = append(p.Steps, plan.Step{ID: id, Driver: id})
	}
	return p
}

// finally adds steps that run at the end.
func finally(p *plan.Plan, ids ...string) *plan.Plan {
	for _, id := range ids {
		p.Finally = append(p.Finally, plan.Step{ID: id, Driver: id})
	}
	return p
}
