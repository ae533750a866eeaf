package conveyor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/ring"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Event describes one thing that happened. An Event is sent after the change was recorded.
type Event struct {
	// Cursor is the position of the event in the stream. [WatchOptions].Since accepts it to continue after this
	// event.
	Cursor   Cursor    `json:"cursor"`
	Time     time.Time `json:"time"`
	Kind     EventKind `json:"kind"`
	Resource Key       `json:"resource,omitzero"`
	Pipeline string    `json:"pipeline,omitempty"` // of the run or the step, too; empty if it has none
	Run      string    `json:"run,omitempty"`
	Cause    Cause     `json:"cause,omitzero"`    // of the run, for EventRun and EventStep
	By       string    `json:"by,omitempty"`      // the actor of the change or, for EventRun and EventStep, of the run; see [As]
	Step     string    `json:"step,omitempty"`    // id of the step, for EventStep
	Driver   string    `json:"driver,omitempty"`  // of the step or, for EventPause, of the target
	State    State     `json:"state,omitzero"`    // new state of the run or the step
	Attempt  int       `json:"attempt,omitempty"` // number of the newest attempt, for EventStep
	Reason   string    `json:"reason,omitempty"`  // in words
	// ErrorKind and ErrorReason say why an attempt, a step or a run has not succeeded, in values of which there are few, so
	// that they can be the labels of a metric. ErrorReason is what the driver gave to [Reason]. Both are empty otherwise.
	ErrorKind   ErrorKind `json:"errorKind,omitempty"`
	ErrorReason string    `json:"errorReason,omitempty"`
}

// Cursor is a position in the event stream of an engine. It is opaque. A Cursor of one engine has no meaning for
// another engine.
type Cursor string

// EventKind is the kind of an event.
type EventKind uint8

const (
	EventResource EventKind = iota + 1 // a resource was created, changed or removed
	EventPipeline                      // a pipeline was saved or deleted
	EventRun                           // a run was queued, started or ended
	EventStep                          // a step changed its state; steps that are closed by the end of their run have no event of their own
	EventGap                           // an [Observer] has missed events that are no longer kept
	EventPause                         // something was paused, with the reason, or resumed, with the reason "resumed"
)

var eventKindNames = document.Enum[EventKind]{What: "event kind", Names: []string{"", "resource", "pipeline", "run", "step", "gap", "pause"}}

// String returns the name that documents use, and "unset" for the zero value.
func (k EventKind) String() string { return eventKindNames.Text(k) }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (k EventKind) MarshalText() ([]byte, error) { return eventKindNames.Marshal(k) }

// UnmarshalText accepts exactly what MarshalText returns.
func (k *EventKind) UnmarshalText(b []byte) error { return eventKindNames.Unmarshal(b, k) }

// WatchOptions selects events. The zero value selects all events from now on. A watcher needs no memory of its own,
// whether it reads or not. [Limits] describes how much memory all events together need.
type WatchOptions struct {
	// Since selects the events after the one with this cursor. Empty means from now on.
	Since Cursor
	// Resource, if set, selects the events of one resource, of its runs, and of their steps.
	Resource Key
	// Run, if set, selects the events of one run and of its steps.
	Run string
}

func (o *WatchOptions) wants(e *Event) bool {
	return (o.Resource == Key{} || o.Resource == e.Resource) && (o.Run == "" || o.Run == e.Run)
}

