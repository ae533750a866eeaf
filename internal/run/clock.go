package run

import (
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
)

// correctTimes makes up for a clock that was set. A step whose due time was recorded at a time that has not come is due
// when its delay has passed from now on. The deadline of the run is moved by set, which is by how much the clock was set
// since the last decision that was committed. If an earlier process has recorded the deadline at a time that has not come,
// the run has its whole time from now on.
func (t *Transition) correctTimes(set time.Duration) {
	if t.plan == nil {
		return
	}
	for i := t.firstOpen(); i < len(t.states); i++ {
		if was := &t.was(i).Rec; was.WaitsFromLater(t.now) {
			if t.full() {
				break
			}
			t.step(i).WaitFor(t.now, was.Delay)
		}
	}
	if t.rec.Deadline == 0 || !t.timeRuns() {
		return
	}
	if set != 0 {
		t.rec.Deadline, t.rewrite = t.rec.Deadline.Add(set), true
	}
	if t.rec.RunsFromLater(t.plan, t.now) {
		t.rec.Deadline, t.rewrite = t.now.Add(time.Duration(t.plan.Timeout)), true
	}
}

// timeRuns reports whether the time that the run, or its Finally, has been given goes on; see cleanupClock.
func (t *Transition) timeRuns() bool {
	return t.rec.Outcome == plan.Unset || t.cleanupClock() == t.now
}
