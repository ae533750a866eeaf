package conveyor

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// A draft is the next change of a run: what would be on record after it, and what it needs. It becomes true when it
// is committed, and leaves no trace otherwise.
type draft struct {
	s   *scheduler
	j   *journey
	now record.Time

	rec      record.Run
	pipeline *record.Pipeline // of the run, when it begins; nil if it has none, or that is gone
	plan     *plan.Plan
	spec     json.RawMessage // that the run has pinned
	host     hosting
	grants   granter // host, as the decision sees it
	begun    bool    // the run starts in this draft
	extended bool    // its steps were planned in this draft
	created  bool    // the run itself is new; extra holds the writes that go with it
	extra    []store.Op
	rewrite  bool // rec differs from what is recorded

	states   []plan.State
	steps    []stepChange
	attempts []store.Op
	head     *record.Resource // changed copy, or nil
	rev      store.Revision   // that head replaces

	starts   []int // steps that this draft starts, with what host has taken for them, in the same order
	turn     bool  // a step may start as soon as a worker is free
	stop     error // cause for the attempts under way, when they shall end
	over     bool
	removed  bool          // the resource goes with the end of the run
	displace *displacement // of the run that this one waits behind
	logged   int64         // last line among the writes
	logging  bool
	strewn   bool       // not all signals and checkpoints of the run go with its end
	swept    int        // journey.strewn when those that do were looked for
	settled  []*attempt // whose outcome this records
	made     []*attempt // of starts, in their order
	answers  []chan<- error

	writes []store.Op // what ops returns
	values []byte     // of the records among them
	events []Event    // what tell returns
}

// drafts are used again, since every step of every run needs one.
var drafts = sync.Pool{New: func() any { return new(draft) }}

func (s *scheduler) newDraft(j *journey, spare bool) *draft {
	d := drafts.Get().(*draft)
	d.s, d.j, d.now = s, j, record.TimeOf(time.Now())
	d.host.s, d.host.j, d.host.spare = s, j, spare
	d.grants = &d.host
	return d
}

// recycle gives up a draft whose caller needs nothing of it any more.
func (d *draft) recycle() {
	const large = 64 << 10 // bytes that are not worth keeping
	if cap(d.values) > large {
		d.values = nil
	}
	*d = draft{host: hosting{taken: empty(d.host.taken)},
		states: d.states[:0], extra: empty(d.extra), steps: empty(d.steps), attempts: empty(d.attempts), starts: empty(d.starts),
		settled: empty(d.settled), made: empty(d.made), answers: empty(d.answers),
		writes: empty(d.writes), values: d.values[:0], events: empty(d.events),
	}
	drafts.Put(d)
}

// empty keeps the room of a slice, and nothing that it refers to.
func empty[T any](s []T) []T {
	clear(s)
	return s[:0]
}

type stepChange struct {
	index int
	key   string // under which it is written
	rec   record.Step
}

// draft works out what messages change. On an error the draft must be undone.
func (s *scheduler) draft(j *journey, inbox []message, spare bool) (*draft, error) {
	d := s.newDraft(j, spare)
	if err := s.open(j); err != nil {
		return d, err
	}
	d.rec, d.plan, d.spec = j.run.Rec, j.run.Plan, j.spec
	d.readStates(j.run.Steps)
	for _, m := range inbox {
		if m.outcome != nil {
			if err := d.settle(m.outcome); err != nil {
				return d, err
			}
		}
	}
	for _, m := range inbox {
		if m.stop != nil {
			d.requestStop(m.stop)
		}
	}
	if err := d.deliver(); err != nil {
		return d, err
	}
	if d.rec.State == plan.Queued && d.rec.Stop == plan.StopNone && !d.grants.draining() {
		if proceed, err := d.begin(); err != nil || !proceed {
			return d, err
		}
	}
	return d, d.goOn()
}

func (d *draft) readStates(steps []record.StepState) {
	d.blankStates(len(steps))
	for i := range steps {
		rec := &steps[i].Rec
		d.states[i] = rec.State
		if (rec.State == plan.Retrying || rec.State == plan.Waiting && rec.Await == "") && rec.Due <= d.now {
			d.states[i] = plan.Queued
		}
	}
}

// blankStates begins with so many steps, none of which has begun.
func (d *draft) blankStates(n int) {
	d.states = slices.Grow(d.states[:0], n)[:n]
	clear(d.states)
}

