package conveyor

import (
	"context"
	"errors"
	"time"

	"github.com/conveyor-go/conveyor/internal/text"
)

// Observer is told of the engine's events, for metrics and tracing (see [Options].Observer).
type Observer interface {
	// Observe is called for each event from Start on, after what it tells of is on record, one call at a time, those of
	// one run in the order in which they happened. It holds up nothing: the engine goes on meanwhile. An observer that
	// falls more than [Limits].WatchBuffer events behind gets one event of kind [EventGap] for those it has missed. A
	// panic is logged, by its type, and the next event comes all the same.
	//
	// After Shutdown has begun, the events up to its end are still told, as far as its time allows; then ctx ends, and an
	// observer that has not returned is left alone.
	Observe(ctx context.Context, e Event)
}

// ObserverFunc makes an Observer of a function.
type ObserverFunc func(ctx context.Context, e Event)

// Observe calls f.
func (f ObserverFunc) Observe(ctx context.Context, e Event) { f(ctx, e) }

// observing is the goroutine that tells the observer. It reads the same feed as the watchers do, at its own pace.
type observing struct {
	observer Observer
	feed     *feed
	failed   func(how string)

	ctx   context.Context // given to the observer
	stop  context.CancelFunc
	ended chan struct{} // closed when the observer has been told all
}

// observe begins to tell, from the next event on; it is nil without an observer.
func (s *scheduler) observe() *observing {
	if s.opts.Observer == nil {
		return nil
	}
	o := &observing{observer: s.opts.Observer, feed: s.events, ended: make(chan struct{})}
	o.failed = func(how string) { s.log.Error("observer panicked", "panic", how) }
	o.ctx, o.stop = context.WithCancel(context.Background())
	go o.tell(s.events.Next())
	return o
}

func (o *observing) tell(next int64) {
	over := false
	defer func() {
		if !over { // the observer ended this goroutine, and is told the rest in another one
			o.failed("runtime.Goexit was called")
			go o.tell(next)
			return
		}
		close(o.ended)
	}()
	for {
		event, err := o.feed.Await(o.ctx, next)
		switch {
		case errors.Is(err, ErrGap):
			next = o.feed.Oldest()
			event = Event{Kind: EventGap, Time: time.Now().UTC(), Reason: err.Error(), Cursor: o.feed.cursor(next - 1)}
		case err != nil:
			over = true
			return // the feed has ended, or the time to listen to it
		default:
			event.Cursor = o.feed.cursor(next)
			next++
		}
		o.call(event)
	}
}

func (o *observing) call(event Event) {
	defer func() {
		if v := recover(); v != nil {
			o.failed(text.TypeOf(v))
		}
	}()
	o.observer.Observe(o.ctx, event)
}

// finish waits until the observer has been told all, at most so long, and leaves it alone then.
func (o *observing) finish(until context.Context) {
	if o == nil {
		return
	}
	select {
	case <-o.ended:
	case <-o.ctx.Done(): // it was left alone before
	case <-until.Done():
	}
	o.stop()
}