// Watch returns the events that o selects. Each event comes after its change was recorded. The events of one run come
// in the order in which they happened. The position in the stream is fixed when Watch is called, not when the range
// begins.
//
// To see a run from its beginning, call Watch for its resource before the resource is applied.
//
// When the event with the outcome of a step comes, the lines that the step has logged are readable (see
// [Engine.Logs]). To end the stream, leave the range or end ctx.
//
// The sequence ends with an error as its last element: the cause of ctx; [ErrClosed] after Shutdown, when all earlier
// events were delivered; [ErrInvalid] if Since is not a cursor; or [ErrGap] if Since is not known or the watcher fell
// more than [Limits].WatchBuffer events behind. No event is ever left out silently. After a gap, read the current
// state with List and Runs, and call Watch again.
//
// On a shared store, the events of runs come whichever engine works on them. Of the runs of other engines, states that follow one
// another quickly can be folded together, and the last one is never missing. The events of resources, pipelines and pauses are
// those of this engine.
//
// If a call is still in progress when the engine has been shut down, what this call stores has no event. Events are
// kept in memory only: a cursor has no meaning after the program was started again.
func (e *Engine) Watch(ctx context.Context, o WatchOptions) iter.Seq2[Event, error] {
	f := e.events
	f.mirror.watch()
	n, err := f.Next(), error(nil)
	if o.Since != "" {
		n, err = f.after(o.Since)
	}
	return func(yield func(Event, error) bool) {
		if err != nil {
			yield(Event{}, err)
			return
		}
		for at := n; ; at++ {
			event, err := f.Await(ctx, at)
			if err != nil {
				yield(Event{}, err)
				return
			}
			if !o.wants(&event) {
				continue
			}
			event.Cursor = f.cursor(at)
			if !yield(event, nil) {
				return
			}
		}
	}
}

// feed is the stream of an engine's events.
type feed struct {
	*ring.Ring[Event]
	epoch string // distinguishes the cursors of this engine from those of others
	// mirror adds the events of the runs of other engines; nil unless the store is shared.
	mirror *mirror
}

func newFeed(size int, epoch string) *feed { return &feed{Ring: ring.New[Event](size), epoch: epoch} }

func (f *feed) publish(events ...Event) {
	for i := range events {
		events[i].Time = events[i].Time.Round(0).UTC() // like every time that the engine returns
	}
	if f.mirror == nil {
		f.Publish(events...)
		return
	}
	f.mirror.mu.Lock()
	defer f.mirror.mu.Unlock()
	f.mirror.publishLocked(events...)
}

// mirror adds the events of runs that other engines own to the feed of this one, from the first time on that somebody watches. It
// compares what is on record with what it has published. States that follow one another quickly can be folded together; the last
// one is never missing.
type mirror struct {
	fleet *fleet
	feed  *feed
	open  sync.Once

	reading sync.Mutex // held from the reading of a run to the end of its events, so that what was read earlier is not told later; before mu

	mu     sync.Mutex // guards what follows; held while events are published, so that no event comes twice
	known  map[string]string
	read   string // the run that is being read
	passed bool   // an event of this run was published meanwhile
}

// watch begins with the events of other engines. It can be called more than once.
func (m *mirror) watch() {
	if m == nil {
		return
	}
	m.open.Do(func() {
		m.mu.Lock()
		m.known = map[string]string{}
		m.mu.Unlock()
		f := m.fleet
		from, err := f.sched.ledger.Commit(f.ctx, nil) // what comes after is told
		if err != nil {
			from = 0
		}
		for _, prefix := range []string{record.RunPrefix, record.StepPrefix} {
			f.sched.background.Go(func() {
				f.hint(f.ctx, prefix, from, func(key string) error {
					if key == "" {
						return m.recheck()
					}
					id, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
					return m.changed(id)
				})
			})
		}
	})
}

// publishLocked publishes events, and remembers the states that they tell.
func (m *mirror) publishLocked(events ...Event) {
	m.feed.Publish(events...)
	if m.known == nil {
		return
	}
	for _, e := range events {
		m.passed = m.passed || e.Run == m.read
		switch e.Kind {
		case EventRun:
			m.known[e.Run] = e.State.String()
		case EventStep:
			m.known[e.Run+"/"+e.Step] = stateOfStep(e.State, e.Attempt)
		}
	}
}

func stateOfStep(s State, attempt int) string { return fmt.Sprint(s, attempt) }

// recheck publishes what is new of all runs that have not ended, or of which it is not known, after changes have been missed.
func (m *mirror) recheck() error {
	var ids []string
	m.mu.Lock()
	for key, state := range m.known {
		var s State
		if err := s.UnmarshalText([]byte(state)); err == nil && !s.Final() && !strings.Contains(key, "/") {
			ids = append(ids, key)
		}
	}
	m.mu.Unlock()
	for r, err := range m.fleet.sched.ledger.Store.List(m.fleet.ctx, store.Query{Prefix: record.ActivePrefix}) {
		if err != nil {
			return err
		}
		ids = append(ids, strings.TrimPrefix(r.Key, record.ActivePrefix))
	}
	for _, id := range ids {
		if err := m.changed(id); err != nil {
			return err
		}
	}
	return nil
}