// step returns the draft's copy of a step's record, to be changed. It is good until the next step is asked for.
func (d *draft) step(i int) *record.Step {
	for k := range d.steps {
		if d.steps[k].index == i {
			return &d.steps[k].rec
		}
	}
	d.steps = append(d.steps, stepChange{index: i, rec: d.was(i).Rec})
	return &d.steps[len(d.steps)-1].rec
}

// was returns what is on record of a step, to be read; nothing of one that is pinned in this draft.
func (d *draft) was(i int) *record.StepState {
	if d.begun || d.extended && i > 0 {
		return new(record.StepState)
	}
	return &d.j.run.Steps[i]
}

// settle takes up the outcome of an attempt.
func (d *draft) settle(o *outcome) error {
	a := o.attempt
	limits := d.s.opts.Limits
	rec := d.step(a.index)
	policy := retry.Combine(a.step.Retry, d.plan.Retry, toPolicy(a.driver.opts.retry), toPolicy(d.s.opts.Retry))
	failed := settle(rec, o, policy, d.stopOf(a.index), limits)
	rec.Lines = d.j.log.lines(a.step.ID)
	d.states[a.index] = rec.State
	d.settled = append(d.settled, a)
	if failed != nil {
		d.attempts = append(d.attempts, store.Put(record.AttemptKey(d.j.ID, a.step.ID, a.number), record.Encode(failed)))
	}
	if old := a.number - limits.Attempts; old > 0 && (failed != nil || rec.State.Final()) {
		d.attempts = append(d.attempts, store.Delete(record.AttemptKey(d.j.ID, a.step.ID, old)))
	}
	if o.err == nil && o.result.kind == resultHalt && d.rec.Stop == plan.StopNone {
		d.rec.Stop, d.rec.StopReason, d.rewrite = plan.StopHalt, rec.Reason, true
	}
	if o.plan != nil {
		return d.extend(o.plan)
	}
	return nil
}

// deliver gives signals that have come to the steps that wait for them, and wakes those that have waited in vain. A
// signal leaves the store in the commit that gives it to a step.
func (d *draft) deliver() error {
	for i, state := range d.states {
		if state != plan.Waiting || d.recorded(i).Await == "" {
			continue
		}
		payload, err := d.takeSignal(d.recorded(i).Await)
		if err != nil {
			return err
		}
		if due := d.recorded(i).Due; payload != nil || due != 0 && due <= d.now {
			d.step(i).WakeUp(d.now, payload)
			d.states[i] = plan.Queued
		}
	}
	return nil
}

// takeSignal returns the payload of the oldest signal of a name that this draft has not taken yet; nil for none.
func (d *draft) takeSignal(name string) (json.RawMessage, error) {
	for r, err := range d.s.ledger.Store.List(d.s.base, store.Query{Prefix: record.SignalsOf(d.j.ID, name)}) {
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(d.extra, func(op store.Op) bool { return op.Key() == r.Key }) {
			if !json.Valid(r.Value) { // it would damage the step's record too
				return nil, record.Damaged(r.Key, errors.New("is no JSON"))
			}
			d.extra = append(d.extra, store.Delete(r.Key).If(r.Revision))
			return r.Value, nil
		}
	}
	return nil, nil
}

// recorded returns a step's record as it is in the draft, to be read.
func (d *draft) recorded(i int) *record.Step {
	for k := range d.steps {
		if d.steps[k].index == i {
			return &d.steps[k].rec
		}
	}
	return &d.was(i).Rec
}

// stopOf tells why a step shall not be tried again, if that is so. A time that is up is recorded by goOn, unless the
// steps turn out to be done.
func (d *draft) stopOf(i int) plan.Stop {
	switch {
	case i < len(d.plan.Steps) && d.rec.Stop != plan.StopNone:
		return d.rec.Stop
	case d.late():
		return plan.StopTimeout
	case i >= len(d.plan.Steps) && d.rec.CutShort:
		return plan.StopCancel
	}
	return plan.StopNone
}

// requestStop ends the steps or, if those have ended, the cleanup.
func (d *draft) requestStop(r *stopRequest) {
	d.answers = append(d.answers, r.answer)
	if r.spare && (d.rec.Outcome != plan.Unset || d.rec.Stop != plan.StopNone) {
		return
	}
	if d.rec.Outcome != plan.Unset {
		d.stop = r.cause
		d.cutShort(plan.StopCancel, r.reason)
		return
	}
	if d.rec.Stop == plan.StopCancel {
		return
	}
	d.rec.Stop, d.rec.StopReason, d.rewrite = r.kind, text.Truncate(r.reason, d.s.opts.Limits.ErrorText), true
	d.stop = r.cause
}

