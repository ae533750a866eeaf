package record

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// WakeUp ends a wait: with the payload of the signal, or in vain.
func (s *Step) WakeUp(now Time, payload json.RawMessage) {
	s.State, s.Await, s.Due, s.Reason = plan.Queued, "", 0, ""
	s.Signal, s.TimedOut = payload, payload == nil
	s.Waits = slices.Clone(s.Waits)
	if n := len(s.Waits); n > 0 {
		s.Waits[n-1].To, s.Waits[n-1].TimedOut = now, s.TimedOut
	}
}

// Interrupt makes a step whose call was cut short ready to be called again, with the same number.
func (s *Step) Interrupt() {
	s.State, s.Resumed, s.Again = plan.Queued, true, true
	s.Interruptions++
}

// Begin makes the record say that a call is about to be made.
func (s *Step) Begin(now Time) {
	if !s.Again {
		s.Attempt++
	}
	s.State, s.Started, s.Due, s.Reason = plan.Running, now, 0, ""
}

func (s *Step) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("state", plan.StateNames.Names[s.State], true)
	w.int("attempt", int64(s.Attempt), false)
	w.int("started", int64(s.Started), false)
	w.int("ended", int64(s.Ended), false)
	w.int("due", int64(s.Due), false)
	w.text("reason", s.Reason, false)
	w.bool("resumed", s.Resumed)
	w.bool("again", s.Again)
	w.int("requeues", int64(s.Requeues), false)
	w.int("interruptions", int64(s.Interruptions), false)
	w.int("crashes", int64(s.Crashes), false)
	w.int("lines", int64(s.Lines), false)
	w.raw("output", s.Output)
	w.text("await", s.Await, false)
	w.raw("signal", s.Signal)
	w.bool("timedOut", s.TimedOut)
	if len(s.Waits) > 0 {
		w.raw("waits", Encode(s.Waits))
	}
	return append(w.b, '}')
}

func (r *Run) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("resource", r.Type, true)
	w.text("name", r.Name, true)
	w.text("resourceId", r.ResourceID, true)
	w.text("cause", causeNames.Names[r.Cause], true)
	w.text("state", plan.StateNames.Names[r.State], true)
	w.text("reason", r.Reason, false)
	w.int("generation", int64(r.Generation), false)
	w.text("pipeline", r.Pipeline, false)
	w.text("hash", r.Hash, false)
	w.labels("metadata", r.Metadata)
	w.int("version", int64(r.Version), false)
	w.int("madeAt", int64(r.MadeAt), false)
	w.int("updatedAt", int64(r.UpdatedAt), false)
	w.int("deletedAt", int64(r.DeletedAt), false)
	w.int("created", int64(r.Created), true)
	w.int("started", int64(r.Started), false)
	w.int("ended", int64(r.Ended), false)
	w.int("deadline", int64(r.Deadline), false)
	w.text("stop", string(r.Stop), false)
	w.text("stopReason", r.StopReason, false)
	w.text("failedStep", r.FailedStep, false)
	w.text("of", r.Of, false)
	w.text("from", r.From, false)
	w.bool("newest", r.Newest)
	w.int("place", int64(r.Place), false)
	w.text("outcome", plan.StateNames.Names[r.Outcome], false)
	w.bool("cutShort", r.CutShort)
	return append(w.b, '}')
}

func (r *Resource) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("id", r.ID, true)
	w.text("pipeline", r.Pipeline, false)
	w.labels("metadata", r.Metadata)
	w.int("version", int64(r.Version), true)
	w.int("generation", int64(r.Generation), true)
	w.int("first", int64(r.First), true)
	w.int("created", int64(r.Created), true)
	w.int("updated", int64(r.Updated), true)
	w.int("deleted", int64(r.Deleted), false)
	w.Key("status")
	w.b = r.Status.AppendJSON(w.b)
	w.text("active", r.Active, false)
	w.text("pending", r.Pending, false)
	w.text("cause", causeNames.Names[r.Cause], false)
	w.bool("supersede", r.Supersede)
	w.int("keeps", int64(r.Keeps), false)
	w.int("queued", int64(r.Queued), false)
	w.int("lastPlace", int64(r.LastPlace), false)
	w.int("resync", int64(r.Resync), false)
	return append(w.b, '}')
}

func (s *Status) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("phase", plan.StateNames.Names[s.Phase], false)
	w.int("observedGeneration", int64(s.ObservedGeneration), false)
	w.text("run", s.Run, false)
	w.text("message", s.Message, false)
	return append(w.b, '}')
}

// FixesGeneration says that the last run in line keeps its generation, so that a newer one needs a run of its own.
func (r *Resource) FixesGeneration() bool { return r.Keeps != 0 || r.Queued > 0 }

