// Package clock tells the time of day, and notices when the clock of the machine is set. It knows nothing of what the time
// is for.
//
// The time of day goes on while the machine sleeps, and goes forward or back when somebody sets the clock. A time that is
// kept for another process can be nothing else. What lasts, such as the timeout of a call, is measured with the monotonic
// clock that package time uses for durations. That clock is never set, and it stands still while the machine sleeps.
package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// offset is by how many nanoseconds Set has set the clock.
var offset atomic.Int64

// Now returns the time of day, without a reading of the monotonic clock. Nothing else in an engine reads the time of day.
func Now() time.Time { return of(time.Now()) }

// of returns the time of day at a moment that time.Now has returned.
func of(moment time.Time) time.Time {
	return moment.Round(0).Add(time.Duration(offset.Load())) // Round removes the reading of the monotonic clock
}

// Until returns how long it takes until the time of day is at, if nobody sets the clock.
func Until(at time.Time) time.Duration { return at.Sub(Now()) }

// Set sets the time of day forward, or back if by is negative, for the whole process. It is for tests, which must set the
// clock back in the end and must not run beside other tests.
func Set(by time.Duration) { offset.Add(int64(by)) }

// Tolerance is the smallest correction of the clock that counts as setting it.
const Tolerance = 500 * time.Millisecond

// Watch notices when the clock is set. It is safe for concurrent use. A Watch must be made by NewWatch.
type Watch struct {
	start time.Time              // with a reading of the monotonic clock
	set   func(by time.Duration) // is called when the clock was set
	mu    sync.Mutex             // held while set is called
	ahead atomic.Int64           // the time of day minus the monotonic clock, in nanoseconds
}

// NewWatch returns a Watch that calls set when it notices that the clock was set. The parameter of set is positive if the
// clock was set forward. The calls come one after the other, in the goroutine that has noticed it, and set must not use
// the Watch.
func NewWatch(set func(by time.Duration)) *Watch {
	moment := time.Now()
	w := &Watch{start: moment, set: set}
	w.ahead.Store(of(moment).UnixNano())
	return w
}

// Now returns the time of day, and the same moment for measuring what lasts. If the clock was set since the last call, Now
// returns after set has.
func (w *Watch) Now() (wall, moment time.Time) {
	moment = time.Now()
	wall = of(moment)
	if w.jump(wall, moment).Abs() < Tolerance {
		return wall, moment
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	moment = time.Now()
	wall = of(moment)
	if by := w.jump(wall, moment); by.Abs() >= Tolerance { // and nobody else has noticed in the meantime
		w.set(by)
		w.ahead.Add(int64(by))
	}
	return wall, moment
}

// jump returns by how much the clock was set.
func (w *Watch) jump(wall, moment time.Time) time.Duration {
	return time.Duration(wall.UnixNano() - int64(moment.Sub(w.start)) - w.ahead.Load())
}
