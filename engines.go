package conveyor

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/handover"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/member"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/store"
)

// fleet is what a scheduler does because other engines work on the same store. A scheduler has one only if its store is shared.
//
// On a shared store the pool has a task for each run that this engine owns, and for the runs without an owner that it is about to
// make its own. Everything else is in the store: what an engine does for the runs of others are commits, and the others notice.
type fleet struct {
	sched   *scheduler
	watcher store.Watcher
	newID   func() string

	// ctx ends when the scheduler has stopped.
	ctx context.Context
	end context.CancelFunc
	// beat ends when no call is under way any more. Until then, the lease is renewed.
	beat     context.Context
	stopBeat context.CancelFunc
	beating  sync.WaitGroup

	seat   atomic.Pointer[seat]          // nil while the engine is not one of those on record
	others atomic.Pointer[[]member.Peer] // that are live; nil until this engine has looked at them
	// pausesAsOf is the revision of the generation of the pauses that this engine knows.
	pausesAsOf atomic.Int64
	search
	wakeups
	clocks sync.Map // by engine id: the heartbeat that was seen last
	follow follow
}

// search is what a fleet remembers of its looks at the runs without an owner.
type search struct {
	urgent string   // where the next look at what needs no worker begins; owned by the loop
	newer  sync.Map // the ids of runs that need a newer program; forgotten once a lease
}

// stands is what the pool knows of a run that is found without an owner. A run that needs a newer program is passed over.
func (c claimer) stands(run string) (known, blocked bool) {
	if _, newer := c.newer.Load(run); newer {
		return true, true
	}
	return c.sched.pool.Stands(run)
}

// leaveToNewer notes that a run can be worked on by newer programs alone.
func (c claimer) leaveToNewer(run string, why error) {
	if _, known := c.newer.LoadOrStore(run, true); !known {
		c.sched.log.Info("run is left to newer programs", "run", run, "reason", why.Error())
	}
}

// wakeups are what makes the loop of a fleet look.
type wakeups struct {
	left  atomic.Bool   // there can be runs without an owner that this engine can go on with, and has left alone
	nudge chan struct{} // anybody sends, the loop receives; size 1
	later chan struct{} // the same, for a look after Options.Poll
	deaf  atomic.Int32  // how many watches do not work at the moment
}

// seat is the place of an engine among the engines on record, from Join until the engine leaves or is marked dead.
type seat struct {
	*member.Member
	fleet *fleet
	by    run.Member
	lost  atomic.Bool
}

// joinFleet makes the scheduler one of several, if its store is shared.
func (s *scheduler) joinFleet(kept store.Store, newID func() string) {
	watcher, shared := kept.(store.Watcher)
	if !shared {
		return
	}
	f := &fleet{sched: s, watcher: watcher, newID: newID, wakeups: wakeups{nudge: make(chan struct{}, 1), later: make(chan struct{}, 1)}}
	f.ctx, f.end = context.WithCancel(s.base)
	f.beat, f.stopBeat = context.WithCancel(s.base)
	s.fleet = f
	s.events.mirror = &mirror{fleet: f, feed: s.events}
}

// errForeign means that a run is none of this engine's.
var errForeign = errors.New("conveyor: the run belongs to another engine")

// start puts the engine on record. The pool must not run yet.
func (f *fleet) start(ctx context.Context) error {
	if err := f.claimer().listen(ctx, f.sched.drivers.all()...); err != nil {
		return err
	}
	return f.join(ctx)
}

// join puts the engine on record under a new id.
func (f *fleet) join(ctx context.Context) error {
	s := f.sched
	p := &seat{fleet: f}
	m, err := member.Join(ctx, s.ledger, f.newID(), record.Engine{
		Name: s.opts.Name, Started: record.TimeOf(clock.Now()), Format: record.SharedVersion, Lease: s.opts.Lease, Options: s.opts.meaning(),
	}, p)
	if err != nil {
		return err
	}
	p.Member, p.by = m, run.Member{ID: m.ID, Live: m.Live()}
	f.seat.Store(p)
	return nil
}

