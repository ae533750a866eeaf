package run_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/store"
)

// TestRunsKeepTheRules drives the runs of one resource with random changes, answers, stops, signals, crashes and hosts.
// After each commit it checks the rules on what is on record. At last the host grants all, every driver succeeds, and
// every run must end.
func TestRunsKeepTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newChaos(t)
		for range rapid.IntRange(0, 60).Draw(t, "inputs") {
			c.act()
		}
		c.settle()
	})
}

// chaos is a world with random inputs, and what its runs must be like.
type chaos struct {
	*world
	rt       *rapid.T
	failures map[string]int // recorded failures of a step, by the key of its record
	signals  int
	policy   record.ChangePolicy
	calm     bool                   // the host grants everything
	plans    map[string]*plan.Plan  // as they were pinned
	pinned   map[string]*record.Run // runs as they were when they began
	worked   *recorded              // the newest run of the resource that had steps, deletions apart
	called   map[string]bool        // the drivers that earlier runs of the resource have called
	engines  *engines               // nil unless the store is shared
}

// drivers are those of all steps.
var drivers = []string{"a", "b", "c"}

// pipelines are those that the resource can name. The empty name stands for the drivers that listen.
var pipelines = []string{"", "p", "q", "planned"}

func newChaos(rt *rapid.T) *chaos { return newChaosOn(rt, func(*chaos) {}) }

// newChaosOn returns a chaos that is changed before its resource is made.
func newChaosOn(rt *rapid.T, change func(c *chaos)) *chaos {
	c := &chaos{
		world: newWorld(rt), rt: rt, failures: map[string]int{}, plans: map[string]*plan.Plan{}, pinned: map[string]*record.Run{},
		called: map[string]bool{},
	}
	c.limits.Interruptions = 2
	c.limits.Changes = rapid.SampledFrom([]int{0, 0, 1, 2, 3}).Draw(rt, "changes")
	c.policy = rapid.SampledFrom([]record.ChangePolicy{record.Coalesce, record.Supersede, record.Queue}).Draw(rt, "policy")
	c.world.check = c.checkRules
	c.host.register(drivers...)
	c.host.register(plan.PlannerName("planned"))
	c.host.drivers["c"].finalizer = false
	c.host.listeners = []string{"a", "b"}
	for _, name := range pipelines[1:] {
		c.savePlan(name)
	}
	change(c)
	c.create()
	return c
}

// savePlan saves a random definition of a pipeline.
func (c *chaos) savePlan(name string) {
	p := drawPlan(c.rt, name == "planned")
	c.savePipeline(name, p, func(rec *record.Pipeline) {
		rec.OnChange, rec.Resync, rec.Planned = c.policy, p.Resync, name == "planned"
		if c.engines != nil {
			rec.MaxRuns = rapid.IntRange(0, 2).Draw(c.rt, "max runs")
		}
	})
}

func drawPlan(t *rapid.T, planned bool) *plan.Plan {
	p := &plan.Plan{Rule: plan.PresentRule}
	if !planned {
		p.Steps = drawSteps(t, "s")
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "finally") {
		p.Finally = append(p.Finally, drawStep(t, fmt.Sprint("f", i)))
	}
	p.Timeout = document.Duration(rapid.SampledFrom([]time.Duration{0, 0, 30 * time.Second, time.Hour}).Draw(t, "timeout"))
	p.Resync = document.Duration(rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(t, "resync"))
	return p.Ready()
}

func drawSteps(t *rapid.T, prefix string) (steps []plan.Step) {
	graph := rapid.Bool().Draw(t, "graph")
	for i := range rapid.IntRange(1, 4).Draw(t, "steps") {
		step := drawStep(t, fmt.Sprint(prefix, i))
		written := graph && rapid.Bool().Draw(t, "written")
		if written {
			step.After = []string{}
		}
		for k := range i {
			if written && rapid.Bool().Draw(t, "arrow") {
				step.After = append(step.After, steps[k].ID)
			}
		}
		steps = append(steps, step)
	}
	return steps
}

func drawStep(t *rapid.T, id string) plan.Step {
	return plan.Step{
		ID: id, Driver: rapid.SampledFrom(drivers).Draw(t, "driver"), ContinueOnError: rapid.IntRange(0, 3).Draw(t, "tolerant") == 0,
	}
}

