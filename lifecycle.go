package conveyor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/call"
	"github.com/conveyor-go/conveyor/internal/handover"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/member"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// start adds every unfinished run of the store to the pool, and begins to work.
func (s *scheduler) start(ctx context.Context) error {
	if err := startable(s.pool.Phase()); err != nil {
		return err
	}
	if err := s.loadPauses(ctx); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	found, err := s.recover(ctx)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	s.log.Info("engine starts, and takes up its unfinished runs", "runs", len(found))
	running := 0
	for _, f := range found {
		running += f.running
	}
	for _, f := range found {
		s.takeUp(f, f.running == 1 && running == 1)
	}
	if s.fleet != nil {
		if err := s.fleet.start(ctx); err != nil {
			return err
		}
	}
	err = startable(s.pool.Begin(func() {
		s.observer = s.observe()
		s.upkeep.start()
		if s.fleet != nil {
			s.fleet.work(s.background.running.Go)
		}
		s.background.running.Go(s.loop) // the lock that Enter would take is held
		s.background.running.Go(s.upkeep.takeUpLeftovers)
	}))
	switch {
	case s.fleet == nil:
	case err != nil: // it was shut down meanwhile
		s.fleet.leave(ctx)
	default:
		s.fleet.claimer().registerRest()
	}
	return err
}

// takeUp makes the pool know an unfinished run. diedAlone reports whether an engine has died while a step of this run was the only
// one at work.
func (s *scheduler) takeUp(f foundRun, diedAlone bool) *runner {
	lane := record.Lane(f.pipeline, f.key)
	r := s.take(f.id, f.key, lane)
	r.mu.Lock()
	r.diedAlone = diedAlone
	r.mu.Unlock()
	s.pool.Restore(&r.task, lane, f.pipeline, f.begun, uint8(f.state), int64(f.due), int64(f.deadline))
	return r
}

// working are the schedulers that work in this process, by their stores. A store that is no pointer is not in it: nothing
// would tell it from another one.
var working sync.Map

// own notes that the scheduler works on its store. It returns an error if another one does.
func (s *scheduler) own() error {
	if v := reflect.ValueOf(s.store); v.Kind() != reflect.Pointer || v.Elem().Type().Size() == 0 {
		return nil
	}
	if other, taken := working.LoadOrStore(s.store, s); taken && other != s {
		return fmt.Errorf("%w: another engine of this process works on this store; use one engine, or shut the other one down first", ErrConflict)
	}
	return nil
}

// disown notes that the scheduler works on its store no longer.
func (s *scheduler) disown() { working.CompareAndDelete(s.store, s) }

// startable returns nil if an engine in this phase can be started, and the reason otherwise.
func startable(phase sched.Phase) error {
	switch phase {
	case sched.New:
		return nil
	case sched.Running:
		return fmt.Errorf("%w: the engine was started already", ErrConflict)
	default:
		return ErrClosed
	}
}

// foundRun is an unfinished run that an earlier process left behind.
type foundRun struct {
	id       string
	key      record.Key
	pipeline string
	begun    bool
	state    plan.State
	due      record.Time // 0 means at once
	deadline record.Time
	running  int // the steps that were at work when the earlier process ended
}

// recover reads the unfinished runs, and no others. A run whose records are damaged is logged and left as it is. It
// does not stop the other runs.
func (s *scheduler) recover(ctx context.Context) (runs []foundRun, err error) {
	if s.fleet != nil {
		return nil, nil // it owns no run yet
	}
	now, _ := s.now()
	for r, err := range s.ledger.Store.List(ctx, store.Query{Prefix: record.ActivePrefix}) {
		if err != nil {
			return nil, err
		}
		id := r.Key[len(record.ActivePrefix):]
		run, err := s.ledger.Run(ctx, id)
		switch {
		case err == nil:
			signaled := false
			if run.SleepsForSignal(now) {
				if signaled, err = s.ledger.Signaled(ctx, id); err != nil {
					return nil, err
				}
			}
			runs = append(runs, s.found(run, now, signaled))
		case errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrNotFound), errors.Is(err, ErrNotFound):
			s.leaveUnreadable(id, err)
		default:
			return nil, err
		}
	}
	return runs, nil
}

