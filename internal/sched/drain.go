package sched

// Drains are the channels that report how far a pool has drained.
type Drains struct {
	Drained <-chan struct{} // closed when no worker is left that must be waited for
	Quiet   <-chan struct{} // closed when no call is under way that must be waited for
	Idle    <-chan struct{} // closed when no call is under way that was not abandoned
}

// Drain has nothing new started from here on. It returns the phase as it is then.
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

// Exempt changes by n how many workers nobody waits for, because their call is inside Shutdown.
func (p *Pool[K, T]) Exempt(n int) {
	p.mu.Lock()
	p.exempt += n
	p.mu.Unlock()
}

// Calling reports whether a call is under way that must be waited for.
func (p *Pool[K, T]) Calling() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls > p.exempt
}

// Alone reports whether every worker is one that must be waited for.
func (p *Pool[K, T]) Alone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.abandoned+p.exempt == 0
}