// work begins with the work on the runs of the store. It is called with the lock of the pool held. start starts a goroutine that Shutdown
// waits for.
func (f *fleet) work(start func(func())) {
	f.beating.Go(func() { f.seat.Load().Run(f.beat) })
	start(f.loop)
	if f.sched.postbox != nil {
		start(f.sched.postbox.work)
		start(func() {
			f.hint(f.ctx, record.LetterPrefix, 0, func(string) error { f.sched.postbox.look(); return nil })
		})
	}
	for prefix, do := range map[string]func(key string) error{
		record.EnginePrefix:   func(string) error { f.wakeMember(); return nil },
		record.ReadyPrefix:    func(key string) error { f.readyChanged(key); return nil },
		record.AskPrefix:      func(key string) error { f.requests().changed(key); return nil },
		record.SlotPrefix:     func(string) error { f.lookIfLeft(); return nil },
		record.PausesKey:      func(string) error { _, err := f.readPauses(); return err }, // no step starts before they are read
		record.PipelinePrefix: f.claimer().pipelineChanged,
	} {
		start(func() { f.hint(f.ctx, prefix, 0, do) })
	}
}

// member returns who decides about runs. An engine that is not on record can own nothing, and makes runs that have no owner.
func (f *fleet) member() *run.Member {
	if f == nil {
		return nil
	}
	if p := f.seat.Load(); p != nil {
		by := p.by
		by.Unpaused = store.Check(record.PausesKey, store.Revision(f.pausesAsOf.Load()))
		return &by
	}
	return &nobody
}

// nobody is who decides in an engine that is not on record.
var nobody = run.Member{ID: "-"}

// works reports whether the engine can own runs now.
func (f *fleet) works() bool {
	p := f.seat.Load()
	return p != nil && !p.Member.Fenced()
}

// fenced reports whether nothing may start because the engine could not renew its lease.
func (f *fleet) fenced() bool { return f != nil && !f.works() }

// owns reports whether a record of a run says that this engine owns the run.
func (f *fleet) owns(rec *record.Run) bool {
	p := f.seat.Load()
	return p != nil && rec.Owner == p.ID
}

// claims returns nil if the engine owns a run, or can make it its own, and otherwise errForeign, or an ErrUnsupported that says that
// only a newer program can.
func (f *fleet) claims(rec *record.Run) error {
	if f == nil || f.owns(rec) {
		return nil
	}
	if err := record.Rewritable(rec.Needs); err != nil {
		return err
	}
	if rec.Owner == "" && (f.works() || rec.State == plan.Queued) { // a run that has not begun can be ended by anybody
		return nil
	}
	return errForeign
}

// Fenced implements [member.Host].
func (p *seat) Fenced() {
	s := p.fleet.sched
	s.log.Warn("the lease could not be renewed; nothing starts until it is", "engine", p.ID, "lease", s.opts.Lease)
	s.loseAttempts() // also of calls that go on after Shutdown
}

// loseAttempts ends the contexts of all attempts because the lease is lost, or about to be.
func (s *scheduler) loseAttempts() {
	for _, a := range s.runningAttempts() {
		a.End(ErrLeaseLost)
	}
}

// Renewed implements [member.Host].
func (p *seat) Renewed() {
	s := p.fleet.sched
	s.log.Info("the lease is renewed", "engine", p.ID)
	for _, r := range s.pool.Owners() {
		s.enqueue(r)
	}
	p.fleet.look()
}

