package conveyor

import (
	"context"
	"errors"
	"time"

	"github.com/conveyor-go/conveyor/internal/text"
)

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
