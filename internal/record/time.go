package record

import (
	"math"
	"time"
)

// Time is a point in time as nanoseconds since 1970, UTC; 0 is the zero time.
type Time int64

// TimeOf returns t as a Time.
func TimeOf(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixNano())
}

// Time returns i as a [time.Time] in UTC.
func (i Time) Time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}

// Add returns i plus d. A time that cannot be represented, more than two centuries away, becomes the last one that can.
func (i Time) Add(d time.Duration) Time {
	if d > 0 && i > math.MaxInt64-Time(d) {
		return math.MaxInt64
	}
	return i + Time(d)
}