// act makes one random thing happen.
func (c *chaos) act() {
	t := c.rt
	switch rapid.SampledFrom([]string{
		"answer", "answer", "answer", "answer", "look", "time", "stop", "signal", "checkpoint", "line", "host", "apply", "trigger", "delete",
		"retry", "save", "crash",
	}).Draw(t, "input") {
	case "answer":
		c.answerSome()
	case "look":
		c.look(c.anyRun())
	case "time":
		c.pass(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, 2 * time.Hour}).Draw(t, "pass"))
	case "stop":
		if k := c.anyRun(); k != nil {
			stop := &run.StopRequest{Kind: plan.StopCancel, Reason: "enough of it", Cause: fault.Canceled, Gently: rapid.Bool().Draw(t, "gently")}
			if stop.Gently && rapid.Bool().Draw(t, "supersede") {
				stop.Kind, stop.Cause = plan.StopSupersede, fault.Superseded
			}
			c.send(k, run.Input{Stops: []*run.StopRequest{stop}})
		}
	case "signal":
		if k := c.anyRun(); k != nil {
			c.signal(k)
		}
	case "checkpoint":
		if k := c.anyRun(); k != nil && len(k.calls) > 0 {
			c.load(k)
			step := slices.Min(slices.Collect(maps.Keys(k.calls)))
			c.write(store.Put(record.CheckpointKey(k.id, k.state.Run.Plan.Step(step).ID), []byte("1")))
			k.leftovers = true
		}
	case "line":
		if k := c.anyRun(); k != nil {
			k.lines.pending++
		}
	case "host":
		c.changeHost()
	case "apply":
		c.apply(rapid.SampledFrom(pipelines).Draw(t, "pipeline"))
	case "trigger":
		c.submit(record.Triggered, func(*record.Resource) {})
	case "delete":
		if rapid.IntRange(0, 2).Draw(t, "really") == 0 {
			c.remove()
		}
	case "retry":
		c.retry()
	case "save":
		c.savePlan(rapid.SampledFrom(pipelines[1:]).Draw(t, "pipeline"))
	case "crash":
		c.crash()
	}
}

// anyRun returns one of the unfinished runs; nil if there is none.
func (c *chaos) anyRun() *heldRun {
	if len(c.runs) == 0 {
		return nil
	}
	return c.runs[rapid.SampledFrom(slices.Sorted(maps.Keys(c.runs))).Draw(c.rt, "run")]
}

// look lets a run look for what it can do.
func (c *chaos) look(k *heldRun) {
	if k != nil && c.runs[k.id] == k {
		c.send(k, run.Input{})
	}
}

// send drives a run until its decision is on record, and then those whose turn comes because of it.
//
// If a transition can only have so many changes, the run gets that many outcomes at once, and then the rest. The process can die
// in between.
func (c *chaos) send(k *heldRun, in run.Input) {
	rest := in.Outcomes
	for again := true; again; {
		most := len(rest)
		if c.limits.Changes > 0 {
			most = min(most, c.limits.Changes)
		}
		in.Outcomes, rest = rest[:most], rest[most:]
		r := c.drive(k, in)
		for r == nil { // the resource has changed
			r = c.drive(k, in)
		}
		again = c.runs[k.id] == k && (r.more || len(rest) > 0)
		if again && !c.calm && rapid.IntRange(0, 9).Draw(c.rt, "dies") == 0 {
			c.crash()
			return
		}
		c.carryOut(r)
		again = again && c.runs[k.id] == k
		in.Stops = nil
	}
}

func (c *chaos) carryOut(r *result) {
	c.preempt(r.preempts)
	if r.over && r.head != nil && r.head.Pending != "" {
		c.look(c.runs[r.head.Pending])
	}
}

// preempt ends a run for the sake of another.
func (c *chaos) preempt(p *run.Preemption) {
	if p == nil {
		return
	}
	if k := c.runs[p.Run]; k != nil {
		c.send(k, run.Input{Stops: []*run.StopRequest{&p.Stop}})
	}
}

// pass lets time pass. A run whose time has not come must have nothing to do.
func (c *chaos) pass(d time.Duration) {
	c.now = c.now.Add(d)
	for _, id := range slices.Sorted(maps.Keys(c.runs)) {
		c.look(c.runs[id])
	}
}