// leaveUnreadable says in the log that nothing goes on with an unfinished run, because its records are damaged.
func (s *scheduler) leaveUnreadable(id string, err error) {
	s.log.Error("unfinished run cannot be read; leaving it alone", "run", text.Plain(id), "error", err)
}

// found returns what the pool must know of an unfinished run. signaled reports whether there is a signal for it that no step has taken.
func (s *scheduler) found(run *record.RunState, now record.Time, signaled bool) foundRun {
	due := run.SleepsUntil(now)
	if signaled {
		due = 0
	}
	found := foundRun{
		id: run.ID, key: run.Rec.Key(), pipeline: run.Rec.Pipeline, begun: run.Plan != nil, state: run.State(), due: due,
		deadline: run.Rec.Deadline, running: run.Running(),
	}
	if run.Plan != nil && run.Rec.RunsFromLater(run.Plan, now) {
		found.deadline = now // it is corrected at once, whether a worker is free or not
	}
	return found
}

// shutdownReserve bounds the reserve of Shutdown: the time in which drivers can return after their contexts have ended.
// The reserve is a quarter of the time that Shutdown has, and at most shutdownReserve.
const shutdownReserve = time.Second

// shutdown is one call of Shutdown.
type shutdown struct {
	*scheduler
	drains sched.Drains
	own    *attempt // the attempt whose driver is the caller; nil if the caller is no driver
	late   bool     // the context had ended before the call
}

// shutdown is a sequence: take nothing new, end the upkeep, let attempts finish, cancel the rest, record what happened,
// and join all goroutines.
func (s *scheduler) shutdown(ctx context.Context) error {
	drains, own, stopped := s.drain(ctx)
	s.upkeep.stop()
	down := &shutdown{s, drains, own, ctx.Err() != nil}
	if stopped {
		return down.rejoin(ctx)
	}
	reserve := shutdownReserve
	last, limited := ctx.Deadline()
	var left time.Duration
	if limited {
		left = max(time.Until(last), 0)
		reserve = min(reserve, left/4)
	}
	if down.finished(ctx, limited, left-reserve) {
		return down.stop(ctx)
	}
	s.endAttempts()
	select {
	case <-drains.Drained:
	case <-time.After(reserve / 2): // the rest is for recording the outcomes of abandoned calls
	case <-s.done:
	}
	return down.stop(ctx)
}

// finished waits until the attempts have finished by themselves, and reports whether they have. If limited is true, it
// waits at most for timeout. Otherwise it waits for the drivers as long as they need. A store that fails or blocks then
// has ShutdownGrace to record the outcomes.
func (s *shutdown) finished(ctx context.Context, limited bool, timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var quiet <-chan struct{}
	if !limited {
		timer.Stop()
		quiet = s.drains.Quiet
	}
	for {
		select {
		case <-s.drains.Drained:
			return true
		case <-quiet:
			quiet = nil
			timer.Reset(s.opts.ShutdownGrace)
		case <-timer.C:
			if limited || !s.pool.Calling() {
				return false
			}
			timer.Reset(s.opts.ShutdownGrace) // a call is running that was about to be made when the others returned
		case <-ctx.Done():
			return false
		case <-s.done: // another call of Shutdown was faster
			return false
		}
	}
}

// endAttempts ends the contexts of all attempts. An attempt that starts at the same time is ended by dispatch, after it
// was added to its runner.
func (s *scheduler) endAttempts() {
	s.ending.Store(true)
	for _, a := range s.runningAttempts() {
		a.Cancel(ErrShutdown)
	}
}

// drain makes the pool start nothing new from here on. If the caller is a driver of this engine, drain returns its
// attempt as own. It reports whether the scheduler has stopped already.
func (s *scheduler) drain(ctx context.Context) (drains sched.Drains, own *attempt, stopped bool) {
	if a, _ := call.MakerOf(ctx).(*attempt); a != nil && a.sched == s {
		a.Unreturned(func() {
			own = a // the driver waits for Shutdown, so Shutdown would wait for the driver for ever
			if a.inShutdown.CompareAndSwap(false, true) {
				s.pool.Exempt(1)
			}
		})
	}
	drains, phase := s.pool.Drain()
	return drains, own, phase == sched.Stopped
}

// leaveShutdown notes that the driver of an attempt has returned. If the driver was inside Shutdown, it no longer is.
func (s *scheduler) leaveShutdown(a *attempt) {
	if a.inShutdown.CompareAndSwap(true, false) {
		s.pool.Exempt(-1)
	}
}

