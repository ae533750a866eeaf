// Package call manages one call of foreign code: its context with a deadline and a cause, and the grace period after
// which the call is abandoned. Go code cannot be stopped from outside. It can only be abandoned: its result is
// discarded, and nobody waits for it.
package call

import (
	"context"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/text"
)

// Grace is how long the code may take to return after its context has ended. Then the call is abandoned.
const Grace = 5 * time.Second

// Call is one call of foreign code. Begin must be called before anything else. A Call is safe for concurrent use.
//
// Lock order: the lock of a Call comes before any lock that the function given to Abandon, or the Group, takes.
type Call struct {
	own    ownedContext
	ctx    context.Context // given to the code: own, or own with a deadline
	cancel context.CancelCauseFunc
	stop   context.CancelFunc // frees what the deadline holds; nil if there is no deadline

	group   Group       // counts the timers and watches that have neither run nor been canceled
	unwatch func() bool // cancels the watch for the end of ctx; nil if there is no watch

	mu        sync.Mutex // guards what follows
	returned  bool
	abandoned bool        // if abandoned is set before returned, the result of the code is discarded
	timer     *time.Timer // runs during the grace period; nil before
}

// Maker is the value that makes a call.
type Maker interface {
	// GraceOver is called if the code has not returned when the grace period is over.
	GraceOver()
}

// Group counts what its owner waits for at its end.
type Group interface {
	// Enter counts one more, and reports whether it did. Once the owner waits for the end, nothing more is counted.
	Enter() bool
	// Leave is called once for each Enter that returned true.
	Leave()
}

// ownedContext is a context that holds the maker of the call.
type ownedContext struct {
	context.Context
	maker Maker
}

// makerKey is the key for the maker of a context.
type makerKey struct{}

// Value returns the maker for makerKey.
func (c *ownedContext) Value(key any) any {
	if key == (makerKey{}) {
		return c.maker
	}
	return c.Context.Value(key)
}

// MakerOf returns the maker of the call from whose context ctx is derived, or nil if there is no such call.
func MakerOf(ctx context.Context) Maker {
	maker, _ := ctx.Value(makerKey{}).(Maker)
	return maker
}

// Begin creates the context of the call. The context ends at the deadline with the given cause, unless the deadline is
// zero. GraceOver of maker is called in a goroutine that group counts. Once group counts nothing more, no grace period
// begins, because the owner of the group abandons the calls itself.
//
// The context has no parent, because all calls would compete for the lock of a common parent. The context therefore
// ends early only if Cancel or End is called.
func (c *Call) Begin(maker Maker, deadline time.Time, cause error, group Group) {
	c.group = group
	c.own.maker = maker
	c.own.Context, c.cancel = context.WithCancelCause(context.Background())
	c.ctx = &c.own
	if deadline.IsZero() {
		return // the context ends only if Cancel or End is called
	}
	c.ctx, c.stop = context.WithDeadlineCause(&c.own, deadline, cause)
}

// Watch arranges that the grace period begins when the deadline passes.
func (c *Call) Watch() {
	if c.stop == nil || !c.group.Enter() {
		return
	}
	c.unwatch = context.AfterFunc(c.ctx, func() {
		defer c.group.Leave()
		c.startGrace()
	})
}

// Context returns the context of the call.
func (c *Call) Context() context.Context { return c.ctx }

// Cancel ends the context with a cause. It does not begin a grace period: the caller decides itself how long it waits
// for the code.
func (c *Call) Cancel(cause error) { c.cancel(cause) }

// End ends the context with a cause and begins the grace period.
func (c *Call) End(cause error) {
	c.cancel(cause)
	c.startGrace()
}

// startGrace begins the grace period, unless it has begun or the call is over.
func (c *Call) startGrace() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.returned || c.abandoned || c.timer != nil || !c.group.Enter() {
		return
	}
	c.timer = time.AfterFunc(Grace, func() {
		defer c.group.Leave()
		c.own.maker.GraceOver()
	})
}

// stopTimerLocked stops the timer of the grace period. A timer that has run already is still counted by group until its
// function has returned.
func (c *Call) stopTimerLocked() {
	if c.timer != nil && c.timer.Stop() {
		c.group.Leave()
	}
}

// Running reports whether the code has neither returned nor been abandoned.
func (c *Call) Running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.returned && !c.abandoned
}

// Unreturned calls do if the code has not returned. It holds the lock of the call while do runs, so that Return cannot
// happen in the middle of do.
func (c *Call) Unreturned(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.returned {
		do()
	}
}

// WhileRunning calls do and returns true, unless the code has returned or has been abandoned. It holds the lock of the
// call while do runs, so that neither can happen in the middle of do.
func (c *Call) WhileRunning(do func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.returned || c.abandoned {
		return false
	}
	do()
	return true
}

// Abandon marks the call as abandoned, so that the result of the code is discarded. It calls count with the lock held:
// if the code returns at the same moment, Return reports the call as abandoned only after count has returned. Abandon
// returns false and does nothing if the code has returned or the call was abandoned before.
func (c *Call) Abandon(count func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.returned || c.abandoned {
		return false
	}
	c.abandoned = true
	c.stopTimerLocked()
	count()
	return true
}

// Return notes that the code has returned, and frees what the context holds. It reports whether the call was abandoned
// before, so that the result must be discarded.
func (c *Call) Return() (late bool) {
	if c.unwatch != nil && c.unwatch() {
		c.group.Leave()
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

// Frame returns the first frame below a panic that is neither of Go's library nor of the package own or below it: the
// function, the base name of the file, and the line. It must be called where the panic is recovered. It returns an empty text
// if there is no such frame. In a program that was built with -trimpath, only the frames of the runtime count as Go's library.
func Frame(own string) string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	library, panicked := "", false
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicked = true
			library = strings.TrimSuffix(f.File, "runtime/panic.go") // where Go's library is; empty with -trimpath
		case !panicked, strings.HasPrefix(f.Function, "runtime."), library != "" && strings.HasPrefix(f.File, library):
		case strings.HasPrefix(f.Function, own+"."), strings.HasPrefix(f.Function, own+"/internal/"):
		case f.Function != "":
			return f.Function + " " + path.Base(f.File) + ":" + strconv.Itoa(f.Line)
		}
		if !more {
			return ""
		}
	}
}

// Stack returns the stack of the calling goroutine, cut to limit bytes. It must be called where a panic is recovered.
func Stack(limit int) []byte { return []byte(text.Truncate(string(debug.Stack()), limit)) }