// answerSome gives answers of calls that are under way, together if there are several.
func (c *chaos) answerSome() {
	k := c.anyRun()
	if k == nil || len(k.calls) == 0 {
		return
	}
	var in run.Input
	for _, step := range slices.Sorted(maps.Keys(k.calls)) {
		if len(in.Outcomes) > 0 && rapid.Bool().Draw(c.rt, "later") {
			continue
		}
		in.Outcomes = append(in.Outcomes, c.outcome(k, step, c.drawAnswer(k, step)))
	}
	c.send(k, in)
}

func (c *chaos) drawAnswer(k *heldRun, step int) func(*run.Outcome) {
	p := k.state.Run.Plan
	answers := []string{"done", "done", "failed", "failed", "permanent", "after", "cut", "refused"}
	if !p.Plans(step) {
		answers = append(answers, "output", "skip", "halt", "requeue", "at once", "await", "await a while")
	}
	switch rapid.SampledFrom(answers).Draw(c.rt, "answer") {
	case "failed":
		return failed
	case "permanent":
		return failedForGood
	case "after":
		delay := rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(c.rt, "delay")
		return func(o *run.Outcome) { failed(o); o.Failure.After = &delay }
	case "cut":
		return cut
	case "refused":
		return refused
	case "output":
		return doneWith(`{"b":2}`)
	case "skip":
		return skipped
	case "halt":
		return halted
	case "requeue":
		return requeued
	case "at once":
		return func(o *run.Outcome) { o.Kind = run.Requeue }
	case "await":
		return awaitsGo
	case "await a while":
		return awaitsGoAWhile
	}
	return c.success(k, step)
}

// success is the answer of a driver that is done.
func (c *chaos) success(k *heldRun, step int) func(*run.Outcome) {
	p := k.state.Run.Plan
	if !p.Plans(step) {
		return done
	}
	rest := (&plan.Plan{Rule: plan.PresentRule, Steps: drawSteps(c.rt, "s")}).Ready()
	if p.Finalize {
		rest = rest.Backwards(nil)
	}
	whole := *p
	whole.Rule = plan.PresentRule
	whole.Steps = append([]plan.Step{p.Steps[0]}, rest.Steps...)
	return func(o *run.Outcome) { o.Kind, o.Plan = run.Planned, whole.Ready() }
}

func (c *chaos) signal(k *heldRun) {
	c.signals++
	k.leftovers = true
	c.write(store.Put(fmt.Sprintf("%s%04d", record.SignalsOf(k.id, "go"), c.signals), []byte(`"now"`)))
	c.look(k)
}

// changeHost changes what the host has.
func (c *chaos) changeHost() {
	t, h := c.rt, c.host
	name := rapid.SampledFrom(drivers).Draw(t, "driver")
	switch rapid.SampledFrom([]string{"driver", "worker", "slots", "held", "draining", "listeners", "places", "pause", "pause"}).Draw(t, "part") {
	case "driver":
		if h.drivers[name] == nil {
			h.drivers[name] = &fakeDriver{finalizer: name != "c", slots: many}
		} else {
			delete(h.drivers, name)
		}
	case "worker":
		if h.workers > 0 {
			h.workers = 0
		} else {
			h.workers = rapid.IntRange(1, 3).Draw(t, "workers")
		}
	case "slots":
		if d := h.drivers[name]; d != nil {
			d.slots = rapid.IntRange(0, 2).Draw(t, "slots")
		}
	case "held":
		h.held = !h.held
	case "draining":
		h.draining = !h.draining
	case "pause":
		target := rapid.SampledFrom([]string{"driver a", "driver b", "pipeline p", "pipeline "}).Draw(t, "target")
		if h.paused[target] == "" {
			h.paused[target] = rapid.SampledFrom([]string{"paused", "paused by ada: freeze"}).Draw(t, "why")
		} else {
			delete(h.paused, target)
		}
	case "listeners":
		h.listeners = drivers[:rapid.IntRange(0, len(drivers)).Draw(t, "listeners")]
	case "places":
		if _, limited := h.places["p"]; limited {
			delete(h.places, "p")
		} else {
			h.places["p"] = rapid.IntRange(0, 1).Draw(t, "places")
		}
	}
}