// stop abandons the calls that are still running, and joins all other goroutines. If the caller is the driver of own,
// stop joins nothing, because the caller itself would be waited for. stop returns an error that names what it has
// abandoned.
func (s *shutdown) stop(ctx context.Context) error {
	if s.pool.Reach(sched.Stopping) {
		close(s.stopRetrying)
	}
	until, cancel := s.storeDeadline(ctx)
	defer cancel()
	recorded := within(until, func() {
		s.abandonAll(func(a *attempt) bool { return !a.inShutdown.Load() })
		s.flusher.flush()
	})
	first := s.pool.Reach(sched.Stopped)
	if first {
		s.log.Info("engine has stopped", "runs", s.pool.Stats().Tasks)
		s.disown()
		close(s.done)
		if s.fleet != nil {
			s.fleet.end()
		}
		s.flusher.alarm.stop()
	}
	if s.own == nil {
		recorded = s.join(ctx, until) && recorded
	} else if first {
		s.fleet.leaveAfter(s.drains.Idle)
		s.events.Close()
	}
	return s.shutdownError(ctx, recorded)
}

// rejoin is a call of Shutdown after the scheduler has stopped. The first call may have been made by a driver that has
// not returned yet. rejoin does not name again the steps that another call of Shutdown has named.
func (s *shutdown) rejoin(ctx context.Context) error {
	if s.own != nil {
		return nil
	}
	until, cancel := s.storeDeadline(ctx)
	defer cancel()
	named := s.abandoned.list()
	recorded := s.join(ctx, until)
	if recorded && len(s.abandoned.list()) <= len(named) {
		return nil
	}
	return s.shutdownError(ctx, recorded)
}

// lastMoment is the largest part of the time before the deadline of Shutdown that is left for returning, and the least time
// that is left for recording.
const lastMoment = 5 * time.Millisecond

// storeDeadline returns a context that ends when Shutdown no longer waits for the store. It ends shortly before the
// deadline of ctx, so that Shutdown returns by the deadline. Only if ctx had ended before Shutdown was called, or ends
// without a deadline, a bounded time is left for recording. Otherwise the result of a store call that is about to return
// would be lost.
func (s *shutdown) storeDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	left := s.opts.ShutdownGrace
	last, limited := ctx.Deadline()
	switch {
	case limited && s.late:
		left = shutdownReserve / 4
	case limited:
		left = time.Until(last)
		left = max(left-min(left/16, lastMoment), lastMoment)
	}
	if ctx.Err() != nil {
		left = min(left, shutdownReserve)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), left)
}

// within calls fn and reports whether fn has returned by the time until ended. If not, the goroutine of fn is left behind,
// because nothing can end a call of a store.
func within(until context.Context, fn func()) bool {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		fn()
	}()
	return closedBefore(until, returned)
}

// closedBefore waits until a channel is closed or ctx ends, and reports whether the channel is closed.
func closedBefore(ctx context.Context, closed <-chan struct{}) bool {
	select {
	case <-closed:
		return true
	case <-ctx.Done():
	}
	select {
	case <-closed: // both at once
		return true
	default:
		return false
	}
}

// abandonAll abandons the running attempts for which which returns true. It abandons them all at once, so that a store
// can write the outcomes together.
func (s *scheduler) abandonAll(which func(*attempt) bool) {
	var all sync.WaitGroup
	for _, a := range s.runningAttempts() {
		if which(a) {
			all.Go(func() { a.abandon() })
		}
	}
	all.Wait()
}