// EnqueuePending puts a new run at the end of the line, and returns what must be written for that.
func (r *Resource) EnqueuePending(k Key, id string, rec *Run, keep bool) []store.Op {
	if r.Pending == "" {
		r.Pending, r.Cause, r.Keeps = id, rec.Cause, 0
		if keep {
			r.Keeps = rec.Generation
		}
		return nil
	}
	if r.Keeps == 0 {
		r.Keeps = rec.Generation - 1 // up to here it took up what came
	}
	r.Queued++
	r.LastPlace++
	rec.Place = r.LastPlace
	place := &Pending{Run: id, Generation: rec.Generation, Cause: rec.Cause}
	return []store.Op{store.Put(PendingKey(k, rec.Place), Encode(place)).IfAbsent()}
}

// Target is what a run takes up when it begins.
type Target struct {
	Generation int64
	Pipeline   string
	Metadata   map[string]string
	Version    int64
	Updated    Time
	Spec       []byte
}

// Newest is the newest generation of a resource.
func (r *Resource) Newest(spec []byte) *Target {
	return &Target{
		Generation: r.Generation, Pipeline: r.Pipeline, Metadata: r.Metadata, Version: r.Version, Updated: r.Updated, Spec: spec,
	}
}

// ChangePolicy defines what happens when a resource changes during its run.
type ChangePolicy uint8

const (
	// Coalesce lets the run end. Then the newest generation is reconciled, once.
	Coalesce ChangePolicy = iota + 1
	// Supersede cancels the run first. Then the newest generation is reconciled.
	Supersede
	// Queue reconciles every generation in a run of its own, one after the other, in order. A run that fails does not
	// hold up the runs behind it. At most [Limits].Queue runs of a resource can be pending; Apply returns
	// [ErrTooLarge] beyond this limit. If the policy of a pipeline changes from Queue to another one, the runs that
	// are queued already keep their generations. So do the changes that are applied before all of these runs have
	// started.
	Queue
)

var changePolicyNames = document.Enum[ChangePolicy]{What: "change policy", Names: []string{"", "coalesce", "supersede", "queue"}}

// String returns the name that documents use, and "unset" for the zero value.
func (c ChangePolicy) String() string { return changePolicyNames.Text(c) }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (c ChangePolicy) MarshalText() ([]byte, error) { return changePolicyNames.Marshal(c) }

// UnmarshalText accepts exactly what MarshalText returns.
func (c *ChangePolicy) UnmarshalText(b []byte) error { return changePolicyNames.Unmarshal(b, c) }

type Format struct {
	Format int `json:"format"`
}