// Lost implements [member.Host].
func (p *seat) Lost() {
	f, s := p.fleet, p.fleet.sched
	p.lost.Store(true)
	f.seat.CompareAndSwap(p, nil)
	s.log.Warn("another engine has marked this one dead, because its lease was over; it begins anew", "engine", p.ID)
	for _, a := range s.runningAttempts() {
		a.disown() // also so that no other call for the resource begins here before this one has returned
	}
	s.background.Go(func() {
		for _, r := range s.pool.Owners() {
			s.background.Go(func() { s.drive(r, message{refresh: true}, false) })
		}
		for pause := firstDelay; ; pause = min(2*pause, longestDelay) {
			if s.draining() {
				return
			}
			err := f.join(f.ctx)
			if err == nil {
				break
			}
			s.log.Warn("store failed; trying again", "work", "join the other engines", "error", err, "after", pause)
			if !s.sleep(pause) {
				return
			}
		}
		f.beating.Go(func() { f.seat.Load().Run(f.beat) })
		f.look()
	})
}

// Dead implements [member.Host].
func (p *seat) Dead(id string) {
	f := p.fleet
	f.sched.background.goBefore(sched.Draining, func() {
		f.sched.upkeep.retryStore("take over the runs of engine "+id, func() error { return f.heir().takeOver(id) })
	})
}

// Seen implements [member.Host].
func (p *seat) Seen(others []member.Peer) {
	f := p.fleet
	for _, o := range others {
		p.notice(o)
	}
	before := f.peers()
	f.others.Store(&others)
	if driversOf(before) != driversOf(others) {
		f.look() // a run can go on here that waited for another engine, or the other way round
	}
	f.claimer().giveAway()
}

// seenBeat is a heartbeat of another engine.
type seenBeat struct {
	count int64
	ahead time.Duration // of its clock
	came  bool          // the one before was seen, too, so that it is known when this one came
}

// notice remembers how far the clock of another engine is ahead, and says once that it has other options.
func (p *seat) notice(o member.Peer) {
	f := p.fleet
	v, known := f.clocks.Load(o.ID)
	if last, _ := v.(seenBeat); !known || last.count != o.Heartbeat.Count {
		f.clocks.Store(o.ID, seenBeat{o.Heartbeat.Count, o.Heartbeat.Clock.Time().Sub(clock.Now()), known})
	}
	if !known && o.Engine.Options != f.sched.opts.meaning() {
		f.sched.log.Warn("another engine has other options, so that a run depends on which engine works on it", "engine", o.ID, "name", o.Engine.Name)
	}
}

// peers returns the other engines that are live, as far as they are known.
func (f *fleet) peers() []member.Peer {
	if others := f.others.Load(); others != nil {
		return *others
	}
	return nil
}

// driversOf returns the drivers of engines as one text.
func driversOf(peers []member.Peer) string {
	var all []string
	for _, p := range peers {
		all = append(all, p.Heartbeat.Drivers...)
		all = append(all, p.Heartbeat.Planned...)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "/")
}

// Load implements [member.Host].
func (p *seat) Load() record.Heartbeat {
	s := p.fleet.sched
	st := s.pool.Stats()
	h := record.Heartbeat{Owned: st.Tasks, Busy: st.Busy, Free: st.Workers - st.Busy, Letters: s.opts.Letters}
	if s.draining() {
		h.Free, h.Letters = 0, false
	}
	for _, name := range s.drivers.all() {
		if pipeline, planned := strings.CutPrefix(name, plan.PlannerName("")); planned {
			h.Planned = append(h.Planned, pipeline)
		} else {
			h.Drivers = append(h.Drivers, name)
		}
	}
	return h
}

// readyChanged has the loop look at the runs without an owner, and gives the run its turn whose entry has changed if it waits here:
// it may not need any more for what it waits.
func (f *fleet) readyChanged(key string) {
	if e, err := record.ParseReadyKey(key); err == nil {
		f.recheck(e.Run)
	}
	f.look()
}

// recheck gives a run its turn if it waits here.
func (f *fleet) recheck(run string) {
	if t := f.sched.pool.Find(run); t != nil {
		f.sched.enqueue(t.Owner)
	}
}

// wakeMember has the other engines looked at.
func (f *fleet) wakeMember() {
	if p := f.seat.Load(); p != nil {
		p.Wake()
	}
}

// look has the loop look at what there is to do, because of a change of a record.
func (f *fleet) look() {
	if f == nil {
		return
	}
	nudge(f.nudge)
}

