package ids

import (
	"sync/atomic"
	"time"
)

// Clock gives each change of a resource a time of its own, however coarse the clock is, so that no two calls ever write
// the same record: one whose commit has an unknown outcome knows its own.
type Clock struct{ last atomic.Int64 }

func (m *Clock) Next(now time.Time) int64 {
	for {
		last := m.last.Load()
		next := max(now.UnixNano(), last+1)
		if m.last.CompareAndSwap(last, next) {
			return next
		}
	}
}
