package sched

// Drains are the channels that report how far a pool has drained. The pool closes them.
type Drains struct {
	Drained <-chan struct{} // closed when no worker is left except exempt ones and no abandoned call is left
	Quiet   <-chan struct{} // closed when no call is under way except those of exempt workers
	Idle    <-chan struct{} // closed when every call that is under way has been abandoned
}

// Drain stops the pool from giving further turns. It returns the channels and the phase, which is at least Draining.
func (p *Pool[K, T]) Drain() (Drains, Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = max(p.phase, Draining)
	if p.drained == nil {
		p.drained, p.quiet, p.idle = make(chan struct{}), make(chan struct{}), make(chan struct{})
	}
	p.checkDrainedLocked()
	return Drains{p.drained, p.quiet, p.idle}, p.phase
}

// checkDrainedLocked closes the channels whose condition holds. A closed channel stays closed.
func (p *Pool[K, T]) checkDrainedLocked() {
	if p.drained == nil {
		return
	}
	if p.workers-p.free+p.abandoned <= p.exempt {
		closeOnce(p.drained)
	}
	if p.calls <= p.exempt {
		closeOnce(p.quiet)
	}
	if p.calls == p.abandoned {
		closeOnce(p.idle)
	}
}

// closeOnce closes a channel unless it is closed. All callers hold the same lock.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// Exempt adds n to the number of exempt workers: workers whose call is inside Shutdown, so that Shutdown must not wait for
// them.
func (p *Pool[K, T]) Exempt(n int) {
	p.mu.Lock()
	p.exempt += n
	p.mu.Unlock()
}

// Calling reports whether a call of a worker that is not exempt is under way.
func (p *Pool[K, T]) Calling() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls > p.exempt
}

// Alone reports whether no worker is exempt and no call is abandoned.
func (p *Pool[K, T]) Alone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.abandoned+p.exempt == 0
}
