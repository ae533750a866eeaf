package conveyor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// What is kept, and under which key. Names hold no slash, so that a key splits in one way only, and no key is the
// prefix of another resource's, run's or step's keys. Run ids sort by time, so new records of a kind lie side by
// side in an ordered store.
//
//	format                      the version of all this
//	res/TYPE/NAME               a resource without its spec: resourceRecord
//	rev/TYPE/NAME/GENERATION    the spec of one generation: revisionRecord
//	rix/TYPE/NAME/RUN           the runs of a resource: empty
//	tmb/TYPE/NAME               a name whose resource was deleted: graveRecord
//	que/TYPE/NAME/PLACE         a run that is queued behind another queued one: queueRecord
//	rsy/DUE/TYPE/NAME           when a resource is to be run again: empty. What is due comes first.
//	unh/TYPE/NAME               resources without a pipeline that no driver listened to: empty
//	pip/NAME                    the pipeline as it is now: pipelineRecord
//	pir/NAME/HASH               a definition it has or had, never changed: PipelineSpec
//	run/RUN                     a run: runRecord; written when it is queued, starts, is told to stop, and ends
//	act/RUN                     the runs that have not ended: empty. Recovery reads these and never the history.
//	pln/RUN                     the plan of a run whose steps are not those of a definition: plan
//	stp/RUN/STEP                a step: stepRecord, written at the start and the end of each attempt
//	att/RUN/STEP/ATTEMPT        an attempt that failed: attemptRecord
//	ckp/RUN/STEP                what a step has saved in between: any JSON
//	sig/RUN/NAME/ID             a signal that nobody has taken yet: any JSON. The ids sort by the time they came.
//	log/RUN/SEQ                 log lines from the numbered one on: []LogLine
//
// Numbers in keys are 16 hexadecimal digits, so that they sort. Every record is a JSON object whose unknown fields
// are passed over; a change that an older program must not pass over raises recordFormat.
const (
	recordFormat = 1

	formatKey        = "format"
	resourcePrefix   = "res/"
	revisionPrefix   = "rev/"
	runIndexPrefix   = "rix/"
	gravePrefix      = "tmb/"
	queuePrefix      = "que/"
	resyncPrefix     = "rsy/"
	unheardPrefix    = "unh/"
	pipelinePrefix   = "pip/"
	pipelineHistory  = "pir/"
	runPrefix        = "run/"
	activePrefix     = "act/"
	planPrefix       = "pln/"
	stepPrefix       = "stp/"
	attemptPrefix    = "att/"
	checkpointPrefix = "ckp/"
	signalPrefix     = "sig/"
	logPrefix        = "log/"
)

func resourceKey(k Key) string            { return resourcePrefix + k.Type + "/" + k.Name }
func revisionsOf(k Key) string            { return revisionPrefix + k.Type + "/" + k.Name + "/" }
func revisionKey(k Key, gen int64) string { return fmt.Sprintf("%s%016x", revisionsOf(k), gen) }
func runsOf(k Key) string                 { return runIndexPrefix + k.Type + "/" + k.Name + "/" }
func graveKey(k Key) string               { return gravePrefix + k.Type + "/" + k.Name }
func queueOf(k Key) string                { return queuePrefix + k.Type + "/" + k.Name + "/" }
func queueKey(k Key, place int64) string  { return queueOf(k) + hex16(place) }
func resyncKey(due instant, k Key) string {
	return resyncPrefix + hex16(int64(due)) + "/" + k.Type + "/" + k.Name
}
func unheardKey(k Key) string                { return unheardPrefix + k.Type + "/" + k.Name }
func pipelineKey(name string) string         { return pipelinePrefix + name }
func definitionKey(name, hash string) string { return pipelineHistory + name + "/" + hash }
func runKey(run string) string               { return runPrefix + run }
func activeKey(run string) string            { return activePrefix + run }
func planKey(run string) string              { return planPrefix + run }
func stepsOf(run string) string              { return stepPrefix + run + "/" }
func stepKey(run, step string) string        { return stepPrefix + run + "/" + step }
func attemptsOf(run string) string           { return attemptPrefix + run + "/" }
func attemptKey(run, step string, n int) string {
	return attemptPrefix + run + "/" + step + "/" + hex16(int64(n))
}
func checkpointKey(run, step string) string { return checkpointPrefix + run + "/" + step }
func signalsOf(run, name string) string     { return signalPrefix + run + "/" + name + "/" }
func logsOf(run string) string              { return logPrefix + run + "/" }
func logKey(run string, seq int64) string   { return logsOf(run) + hex16(seq) }

// hex16 is a number as keys hold it.
func hex16(n int64) string {
	const digits = "0123456789abcdef"
	var b [16]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = digits[n&15]
		n >>= 4
	}
	return string(b[:])
}

