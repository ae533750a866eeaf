// Package run decides what becomes of a run. Records and what has happened go in, a Transition comes out. The package
// starts nothing, waits for nothing and keeps nothing: what a decision depends on it reads through a Reader, and what a
// start needs it takes through a Host.
package run

import (
	"encoding/json"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// State is a run as it is held while it is worked on. It is changed by Committed alone.
type State struct {
	Run  *record.RunState
	Spec json.RawMessage  // as pinned
	Head *record.Resource // the record of the resource, as last read; nil if it must be read
	Rev  store.Revision   // of Head
}

// Input is what has happened to a run.
type Input struct {
	Now       record.Time
	Outcomes  []*Outcome
	Stops     []*StopRequest
	Lines     Lines // nil for none
	Leftovers bool  // the run may have checkpoints, or signals that no step has taken
}

// StopRequest asks that a run end.
type StopRequest struct {
	Kind   plan.Stop
	Reason string
	Cause  error // of the end of the contexts of the attempts under way
	Gently bool  // a run that is ending anyway is left to its Finally
}

// Limits are those of the engine that concern a run.
type Limits struct {
	ErrorText     int // bytes of a reason
	Attempts      int // ended attempts kept per step
	Interruptions int // deaths of the process that a step survives
	Steps         int // listeners of one type
}

// Reader reads the records that a decision depends on.
type Reader interface {
	// Resource returns the record of a resource, or nil with revision 0 if there is none.
	Resource(record.Key) (*record.Resource, store.Revision, error)
	// Target returns what the first pending run of a resource takes up when it begins.
	Target(record.Key, *record.Resource) (*record.Target, error)
	// IsPending reports whether a queued run waits behind another pending run.
	IsPending(*record.Run) (bool, error)
	// NextPending returns the run that waits behind the first pending run, and the key of its record.
	NextPending(record.Key) (*record.Pending, string, error)
	// Definition returns the steps that a definition of a pipeline lists.
	Definition(pipeline, hash string) (*plan.Plan, error)
	// Plan returns the steps that a run has pinned.
	Plan(run string, rec *record.Run) (*plan.Plan, error)
	// Run returns the records of a run, or fault.NotFound.
	Run(id string) (*record.RunState, error)
	// Signal returns the oldest signal of a run with a name for which taken reports false; a record without a key if
	// there is none.
	Signal(run, name string, taken func(key string) bool) (store.Record, error)
	// RevisionKeys returns the keys of the revisions of a resource.
	RevisionKeys(record.Key) ([]string, error)
	// Leftovers returns the keys of the checkpoints and signals of a run, as many as one commit removes, and whether
	// there are more.
	Leftovers(run string) (keys []string, more bool, err error)
}

// Host grants what a start needs. What it has granted is given back with Release if the transition is not committed.
type Host interface {
	// Start asks for a call of a driver: Reconcile, or Finalize if finalize is set.
	Start(driver string, finalize bool) Grant
	// Enter asks for a place among the active runs of a pipeline. The record is nil if the caller has not read it. Enter
	// returns the record as it is now, or nil if the pipeline is deleted. If there is no place, the run gets its turn
	// when there may be one.
	Enter(pipeline string, rec *record.Pipeline) (entered bool, now *record.Pipeline, err error)
	// Release gives back all that was granted.
	Release()
	// Listeners returns the names of the drivers that listen to a type of resource, in order.
	Listeners(kind string) []string
	// Draining reports whether nothing new is to start.
	Draining() bool
}

// Grant is the answer of a Host to a step that asks to start.
type Grant uint8

const (
	NoDriver  Grant = iota + 1 // the driver is not registered; the run gets its turn when it is
	NotNeeded                  // the driver has nothing to finalize
	Later                      // not now; the run gets its turn when there may be a place
	NoWorker                   // not now; the run must be given its turn when a worker is free
	Granted
)

// Lines are the lines of a run's log that are not known to be written.
type Lines interface {
	// Ops returns the writes of the lines, and the number of the last line.
	Ops() (ops []store.Op, last int64)
	// Kept returns how many lines of a step are kept.
	Kept(step string) int
}

// Next decides what changes because of an input. If it returns an error, the caller must have the host release what it
// has granted; the transition is never nil, so that it can be recycled.
func Next(s *State, in *Input, r Reader, h Host, limits Limits) (*Transition, error) {
	t := newTransition(s, in, r, h, limits)
	t.rec, t.plan, t.spec = s.Run.Rec, s.Run.Plan, s.Spec
	t.readStates(s.Run.Steps)
	for _, o := range in.Outcomes {
		if err := t.recordOutcome(o); err != nil {
			return t, err
		}
	}
	for _, stop := range in.Stops {
		t.requestStop(stop)
	}
	if err := t.deliver(); err != nil {
		return t, err
	}
	if t.rec.State == plan.Queued && t.rec.Stop == plan.StopNone && !t.host.Draining() {
		if proceed, err := t.begin(); err != nil || !proceed {
			return t, err
		}
	}
	return t, t.goOn()
}

// Wanted is what is committed together with a new run.
type Wanted struct {
	Head     *record.Resource // of the resource, as it is to be; New changes a copy
	Rev      store.Revision   // that Head replaces
	Pipeline *record.Pipeline // of the resource, if it was read
	Spec     json.RawMessage
	Extra    []store.Op
	Start    bool // a worker's place is there for the first step
}

// New decides how a run begins to exist: started if it can be, and queued otherwise. The records in s are the ones that
// the run will have. On an error the caller must do as after Next.
func New(s *State, want *Wanted, in *Input, r Reader, h Host, limits Limits) (*Transition, error) {
	t := newTransition(s, in, r, h, limits)
	t.create(want)
	switch {
	case want.Start:
		t.pipeline = want.Pipeline
		entered, err := t.enter(t.head.Pipeline)
		if err == nil && entered {
			if err = t.pin(t.head.Newest(want.Spec)); err == nil {
				err = t.goOn()
			}
		}
		if err != nil {
			return t, err
		}
		if t.Idle() {
			needsWorker := t.needsWorker
			t.host.Release()
			t.Recycle()
			t = newTransition(s, in, r, h, limits)
			t.create(want)
			t.needsWorker = needsWorker
		}
	case t.head.Active != "":
		t.preempt = Preempt(t.head)
	case t.head.Pending == s.Run.ID:
		t.needsWorker = true
	}
	if !t.over {
		t.extra = append(t.extra, store.Put(record.ActiveKey(s.Run.ID), []byte("{}")))
	}
	return t, nil
}

func (t *Transition) create(want *Wanted) {
	head := *want.Head
	t.rec, t.head, t.rev, t.created, t.rewrite = t.run.Rec, &head, want.Rev, true, true
	t.extra = append(append(t.extra, store.Put(record.RunsOf(t.key)+t.run.ID, []byte("{}"))), want.Extra...)
}