// changed publishes what is new of a run, unless this engine owns the run and publishes it itself.
func (m *mirror) changed(id string) error {
	for {
		handled, err := m.tryTell(id)
		if handled == nil {
			return err
		}
		select {
		case <-handled:
		case <-m.fleet.ctx.Done():
			return m.fleet.ctx.Err()
		}
	}
}

// tryTell publishes what is new of a run that this engine does not own. If this engine is about to publish something of the run, tryTell
// publishes nothing and returns a channel that receives a value when it is published.
//
// Of a run that has ended it is not known whose it was. So tryTell looks for what this engine does with the run after it has read the
// record: what is on record later is told by whoever reads it then.
func (m *mirror) tryTell(id string) (handled <-chan error, err error) {
	s := m.fleet.sched
	m.reading.Lock()
	defer m.reading.Unlock()
	for {
		m.mu.Lock()
		m.read, m.passed = id, false
		m.mu.Unlock()
		run, err := s.ledger.Run(m.fleet.ctx, id)
		switch {
		case errors.Is(err, ErrNotFound), err != nil && ledger.Permanent(err): // it was removed, or cannot be read
			return nil, nil
		case err != nil:
			return nil, err
		case m.fleet.owns(&run.Rec):
			return nil, nil
		}
		if t := s.pool.Find(id); t != nil {
			if handled := t.Owner.whenHandled(); handled != nil {
				return handled, nil
			}
		}
		if m.tellIfNewest(run) {
			return nil, nil
		}
	}
}

// tellIfNewest publishes what is new of a run, unless this engine has published something of it since it was read.
func (m *mirror) tellIfNewest(run *record.RunState) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.passed {
		return false
	}
	m.tellLocked(run)
	return true
}

// takenUp publishes what other engines have done for a run that this engine is about to go on with.
func (m *mirror) takenUp(run *record.RunState) {
	m.reading.Lock()
	defer m.reading.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tellLocked(run)
}

// tellLocked publishes what is new of a run.
func (m *mirror) tellLocked(run *record.RunState) {
	id := run.ID
	if m.known == nil {
		return
	}
	m.forgetLocked()
	rec := &run.Rec
	event := runEvent(id, rec, clock.Now().UTC())
	before, seen := m.known[id]
	if seen && before == StateQueued.String() && run.Plan != nil && rec.State.Final() {
		began := event
		began.State, began.Reason = StateRunning, ""
		m.publishLocked(began)
	}
	if !rec.State.Final() && before != event.State.String() {
		m.publishLocked(event)
	}
	for i := range run.Steps {
		m.stepLocked(event, run.Plan.Step(i), &run.Steps[i].Rec, seen)
	}
	if rec.State.Final() && before != event.State.String() {
		event.ErrorKind, event.ErrorReason = ErrorKind(rec.Failure.Class), rec.Failure.Code
		m.publishLocked(event)
	}
}

// stepLocked publishes what is new of a step. of is the event of its run. Of a run that was not seen before, it is what is
// at work.
func (m *mirror) stepLocked(of Event, step *plan.Step, rec *record.Step, seen bool) {
	key, is := of.Run+"/"+step.ID, stateOfStep(State(rec.State), rec.Attempt)
	if rec.State == plan.Unset || rec.State == plan.Queued || m.known[key] == is {
		return
	}
	if !seen && rec.State != plan.Running {
		m.known[key] = is
		return
	}
	of.Kind, of.Step, of.Driver, of.Attempt, of.State, of.Reason = EventStep, step.ID, step.Driver, rec.Attempt, State(rec.State), rec.Reason
	why := rec.Why()
	of.ErrorKind, of.ErrorReason = ErrorKind(why.Class), why.Code
	m.publishLocked(of)
}

// maxKnown bounds the states that are remembered.
const maxKnown = 1 << 14

