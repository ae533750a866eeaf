// Package member keeps an engine on record among the engines of a shared store: it renews the lease of the engine, tells when
// the engine must stop because it cannot, and finds the engines that have died. It must not know what an engine does.
//
// An engine has two records. The first says who it is and never changes while the engine is live, so that every commit which
// makes the engine responsible for something can check it. The second is the heartbeat. That an engine is dead is a fact of the
// store and not an opinion: somebody has marked its first record, on condition of the heartbeat that had stayed the same for a
// whole lease. Only then may its work be taken over. A renewal is made on condition of the first record, so that an engine that
// was marked learns it at once.
package member

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/lease"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Host is what a member tells. The methods are called by the goroutines of Run, never two at the same time, and must not block:
// a heartbeat waits for them.
type Host interface {
	// Fenced is called when the lease could not be renewed for two thirds of its time. Nothing may start until Renewed is
	// called, and what goes on must end.
	Fenced()
	// Renewed is called when the lease is renewed after Fenced.
	Renewed()
	// Dead is called once for each other engine that is marked dead, by whomever. What it owned can be taken over.
	Dead(id string)
	// Lost is called when the engine itself was marked dead. What it owned is not its own any more. Run returns afterwards.
	Lost()
	// Seen is called with the other engines that are live, at each look at them.
	Seen(others []Peer)
	// Load returns what a heartbeat tells of the engine. Count and Clock are filled in.
	Load() record.Heartbeat
}

// Member is an engine on record. Make one with [Join]. It is safe for concurrent use.
type Member struct {
	ID     string
	ledger *ledger.Ledger
	host   Host
	rec    record.Engine
	rev    store.Revision // of the record of the engine, which does not change while the engine is live
	start  time.Time      // with a reading of the monotonic clock
	wake   chan struct{}  // Wake sends, Run receives; size 1: a nudge, not a queue

	telling sync.Mutex // held while a method of host is called; before mu

	mu     sync.Mutex // guards what follows; held for a few instructions
	fence  lease.Fence
	fenced bool // Fenced was called, and Renewed not since
	over   bool // Lost was called, or Leave

	// Owned by the goroutine of Run.
	heartbeat store.Revision
	count     int64
	others    others
}

// others is what a member knows of the other engines.
type others struct {
	*lease.Observer
	dead map[string]bool // those of which host was told that they are dead
}

// Join puts an engine on record. id must never have been used before.
func Join(ctx context.Context, l *ledger.Ledger, id string, rec record.Engine, host Host) (*Member, error) {
	m := &Member{ID: id, ledger: l, host: host, rec: rec, start: time.Now(), wake: make(chan struct{}, 1)}
	began := m.now()
	rev, err := l.Commit(ctx, []store.Op{
		store.Put(record.EngineKey(id), record.Encode(&m.rec)).IfAbsent(),
		store.Put(record.HeartbeatKey(id), record.Encode(m.nextHeartbeat())).IfAbsent(),
	})
	if err != nil {
		return nil, err
	}
	m.rev, m.heartbeat = rev, rev
	m.fence = lease.NewFence(rec.Lease, began)
	m.others = others{lease.NewObserver(rec.Lease, m.now().Mono), map[string]bool{}}
	return m, nil
}

// now returns the present moment by both clocks.
func (m *Member) now() lease.Moment {
	return lease.Moment{Mono: time.Since(m.start), Wall: clock.Now()}
}

// Live returns the condition that the engine is not marked dead. Every commit that makes the engine responsible for something
// must have it.
func (m *Member) Live() store.Op { return store.Check(record.EngineKey(m.ID), m.rev) }

// Fenced reports whether the engine must not start anything now. It is exact at the moment of the call, also if no goroutine of
// the process has run for long.
func (m *Member) Fenced() bool {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.over || m.fence.Closed(now)
}