// create makes the resource, if there is none.
func (c *chaos) create() {
	generation, lastRun := int64(1), int64(0)
	extra := []store.Op{}
	stone, rev, err := ledger.Load[record.Tombstone](ctx, c.ledger, record.TombstoneKey(resource))
	if err == nil {
		generation, lastRun = stone.Generation+1, stone.LastRun
	} else {
		require.ErrorIs(c, err, store.ErrNotFound)
	}
	extra = append(extra, store.Check(record.TombstoneKey(resource), rev))
	pipeline := rapid.SampledFrom(pipelines).Draw(c.rt, "pipeline")
	head := &record.Resource{
		ID: fmt.Sprint("r", generation), Pipeline: pipeline, Version: 1, Generation: generation, First: generation, Created: c.now, Updated: c.now, LastRun: lastRun,
	}
	c.newRun(head, 0, record.Created, record.Run{}, append(extra, c.revision(head)))
}

// revision writes the newest generation.
func (c *chaos) revision(head *record.Resource) store.Op {
	rec := &record.Revision{Pipeline: head.Pipeline, Version: head.Version, At: head.Updated, Spec: fmt.Appendf(nil, `{"generation":%d}`, head.Generation)}
	return store.Put(record.RevisionKey(resource, head.Generation), record.Encode(rec)).IfAbsent()
}

// apply makes a new generation.
func (c *chaos) apply(pipeline string) {
	if c.head() == nil {
		c.create()
		return
	}
	c.submit(record.Updated, func(head *record.Resource) {
		head.Pipeline, head.Version, head.Generation, head.Updated = pipeline, head.Version+1, head.Generation+1, c.now
		head.Supersede = head.Active != "" && c.policy == record.Supersede
	})
}

// remove marks the resource to be deleted.
func (c *chaos) remove() {
	head := c.head()
	if head == nil || head.Deleted != 0 && !head.Status.Phase.Final() {
		return
	}
	c.submit(record.Deleted, func(head *record.Resource) { head.Deleted = c.now })
}

// retry repeats the newest run.
func (c *chaos) retry() {
	head := c.head()
	if head == nil || head.Deleted != 0 || head.Active != "" || head.Pending != "" {
		return
	}
	old, err := c.ledger.Run(ctx, head.Status.Run)
	require.NoError(c, err)
	if old.Plan == nil || old.Rec.Generation != head.Generation || old.Rec.Cause == record.Deleted {
		return
	}
	of := record.Run{Of: old.ID, Newest: rapid.Bool().Draw(c.rt, "newest")}
	of.From = rapid.SampledFrom([]string{"", run.FromStart, old.Plan.Steps[len(old.Plan.Steps)-1].ID}).Draw(c.rt, "from")
	_, rev, err := c.ledger.Resource(ctx, resource)
	require.NoError(c, err)
	c.newRun(head, rev, record.Retried, of, nil)
}

// submit changes the resource, and makes a run for the change unless a run that is queued takes it up.
func (c *chaos) submit(cause record.Cause, change func(*record.Resource)) {
	head, rev, err := c.ledger.Resource(ctx, resource)
	require.NoError(c, err)
	if head == nil || head.Deleted != 0 && cause != record.Deleted {
		return
	}
	change(head)
	var extra []store.Op
	if cause == record.Updated {
		extra = append(extra, c.revision(head))
	}
	updated := cause == record.Updated
	keep := updated && c.policy == record.Queue
	if head.Status.Phase != plan.Queued || cause == record.Deleted || updated && (keep || head.FixesGeneration()) {
		c.newRun(head, rev, cause, record.Run{}, extra)
		return
	}
	if !updated {
		return
	}
	head.Cause = cause
	if c.memberOf != nil {
		before := c.head()
		head.Lane = record.Lane(head.Pipeline, resource)
		extra = append(extra, run.MoveEntry(before, head)...)
	}
	c.write(append(extra, store.Put(record.ResourceKey(resource), record.Encode(head)).If(rev))...)
	c.preempt(run.Preempt(head))
	c.look(c.runs[head.Pending])
}