// join waits for everything that the scheduler has started, and reports whether everything was recorded. Drivers that
// called Shutdown themselves can return now. Their contexts end after half of the time that is left, and their calls
// are abandoned after half of the rest, later than all other calls.
func (s *shutdown) join(ctx, until context.Context) (recorded bool) {
	var timeout <-chan time.Time // nil if ctx has no deadline: drivers have all the time that they need
	reserve, unended := shutdownReserve, ctx.Err() == nil
	if last, limited := ctx.Deadline(); limited {
		left := max(time.Until(last), 0)
		timeout, reserve = time.After(left/2), min(left/4, reserve)
	}
	select {
	case <-s.drains.Idle:
	case <-timeout:
		s.endAttempts()
	case <-ctx.Done():
		s.endAttempts()
	}
	select {
	case <-s.drains.Idle:
	case <-time.After(reserve):
	case <-until.Done():
	}
	if timeout == nil && unended {
		var cancel context.CancelFunc
		until, cancel = s.storeDeadline(ctx) // the time for recording begins only now
		defer cancel()
	}
	recorded = within(until, func() {
		s.abandonAll(func(*attempt) bool { return true })
		s.background.running.Wait()
		if s.pool.Alone() {
			_ = s.workers.Wait() // all workers return nil
		}
	})
	switch {
	case s.fleet == nil:
	case recorded:
		s.fleet.leave(until)
	default:
		s.fleet.stopBeat() // the others take its runs over when its lease is over
	}
	s.events.Close() // after all goroutines that publish events have ended
	s.observer.finish(until)
	s.log.Finish(until)
	return recorded
}

// shutdownError returns the error that names the calls that have not returned and the runs that are not completely
// recorded. It returns nil if there are none.
func (s *shutdown) shutdownError(ctx context.Context, recorded bool) error {
	cause := context.Cause(ctx)
	if cause == nil {
		cause = context.DeadlineExceeded // the deadline is about to pass
	}
	var problems []string
	if left := slices.DeleteFunc(s.abandoned.list(), func(a *attempt) bool { return a == s.own }); len(left) > 0 {
		problems = append(problems, "still running: "+describeAttempts(left))
	}
	lost, err := s.unrecorded(recorded)
	if len(lost) > 0 {
		problems = append(problems, "not recorded: "+strings.Join(lost, "; "))
	}
	if !recorded {
		problems = append(problems, "the store has not answered")
	}
	switch {
	case len(problems) == 0:
		return nil
	case err != nil:
		return fmt.Errorf("conveyor: shutdown: %s: %w: %w", strings.Join(problems, "; "), cause, err)
	}
	return fmt.Errorf("conveyor: shutdown: %s: %w", strings.Join(problems, "; "), cause)
}

// unrecorded returns the names of the runs that are not completely recorded, and the last error of the store for them.
// If recorded is false, the runs whose messages are being handled are among them.
func (s *shutdown) unrecorded(recorded bool) (runs []string, err error) {
	s.mu.Lock()
	lost := slices.Clone(s.unrecordedRuns)
	s.mu.Unlock()
	if !recorded {
		for _, r := range s.pool.Owners() {
			lost = append(lost, unrecordedRun{runner: r})
		}
	}
	for _, l := range lost {
		l.runner.mu.Lock()
		busy := l.runner.busy
		l.runner.mu.Unlock()
		if busy || l.err != nil {
			runs = append(runs, fmt.Sprintf("run %s (resource %s)", l.runner.ID, l.runner.Key))
		}
		err = cmp.Or(l.err, err)
	}
	slices.Sort(runs)
	return slices.Compact(runs), err
}

// heir takes up the runs of engines that have died, and those of this engine that it does not know.
type heir struct{ *fleet }

func (f *fleet) heir() heir { return heir{f} }

// adoptUnknown takes up the runs that are listed under this engine and that it does not know. The answer to the commit that made
// them its own was lost.
func (h heir) adoptUnknown(p *seat) error {
	owned, err := handover.Owned(h.ctx, h.sched.ledger, p.ID)
	if err != nil {
		return err
	}
	return h.takeUp(p, slices.DeleteFunc(owned, func(id string) bool { return h.sched.pool.Find(id) != nil }), false)
}

// takeUp takes up those of several runs that this engine owns and does not know. The ids are sorted. The runs are read here, because whoever
// has found them can have read them long before. diedAlone says that a step which is the only one at work in its run ended a process.
func (h heir) takeUp(p *seat, ids []string, diedAlone bool) error {
	for some := range slices.Chunk(ids, handover.ReadTogether) {
		found, err := ledger.Runs(h.ctx, h.sched.ledger, some)
		if err != nil {
			return err
		}
		var runs []*record.RunState
		for i, f := range found {
			switch {
			case errors.Is(f.Err, store.ErrCorrupt):
				h.sched.leaveUnreadable(some[i], f.Err)
			case f.Err == nil && f.Run.Rec.Owner == p.ID && !f.Run.Rec.State.Final():
				runs = append(runs, f.Run)
			}
		}
		if err := h.takeUpRead(runs, diedAlone); err != nil {
			return err
		}
	}
	return nil
}