// goOn starts what may start, or ends the run.
func (d *draft) goOn() error {
	if d.over {
		return nil
	}
	if d.plan == nil {
		if d.rec.Stop != plan.StopNone {
			return d.finish()
		}
		return nil
	}
	if d.late() {
		d.timeUp()
	}
	if d.rec.Outcome == plan.Unset && d.plan.Through(d.states, d.rec.Stop != plan.StopNone) {
		d.conclude()
	}
	starts, over := d.plan.Next(d.states, d.rec.Stop != plan.StopNone, d.rec.CutShort)
	if over {
		return d.finish()
	}
	if d.grants.draining() {
		return nil
	}
	for _, i := range starts {
		if ended := d.start(i); ended {
			return d.goOn()
		}
	}
	return nil
}

// late says that the run has had its time.
func (d *draft) late() bool { return d.rec.Deadline != 0 && d.now >= d.rec.Deadline }

// timeUp ends the steps, unless they are done, or the cleanup, which has had a time of its own.
func (d *draft) timeUp() {
	switch {
	case d.rec.Outcome != plan.Unset:
		if _, done := d.plan.NextOfFinally(d.states, false); !done {
			d.cutShort(plan.StopTimeout, fmt.Sprintf("the cleanup took longer than %s", d.plan.Timeout))
		}
	case d.rec.Stop == plan.StopNone && !d.plan.Succeeded(d.states):
		limit := time.Duration(d.rec.Deadline - d.rec.Started)
		d.rec.Stop, d.rec.StopReason, d.rewrite = plan.StopTimeout, fmt.Sprintf("the run took longer than %s", limit), true
	}
}

// cutShort ends the cleanup. That is a stop of the whole run if the steps had succeeded.
func (d *draft) cutShort(kind plan.Stop, reason string) {
	if d.rec.CutShort {
		return
	}
	d.rec.CutShort, d.rewrite = true, true
	if d.rec.Outcome == plan.Succeeded {
		d.rec.Stop, d.rec.StopReason = kind, text.Truncate(reason, d.s.opts.Limits.ErrorText)
	}
}

// conclude decides how the steps have ended, on which the cleanup cannot improve.
func (d *draft) conclude() {
	end, failed := d.plan.Outcome(d.states, d.rec.Stop)
	reason := ""
	if d.rec.Stop != plan.StopNone {
		reason = d.rec.StopReason
	}
	if failed >= 0 {
		why := d.failed(failed)
		if d.rec.Stop != plan.StopTimeout {
			reason = why
		}
	}
	d.rec.Outcome, d.rec.Reason, d.rewrite = end, reason, true
	if d.plan.Timeout > 0 && len(d.plan.Finally) > 0 {
		d.rec.Deadline = d.now.Add(time.Duration(d.plan.Timeout))
	}
}

// failed records which step made the run fail, and says so.
func (d *draft) failed(i int) (reason string) {
	step := d.plan.Step(i)
	d.rec.FailedStep = step.ID
	return text.Truncate(fmt.Sprintf("step %s (driver %s): %s", step.ID, step.Driver, d.recorded(i).Reason), d.s.opts.Limits.ErrorText)
}

// start starts a step if it is granted what it needs, or notes what it waits for. It reports true if the step has ended
// instead.
func (d *draft) start(i int) (ended bool) {
	step := d.plan.Step(i)
	if d.interruptedTooOften(i) {
		return true
	}
	g := d.grants.start(step.Driver, d.plan.Finalize && !d.plan.Plans(i))
	if g == noDriver {
		d.block(i, missing(step.Driver))
		return false
	}
	d.unblock(i)
	switch g {
	case notNeeded:
		rec := d.step(i)
		rec.State, rec.Reason, rec.Ended = plan.Skipped, fmt.Sprintf("driver %q has nothing to finalize", step.Driver), d.now
		d.states[i] = plan.Skipped
		return true
	case noWorker:
		d.turn = true
	case granted:
		d.starts = append(d.starts, i)
		d.step(i).Begin(d.now)
		d.states[i] = plan.Running
	}
	return false
}

// block records that a step waits for something to be mended, unless that is recorded already.
func (d *draft) block(i int, reason string) {
	if d.was(i).Rec.State == plan.Blocked {
		return
	}
	rec := d.step(i)
	rec.State, rec.Reason, rec.Due = plan.Blocked, reason, 0
	d.states[i] = plan.Blocked
}