// lookIfLeft is look if runs were left alone.
func (f *fleet) lookIfLeft() {
	if f != nil && f.left.Load() {
		f.look()
	}
}

// nextLook returns a channel that receives a value when a reader must look again at what another engine writes, and nil if the store is
// not shared.
func (f *fleet) nextLook() <-chan time.Time {
	if f == nil {
		return nil
	}
	return time.After(f.sched.opts.Poll)
}

// leaveRun notes that a run without an owner was left alone, although this engine can perhaps go on with it some time.
func (f *fleet) leaveRun() {
	f.left.Store(true)
	nudge(f.later)
}

// hint calls do for each change of a record under a prefix after a revision, until ctx ends. It calls do with an empty key where
// changes may have been missed: at the beginning if the revision is 0, and after the watch of the store, or do, has failed.
func (f *fleet) hint(ctx context.Context, prefix string, after store.Revision, do func(key string) error) {
	f.deaf.Add(1)
	defer f.deaf.Add(-1)
	for ctx.Err() == nil {
		var err error
		if after == 0 {
			if after, err = f.sched.ledger.Commit(ctx, nil); err == nil {
				err = do("")
			}
		}
		if err == nil {
			f.deaf.Add(-1)
			f.watch(ctx, prefix, after, do)
			f.deaf.Add(1)
		}
		after = 0
		select {
		case <-time.After(f.sched.opts.Poll):
		case <-ctx.Done():
		}
	}
}

// watch calls do for each change of a record under a prefix after a revision, until the watch of the store or do fails.
func (f *fleet) watch(ctx context.Context, prefix string, after store.Revision, do func(key string) error) {
	for c, err := range f.watcher.Watch(ctx, prefix, after) {
		if err == nil && c.Key != "" {
			err = do(c.Key)
		}
		if err != nil {
			return
		}
	}
}

// loop looks at what there is to do for the runs of the store, until the scheduler has stopped.
func (f *fleet) loop() {
	lease := f.sched.opts.Lease
	var whole time.Time // when everything was looked at
	var due time.Time   // when timer fires
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-f.nudge:
		case <-timer.C:
		case <-f.later:
			if left := time.Until(due); left > f.sched.opts.Poll {
				due = time.Now().Add(f.sched.opts.Poll)
				timer.Reset(f.sched.opts.Poll)
			}
			continue
		}
		now := time.Now()
		everything := now.Sub(whole) >= lease
		next, err := f.lookOnce(everything)
		pause := lease
		switch {
		case err != nil:
			if f.ctx.Err() == nil {
				f.sched.log.Warn("store failed; trying again", "work", "look for runs", "error", err, "after", f.sched.opts.Poll)
			}
			pause = f.sched.opts.Poll
		case f.deaf.Load() > 0, f.left.Load():
			pause = f.sched.opts.Poll
		}
		if everything && err == nil {
			whole = now
		}
		if next != 0 {
			pause = min(pause, max(clock.Until(next.Time()), 0))
		}
		due = time.Now().Add(pause)
		timer.Reset(pause)
	}
}

// lookOnce looks at what other engines ask, and at the runs without an owner. It returns when the next of these is due. If
// everything is set, it also looks for runs of this engine that it does not know.
func (f *fleet) lookOnce(everything bool) (next record.Time, err error) {
	p := f.seat.Load()
	if p == nil || p.Member.Fenced() {
		return record.TimeOf(clock.Now().Add(f.sched.opts.Poll)), nil
	}
	if err := f.requests().answerAsked(p); err != nil {
		return 0, err
	}
	if f.sched.draining() {
		return 0, nil
	}
	if everything {
		f.newer.Clear() // of those that have ended
		if err := f.heir().adoptUnknown(p); err != nil {
			return 0, err
		}
		f.sched.upkeep.ring()
		// Who has skipped a run did not look again who listens, if it died after the commit.
		f.sched.upkeep.reconcileUnlistened(f.sched.drivers.listened()...)
	}
	return f.claimer().claim()
}