// forgetLocked makes room if very many states are remembered. What ends later is told as if it were new.
func (m *mirror) forgetLocked() {
	if len(m.known) > maxKnown {
		clear(m.known)
	}
}

func (f *feed) cursor(n int64) Cursor {
	return Cursor(f.epoch + "-" + strconv.FormatInt(n, 10))
}

// after returns the number of the event that follows the event at a cursor.
func (f *feed) after(c Cursor) (int64, error) {
	epoch, number, ok := strings.Cut(string(c), "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n < 0 {
		return 0, invalid("Since", "%s is no cursor", text.Quote(string(c)))
	}
	if epoch != f.epoch || n >= f.Next() {
		return 0, fmt.Errorf("%w: cursor %s was given by another engine", ErrGap, text.Quote(string(c)))
	}
	return n + 1, nil
}

// Observer is called for the engine's events, for instance for metrics and tracing (see [Options].Observer).
type Observer interface {
	// Observe is called for each event from Start on, after the change that the event describes was recorded. There
	// is one call at a time, and the events of one run come in the order in which they happened. Observe delays
	// nothing: the engine continues meanwhile. If an observer falls more than [Limits].WatchBuffer events behind, it
	// gets one event of kind [EventGap] for those that it has missed. If Observe panics, the type of the panic value
	// is logged, and Observe is called for the next event as usual.
	//
	// After Shutdown has begun, Observe is still called for the events until its end, as far as the time of Shutdown
	// allows. Then ctx ends. The engine does not wait for a call of Observe that has not returned by then.
	Observe(ctx context.Context, e Event)
}

// ObserverFunc lets an ordinary function be used as an [Observer].
type ObserverFunc func(ctx context.Context, e Event)

// Observe calls f.
func (f ObserverFunc) Observe(ctx context.Context, e Event) { f(ctx, e) }

// observerLoop is the goroutine that calls the observer. It reads the same feed as the watchers, at its own pace.
type observerLoop struct {
	observer Observer
	feed     *feed
	failed   func(how string) // logs a panic of the observer

	ctx   context.Context // passed to the observer
	stop  context.CancelFunc
	ended chan struct{} // closed by the goroutine when the observer was called for every event
}

// observe starts to call the observer, from the next event on. It returns nil if there is no observer.
func (s *scheduler) observe() *observerLoop {
	if s.opts.Observer == nil {
		return nil
	}
	if m := s.events.mirror; m != nil {
		go m.watch() // the lock of the pool is held
	}
	o := &observerLoop{observer: s.opts.Observer, feed: s.events, ended: make(chan struct{})}
	o.failed = func(how string) { s.log.Error("observer panicked", "panic", how) }
	o.ctx, o.stop = context.WithCancel(context.Background())
	go o.run(s.events.Next())
	return o
}

// run calls the observer for each event, from the event with the number next on, until the feed or o.ctx has ended.
func (o *observerLoop) run(next int64) {
	over := false
	defer func() {
		if !over { // the observer has ended this goroutine; another goroutine continues
			o.failed("runtime.Goexit was called")
			go o.run(next)
			return
		}
		close(o.ended)
	}()
	for {
		event, err := o.feed.Await(o.ctx, next)
		switch {
		case errors.Is(err, ErrGap):
			next = o.feed.Oldest()
			event = Event{Kind: EventGap, Time: clock.Now().UTC(), Reason: err.Error(), Cursor: o.feed.cursor(next - 1)}
		case err != nil:
			over = true
			return // the feed has ended, or o.ctx
		default:
			event.Cursor = o.feed.cursor(next)
			next++
		}
		o.call(event)
	}
}

// call calls the observer for one event, and recovers its panic.
func (o *observerLoop) call(event Event) {
	defer func() {
		if v := recover(); v != nil {
			o.failed(text.TypeOf(v))
		}
	}()
	o.observer.Observe(o.ctx, event)
}

// finish waits until the observer was called for every event, at most until until has ended. Then it ends the context of
// the observer, and does not wait for a call that has not returned.
func (o *observerLoop) finish(until context.Context) {
	if o == nil {
		return
	}
	select {
	case <-o.ended:
	case <-o.ctx.Done(): // an earlier call of finish has ended it
	case <-until.Done():
	}
	o.stop()
}