// takeUpRead is takeUp for runs that were read just now.
func (h heir) takeUpRead(runs []*record.RunState, diedAlone bool) error {
	s := h.sched
	now, _ := s.now()
	var asleep []string // those that wait for signals
	for _, r := range runs {
		if r.SleepsForSignal(now) {
			asleep = append(asleep, r.ID)
		}
	}
	signaled, err := ledger.SignaledOf(h.ctx, s.ledger, asleep)
	if err != nil {
		return err
	}
	for _, run := range runs {
		if t := s.pool.Find(run.ID); t != nil {
			s.enqueue(t.Owner) // it was taken up because somebody asked something of it
			continue
		}
		found := s.found(run, now, signaled[run.ID])
		r := s.takeUp(found, diedAlone && run.Running() == 1)
		if found.due == 0 {
			s.enqueue(r)
		}
	}
	s.wakeLoop()
	return nil
}

// takeOver makes the runs of an engine that is marked dead those of this engine: at first those that fall to this one, and after a
// third of a lease what is left.
func (h heir) takeOver(id string) error {
	s := h.sched
	alone := h.diedAlone(id)
	for first := true; ; first = false {
		p := h.seat.Load()
		if p == nil || p.ID == id {
			return nil
		}
		owned, err := handover.Owned(h.ctx, s.ledger, id)
		if err != nil {
			return err
		}
		if len(owned) == 0 {
			break
		}
		mine := owned
		if engines := h.engines(p, id); first && len(engines) > 1 {
			mine = nil
			for _, run := range owned {
				if handover.FallsTo(run, engines) == p.ID {
					mine = append(mine, run)
				}
			}
		}
		damaged := 0
		taken, err := handover.TakeOver(h.ctx, s.ledger, id, mine, &p.by, func(run string, err error) {
			damaged++
			if errors.Is(err, ErrUnsupported) {
				h.claimer().leaveToNewer(run, err)
			} else {
				s.leaveUnreadable(run, err)
			}
		})
		running, ids := 0, make([]string, 0, len(taken))
		for _, r := range taken {
			running, ids = running+r.Running(), append(ids, r.ID)
		}
		if err := h.takeUp(p, ids, alone && running == 1); err != nil {
			return err // the runs are found as those of this engine that it does not know
		}
		if err != nil {
			return err
		}
		if len(taken) > 0 {
			s.log.Info("runs of another engine are taken over", "engine", id, "runs", len(taken))
		}
		if damaged == len(owned) {
			break // what is left cannot be read, or is left to newer programs
		}
		select {
		case <-time.After(s.opts.Lease / 3):
		case <-s.upkeep.ctx.Done():
			return nil
		}
	}
	return h.bury(id)
}

// bury removes the records of an engine that is marked dead and owns nothing any more.
func (h heir) bury(id string) error {
	l := h.sched.ledger
	if owned, err := handover.Owned(h.ctx, l, id); err != nil || len(owned) > 0 {
		return err
	}
	if err := l.RemoveAll(h.ctx, record.AskKey(id, "")); err != nil {
		return err
	}
	return member.Remove(h.ctx, l, id)
}

// engines returns the ids of the engines that are live, but for the one that is dead: it was one of them at the last look.
func (h heir) engines(p *seat, dead string) []string {
	ids := []string{p.ID}
	for _, other := range h.peers() {
		if other.ID != dead {
			ids = append(ids, other.ID)
		}
	}
	return ids
}

// isLive reports whether an engine is on record and not marked dead.
func (h heir) isLive(id string) (bool, error) {
	rec, _, err := ledger.Load[record.Engine](h.sched.base, h.sched.ledger, record.EngineKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && rec.Dead == 0, err
}

// diedAlone reports whether an engine that is marked dead can have died of a step that was the only one at work: it was not shut
// down, and had no more than one call under way when its heart beat last.
func (h heir) diedAlone(id string) bool {
	rec, _, err := ledger.Load[record.Engine](h.ctx, h.sched.ledger, record.EngineKey(id))
	if err != nil || rec.By == id {
		return false
	}
	beat, _, err := ledger.Load[record.Heartbeat](h.ctx, h.sched.ledger, record.HeartbeatKey(id))
	return err == nil && beat.Busy <= 1
}