// leave takes the engine off the record when it has stopped, and ends its heartbeat. The others take over what it still owns. While a
// call that was given up has not returned, the engine stays on record until its lease is over, so that no other calls a driver for the
// same resource. leave does not wait for the store longer than until ctx ends.
func (f *fleet) leave(ctx context.Context) {
	if f == nil {
		return
	}
	within(ctx, func() {
		p := f.seat.Load()
		if p != nil && len(f.sched.abandoned.list()) == 0 {
			if err := p.Leave(ctx); err != nil {
				f.sched.log.Warn("engine could not leave; the others wait until its lease is over", "engine", p.ID, "error", err)
			}
		}
		f.stopBeat()
		f.beating.Wait()
	})
	f.stopBeat()
}

// leaveAfter is leave for a Shutdown that was called by a driver, whose call goes on.
func (f *fleet) leaveAfter(returned <-chan struct{}) {
	if f == nil {
		return
	}
	go func() {
		<-returned
		ctx, cancel := context.WithTimeout(f.sched.base, f.sched.opts.ShutdownGrace)
		defer cancel()
		f.leave(ctx)
	}()
}

// claimer makes runs without an owner those of this engine.
type claimer struct{ *fleet }

func (f *fleet) claimer() claimer { return claimer{f} }

// hasElsewhere reports whether another engine that is live has a driver.
func (c claimer) hasElsewhere(driver string) bool {
	return slices.ContainsFunc(c.peers(), func(p member.Peer) bool { return has(p, driver) })
}

// has reports whether an engine has a driver, or the Planner that stands behind the name.
func has(p member.Peer, driver string) bool {
	if pipeline, planned := strings.CutPrefix(driver, plan.PlannerName("")); planned {
		return slices.Contains(p.Heartbeat.Planned, pipeline)
	}
	return slices.Contains(p.Heartbeat.Drivers, driver)
}

// isFreeElsewhere reports whether another engine that is live has a driver and a free worker.
func (c claimer) isFreeElsewhere(driver string) bool {
	return slices.ContainsFunc(c.peers(), func(p member.Peer) bool { return p.Heartbeat.Free > 0 && has(p, driver) })
}

// giveAway releases runs that have begun and have waited for a worker for a third of a lease, if another engine has free workers: at most
// as many runs as workers.
func (c claimer) giveAway() {
	s, free := c.sched, 0
	for _, p := range c.peers() {
		free += p.Heartbeat.Free
	}
	if free == 0 || s.pool.Waiting() == 0 {
		return
	}
	before := clock.Now().Add(-s.opts.Lease / 3).UnixNano()
	for _, r := range s.pool.Overdue(before, free) {
		s.background.goBefore(sched.Draining, func() { s.drive(r, message{yield: true}, false) })
	}
}

// claim makes runs without an owner its own that this engine can go on with. It returns when the next one is due.
func (c claimer) claim() (next record.Time, err error) {
	s := c.sched
	now, _ := s.now()
	c.left.Store(false)
	search := handover.Search{
		Ledger: s.ledger, Now: now, Drivers: s.drivers.all(), Serves: c.serves, Others: len(c.peers()),
		Known:   c.stands,
		Urgent:  c.urgent,
		Damaged: func(err error) { s.log.Error("entry of a run cannot be read; leaving it alone", "error", err) },
	}
	found, err := search.Look(c.ctx, s.pool.Free())
	if err != nil {
		return 0, err
	}
	if c.fleet.urgent = found.UrgentNext; found.UrgentNext != "" {
		c.look() // there are more
	}
	if found.Left {
		c.left.Store(true)
	}
	for _, e := range found.Urgent {
		if err := c.take(e, false); err != nil {
			return 0, err
		}
	}
	for _, e := range found.Entries {
		if err := c.take(e, true); err != nil {
			return 0, err
		}
	}
	return found.Next, nil
}

