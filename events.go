package conveyor

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/ring"
	"github.com/conveyor-go/conveyor/internal/text"
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

// feed is the stream of an engine's events.
type feed struct {
	*ring.Ring[Event]
	epoch string // distinguishes the cursors of this engine from those of others
}

func newFeed(size int, epoch string) *feed { return &feed{ring.New[Event](size), epoch} }

func (f *feed) publish(events ...Event) {
	for i := range events {
		events[i].Time = events[i].Time.Round(0).UTC() // like every time that the engine returns
	}
	f.Publish(events...)
}

func (f *feed) cursor(n int64) Cursor {
	return Cursor(f.epoch + "-" + strconv.FormatInt(n, 10))
}

// after returns the number of the event that follows a cursor.
func (f *feed) after(c Cursor) (int64, error) {
	epoch, number, ok := strings.Cut(string(c), "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n < 0 {
		return 0, invalid("Since", "%q is no cursor", text.Truncate(string(c), text.MaxName))
	}
	if epoch != f.epoch || n >= f.Next() {
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

// listEvents lists what has happened with a transition, for those who watch.
func (d *decision) listEvents() []Event {
	changes := d.t.Changes()
	if len(changes) == 0 {
		return nil
	}
	now, key := time.Now(), Key(d.j.Key)
	for _, c := range changes {
		e := Event{Time: now, Kind: EventRun, Resource: key, Run: d.j.ID, State: State(c.State), Reason: c.Reason}
		switch {
		case c.Removed:
			e = Event{Time: now, Kind: EventResource, Resource: key, Reason: "deleted"}
		case c.Step != "":
			e.Kind, e.Step, e.Attempt = EventStep, c.Step, c.Attempt
		}
		d.events = append(d.events, e)
	}
	return d.events
}

func runEvent(j *journey, rec *record.Run) Event {
	return Event{Time: time.Now(), Kind: EventRun, Resource: Key(j.Key), Run: j.ID, State: State(rec.State), Reason: rec.Reason}
}