// newRun makes a run.
func (c *chaos) newRun(head *record.Resource, rev store.Revision, cause record.Cause, of record.Run, extra []store.Op) {
	id := c.newID()
	head.LastRun++
	rec := record.Run{
		Type: resource.Type, Name: resource.Name, ResourceID: head.ID, Cause: cause, State: plan.Queued, Generation: head.Generation,
		Pipeline: head.Pipeline, Created: c.now, Of: of.Of, From: of.From, Newest: of.Newest, Number: head.LastRun,
	}
	extra = append(extra, head.EnqueuePending(resource, id, &rec, cause == record.Updated && c.policy == record.Queue, c.lane(head))...)
	extra = append(extra, head.CancelResync(resource)...)
	head.Status.Phase, head.Status.Run, head.Status.Message = plan.Queued, id, ""
	k := c.hold(id)
	k.state.Run = &record.RunState{ID: id, Rec: rec}
	spec := json.RawMessage(fmt.Sprintf(`{"generation":%d}`, head.Generation))
	begins := head.Active == "" && head.Pending == id && c.host.workers > 0 && !c.host.draining
	in := c.input(k, run.Input{})
	t := c.twice(&k.state, func() (*run.Transition, error) {
		want := &run.Wanted{Head: head, Rev: rev, Spec: spec, Extra: extra, Start: begins, Before: c.head()}
		return run.New(&k.state, want, in, c.ledger.View(ctx), c.host, c.limits)
	})
	r := c.commit(k, in, t)
	require.NotNil(c, r)
	c.carryOut(r)
	if r.more {
		c.look(k)
	}
	if pending := c.head(); pending != nil && pending.Deleted != 0 && pending.Pending != "" && pending.Pending != id {
		c.look(c.runs[pending.Pending])
	}
}

// lane returns the lane of a run that takes the newest generation of the resource, and nothing unless the store is shared.
func (c *chaos) lane(head *record.Resource) string {
	if c.memberOf == nil {
		return ""
	}
	return record.Lane(head.Pipeline, resource)
}

// settle lets the host grant everything and every driver succeed, until no run is left.
func (c *chaos) settle() {
	h := c.host
	h.register(drivers...)
	h.register(plan.PlannerName("planned"))
	clear(h.places)
	clear(h.paused)
	h.workers, h.held, h.draining, h.listeners, c.calm = many, false, false, []string{"a", "b"}, true
	for round := 0; len(c.runs) > 0; round++ {
		require.Less(c, round, 300, "the runs do not end: %s", c.dump())
		moved := false
		for _, id := range slices.Sorted(maps.Keys(c.runs)) {
			k := c.runs[id]
			if k == nil {
				continue
			}
			c.look(k)
			if len(k.calls) > 0 {
				var in run.Input
				for _, step := range slices.Sorted(maps.Keys(k.calls)) {
					in.Outcomes = append(in.Outcomes, c.outcome(k, step, c.success(k, step)))
				}
				c.send(k, in)
				moved = true
			}
			if c.runs[id] == nil {
				moved = true
			}
		}
		if moved || len(c.runs) == 0 {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(c.runs)) {
			if k := c.runs[id]; k != nil && c.recOf(k).Awaits() {
				c.signal(k)
			}
		}
		c.now = c.now.Add(time.Minute)
	}
	head := c.head()
	if head != nil {
		require.Empty(c, head.Active+head.Pending)
		require.Zero(c, head.Queued)
		if head.Deleted == 0 && head.Status.Phase != plan.Skipped {
			newest, err := c.ledger.Run(ctx, head.Status.Run)
			require.NoError(c, err)
			require.Equal(c, head.Generation, newest.Rec.Generation, "the newest generation is reconciled")
		}
	}
	for key := range c.records() {
		for _, prefix := range []string{record.ActivePrefix, record.PendingOf(resource), record.CheckpointPrefix, record.SignalPrefix} {
			require.False(c, strings.HasPrefix(key, prefix), "%s is left", key)
		}
	}
}

// checkRules checks what a commit has changed.
func (c *chaos) checkRules(m *change) {
	c.checkResource(m)
	id := m.run.id
	was, is := c.readRun(m.before, id), c.readRun(m.after, id)
	require.NotNil(c, is)
	if m.idle {
		c.checkIdle(m, was, is)
	}
	require.Equal(c, is.rec.State.Final(), m.over)
	require.Equal(c, !m.over, has(m.after, record.ActiveKey(id)), "the list of unfinished runs")
	if is.plan == nil {
		require.Empty(c, m.starts)
		return
	}
	c.checkPinned(id, is)
	c.checkWork(is)
	c.checkAnswers(m, is)
	for i := range is.steps {
		c.checkStep(m, was, is, i)
	}
	if !m.over {
		c.checkAwake(m, is)
	} else {
		c.checkEnd(is)
	}
}