// unblock takes back what block has recorded: what the step still waits for, if anything, comes by itself.
func (d *draft) unblock(i int) {
	if d.was(i).Rec.State != plan.Blocked {
		return
	}
	rec := d.step(i)
	rec.State, rec.Reason = plan.Queued, ""
	d.states[i] = plan.Queued
}

// interruptedTooOften fails a step under which the process keeps dying, so that it does not take the others along
// for ever.
func (d *draft) interruptedTooOften(i int) bool {
	limit := d.s.opts.Limits.Interruptions
	if d.was(i).Rec.Crashes <= limit {
		return false
	}
	rec := d.step(i)
	rec.State, rec.Ended, rec.Resumed, rec.Again = plan.Failed, d.now, false, false
	rec.Reason = fmt.Sprintf("interrupted %d times by the death of the process, more than the limit of %d", rec.Crashes, limit)
	d.attempts = append(d.attempts, store.Put(record.AttemptKey(d.j.ID, d.stepID(i), rec.Attempt),
		record.Encode(&record.Attempt{Started: rec.Started, Ended: d.now, Error: rec.Reason, Kind: fault.KindInterrupt})))
	d.states[i] = plan.Failed
	return true
}

// finish ends the run as its steps and its stop say.
func (d *draft) finish() error {
	if d.plan == nil { // it never began
		end := plan.Canceled
		if d.rec.Stop == plan.StopSupersede {
			end = plan.Superseded
		}
		return d.finishWith(end, d.rec.StopReason)
	}
	end, reason := d.rec.Outcome, d.rec.Reason
	if end == plan.Succeeded {
		end, reason = d.afterCleanup()
	}
	return d.finishWith(end, reason)
}

// afterCleanup tells how a run ends whose steps have succeeded: what goes wrong in the cleanup is the run's then.
func (d *draft) afterCleanup() (end plan.State, reason string) {
	end, reason = plan.Succeeded, d.rec.Reason
	if i := d.plan.FailedCleanup(d.states); i >= 0 {
		end, reason = plan.Failed, d.failed(i)
	}
	switch {
	case d.rec.CutShort && d.rec.Stop == plan.StopCancel:
		return plan.Canceled, d.rec.StopReason
	case d.rec.CutShort:
		return plan.Failed, d.rec.StopReason
	}
	return end, reason
}

func (d *draft) finishWith(end plan.State, reason string) error {
	if err := d.readHead(); err != nil {
		return err
	}
	if err := d.sweep(); err != nil {
		return err
	}
	d.over, d.rewrite = true, true
	d.rec.State, d.rec.Ended, d.rec.Reason = end, d.now, reason
	if d.plan == nil {
		d.rec.Started = 0 // it has pinned no steps, so it has not begun
	}
	head := d.head
	if head == nil || head.ID != d.rec.ResourceID {
		d.head = nil
		return nil
	}
	if head.Active == d.j.ID {
		head.Active = ""
	}
	if !d.begun && d.j.run.Rec.State == plan.Queued {
		if err := d.leaveLine(); err != nil {
			return err
		}
	}
	if head.Status.Run == d.j.ID {
		head.Status.Phase, head.Status.Message = end, ""
		if end != plan.Succeeded {
			head.Status.Message = reason
		}
	}
	if d.plan != nil && d.plan.Finalize && end == plan.Succeeded {
		return d.remove()
	}
	head.Status.ObservedGeneration = max(head.Status.ObservedGeneration, d.rec.Generation)
	d.planResync(end)
	return nil
}

// remove takes the resource off the record, but for the generation that its name has come to.
func (d *draft) remove() error {
	k := d.j.Key
	d.removed = true
	d.extra = append(d.extra, store.Put(record.TombstoneKey(k), record.Encode(&record.Tombstone{Generation: d.head.Generation})), store.Delete(record.UnlistenedKey(k)))
	for r, err := range d.s.ledger.Store.List(d.s.base, store.Query{Prefix: record.RevisionsOf(k)}) {
		if err != nil {
			return err
		}
		d.extra = append(d.extra, store.Delete(r.Key))
	}
	return nil
}

// idle says that the draft pins a run that could not start anything yet: it stays queued, so that it still takes up
// what is applied meanwhile.
func (d *draft) idle() bool {
	return d.begun && !d.over && len(d.starts) == 0 && len(d.steps) == 0
}

