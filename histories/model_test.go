package histories_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"reflect"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/conveyor-go/conveyor"
)

// verb is what a call asks for.
type verb string

const (
	apply   verb = "Apply"
	create  verb = "Create"
	get     verb = "Get"
	list    verb = "List" // of one resource, or what a list of all says of one
	trigger verb = "Trigger"
	remove  verb = "Delete"
	cancel  verb = "Cancel"
	wait    verb = "Wait"
	getRun  verb = "GetRun"
	// end is no call: it is the end of a run, which comes by itself. Its interval is what was seen of it.
	end verb = "end"
)

// answer is what became of a call.
type answer string

const (
	done     answer = "done"
	conflict answer = "ErrConflict"
	exists   answer = "ErrExists"
	notFound answer = "ErrNotFound"
	tooLarge answer = "ErrTooLarge"
	nothing  answer = "another error" // after which nothing is stored
	unknown  answer = "no answer"     // it took effect until its end, or did not
)

// call is one operation of a history. The moments are ticks of one counter.
type call struct {
	Client   int    `json:"client"`
	Life     int    `json:"life"` // of the process
	What     verb   `json:"what"`
	Key      string `json:"key"`
	From, To int64

	Spec     string `json:"spec,omitempty"`
	Metadata string `json:"metadata,omitempty"`
	Pipeline string `json:"pipeline,omitempty"`
	Version  int64  `json:"version,omitempty"`
	Run      string `json:"run,omitempty"` // that is waited for, canceled or read, or that ends

	Answer answer `json:"answer"`
	Error  string `json:"error,omitempty"`
	Got    *seen  `json:"got,omitempty"`
	Ran    *ran   `json:"ran,omitempty"`

	// Exact histories know of every run how it ended; where old runs are removed, a reader may be the first to say.
	Exact bool `json:"exact"`
	// Seen tells that what is given of a run is what somebody saw of it, not a call on it.
	Aside bool `json:"aside,omitempty"`
}

// seen is what an answer says of a resource.
type seen struct {
	ID                        string
	Version, Generation       int64
	Spec, Metadata, Pipeline  string
	Created, Updated, Deleted int64
	Run                       string
	Phase                     conveyor.State
	Observed                  int64
}

func seenIn(m *conveyor.Meta, spec json.RawMessage) *seen {
	s := &seen{
		ID: m.ID, Version: m.Version, Generation: m.Generation, Spec: string(spec), Metadata: m.Metadata["m"], Pipeline: m.Pipeline,
		Created: m.CreatedAt.UnixNano(), Updated: m.UpdatedAt.UnixNano(),
		Run: m.Status.Run, Phase: m.Status.Phase, Observed: m.Status.ObservedGeneration,
	}
	if m.DeletedAt != nil {
		s.Deleted = m.DeletedAt.UnixNano()
	}
	return s
}

// ran is what an answer says of a run.
type ran struct {
	ID, Resource string
	Generation   int64
	Pipeline     string
	Cause        conveyor.Cause
	State        conveyor.State
	Reason       string
	Ended        int64
}

func ranIn(r *conveyor.Run) *ran {
	x := &ran{
		ID: r.ID, Resource: r.ResourceID, Generation: r.Generation, Pipeline: r.Pipeline, Cause: r.Cause, State: r.State, Reason: r.Reason,
	}
	if !r.EndedAt.IsZero() {
		x.Ended = r.EndedAt.UnixNano()
	}
	return x
}

// resource is the sequential specification of one name: what a reader would see, and what nobody has been told yet.
type resource struct {
	present, deleting bool
	seen                     // zero where it is not known yet; of an absent one, what was last
	before            string // the ID of the incarnation before
	newer             bool   // the newest run is another one than Run, which nobody has been told
}

// learn compares what is told with what is known. What is told first becomes known.
func learn[T comparable](known *T, told T) bool {
	var none T
	if *known == none {
		*known = told
	}
	return *known == told
}

// shows says whether a reader may be told this of the resource. Of an apply's answer the spec is not part.
func (r resource) shows(got *seen, exact bool) (resource, bool) {
	if !r.present || got == nil {
		return r, false
	}
	ok := learn(&r.ID, got.ID) && r.ID > r.before &&
		r.Version == got.Version && r.Generation == got.Generation &&
		(got.Spec == "" || r.Spec == got.Spec) && r.Metadata == got.Metadata && r.Pipeline == got.Pipeline &&
		learn(&r.Created, got.Created) && learn(&r.Updated, got.Updated) &&
		r.deleting == (got.Deleted != 0) && (!r.deleting || learn(&r.Deleted, got.Deleted)) &&
		r.learnRun(got.Run) && r.learnPhase(got.Phase, exact) && r.learnObserved(got.Observed, exact)
	return r, ok
}

func (r *resource) learnRun(id string) bool {
	if r.newer && id > r.Run {
		r.Run, r.newer = id, false
	}
	return !r.newer && r.Run == id
}