// checkWork notes what a run has done. If the run is a deletion, checkWork checks that it finalizes what earlier runs have
// done, the last first.
func (c *chaos) checkWork(is *recorded) {
	if !is.plan.Finalize {
		if is.plan.HasWork() {
			if c.worked != nil && c.worked.id != is.id {
				c.noteCalled(c.worked)
			}
			c.worked = is
		} else {
			c.noteCalled(is)
		}
		return
	}
	var left, finalized []string
	if c.worked != nil {
		for _, s := range c.worked.plan.Ready().Backwards(nil).Steps {
			if c.called[s.Driver] || c.worked.steps[c.worked.plan.Index(s.ID)].Called() {
				left = append(left, s.ID)
			}
		}
	}
	for _, s := range is.plan.Steps {
		finalized = append(finalized, s.ID)
	}
	require.Equal(c, left, finalized)
	if is.rec.State == plan.Succeeded { // the name is free
		c.worked = nil
		clear(c.called)
	}
}

func (c *chaos) noteCalled(r *recorded) {
	for i := range r.plan.Steps {
		if r.steps[i].Called() {
			c.called[r.plan.Steps[i].Driver] = true
		}
	}
}

// recorded is a run as it is in the store.
type recorded struct {
	id    string
	rec   *record.Run
	plan  *plan.Plan
	steps []record.Step // of state Unset if there is no record
	keys  []string
}

func has(records map[string]store.Record, key string) bool { _, ok := records[key]; return ok }

// readRun reads a run from what was in the store; nil if there is none.
func (c *chaos) readRun(records map[string]store.Record, id string) *recorded {
	found, ok := records[record.RunKey(id)]
	if !ok {
		return nil
	}
	r := &recorded{id: id, rec: new(record.Run)}
	require.NoError(c, record.Decode(found, r.rec))
	if r.rec.Started == 0 {
		return r
	}
	r.plan = new(plan.Plan)
	if r.rec.Hash != "" {
		require.NoError(c, json.Unmarshal(records[record.DefinitionKey(r.rec.Pipeline, r.rec.Hash)].Value, r.plan))
	} else {
		require.NoError(c, record.Decode(records[record.PlanKey(id)], r.plan))
	}
	r.steps, r.keys = make([]record.Step, r.plan.Len()), make([]string, r.plan.Len())
	for i := range r.steps {
		r.keys[i] = record.StepKey(id, r.plan.Step(i).ID)
		if found, ok := records[r.keys[i]]; ok {
			require.NoError(c, record.Decode(found, &r.steps[i]))
		}
	}
	return r
}

// checkResource checks that the resource has one run at work, and that the records of its runs agree with its own.
func (c *chaos) checkResource(m *change) {
	active, queued, places := []string{}, 0, 0
	for key, found := range m.after {
		if strings.HasPrefix(key, record.PendingOf(resource)) {
			places++
		}
		if !strings.HasPrefix(key, record.RunPrefix) {
			continue
		}
		var rec record.Run
		require.NoError(c, record.Decode(found, &rec))
		switch rec.State {
		case plan.Running:
			active = append(active, strings.TrimPrefix(key, record.RunPrefix))
		case plan.Queued:
			queued++
		}
	}
	found, ok := m.after[record.ResourceKey(resource)]
	if !ok {
		require.Empty(c, active)
		require.Zero(c, places)
		for key := range m.after {
			require.False(c, strings.HasPrefix(key, record.RevisionsOf(resource)), "%s outlives its resource", key)
		}
		return
	}
	head := new(record.Resource)
	require.NoError(c, record.Decode(found, head))
	require.LessOrEqual(c, len(active), 1, "runs at work of one resource")
	require.Equal(c, head.Active, strings.Join(active, " "))
	require.Equal(c, head.Queued, places)
	if head.Pending != "" {
		require.Equal(c, head.Queued+1, queued)
	} else {
		require.Zero(c, queued)
	}
}

