package conveyor

import (
	"sync"
	"time"
)

// alarm has work done at a time. The work is done once at a time, never twice side by side.
type alarm struct {
	work  func()
	start func(work func()) bool // runs work in a goroutine of its own; reports false if no work is wanted any more

	mu      sync.Mutex // guards what follows
	at      time.Time  // when the alarm rings; zero for never
	timer   *time.Timer
	busy    bool // work is being done
	stopped bool
}

// set has the alarm ring at a time, unless it rings sooner.
func (a *alarm) set(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || !a.at.IsZero() && !at.Before(a.at) {
		return
	}
	a.at = at
	if !a.busy {
		a.armLocked()
	}
}

func (a *alarm) armLocked() {
	left := max(time.Until(a.at), 0)
	if a.timer == nil {
		a.timer = time.AfterFunc(left, a.ring)
	} else {
		a.timer.Reset(left)
	}
}

func (a *alarm) ring() {
	a.mu.Lock()
	if a.busy || a.stopped || a.at.IsZero() {
		a.mu.Unlock()
		return
	}
	if time.Until(a.at) > 0 { // the timer was set for an earlier time
		a.armLocked()
		a.mu.Unlock()
		return
	}
	a.busy, a.at = true, time.Time{}
	a.mu.Unlock()
	if !a.start(a.do) {
		a.stop()
	}
}

func (a *alarm) do() {
	a.work()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy = false
	if !a.at.IsZero() && !a.stopped {
		a.armLocked()
	}
}

// stop has the alarm ring no more. Work that is being done goes on.
func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
