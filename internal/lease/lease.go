// Package lease tells when an engine must stop because it could not renew its lease, and when it may take another engine for
// dead. It reads no clock, keeps no goroutine, and knows nothing of a store: the caller passes the time and what it has seen.
//
// An engine that cannot renew stops by itself after two thirds of its lease, and no other engine takes it for dead before a
// whole lease is over. The clocks of two machines are never compared: each engine measures with its own clock how long
// another one has not changed its heartbeat.
package lease

import "time"

// Moment is one moment by both clocks of a machine.
type Moment struct {
	Mono time.Duration // since a moment of the process, by the monotonic clock, which stands still while the machine sleeps
	Wall time.Time     // the time of day, without a reading of the monotonic clock
}

// since returns how much time has passed since an earlier moment, by the clock that has gone further.
func (m Moment) since(earlier Moment) time.Duration {
	return max(m.Mono-earlier.Mono, m.Wall.Sub(earlier.Wall))
}

// Every returns the time between two renewals of a lease.
func Every(lease time.Duration) time.Duration { return lease / 6 }

// Fence tells whether an engine must stop. Make one with [NewFence].
type Fence struct {
	lease   time.Duration
	renewed Moment // when the newest renewal that was answered had begun
}

// NewFence returns the fence of an engine that has put itself on record. began is when the commit that did so had begun.
func NewFence(lease time.Duration, began Moment) Fence { return Fence{lease, began} }

// Renewed notes that a renewal was answered. began is when the renewal had begun: what counts is the earliest moment at which
// another engine can have seen it.
func (f *Fence) Renewed(began Moment) {
	if began.Mono > f.renewed.Mono {
		f.renewed = began
	}
}

// Closed reports whether the engine must not start anything, because it has not renewed its lease for two thirds of it, by
// whichever clock.
func (f *Fence) Closed(now Moment) bool { return f.Left(now) <= 0 }

// Left returns how long it takes until the fence closes, if neither clock is set and no renewal is answered. It is 0 or negative
// when the fence is closed.
func (f *Fence) Left(now Moment) time.Duration { return f.lease*2/3 - now.since(f.renewed) }
