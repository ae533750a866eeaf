// Package call holds one call of foreign code: its context with a deadline and a cause, and the grace period after which
// the call is abandoned. Go code cannot be stopped from outside; it can only be left alone.
package call

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/text"
)

// Grace is how long the code may take to return after its context has ended. Then the call is abandoned.
const Grace = 5 * time.Second

// Call is one call of foreign code. Begin must be called before anything else. A Call is safe for concurrent use.
//
// Lock order: the lock of a Call comes before any lock that the function given to Abandon takes.
type Call struct {
	own    ownedContext
	ctx    context.Context // given to the code: own, or own with a deadline
	cancel context.CancelCauseFunc
	stop   context.CancelFunc // frees what the deadline holds; nil without one

	group   *sync.WaitGroup // counts the timers and watches that have not run and are not taken back
	unwatch func() bool     // takes back the watch for the end of ctx; nil without one

	mu        sync.Mutex // guards what follows
	returned  bool
	abandoned bool        // the first of returned and abandoned to be set decides whose word is recorded
	timer     *time.Timer // runs in the grace period
}

// Maker is who makes a call.
type Maker interface {
	// GraceOver is called when the code has not returned a grace period after the end of its context.
	GraceOver()
}

// ownedContext is a context that knows who makes the call.
type ownedContext struct {
	context.Context
	maker Maker
}

// makerKey is the key under which a context gives its maker.
type makerKey struct{}

// Value returns the maker for the key of this package.
func (c *ownedContext) Value(key any) any {
	if key == (makerKey{}) {
		return c.maker
	}
	return c.Context.Value(key)
}

// MakerOf returns the maker of the call whose context ctx comes from, or nil.
func MakerOf(ctx context.Context) Maker {
	maker, _ := ctx.Value(makerKey{}).(Maker)
	return maker
}

// Begin makes the context of the call. The context ends at the deadline, with a cause, unless the deadline is zero. The
// maker's GraceOver is called in a goroutine that group counts.
//
// The context has no parent, because a parent would be a lock that all calls meet at. Whoever wants to end it calls End.
func (c *Call) Begin(maker Maker, deadline time.Time, cause error, group *sync.WaitGroup) {
	c.group = group
	c.own.maker = maker
	c.own.Context, c.cancel = context.WithCancelCause(context.Background())
	c.ctx = &c.own
	if deadline.IsZero() {
		return // whoever ends the context calls End
	}
	c.ctx, c.stop = context.WithDeadlineCause(&c.own, deadline, cause)
}

// Watch has the grace period begin when the deadline passes.
func (c *Call) Watch() {
	if c.stop == nil {
		return
	}
	c.group.Add(1)
	c.unwatch = context.AfterFunc(c.ctx, func() {
		defer c.group.Done()
		c.startGrace()
	})
}

// Context returns the context of the call.
func (c *Call) Context() context.Context { return c.ctx }

// Cancel ends the context with a cause. It gives the code no grace period: the caller waits for the code in its own way.
func (c *Call) Cancel(cause error) { c.cancel(cause) }

// End ends the context with a cause, and begins the grace period.
func (c *Call) End(cause error) {
	c.cancel(cause)
	c.startGrace()
}

func (c *Call) startGrace() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.returned || c.abandoned || c.timer != nil {
		return
	}
	c.group.Add(1)
	c.timer = time.AfterFunc(Grace, func() {
		defer c.group.Done()
		c.own.maker.GraceOver()
	})
}

func (c *Call) stopTimerLocked() {
	if c.timer != nil && c.timer.Stop() {
		c.group.Done()
	}
}

// Running reports whether the code has neither returned nor been abandoned.
func (c *Call) Running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.returned && !c.abandoned
}

// Unreturned calls do with the lock held if the code has not returned.
func (c *Call) Unreturned(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.returned {
		do()
	}
}

// Abandon has discarded what the code will return, and calls counted with the lock held: code that returns at this very
// moment finds the call counted. It reports false, and does nothing, if the code has returned or the call was abandoned
// before.
func (c *Call) Abandon(counted func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.returned || c.abandoned {
		return false
	}
	c.abandoned = true
	c.stopTimerLocked()
	counted()
	return true
}

// Return notes that the code has returned, and frees what the context holds. It reports whether the call was abandoned
// before.
func (c *Call) Return() (late bool) {
	if c.unwatch != nil && c.unwatch() {
		c.group.Done()
	}
	if c.stop != nil {
		c.stop()
	}
	c.cancel(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.returned = true
	c.stopTimerLocked()
	return c.abandoned
}

// Stack returns the stack of the calling goroutine, in at most limit bytes. It is called where a panic is recovered.
func Stack(limit int) []byte { return []byte(text.Truncate(string(debug.Stack()), limit)) }