// instant is a point in time as nanoseconds since 1970, UTC; 0 is the zero time.
type instant int64

func toInstant(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	return instant(t.UnixNano())
}

func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}

// after is i plus d; what is too far away to be written, more than two centuries, is the last instant.
func (i instant) after(d time.Duration) instant {
	if d > 0 && i > math.MaxInt64-instant(d) {
		return math.MaxInt64
	}
	return i + instant(d)
}

type formatRecord struct {
	Format int `json:"format"`
}

// resourceRecord is small whatever the spec, since the end of every run writes it.
//
// Invariant: Active and Pending name unfinished runs or are empty. Active has begun; Pending has not, and takes up
// the newest generation when it does, unless it keeps another. Queued counts the runs behind it, which all keep theirs.
// All of them change only by a compare-and-set of this record, which is what keeps two runs of one resource apart.
type resourceRecord struct {
	ID         string            `json:"id"`
	Pipeline   string            `json:"pipeline,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Version    int64             `json:"version"`
	Generation int64             `json:"generation"`
	First      int64             `json:"first"` // generation with which this incarnation began
	Created    instant           `json:"created"`
	Updated    instant           `json:"updated"`
	Deleted    instant           `json:"deleted,omitempty"`
	Status     Status            `json:"status"`
	Active     string            `json:"active,omitempty"`
	Pending    string            `json:"pending,omitempty"`
	Cause      Cause             `json:"cause,omitzero"`      // of Pending
	Supersede  bool              `json:"supersede,omitempty"` // Pending does not wait for the end of Active
	Keeps      int64             `json:"keeps,omitempty"`     // generation that Pending keeps; 0 for the newest
	Queued     int               `json:"queued,omitempty"`    // runs behind Pending, each with a queueRecord
	LastPlace  int64             `json:"lastPlace,omitempty"` // the highest ever given to one of them
	Resync     instant           `json:"resync,omitempty"`    // when it is to be run again, if nothing comes before
}

// revisionRecord is written once for each generation.
type revisionRecord struct {
	Pipeline string            `json:"pipeline,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"` // as it was when the generation was made
	Version  int64             `json:"version"`
	At       instant           `json:"at"`
	Spec     json.RawMessage   `json:"spec,omitempty"`
}

// graveRecord keeps the generations of a name growing when it is used again.
type graveRecord struct {
	Generation int64 `json:"generation"`
}

// queueRecord is a place in the line of the runs that wait behind Pending. The places are taken in the order of the keys.
type queueRecord struct {
	Run        string `json:"run"`
	Generation int64  `json:"generation"`
	Cause      Cause  `json:"cause"`
}

type pipelineRecord struct {
	Hash     string       `json:"hash"`
	Resource string       `json:"resource"` // the type it is for
	OnChange ChangePolicy `json:"onChange,omitzero"`
	Resync   Duration     `json:"resync,omitzero"`
	MaxRuns  int          `json:"maxRuns,omitempty"`
	Planned  bool         `json:"planned,omitempty"` // the steps are not in the definition

	Saved instant `json:"saved"`
	// Rev is the revision under which the record was read. It is not part of the record.
	Rev store.Revision `json:"-"`
}

// runRecord is the part of a run that its steps do not change. State is queued, running or final; what a running run
// is really doing follows from its steps.
type runRecord struct {
	Type       string `json:"resource"`
	Name       string `json:"name"`
	ResourceID string `json:"resourceId"`
	Cause      Cause  `json:"cause"`
	State      State  `json:"state"`
	Reason     string `json:"reason,omitempty"`
	// Pinned when the run starts.
	Generation int64             `json:"generation,omitempty"`
	Pipeline   string            `json:"pipeline,omitempty"`
	Hash       string            `json:"hash,omitempty"` // of the pipeline's definition
	Metadata   map[string]string `json:"metadata,omitempty"`
	Version    int64             `json:"version,omitempty"`
	MadeAt     instant           `json:"madeAt,omitempty"`    // the resource's CreatedAt
	UpdatedAt  instant           `json:"updatedAt,omitempty"` // and its UpdatedAt
	DeletedAt  instant           `json:"deletedAt,omitempty"` // and its DeletedAt
	Created    instant           `json:"created"`
	Started    instant           `json:"started,omitempty"`
	Ended      instant           `json:"ended,omitempty"`
	Deadline   instant           `json:"deadline,omitempty"`
	Stop       stopKind          `json:"stop,omitempty"` // it shall end, as soon as nothing runs
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
	Outcome  State `json:"outcome,omitzero"`
	CutShort bool  `json:"cutShort,omitempty"`
}

// outcomeReason is why the steps have ended so, once they have.
func (r *runRecord) outcomeReason() string {
	if r.Outcome == StateUnset {
		return ""
	}
	return r.Reason
}

func (r *runRecord) key() Key { return Key{Type: r.Type, Name: r.Name} }

// stepRecord is where a step is now. Its ended attempts that failed have records of their own.
type stepRecord struct {
	State   State   `json:"state"`
	Attempt int     `json:"attempt,omitempty"`
	Started instant `json:"started,omitempty"` // of the newest attempt
	Ended   instant `json:"ended,omitempty"`
	Due     instant `json:"due,omitempty"`
	Reason  string  `json:"reason,omitempty"`
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
	Waits    []waitRecord    `json:"waits,omitempty"`
}

type waitRecord struct {
	Signal   string  `json:"signal"`
	From     instant `json:"from"`
	To       instant `json:"to,omitempty"` // 0 while it lasts
	TimedOut bool    `json:"timedOut,omitempty"`
}

type attemptRecord struct {
	Started instant    `json:"started"`
	Ended   instant    `json:"ended"`
	Error   string     `json:"error"`
	Kind    fault.Kind `json:"kind,omitempty"`
	Stack   string     `json:"stack,omitempty"`
}

// decode reads a record. Damage is an error that names the key, and no other record.
func decode(r store.Record, into any) error {
	if err := json.Unmarshal(r.Value, into); err != nil {
		return damaged(r.Key, errors.New(unfit(err)))
	}
	if string(bytes.TrimSpace(r.Value)) == "null" {
		return damaged(r.Key, errors.New("is null"))
	}
	if c, ok := into.(checker); ok {
		if problem := c.Check(); problem != "" {
			return damaged(r.Key, errors.New(problem))
		}
	}
	return nil
}

// unfit says why a value is no record, in words that give away nothing of the value: the engine logs them, and what was
// mixed up may be a spec.
func unfit(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("is no JSON, at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Sprintf("has a value at byte %d that is no %s", kind.Offset, kind.Type)
	}
	return "has a value that does not fit its field"
}

func damaged(key string, err error) error {
	return fmt.Errorf("%w: record %s: %w", store.ErrCorrupt, key, err)
}

// checker is a record that knows what no program has ever written. It is asked when it was read, so that what follows
// may rely on it: a record that is damaged, and still JSON, must not pass for another one.
type checker interface {
	// Check says what is wrong, or nothing.
	Check() string
}

func (f *formatRecord) Check() string { return unless(f.Format >= 1, "has no format") }

func (r *resourceRecord) Check() string {
	if r.First < 1 || r.First > r.Generation || r.Version < 1 || r.Keeps < 0 || r.Keeps > r.Generation || r.Queued < 0 {
		return "has impossible numbers"
	}
	if !refers(r.Pipeline, r.Active, r.Pending) {
		return refersToNothing
	}
	return unless(r.ID != "" && r.Status.Run != "" && refers(r.Status.Run), "has no id, or no run")
}

func (r *revisionRecord) Check() string {
	return unless(r.Version >= 1 && refers(r.Pipeline), "has no version, or no pipeline that can be")
}

func (g *graveRecord) Check() string { return unless(g.Generation >= 1, "has no generation") }

func (q *queueRecord) Check() string {
	return unless(q.Run != "" && refers(q.Run) && q.Generation >= 1 && q.Cause != 0, "has no run, no generation or no cause")
}

func (p *pipelineRecord) Check() string {
	return unless(p.Hash != "" && refers(p.Hash) && p.Resource != "", "has no definition, or no type")
}

func (r *runRecord) Check() string {
	switch {
	case text.NameFault(r.Type) != "" || text.NameFault(r.Name) != "" || r.ResourceID == "" || r.Cause == 0:
		return "has no resource, or no cause"
	case !refers(r.Pipeline, r.Hash, r.Of):
		return refersToNothing
	case r.State != StateQueued && r.State != StateRunning && !r.State.Final():
		return fmt.Sprintf("is a run that is %s", r.State)
	case (r.State == StateQueued) == (r.Started != 0) && !r.State.Final():
		return fmt.Sprintf("is %s, and has begun at %d", r.State, r.Started)
	}
	return unless(r.Started == 0 || r.Generation >= 1, "has begun without a generation")
}

func (s *stepRecord) Check() string {
	return unless(s.State != StateUnset && s.Attempt >= 0, "is a step that has not begun")
}

// Check keeps [plan.ready] from finding no step for an id.
func (p *plan) Check() string {
	var f fault.Fields
	validateGraph(p.Steps, &f)
	if f.Any() {
		return "has steps that wait for each other, or for none that there is"
	}
	return unless(len(p.Steps) > 0 || p.Finalize, "has no steps")
}

// refers says that texts are names under which other records may be found, or empty. What is none may be anything.
func refers(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return name != "" && text.NameFault(name) != "" })
}

const refersToNothing = "refers to what cannot be"

func unless(good bool, problem string) string {
	if good {
		return ""
	}
	return problem
}