// put is a write of a record.
func (d *draft) put(key string, rec record.Appender) store.Op {
	from := len(d.values)
	d.values = rec.AppendJSON(d.values)
	return store.Put(key, d.values[from:len(d.values):len(d.values)])
}

// ops lists the writes. The first is conditional and of a record that nobody else writes, from which an unknown outcome
// is told.
func (d *draft) ops() (ops []store.Op) {
	id := d.j.ID
	log := d.j.log
	ops = d.writes[:0]
	idle := d.idle()
	if !idle {
		for i := range d.steps {
			c := &d.steps[i]
			if c.key = d.was(c.index).Key; c.key == "" {
				c.key = record.StepKey(id, d.stepID(c.index))
			}
			ops = append(ops, d.put(c.key, &c.rec).If(d.was(c.index).Rev))
		}
		if d.rewrite {
			ops = append(ops, d.put(d.j.run.Key(), &d.rec).If(d.j.run.Rev))
		}
		switch {
		case d.removed:
			ops = append(ops, store.Delete(record.ResourceKey(d.j.Key)).If(d.rev))
		case d.head != nil:
			ops = append(ops, d.put(record.ResourceKey(d.j.Key), d.head).If(d.rev))
		}
		ops = append(ops, d.attempts...)
		ops = append(ops, d.extra...)
		if d.over && !d.created {
			ops = append(ops, store.Delete(record.ActiveKey(id)))
		}
	}
	if log != nil {
		lines, last := log.ops()
		if len(lines) > 0 {
			d.logged, d.logging = last, true
			ops = append(ops, lines...)
		}
	}
	// Every change of a run is a compare-and-set on its record. Where that record itself stays the same it is only
	// compared: to rewrite it at every step would double the bytes of a transition and keep out nobody more, since
	// whoever takes a run over has to write it.
	if len(ops) > 0 && (idle || !d.rewrite) {
		ops = append(ops, store.Check(d.j.run.Key(), d.j.run.Rev))
	}
	d.writes = ops
	return ops
}

func (d *draft) stepID(i int) string { return d.plan.Step(i).ID }

// apply makes the journey show what was committed.
func (d *draft) apply(rev store.Revision) {
	j, run := d.j, d.j.run
	if d.logging {
		j.log.written(d.logged)
	}
	if d.idle() {
		return
	}
	if d.head != nil {
		j.head, j.rev = d.head, rev
	}
	if d.rewrite {
		run.Rec, run.Rev = d.rec, rev
	}
	if d.begun || d.extended {
		run.Plan, run.Steps = d.plan, append(make([]record.StepState, 0, len(d.states)), run.Steps[:min(len(run.Steps), 1)]...)
		run.Steps = run.Steps[:len(d.states)]
		j.spec = d.spec
	}
	for i := range d.steps {
		c := &d.steps[i]
		run.Steps[c.index] = record.StepState{Rec: c.rec, Rev: rev, Key: c.key}
	}
}

// nextDue is when the run goes on by itself; 0 for never. It leaves out what is past and was acted upon: a deadline,
// and a step that has come due, which has either started or waits for a slot, a worker, a driver or a stray call.
func (d *draft) nextDue() (due record.Time) {
	run := d.j.run
	if run.Rec.Deadline > d.now {
		due = run.Rec.Deadline
	}
	for i, state := range d.states {
		if state != plan.Retrying && state != plan.Waiting {
			continue
		}
		if at := run.Steps[i].Rec.Due; at != 0 && (due == 0 || at < due) { // 0 is a wait for a signal alone
			due = at
		}
	}
	return due
}

// undo gives back what was taken for the draft.
func (d *draft) undo() {
	d.host.release()
	d.starts = nil
}

// tell lists what happened, for those who watch.
func (d *draft) tell() (events []Event) {
	if d.idle() {
		return nil
	}
	now := time.Now()
	run := d.j.run
	events = d.events[:0]
	if d.begun && d.plan != nil {
		started := d.rec
		started.State, started.Reason = plan.Running, ""
		events = append(events, runEvent(now, run.ID, &started))
	}
	for i := range d.steps {
		events = append(events, stepEvent(now, run, d.stepID(d.steps[i].index), &d.steps[i].rec))
	}
	if d.over {
		events = append(events, runEvent(now, run.ID, &d.rec))
	}
	if d.removed {
		events = append(events, Event{Time: now, Kind: EventResource, Resource: Key(d.j.Key), Reason: "deleted"})
	}
	d.events = events
	return events
}
