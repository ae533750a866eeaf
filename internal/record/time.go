package record

import (
	"math"
	"time"
)

// Time is a point in time as nanoseconds since 1970, UTC; 0 is the zero time.
type Time int64

func TimeOf(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixNano())
}

func (i Time) Time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}

// Add is i plus d; what is too far away to be written, more than two centuries, is the last instant.
func (i Time) Add(d time.Duration) Time {
	if d > 0 && i > math.MaxInt64-Time(d) {
		return math.MaxInt64
	}
	return i + Time(d)
}
