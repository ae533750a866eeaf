package conveyor

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"
)

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

// feed keeps the newest events of an engine in a ring that all watchers read from, each at its own pace, so that a
// slow one holds up nobody and costs no memory: it is overtaken, and learns that by ErrGap.
type feed struct {
	epoch string // tells cursors of this engine from those of others

	mu     sync.Mutex    // guards what follows; held for a copy
	ring   []Event       // event n is at n modulo the length
	next   int64         // number of the next event; the first is 1
	wake   chan struct{} // closed by the publisher when watchers wait, who make the next one
	closed bool
}

func newFeed(size int, epoch string) *feed {
	return &feed{epoch: epoch, ring: make([]Event, size), next: 1}
}

func (f *feed) publish(events ...Event) {
	if len(events) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return // watchers have been told that nothing more comes
	}
	for i := range events {
		events[i].Time = events[i].Time.Round(0).UTC() // like every time that the engine tells
		f.ring[f.next%int64(len(f.ring))] = events[i]
		f.next++
	}
	f.wakeLocked()
}

func (f *feed) close() {
	f.mu.Lock()
	f.closed = true
	f.wakeLocked()
	f.mu.Unlock()
}

func (f *feed) wakeLocked() {
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// read copies event n. Without one it returns the channel that tells of the next. It fails if event n is no longer
// kept, or if none will ever come.
func (f *feed) read(n int64) (Event, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case n < f.next-int64(len(f.ring)):
		return Event{}, nil, fmt.Errorf("%w: event %d of %d is no longer kept", ErrGap, n, f.next-1)
	case n < f.next:
		return f.ring[n%int64(len(f.ring))], nil, nil
	case f.closed:
		return Event{}, nil, ErrClosed
	}
	if f.wake == nil {
		f.wake = make(chan struct{})
	}
	return Event{}, f.wake, nil
}

func (f *feed) position() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

// oldest is the number of the oldest event that is kept.
func (f *feed) oldest() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.next-int64(len(f.ring)), 1)
}

func (f *feed) cursor(n int64) Cursor {
	return Cursor(f.epoch + "-" + strconv.FormatInt(n, 10))
}

// after returns the number of the event that follows a cursor.
func (f *feed) after(c Cursor) (int64, error) {
	epoch, number, ok := strings.Cut(string(c), "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n < 0 {
		return 0, invalid("Since", "%q is no cursor", cut(string(c), maxName))
	}
	if epoch != f.epoch || n >= f.position() {
		return 0, fmt.Errorf("%w: cursor %s was given by another engine", ErrGap, c)
	}
	return n + 1, nil
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
// If a call is still in progress when the engine has been shut down, what this call stores has no event. Events are
// kept in memory only: a cursor has no meaning after the program was started again.
func (e *Engine) Watch(ctx context.Context, o WatchOptions) iter.Seq2[Event, error] {
	f := e.events
	n, err := f.position(), error(nil)
	if o.Since != "" {
		n, err = f.after(o.Since)
	}
	return func(yield func(Event, error) bool) {
		if err != nil {
			yield(Event{}, err)
			return
		}
		for at := n; ; at++ {
			event, err := f.await(ctx, at)
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

// await returns event n as soon as there is one.
func (f *feed) await(ctx context.Context, n int64) (Event, error) {
	for {
		if ctx.Err() != nil {
			return Event{}, context.Cause(ctx)
		}
		event, more, err := f.read(n)
		if err != nil || more == nil {
			return event, err
		}
		select {
		case <-more:
		case <-ctx.Done():
		}
	}
}

func stepEvent(now time.Time, r *runState, step string, s *stepRecord) Event {
	return Event{
		Time: now, Kind: EventStep, Resource: r.rec.key(), Run: r.id, Step: step,
		State: s.State, Attempt: s.Attempt, Reason: s.Reason,
	}
}

func runEvent(now time.Time, id string, rec *runRecord) Event {
	return Event{Time: now, Kind: EventRun, Resource: rec.key(), Run: id, State: rec.State, Reason: rec.Reason}
}