// checkIdle checks that a run that could not start anything is still queued, and that nothing but lines was written.
func (c *chaos) checkIdle(m *change, was, is *recorded) {
	require.NotNil(c, was, "a new run is written")
	require.Equal(c, plan.Queued, is.rec.State)
	require.Equal(c, was.rec, is.rec)
	for _, op := range m.ops {
		require.True(c, !op.Writes() || strings.HasPrefix(op.Key(), record.LogsOf(m.run.id)), "%s is written", op.Key())
	}
}

// checkPinned checks that what a run has pinned stays as it was.
func (c *chaos) checkPinned(id string, is *recorded) {
	rec := *is.rec
	first, p := c.pinned[id], c.plans[id]
	if first == nil {
		c.pinned[id], c.plans[id] = &rec, is.plan
		return
	}
	require.Equal(c, first.Generation, rec.Generation)
	require.Equal(c, first.Pipeline, rec.Pipeline)
	require.Equal(c, first.Hash, rec.Hash)
	require.Equal(c, first.Version, rec.Version)
	require.Equal(c, first.Cause, rec.Cause)
	require.Equal(c, first.Started, rec.Started)
	if p.Planned && len(p.Steps) == 1 && len(is.plan.Steps) > 1 {
		require.Equal(c, p.Steps[0], is.plan.Steps[0])
		require.Equal(c, p.Finally, is.plan.Finally)
		c.plans[id] = is.plan
		return
	}
	require.Equal(c, p, is.plan, "the pinned steps")
}

// checkAnswers counts the failures that are on record now.
func (c *chaos) checkAnswers(m *change, is *recorded) {
	for _, o := range m.in.Outcomes {
		if o.Kind == run.Failed {
			c.failures[is.keys[o.Step]]++
			require.True(c, has(m.after, record.AttemptKey(is.id, is.plan.Step(o.Step).ID, o.Attempt)), "the failed attempt is kept")
		}
	}
}

// checkStep checks one step of a run after a commit.
func (c *chaos) checkStep(m *change, was, is *recorded, i int) {
	key, now := is.keys[i], &is.steps[i]
	before, existed := m.before[key]
	var old record.Step
	if existed {
		require.NoError(c, record.Decode(before, &old))
		if old.State.Final() {
			require.Equal(c, before, m.after[key], "the record of a finished step")
		}
		if was.rec.Outcome != plan.Unset && i < len(is.plan.Steps) {
			require.Equal(c, before, m.after[key], "the record of step %d after the steps have ended", i)
		}
	}
	id := is.plan.Step(i).ID
	starts := slices.Contains(m.starts, id)
	if !starts {
		require.False(c, now.State == plan.Running && (!existed || old.State != plan.Running), "step %s is running on record and does not start", id)
		return
	}
	require.Equal(c, plan.Running, now.State, "the start of step %s is on record", id)
	require.Equal(c, c.now, now.Started)
	require.False(c, old.State.Final(), "step %s has ended", id)
	require.Equal(c, c.failures[key]+1, now.Attempt, "attempts are counted by failures alone")
	require.LessOrEqual(c, now.Crashes, c.limits.Interruptions)
	require.False(c, c.host.draining)
	if i < len(is.plan.Steps) && !is.plan.Finalize && !old.Called() {
		require.Empty(c, c.host.Paused(is.rec.Pipeline, is.plan.Step(i).Driver), "step %s starts although it is paused", id)
	}
	if existed && (old.State == plan.Retrying || old.State == plan.Waiting && old.Await == "") {
		require.LessOrEqual(c, old.Due, c.now, "step %s starts before it is due", id)
	}
	for _, b := range predecessors(is.plan, i) {
		require.True(c, passed(is.plan, is.steps, b), "step %s starts before step %s", id, is.plan.Step(b).ID)
	}
	if i < len(is.plan.Steps) {
		require.Equal(c, plan.Unset, is.rec.Outcome, "step %s starts after the steps have ended", id)
		require.Equal(c, plan.StopNone, is.rec.Stop, "step %s starts although the run is to stop", id)
		require.True(c, is.plan.Independent || firstFailure(is) < 0, "step %s starts after a failure", id)
		return
	}
	require.NotEqual(c, plan.Unset, is.rec.Outcome, "the cleanup starts before it is known how the steps have ended")
	require.False(c, is.rec.CutShort)
	for k := range i {
		if k < len(is.plan.Steps) {
			_, called := m.run.calls[k]
			require.False(c, called, "the cleanup starts while step %d is being called", k)
		} else {
			require.True(c, is.steps[k].State.Final(), "the cleanup goes in order")
		}
	}
}