// learnPhase lets the newest run go on: from queued to running by itself, to a final state only with its end.
func (r *resource) learnPhase(phase conveyor.State, exact bool) bool {
	switch {
	case phase == r.Phase:
		return true
	case r.Phase.Final(), phase.Final() && exact, phase != conveyor.StateRunning && !phase.Final():
		return false
	}
	r.Phase = phase
	return true
}

func (r *resource) learnObserved(observed int64, exact bool) bool {
	if exact || observed < r.Observed || observed > r.Generation {
		return observed == r.Observed
	}
	r.Observed = observed
	return true
}

// withRun is the resource after something that wants a run: the one that is queued, if that will do, or a new one.
func (r resource) withRun(sharing bool) (all []resource) {
	if sharing && r.Phase == conveyor.StateQueued {
		all = append(all, r)
	}
	r.newer, r.Phase = true, conveyor.StateQueued
	return append(all, r)
}

// applied lists what the resource may have become by an apply; nothing if that is refused.
func (r resource) applied(c *call) []resource {
	next := r
	switch {
	case r.present && (r.deleting || c.What == create || c.Version != 0 && c.Version != r.Version), !r.present && c.Version != 0:
		return nil
	case !r.present:
		next = resource{present: true, before: r.ID, newer: r.newer, seen: seen{
			Version: 1, Generation: r.Generation + 1, Spec: c.Spec, Metadata: c.Metadata, Pipeline: c.Pipeline, Run: r.Run,
		}}
		return next.withRun(false)
	case r.Pipeline != c.Pipeline || !same(r.Spec, c.Spec):
		next.Version, next.Generation, next.Updated = r.Version+1, r.Generation+1, 0
		next.Spec, next.Metadata, next.Pipeline = c.Spec, c.Metadata, c.Pipeline
		return next.withRun(c.Pipeline != "qu")
	case r.Metadata != c.Metadata:
		next.Version, next.Metadata, next.Updated = r.Version+1, c.Metadata, 0
	}
	return []resource{next}
}

// deleted lists what the resource may have become by a delete.
func (r resource) deleted(exact bool) (all []resource) {
	if !r.present {
		return nil
	}
	if r.deleting && !r.Phase.Final() {
		all = append(all, r) // under way
		if exact {
			return all
		}
	}
	r.deleting, r.Deleted = true, 0
	return append(all, r.withRun(true)...)
}

// ended is the resource after the end of a run.
func (r resource) ended(run *ran) []resource {
	if !r.present || r.ID != "" && r.ID != run.Resource && run.Resource != "" {
		return []resource{r} // it was of another incarnation
	}
	all := r.endedOf(run)
	if r.ID == "" {
		all = append(all, r) // or of this one, which nobody has been told the ID of
	}
	return all
}

func (r resource) endedOf(run *ran) []resource {
	if run.ID == "" { // a deletion that nobody has been told of, and whose run is no longer on record
		if !r.deleting {
			return nil
		}
		r.present, r.deleting = false, false
		return []resource{r}
	}
	if !learn(&r.ID, run.Resource) || r.ID <= r.before {
		return nil
	}
	if r.newer && run.ID > r.Run {
		older := r // or else a newer one is there already
		older.Run, older.Observed = run.ID, max(r.Observed, run.Generation)
		r.Run, r.newer = run.ID, false
		return append(r.endedOf(run), older)
	}
	switch {
	case r.Run == run.ID && !r.newer && r.Phase.Final(), run.ID > r.Run:
		return nil
	case r.Run == run.ID && !r.newer:
		r.Phase = run.State
	}
	if run.Cause == conveyor.CauseDeleted && run.State == conveyor.StateSucceeded {
		if !r.deleting || r.Run != run.ID {
			return nil
		}
		r.present, r.deleting = false, false
		return []resource{r}
	}
	r.Observed = max(r.Observed, run.Generation)
	return []resource{r}
}

// step lists the states that a call may leave behind, given how it was answered.
func (r resource) step(c *call) (next []resource) {
	switch c.What {
	case get, list:
		if c.Answer == notFound && !r.present {
			return []resource{r}
		}
		if after, ok := r.shows(c.Got, c.Exact); ok && c.Answer == done {
			return []resource{after}
		}
		return nil
	case end:
		next = r.ended(c.Ran)
		if c.Answer == unknown {
			next = append(next, r)
		}
		return next
	case apply, create:
		next = r.applied(c)
	case remove:
		next = r.deleted(c.Exact)
	case trigger:
		if r.present && !r.deleting {
			next = r.withRun(true)
		}
	}
	switch c.Answer {
	case unknown:
		return append(next, r)
	case done:
		return r.answered(c, next)
	}
	if r.refuses(c) {
		return []resource{r}
	}
	return nil
}

// answered keeps of the states a call may have left those that it was answered with.
func (r resource) answered(c *call, next []resource) (kept []resource) {
	for _, n := range next {
		ok := n.learnRun(c.Ran.ID)
		if c.Got != nil {
			var shown bool
			n, shown = n.shows(c.Got, c.Exact)
			ok = ok && shown && c.Ran.Generation >= n.Generation
		}
		if ok && learn(&n.ID, c.Ran.Resource) && n.ID > n.before {
			kept = append(kept, n)
		}
	}
	return kept
}