// Wake has Run look at the other engines at once.
func (m *Member) Wake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run renews the lease and looks at the other engines, until ctx ends or the engine is marked dead. It must be called once.
func (m *Member) Run(ctx context.Context) {
	var guard sync.WaitGroup
	defer guard.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	guard.Go(func() { m.guard(ctx) }) // beside the renewals, because a call of the store can hang
	for {
		renewed := m.renew(ctx)
		if m.isOver() || ctx.Err() != nil {
			return
		}
		if renewed {
			m.look(ctx)
		}
		pause := lease.Every(m.rec.Lease)
		if !renewed || m.Fenced() { // a renewal that took long does not open the fence, because it had begun long ago
			pause /= 10
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-m.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// guard calls Fenced when the fence closes.
func (m *Member) guard(ctx context.Context) {
	for {
		m.mu.Lock()
		left := m.fence.Left(m.now())
		m.mu.Unlock()
		if left <= 0 {
			m.tell(func() bool {
				first := !m.fenced && !m.over && m.fence.Closed(m.now())
				m.fenced = m.fenced || first
				return first
			}, m.host.Fenced)
			left = lease.Every(m.rec.Lease)
		}
		// The machine can sleep, and the monotonic clock with it: the timer would then be late by as much.
		timer := time.NewTimer(min(left, lease.Every(m.rec.Lease)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// tell calls a method of host if the condition holds, which is called with mu held.
func (m *Member) tell(condition func() bool, call func()) {
	m.telling.Lock()
	defer m.telling.Unlock()
	m.mu.Lock()
	holds := condition()
	m.mu.Unlock()
	if holds {
		call()
	}
}

func (m *Member) isOver() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.over
}

func (m *Member) nextHeartbeat() *record.Heartbeat {
	h := m.host.Load()
	m.count++
	h.Count, h.Clock = m.count, record.TimeOf(clock.Now())
	return &h
}

// renew writes a heartbeat, and reports whether it is written.
func (m *Member) renew(ctx context.Context) (renewed bool) {
	began := m.now()
	rev, err := m.ledger.Commit(ctx, []store.Op{
		store.Put(record.HeartbeatKey(m.ID), record.Encode(m.nextHeartbeat())).If(m.heartbeat), m.Live(),
	})
	switch {
	case err == nil:
		m.heartbeat = rev
		m.others.Renewed(m.now().Mono)
		m.mu.Lock()
		closed := m.fence.Closed(m.now()) // perhaps since a moment ago, so that guard has not seen it
		m.fence.Renewed(began)
		m.fenced = m.fenced || closed && !m.fence.Closed(m.now())
		m.mu.Unlock()
		m.tell(func() bool {
			again := m.fenced && !m.over && !m.fence.Closed(m.now())
			m.fenced = m.fenced && !again
			return again
		}, m.host.Renewed)
		return true
	case errors.Is(err, store.ErrConflict):
		m.explainConflict(ctx)
	}
	return false
}

// explainConflict finds out why a heartbeat met a conflict: the engine is marked dead, or an earlier heartbeat whose answer was
// lost has been written after all.
func (m *Member) explainConflict(ctx context.Context) {
	rec, _, err := ledger.Load[record.Engine](ctx, m.ledger, record.EngineKey(m.ID))
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && rec.Dead != 0:
		m.tell(func() bool {
			first := !m.over
			m.over = true
			return first
		}, m.host.Lost)
		return
	case err != nil:
		return
	}
	if _, rev, err := ledger.Load[record.Heartbeat](ctx, m.ledger, record.HeartbeatKey(m.ID)); err == nil {
		m.heartbeat = rev
	}
}

// look finds the engines that are marked dead, and marks those that have been silent for their whole lease.
func (m *Member) look(ctx context.Context) {
	peers, err := List(ctx, m.ledger)
	if err != nil && !errors.Is(err, store.ErrCorrupt) { // a damaged record of one engine must not save all others
		return // the next look comes soon
	}
	now := m.now().Mono
	byID, others := map[string]Peer{}, []Peer(nil)
	var live []lease.Seen
	for _, p := range peers {
		switch {
		case p.ID == m.ID:
		case p.Engine.Dead != 0:
			m.tellDead(p.ID)
		default:
			byID[p.ID] = p
			others = append(others, p)
			live = append(live, lease.Seen{ID: p.ID, Lease: p.Engine.Lease, Heartbeat: int64(p.heartbeatRev)})
		}
	}
	m.others.Look(now, live)
	m.tell(func() bool { return !m.over }, func() { m.host.Seen(others) })
	for _, s := range m.others.Silent(m.now().Mono) {
		if m.mark(ctx, byID[s.ID], store.Revision(s.Heartbeat)) {
			m.tellDead(s.ID)
		}
	}
}

func (m *Member) tellDead(id string) {
	if m.others.dead[id] {
		return
	}
	m.others.dead[id] = true
	m.tell(func() bool { return !m.over }, func() { m.host.Dead(id) })
}

// mark marks another engine dead, on condition that its heartbeat has not changed. It reports whether the mark is on record.
func (m *Member) mark(ctx context.Context, p Peer, heartbeat store.Revision) bool {
	p.Engine.Dead, p.Engine.By = record.TimeOf(clock.Now()), m.ID
	_, err := m.ledger.Commit(ctx, []store.Op{
		store.Put(record.EngineKey(p.ID), record.Encode(&p.Engine)).If(p.rev), store.Check(record.HeartbeatKey(p.ID), heartbeat),
	})
	return err == nil // after any error, the next look shows what is so
}

// Leave marks the engine itself dead, so that the others need not wait for a lease. No renewal succeeds afterwards, and no
// method of the host is called but for those under way. It is no error if another engine has marked this one before.
func (m *Member) Leave(ctx context.Context) error {
	m.mu.Lock()
	m.over = true
	m.mu.Unlock()
	rec := m.rec
	rec.Dead, rec.By = record.TimeOf(clock.Now()), m.ID
	_, err := m.ledger.Commit(ctx, []store.Op{store.Put(record.EngineKey(m.ID), record.Encode(&rec)).If(m.rev)})
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// Remove removes the records of an engine that is marked dead and owns nothing any more.
func Remove(ctx context.Context, l *ledger.Ledger, id string) error {
	rec, rev, err := ledger.Load[record.Engine](ctx, l, record.EngineKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if rec.Dead == 0 {
		return errors.New("engine " + id + " is not marked dead")
	}
	_, err = l.Commit(ctx, []store.Op{store.Delete(record.EngineKey(id)).If(rev), store.Delete(record.HeartbeatKey(id))})
	if errors.Is(err, store.ErrConflict) {
		return nil // another engine has removed it
	}
	return err
}