// take gives a run without an owner its turn, or removes an entry that is for nothing. If worker is set, the turn needs a worker.
func (c claimer) take(e handover.Entry, worker bool) error {
	s := c.sched
	rec, _, err := ledger.Load[record.Run](c.ctx, s.ledger, record.RunKey(e.Run))
	switch {
	case errors.Is(err, store.ErrCorrupt):
		s.leaveUnreadable(e.Run, err)
		return nil
	case errors.Is(err, store.ErrNotFound), err == nil && (rec.Owner != "" || rec.State.Final()):
		return handover.Discard(c.ctx, s.ledger, e)
	case err != nil:
		return err
	}
	if err := record.Rewritable(rec.Needs); err != nil {
		c.leaveToNewer(e.Run, err)
		return nil
	}
	r := s.take(e.Run, rec.Key(), e.Lane)
	m := message{found: e.Key}
	if !worker {
		s.background.goBefore(sched.Draining, func() { s.drive(r, m, false) })
		return nil
	}
	r.mu.Lock()
	r.wakeLocked()
	r.inbox = append(r.inbox, m)
	r.mu.Unlock()
	s.enqueue(r)
	return nil
}

// serves returns how many runs of a lane this engine can begin now.
func (c claimer) serves(ctx context.Context, lane string) (room int, err error) {
	s := c.sched
	if kind, none := strings.CutPrefix(lane, "."); none {
		listeners, err := c.listeners(ctx, kind)
		if err == nil && len(listeners) == 0 {
			return math.MaxInt, nil // a run to which nobody listens is skipped, by any engine
		}
		return c.canStart(listeners), err
	}
	rec, _, err := s.ledger.Pipeline(ctx, lane)
	switch {
	case errors.Is(err, ErrNotFound):
		return math.MaxInt, nil // the run fails, by any engine
	case errors.Is(err, store.ErrCorrupt):
		return 0, nil // whoever asks for the pipeline is told
	case err != nil:
		return 0, err
	}
	first, _, err := c.firstOf(ctx, lane, rec)
	if errors.Is(err, store.ErrCorrupt) {
		return 0, nil
	}
	if room = c.canStart(first); err != nil || room == 0 || rec.MaxRuns == 0 {
		return room, err
	}
	used, err := s.view.Slots(lane)
	if free := rec.MaxRuns - len(used); free < room {
		room = max(free, 0)
		c.left.Store(true)
	}
	return room, err
}

// firstDrivers returns the drivers of the steps with which a run of a pipeline begins, and the id of the first of these steps. It
// returns none if there is no such pipeline.
func (c claimer) firstDrivers(ctx context.Context, pipeline string) (drivers []string, step string, err error) {
	if pipeline == "" {
		return nil, "", nil
	}
	rec, _, err := c.sched.ledger.Pipeline(ctx, pipeline)
	if errors.Is(err, ErrNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	return c.firstOf(ctx, pipeline, rec)
}

// firstOf is firstDrivers for a pipeline whose record was read.
func (c claimer) firstOf(ctx context.Context, pipeline string, rec *record.Pipeline) (drivers []string, step string, err error) {
	if rec.Planned {
		return []string{plan.PlannerName(pipeline)}, plan.PlannerStep, nil
	}
	p, err := c.sched.ledger.Plan(ctx, "", &record.Run{Pipeline: pipeline, Hash: rec.Hash})
	if err != nil {
		return nil, "", err
	}
	starts, _ := p.Next(make([]plan.State, p.Len()), false, false)
	for _, i := range starts {
		drivers = append(drivers, p.Step(i).Driver)
	}
	if len(starts) > 0 {
		step = p.Step(starts[0]).ID
	}
	return drivers, step, nil
}

// canStart returns how many calls this engine can make now of one of several drivers.
func (c claimer) canStart(drivers []string) (room int) {
	for _, name := range drivers {
		if d := c.sched.drivers.get(name); d != nil {
			room = max(room, c.sched.pool.Spare(d.calls), 1) // one waits in line, so that each lane has its turn
		}
	}
	return room
}