// refuses says whether a call may be answered so, which changes nothing.
func (r resource) refuses(c *call) bool {
	switch c.Answer {
	case conflict:
		stale := c.Version != 0 && (!r.present || c.Version != r.Version)
		return r.present && r.deleting && c.What != remove || stale
	case exists:
		return c.What == create && r.present && !r.deleting
	case notFound:
		return !r.present && (c.What == trigger || c.What == remove)
	case tooLarge:
		return r.present && !r.deleting && r.Phase == conveyor.StateQueued
	}
	return false
}

// journey is the sequential specification of one run.
type journey struct {
	resource   string
	begun      bool
	generation int64
	state      conveyor.State // when it has ended
	at         int64
	canceled   bool
}

func (j journey) step(c *call) (next []journey) {
	ended := j.state != conveyor.StateUnset
	switch {
	case c.What == end:
		return j.end(c.Ran)
	case c.What != cancel || c.Aside:
		return j.shows(c.Ran, c.Exact)
	case c.Answer == done && !ended:
		j.canceled = true
		return []journey{j}
	case c.Answer == conflict && (ended || !c.Exact):
		return []journey{j}
	case c.Answer == unknown:
		next = []journey{j}
		if !ended {
			j.canceled = true
			next = append(next, j)
		}
	}
	return next
}

func (j journey) shows(r *ran, exact bool) []journey {
	if r.State.Final() {
		switch {
		case j.state != conveyor.StateUnset:
		case exact:
			return nil
		default:
			return j.end(r)
		}
		if j.state != r.State || j.at != r.Ended || j.generation != r.Generation || j.resource != r.Resource {
			return nil
		}
		return []journey{j}
	}
	queued := r.State == conveyor.StateQueued
	switch {
	case j.state != conveyor.StateUnset, j.generation > r.Generation, !learn(&j.resource, r.Resource),
		j.begun && (j.generation != r.Generation || queued):
		return nil
	}
	j.begun, j.generation = j.begun || !queued, r.Generation
	return []journey{j}
}

func (j journey) end(r *ran) []journey {
	switch {
	case j.state != conveyor.StateUnset, j.generation > r.Generation, j.begun && j.generation != r.Generation, !learn(&j.resource, r.Resource):
		return nil
	case j.canceled && r.State != conveyor.StateCanceled && (r.Pipeline != "fi" || r.State == conveyor.StateSucceeded):
		return nil // its steps had failed before, or else it must be canceled
	case !j.canceled && r.State == conveyor.StateCanceled && r.Reason != toBeDeleted:
		return nil // nobody has canceled it
	case r.State == conveyor.StateSuperseded && !strings.Contains(r.Reason, "generation"):
		return nil
	}
	j.state, j.at, j.generation = r.State, r.Ended, r.Generation
	return []journey{j}
}

// toBeDeleted is the reason of runs that a delete has canceled.
const toBeDeleted = "the resource is to be deleted"

// same says whether two specs mean the same.
func same(a, b string) bool {
	var x, y any
	return a == b || json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

var hashes = maphash.MakeSeed()

// specification makes a model of what steps from state to state, one for each register of the history.
func specification[S comparable](step func(S, *call) []S, register func(*call) string) porcupine.Model {
	nm := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			at := map[string]int{}
			var parts [][]porcupine.Operation
			for _, op := range history {
				name := register(op.Input.(*call))
				i, known := at[name]
				if !known {
					i = len(parts)
					at[name], parts = i, append(parts, nil)
				}
				parts[i] = append(parts[i], op)
			}
			return parts
		},
		Init: func() []any { var none S; return []any{none} },
		Step: func(state, input, _ any) (next []any) {
			for _, s := range step(state.(S), input.(*call)) {
				next = append(next, s)
			}
			return next
		},
		Hash:              func(state any) uint64 { return maphash.Comparable(hashes, state.(S)) },
		DescribeOperation: func(input, _ any) string { return input.(*call).String() },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
	return nm.ToModel()
}

var (
	resources = specification(resource.step, func(c *call) string { return c.Key })
	journeys  = specification(journey.step, func(c *call) string { return c.Run })
)

func (c *call) String() string {
	var asked []string
	for _, a := range []string{c.Key, c.Run, c.Spec, c.Pipeline, c.Metadata} {
		if a != "" {
			asked = append(asked, a)
		}
	}
	if c.Version != 0 {
		asked = append(asked, fmt.Sprintf("if version %d", c.Version))
	}
	s := fmt.Sprintf("%s(%s): %s", c.What, strings.Join(asked, ", "), cmp.Or(string(c.Answer), "no answer"))
	if c.Got != nil {
		s += fmt.Sprintf(" %+v", *c.Got)
	}
	if c.Ran != nil {
		s += fmt.Sprintf(" run %+v", *c.Ran)
	}
	return s
}
