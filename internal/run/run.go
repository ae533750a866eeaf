// Package run decides what becomes of a run. The input is the records of the run and what has happened to it. The
// result is a Transition. The package starts nothing, waits for nothing, and keeps nothing between two decisions. It
// reads what a decision depends on through a Reader, and takes what a start needs through a Host.
package run

import (
	"encoding/json"
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// State is an unfinished run as the engine holds it in memory. Committed alone changes Run and Spec. Next and New also
// fill in Head and Rev if they have to read the record of the resource.
type State struct {
	Run  *record.RunState
	Spec json.RawMessage  // of the generation that the run has pinned; nil if the run has not begun
	Head *record.Resource // the record of the resource as it was read last; nil if there is none
	Rev  store.Revision   // of Head; 0 if the record must be read
}

// Input is what has happened to a run since the last decision.
type Input struct {
	Now       record.Time
	ClockSet  time.Duration // by how much the clock was set since the last decision about the run that was committed
	Outcomes  []*Outcome
	Stops     []*StopRequest
	Lines     Lines   // nil if the run has no log
	Leftovers bool    // the run can have checkpoints, or signals that no step has taken
	Member    *Member // nil unless the store is shared
	Found     string  // the key of the entry by which a run without an owner was found; empty for none
}

// StopRequest asks that a run end before its steps are done.
type StopRequest struct {
	Kind   plan.Stop
	Reason string
	By     string // who asks; empty if nobody was named
	Cause  error  // with which the contexts of the attempts under way end
	Gently bool   // the request is ignored if the run is already ending
}

// Limits are the limits of the engine that concern a run.
type Limits struct {
	ErrorText     int // maximum number of bytes of a reason
	Attempts      int // a failed attempt is kept while it is among this many last attempts of its step
	Interruptions int // maximum number of times that the process can die during a step before the step fails
	Steps         int // maximum number of drivers that listen to one type
	Plan          int // maximum number of bytes of a plan as a record
	// Changes is how many steps one transition changes at most. What is left is decided right after its commit. 0 means any
	// number. A step that changes needs at most OpsOfStep ops, and the rest of a transition OpsOfRest.
	Changes int
}

// The ops of a transition under [Limits].Changes.
const (
	OpsOfStep = 3  // the record of the step, that of a failed attempt, and the removal of an old one; or a signal that was taken
	OpsOfRest = 16 // the records of the run and the resource, the plan, the index, and what goes with a begin, an end or a change
)

// Reader reads the records that a decision depends on. The returned records belong to the Reader and are not changed.
type Reader interface {
	// Resource returns the record of a resource, or nil with revision 0 if there is none.
	Resource(record.Key) (*record.Resource, store.Revision, error)
	// Target returns what the first pending run of a resource takes up if the run begins now.
	Target(record.Key, *record.Resource) (*record.Target, error)
	// IsPending reports whether a queued run waits behind another pending run.
	IsPending(run string, rec *record.Run) (bool, error)
	// NextPending returns the run that waits behind the first pending run, and the key of its record.
	NextPending(record.Key) (*record.Pending, string, error)
	// Definition returns the steps that a definition of a pipeline lists.
	Definition(pipeline, hash string) (*plan.Plan, error)
	// Plan returns the steps that a run has pinned.
	Plan(run string, rec *record.Run) (*plan.Plan, error)
	// Run returns the records of a run. It returns fault.NotFound if there is no such run.
	Run(id string) (*record.RunState, error)
	// Work returns what the runs of a resource with an id have done, apart from deletions.
	Work(k record.Key, resourceID string) (*record.Work, error)
	// Signal returns the oldest signal of a run with a name for which taken returns false. It returns a record without a
	// key if there is none.
	Signal(run, name string, taken func(key string) bool) (store.Record, error)
	// RevisionKeys returns the keys of the revisions of a resource.
	RevisionKeys(record.Key) ([]string, error)
	// Slots returns the places among the active runs of a pipeline that are taken.
	Slots(pipeline string) (map[int64]bool, error)
	// Leftovers returns the keys of the checkpoints and signals of a run, at most as many as one commit can remove. It
	// reports whether there are more.
	Leftovers(run string) (keys []string, more bool, err error)
}

// Host grants what a start needs. If the transition is not committed, the caller of Next or New must call Release,
// which gives back what was granted.
type Host interface {
	// Start asks for what a call of a driver needs. The call is a Finalize if finalize is set, and a Reconcile otherwise.
	Start(driver string, finalize bool) Grant
	// Enter asks for a place among the active runs of a pipeline. The given record is nil if the caller has not read it.
	// Enter returns the record as it is now, or nil if the pipeline was deleted. If entered is false, there is no place,
	// and the host gives the run its turn when there can be one. A run that has a place and cannot begin may keep it until
	// its next decision, which asks again.
	Enter(pipeline string, rec *record.Pipeline) (entered bool, now *record.Pipeline, err error)
	// Paused returns why nothing of this pipeline and of this driver may start for the run now, and an empty text if nothing
	// is paused. An empty driver asks for the begin of the run. If the answer is not empty, the host gives the run its turn
	// when the pause has ended.
	Paused(pipeline, driver string) (why string)
	// Release gives back everything that was granted since the Host was made or Release was called. The host may keep the
	// place among the active runs of a pipeline for the next decision about the run.
	Release()
	// Listeners returns the names of the drivers that listen to a type of resource, in order.
	Listeners(kind string) ([]string, error)
	// Stray reports whether a call for the resource of the run that this engine has given up may still be under way. It is called only
	// if the store is shared.
	Stray() bool
	// IsLive reports whether an engine is live. It is called only if the store is shared.
	IsLive(engine string) (bool, error)
	// Draining reports whether the engine shuts down, so that no step and no run can start.
	Draining() bool
}

// Grant is the answer of a Host to a step that asks to start.
type Grant uint8

const (
	NoDriver  Grant = iota + 1 // the driver is not registered; the host gives the run its turn when the driver is registered
	Elsewhere                  // the driver is not registered here, and another engine that is live has it
	NotNeeded                  // the driver has nothing to finalize
	Later                      // the step must wait; the host gives the run its turn when the step can start
	NoWorker                   // no worker is free; the caller must give the run its turn when one is
	Granted
)

// Lines are the lines of the log of a run that are not known to be written.
type Lines interface {
	// Ops returns the writes of the lines and the number of the last line. It returns no writes if there are no lines.
	Ops() (ops []store.Op, last int64)
	// Kept returns the number of lines that are kept of a step.
	Kept(step string) int
}

// Next decides what changes because of an input. It changes nothing but the Head and the Rev of s, and calls no driver.
// The decision is made true by the commit of its Ops. If Next returns an error, the caller must call Release of the
// host. The returned transition is never nil, so that the caller can recycle it.
func Next(s *State, in *Input, r Reader, h Host, limits Limits) (*Transition, error) {
	t := newTransition(s, in, r, h, limits)
	t.rec, t.plan, t.spec = s.Run.Rec, s.Run.Plan, s.Spec
	t.readStates(s.Run.Steps)
	t.correctTimes(in.ClockSet)
	for _, o := range in.Outcomes {
		if err := t.recordOutcome(o); err != nil {
			return t, err
		}
	}
	for _, stop := range in.Stops {
		t.requestStop(stop)
	}
	if err := t.lookForStray(); err != nil {
		return t, err
	}
	if err := t.deliver(); err != nil {
		return t, err
	}
	if t.rec.State == plan.Queued && t.rec.Stop == plan.StopNone && !t.host.Draining() {
		if proceed, err := t.begin(); err != nil || !proceed {
			return t, err
		}
	}
	err := t.proceed()
	if err == nil {
		t.settleOwner()
	}
	return t, err
}

// Wanted is what is committed together with a new run.
type Wanted struct {
	Head     *record.Resource // the record of the resource with the new run among its pending runs; New changes a copy
	Rev      store.Revision   // the revision that Head replaces; 0 if the resource is new
	Before   *record.Resource // what Head replaces, on a shared store; nil if the resource is new
	Pipeline *record.Pipeline // the pipeline of the resource; nil if its record was not read
	Spec     json.RawMessage
	Extra    []store.Op
	Start    bool // a worker is there for the first step
}

// New decides how a run comes to exist. The run starts at once if it can, and is queued otherwise. The caller has
// filled in s.Run with the record that a queued run has. After an error, the caller must do the same as after an error
// of Next.
func New(s *State, want *Wanted, in *Input, r Reader, h Host, limits Limits) (*Transition, error) {
	t := newTransition(s, in, r, h, limits)
	t.create(want)
	if err := t.lookForStray(); err != nil {
		return t, err
	}
	switch {
	case want.Start && t.hasStray:
	case want.Start && t.holdsBegin(t.head.Pipeline):
	case want.Start:
		t.pipeline = want.Pipeline
		entered, err := t.enterPipeline(t.head.Pipeline)
		if err == nil && entered {
			if err = t.pin(t.head.Newest(want.Spec)); err == nil {
				err = t.proceed()
			}
		}
		if err != nil {
			return t, err
		}
		if t.Idle() {
			needsWorker, paused := t.needsWorker, t.paused
			t.host.Release()
			t.Recycle()
			t = newTransition(s, in, r, h, limits)
			t.create(want)
			t.needsWorker, t.paused = needsWorker, paused
		}
	case t.head.Active != "":
		t.preempt = Preempt(t.head)
	case t.head.Pending == s.Run.ID:
		t.needsWorker = true
	}
	if !t.over {
		t.extra = append(t.extra, store.Put(record.ActiveKey(s.Run.ID), []byte("{}")))
	}
	t.settleOwner()
	return t, nil
}

// create begins the transition of a new run with the writes that every new run needs.
func (t *Transition) create(want *Wanted) {
	head := *want.Head
	t.rec, t.head, t.rev, t.before, t.created, t.rewrite = t.run.Rec, &head, want.Rev, want.Before, true, true
	t.extra = append(append(t.extra, store.Put(record.RunIndexKey(t.key, t.rec.Number, t.run.ID), []byte("{}"))), want.Extra...)
}