// predecessors returns the steps of Steps that must have passed before a step, by the text of the rule.
func predecessors(p *plan.Plan, i int) (before []int) {
	if i >= len(p.Steps) {
		return nil
	}
	after := p.Steps[i].After
	for k := range p.Steps {
		switch {
		case p.Independent || k == i:
		case after == nil && k < i, slices.Contains(after, p.Steps[k].ID), p.Planned && k == 0:
			before = append(before, k)
		}
	}
	return before
}

func passed(p *plan.Plan, steps []record.Step, i int) bool {
	s := steps[i].State
	return s == plan.Succeeded || s == plan.Skipped || s == plan.Failed && p.Step(i).ContinueOnError
}

// firstFailure returns the first step of Steps whose failure is not tolerated, or -1.
func firstFailure(is *recorded) int {
	for i := range is.plan.Steps {
		if is.steps[i].State == plan.Failed && !is.plan.Step(i).ContinueOnError {
			return i
		}
	}
	return -1
}

// checkAwake checks that a run that goes on has something to wait for, and has started what could start.
func (c *chaos) checkAwake(m *change, is *recorded) {
	k := m.run
	if m.more || m.due != 0 && m.due <= c.now {
		return // it goes on at once
	}
	if c.memberOf != nil && is.rec.Owner == "" {
		return // another engine goes on with it; see brokenInvariant
	}
	idle := func(now record.Time) {
		t, err := run.Next(&k.state, &run.Input{Now: now, Leftovers: true, Member: c.acting}, c.ledger.View(ctx), c.host, c.limits)
		require.NoError(c, err)
		require.False(c, t.Over(), "the run could have ended")
		require.Empty(c, t.Starts(), "a step could have started")
		require.Empty(c, keys(t.Ops()), "something could have been recorded")
		c.host.Release()
		t.Recycle()
	}
	idle(c.now)
	if m.due == 0 {
		idle(c.now.Add(1_000 * time.Hour))
	} else {
		idle(m.due - 1)
	}
	if !c.calm || len(k.calls) > 0 {
		return
	}
	waits := is.rec.Deadline != 0
	for i := range is.steps {
		waits = waits || is.steps[i].State == plan.Retrying || is.steps[i].State == plan.Waiting
	}
	require.True(c, waits, "nothing will make the run go on")
}

// checkEnd checks how a run has ended.
func (c *chaos) checkEnd(is *recorded) {
	rec := is.rec
	require.Equal(c, c.now, rec.Ended)
	failure := firstFailure(is)
	all := true
	for i := range is.plan.Steps {
		all = all && passed(is.plan, is.steps, i)
	}
	// A retry that is to begin with a step that the newest definition has no longer ends before it has done anything.
	refused := rec.State == plan.Failed && rec.Outcome == plan.Unset && !slices.ContainsFunc(is.steps, func(s record.Step) bool { return s.Called() })
	for i := len(is.plan.Steps); i < len(is.steps); i++ {
		require.True(c, is.steps[i].State.Final() || rec.CutShort || refused, "the cleanup was called to its end")
	}
	switch rec.State {
	case plan.Succeeded:
		require.Negative(c, failure)
		require.True(c, all || rec.Stop == plan.StopHalt, "the run succeeds before its steps")
	case plan.Failed:
		require.NotEmpty(c, rec.Reason)
	case plan.Canceled:
		require.Equal(c, plan.StopCancel, rec.Stop)
	case plan.Superseded:
		require.Equal(c, plan.StopSupersede, rec.Stop)
	case plan.Skipped:
		require.Fail(c, "a run that has begun is not skipped")
	}
	if failure >= 0 && rec.Stop == plan.StopNone {
		require.Equal(c, plan.Failed, rec.State)
		require.Equal(c, is.plan.Step(failure).ID, rec.FailedStep)
	}
}

// dump returns all that is in the store.
func (c *chaos) dump() string {
	var b strings.Builder
	all := c.records()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s %s\n", key, all[key].Value)
	}
	return b.String()
}