// Resource is small whatever the spec, since the end of every run writes it.
//
// Invariant: Active and Pending name unfinished runs or are empty. Active has begun; Pending has not, and takes up
// the newest generation when it does, unless it keeps another. Queued counts the runs behind it, which all keep theirs.
// All of them change only by a compare-and-set of this record, which is what keeps two runs of one resource apart.
type Resource struct {
	ID         string            `json:"id"`
	Pipeline   string            `json:"pipeline,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Version    int64             `json:"version"`
	Generation int64             `json:"generation"`
	First      int64             `json:"first"` // generation with which this incarnation began
	Created    Time              `json:"created"`
	Updated    Time              `json:"updated"`
	Deleted    Time              `json:"deleted,omitempty"`
	Status     Status            `json:"status"`
	Active     string            `json:"active,omitempty"`
	Pending    string            `json:"pending,omitempty"`
	Cause      Cause             `json:"cause,omitzero"`      // of Pending
	Supersede  bool              `json:"supersede,omitempty"` // Pending does not wait for the end of Active
	Keeps      int64             `json:"keeps,omitempty"`     // generation that Pending keeps; 0 for the newest
	Queued     int               `json:"queued,omitempty"`    // runs behind Pending, each with a queueRecord
	LastPlace  int64             `json:"lastPlace,omitempty"` // the highest ever given to one of them
	Resync     Time              `json:"resync,omitempty"`    // when it is to be run again, if nothing comes before
}

// Revision is written once for each generation.
type Revision struct {
	Pipeline string            `json:"pipeline,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"` // as it was when the generation was made
	Version  int64             `json:"version"`
	At       Time              `json:"at"`
	Spec     json.RawMessage   `json:"spec,omitempty"`
}

// Tombstone keeps the generations of a name growing when it is used again.
type Tombstone struct {
	Generation int64 `json:"generation"`
}

// Pending is a place in the line of the runs that wait behind Pending. The places are taken in the order of the keys.
type Pending struct {
	Run        string `json:"run"`
	Generation int64  `json:"generation"`
	Cause      Cause  `json:"cause"`
}

type Pipeline struct {
	Hash     string            `json:"hash"`
	Resource string            `json:"resource"` // the type it is for
	OnChange ChangePolicy      `json:"onChange,omitzero"`
	Resync   document.Duration `json:"resync,omitzero"`
	MaxRuns  int               `json:"maxRuns,omitempty"`
	Planned  bool              `json:"planned,omitempty"` // the steps are not in the definition

	Saved Time `json:"saved"`
	// Rev is the revision under which the record was read. It is not part of the record.
	Rev store.Revision `json:"-"`
}

// Run is the part of a run that its steps do not change. State is queued, running or final; what a running run
// is really doing follows from its steps.
type Run struct {
	Type       string     `json:"resource"`
	Name       string     `json:"name"`
	ResourceID string     `json:"resourceId"`
	Cause      Cause      `json:"cause"`
	State      plan.State `json:"state"`
	Reason     string     `json:"reason,omitempty"`
	// Pinned when the run starts.
	Generation int64             `json:"generation,omitempty"`
	Pipeline   string            `json:"pipeline,omitempty"`
	Hash       string            `json:"hash,omitempty"` // of the pipeline's definition
	Metadata   map[string]string `json:"metadata,omitempty"`
	Version    int64             `json:"version,omitempty"`
	MadeAt     Time              `json:"madeAt,omitempty"`    // the resource's CreatedAt
	UpdatedAt  Time              `json:"updatedAt,omitempty"` // and its UpdatedAt
	DeletedAt  Time              `json:"deletedAt,omitempty"` // and its DeletedAt
	Created    Time              `json:"created"`
	Started    Time              `json:"started,omitempty"`
	Ended      Time              `json:"ended,omitempty"`
	Deadline   Time              `json:"deadline,omitempty"`
	Stop       plan.Stop         `json:"stop,omitempty"` // it shall end, as soon as nothing runs
	StopReason string            `json:"stopReason,omitempty"`
	FailedStep string            `json:"failedStep,omitempty"`
	// Of is the run that this one repeats, from the step From on; empty for the steps that it has not done. Newest: along
	// the pipeline as it is defined now.
	Of     string `json:"of,omitempty"`
	From   string `json:"from,omitempty"`
	Newest bool   `json:"newest,omitempty"`
	// Place is where the run waited in line, if it did so behind another.
	Place int64 `json:"place,omitempty"`
	// Outcome is how the steps have ended, and Reason why; what is left is Finally. CutShort: that shall end too.
	Outcome  plan.State `json:"outcome,omitzero"`
	CutShort bool       `json:"cutShort,omitempty"`
}

// OutcomeReason is why the steps have ended so, once they have.
func (r *Run) OutcomeReason() string {
	if r.Outcome == plan.Unset {
		return ""
	}
	return r.Reason
}

func (r *Run) Key() Key { return Key{Type: r.Type, Name: r.Name} }

// Step is where a step is now. Its ended attempts that failed have records of their own.
type Step struct {
	State   plan.State `json:"state"`
	Attempt int        `json:"attempt,omitempty"`
	Started Time       `json:"started,omitempty"` // of the newest attempt
	Ended   Time       `json:"ended,omitempty"`
	Due     Time       `json:"due,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	// Resumed is set when a call of this attempt began and has no outcome.
	Resumed bool `json:"resumed,omitempty"`
	// Again is set when the next call has the number of this attempt: after a requeue or an interruption.
	Again         bool            `json:"again,omitempty"`
	Requeues      int             `json:"requeues,omitempty"`
	Interruptions int             `json:"interruptions,omitempty"` // of all its attempts
	Crashes       int             `json:"crashes,omitempty"`       // interruptions by the death of the process
	Lines         int             `json:"lines,omitempty"`         // of log, kept
	Output        json.RawMessage `json:"output,omitempty"`
	Await         string          `json:"await,omitempty"` // the signal that a waiting step waits for
	// Signal is what the step has waited for and got; TimedOut tells that it came to nothing. They stay until the step
	// has an outcome, so that a repeated attempt sees them too.
	Signal   json.RawMessage `json:"signal,omitempty"`
	TimedOut bool            `json:"timedOut,omitempty"`
	Waits    []Wait          `json:"waits,omitempty"`
}

type Wait struct {
	Signal   string `json:"signal"`
	From     Time   `json:"from"`
	To       Time   `json:"to,omitempty"` // 0 while it lasts
	TimedOut bool   `json:"timedOut,omitempty"`
}

type Attempt struct {
	Started Time       `json:"started"`
	Ended   Time       `json:"ended"`
	Error   string     `json:"error"`
	Kind    fault.Kind `json:"kind,omitempty"`
	Stack   string     `json:"stack,omitempty"`
}

func (f *Format) Check() string { return unless(f.Format >= 1, "has no format") }

