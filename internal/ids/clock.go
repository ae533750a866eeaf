package ids

import (
	"sync/atomic"
	"time"
)

// Clock makes timestamps that are all different, however coarse the clock of the machine is. Every change of a resource
// has a timestamp of its own. No two calls therefore write an equal record, and a call whose commit has an unknown outcome
// can recognize its own record. The zero value is ready for use. A Clock is safe for concurrent use.
type Clock struct{ last atomic.Int64 }

// Next returns the time now in nanoseconds since 1970, or the last timestamp plus 1 if now is not later.
func (m *Clock) Next(now time.Time) int64 {
	for {
		last := m.last.Load()
		next := max(now.UnixNano(), last+1)
		if m.last.CompareAndSwap(last, next) {
			return next
		}
	}
}