func (r *Resource) Check() string {
	if r.First < 1 || r.First > r.Generation || r.Version < 1 || r.Keeps < 0 || r.Keeps > r.Generation || r.Queued < 0 {
		return "has impossible numbers"
	}
	if !refers(r.Pipeline, r.Active, r.Pending) {
		return refersToNothing
	}
	return unless(r.ID != "" && r.Status.Run != "" && refers(r.Status.Run), "has no id, or no run")
}

func (r *Revision) Check() string {
	return unless(r.Version >= 1 && refers(r.Pipeline), "has no version, or no pipeline that can be")
}

func (g *Tombstone) Check() string { return unless(g.Generation >= 1, "has no generation") }

func (q *Pending) Check() string {
	return unless(q.Run != "" && refers(q.Run) && q.Generation >= 1 && q.Cause != 0, "has no run, no generation or no cause")
}

func (p *Pipeline) Check() string {
	return unless(p.Hash != "" && refers(p.Hash) && p.Resource != "", "has no definition, or no type")
}

func (r *Run) Check() string {
	switch {
	case text.NameFault(r.Type) != "" || text.NameFault(r.Name) != "" || r.ResourceID == "" || r.Cause == 0:
		return "has no resource, or no cause"
	case !refers(r.Pipeline, r.Hash, r.Of):
		return refersToNothing
	case r.State != plan.Queued && r.State != plan.Running && !r.State.Final():
		return fmt.Sprintf("is a run that is %s", r.State)
	case (r.State == plan.Queued) == (r.Started != 0) && !r.State.Final():
		return fmt.Sprintf("is %s, and has begun at %d", r.State, r.Started)
	}
	return unless(r.Started == 0 || r.Generation >= 1, "has begun without a generation")
}

func (s *Step) Check() string {
	return unless(s.State != plan.Unset && s.Attempt >= 0, "is a step that has not begun")
}

// Status shows how far the engine is with a resource. It is written when a run is queued, when it starts, and when it
// ends. The state in between is in the run (see [Engine.GetRun]).
type Status struct {
	// Phase is the state of the newest run: queued, running, or one of the final states.
	Phase plan.State `json:"phase,omitzero"`
	// ObservedGeneration is the newest generation for which a run has ended, whether the run succeeded or not.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Run is the id of the newest run.
	Run string `json:"run,omitempty"`
	// Message is the reason in words if Phase is a final state other than succeeded.
	Message string `json:"message,omitempty"`
}

// Key identifies a resource by its type and its name.
type Key struct {
	Type string `json:"resource"`
	Name string `json:"name"`
}

// String returns "type/name".
func (k Key) String() string { return k.Type + "/" + k.Name }

// CancelResync takes that back, since another run comes first.
func (r *Resource) CancelResync(k Key) []store.Op {
	if r.Resync == 0 {
		return nil
	}
	due := r.Resync
	r.Resync = 0
	return []store.Op{store.Delete(ResyncKey(due, k))}
}

// Cause is the reason why a run exists.
type Cause uint8

const (
	Created   Cause = iota + 1 // the resource is new
	Updated                    // the spec or the pipeline of the resource changed
	Deleted                    // the resource is to be deleted
	Resynced                   // the pipeline's Resync asked for it, some time after a success
	Triggered                  // the program asked for it
	Retried                    // the run repeats an earlier run
)

var causeNames = document.Enum[Cause]{What: "cause", Names: []string{"", "created", "updated", "deleted", "resync", "triggered", "retried"}}

// String returns the name that documents use, and "unset" for the zero value.
func (c Cause) String() string { return causeNames.Text(c) }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (c Cause) MarshalText() ([]byte, error) { return causeNames.Marshal(c) }

// UnmarshalText accepts exactly what MarshalText returns.
func (c *Cause) UnmarshalText(b []byte) error { return causeNames.Unmarshal(b, c) }

// LogLine is one line that a driver wrote to [Request.Log].
type LogLine struct {
	Seq     int64      `json:"seq"` // counts from 1 in the run; it grows, and can skip numbers after a crash
	Time    time.Time  `json:"time"`
	Step    string     `json:"step"`
	Attempt int        `json:"attempt"`
	Level   slog.Level `json:"level"`
	Message string     `json:"message"`
	// Attrs are the attributes of the line as a JSON object, with groups nested. Attrs is empty if there are none.
	Attrs json.RawMessage `json:"attrs,omitempty"`
}

// String returns the line in readable form: the level, the message, and the attributes as JSON.
func (l LogLine) String() string {
	if len(l.Attrs) == 0 {
		return l.Level.String() + " " + l.Message
	}
	return l.Level.String() + " " + l.Message + " " + string(l.Attrs)
}
