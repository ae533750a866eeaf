package conveyor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/call"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Wait blocks until the run has ended and returns it, whether it succeeded or not. [Run.Err] reports why it did not.
//
// A run whose end a caller waits for is not removed (see [Retention]) before the caller has it.
//
// If ctx ends first, Wait returns an error that wraps the cause of ctx and says what the run is doing: that a driver is not
// registered, that the run waits for a signal, or that the engine was not started.
//
// A driver can wait for the run of another resource, with the context that it got. If that run cannot end before the call of
// the driver returns, Wait returns an [ErrConflict]: at once if it is the run of the driver itself or a later run of the same
// resource, and as soon as it is so if drivers that wait for each other's runs have all workers, all slots of a driver, or all
// places within the MaxRuns of a pipeline.
//
// On a shared store, Wait waits for the run of any engine, and a driver is refused only for what its own engine holds.
//
// Wait returns [ErrNotFound] if there is no such run, and [ErrClosed] if the engine is shut down first. It returns an error of
// the store if the run cannot continue because the store is closed or must be reopened.
func (e *Engine) Wait(ctx context.Context, runID string) (*Run, error) {
	s := e.sched
	ended, known, giveUp := s.wait(runID)
	defer giveUp()
	defer s.fleet.followRuns()()
	if !known || s.fleet != nil && !s.worksOn(runID) {
		if text.NameFault(runID) != "" {
			return e.GetRun(ctx, runID)
		}
		rec, _, err := ledger.Load[record.Run](ctx, e.ledger, record.RunKey(runID))
		read := s.fleet == nil || ctx.Err() == nil // otherwise it is said what the run is doing
		if err != nil && read || err == nil && rec.State.Final() {
			if run, err := e.GetRun(ctx, runID); err != nil || run.State.Final() {
				return run, err
			}
		}
	}
	w, err := s.enterWait(ctx, runID)
	if err != nil {
		return nil, err
	}
	defer w.leave()
	if s.pool.Phase() == sched.New {
		s.log.Warn("a run is waited for, and the engine is not started", "run", runID)
	}
	for {
		select {
		case run := <-ended:
			if run != nil {
				return run, nil
			}
			return e.GetRun(ctx, runID)
		case <-ctx.Done():
			return nil, fmt.Errorf("run %s has not ended: %s: %w", runID, e.doing(ctx, runID), context.Cause(ctx))
		case <-s.done:
			return nil, ErrClosed
		case <-w.again():
			if err := w.check(); err != nil {
				return nil, err
			}
		}
	}
}

// patience bounds how long Wait looks for what a run is doing when its context has ended.
const patience = 100 * time.Millisecond

// doing returns what a run is doing, in words.
func (e *Engine) doing(ctx context.Context, runID string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	what := make(chan string, 1)
	within(ctx, func() {
		run, err := e.GetRun(ctx, runID)
		if err != nil {
			what <- "what it is doing cannot be read: " + err.Error()
			return
		}
		what <- e.describeProgress(ctx, run)
	})
	select {
	case text := <-what:
		return text
	default:
		return "the store does not say what it is doing"
	}
}

// describeProgress returns what a run is doing, and what helps if it needs help.
func (e *Engine) describeProgress(ctx context.Context, r *Run) string {
	doing := r.State.String()
	switch {
	case r.State.Final():
		return doing + " at this moment"
	case e.sched.pool.Phase() == sched.New:
		return doing + ": the engine was not started; call Start"
	case r.Reason != "":
		doing += ": " + text.Plain(r.Reason)
	case len(r.WaitsFor) > 0:
		doing += ": waits for " + strings.Join(r.WaitsFor, ", ")
	}
	for i := range r.Steps {
		switch s := &r.Steps[i]; s.State {
		case StateRunning:
			doing += fmt.Sprintf(": step %s (driver %s), attempt %d, since %s", s.ID, s.Driver, s.Attempt, s.StartedAt.Format(time.RFC3339))
		case StateRetrying:
			doing += "; the next attempt is due at " + s.Due.Format(time.RFC3339)
		case StateWaiting:
			doing += e.otherSignals(ctx, r.ID, s.Awaiting)
		case StateBlocked:
			doing += e.sched.drivers.didYouMean(s.Driver)
		}
	}
	return doing
}

// otherSignals returns the names of the signals that no step has taken, if a step waits for another one.
func (e *Engine) otherSignals(ctx context.Context, runID, awaited string) string {
	if awaited == "" {
		return ""
	}
	var names []string
	for name := range e.ledger.SignalNames(ctx, runID) {
		if name != awaited && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "; no step awaits what was sent: " + strings.Join(names, ", ")
}

// wait returns a channel that receives a value when the run ends, and a function that gives the wait up. If known is
// true, the run has not ended, and the channel is certain to receive a value.
func (s *scheduler) wait(run string) (ended <-chan *Run, known bool, giveUp func()) {
	// The waiter is added before the pool is asked, so that a run that the pool drops afterwards finds the waiter.
	w := s.waiters.add(run)
	return w, s.pool.Goes(run), func() { s.waiters.remove(run, w) }
}

// worksOn reports whether an attempt of a run is under way here. The callers of Wait are told then when the run ends here, and look again
// when the engine finds that the run is not its own any more (see dropForeign).
func (s *scheduler) worksOn(run string) bool {
	t := s.pool.Find(run)
	return t != nil && t.Owner.isAtWork()
}

// waiters are the callers that wait for the ends of runs.
type waiters struct {
	mu   sync.Mutex          // guards runs
	runs map[string]*waiting // by run id
}

// waiting are the callers that wait for the end of one run. A caller counts until it has the ended run, so that the run
// is not removed before.
type waiting struct {
	ended   []chan *Run // each receives the ended run, or nil if the caller must read it; size 1
	callers int
	then    func() // is called when the last caller has left; nil for nothing
}

func (w *waiters) add(run string) chan *Run {
	c := make(chan *Run, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runs == nil {
		w.runs = map[string]*waiting{}
	}
	of := w.runs[run]
	if of == nil {
		of = new(waiting)
		w.runs[run] = of
	}
	of.callers++
	of.ended = append(of.ended, c)
	return c
}

// remove removes a caller that add has added, after it got the ended run or has given up.
func (w *waiters) remove(run string, c chan *Run) {
	w.mu.Lock()
	of := w.runs[run]
	of.ended = slices.DeleteFunc(of.ended, func(other chan *Run) bool { return other == c })
	of.callers--
	var then func()
	if of.callers == 0 {
		then = of.then
		delete(w.runs, run)
	}
	w.mu.Unlock()
	if then != nil {
		then()
	}
}

func (w *waiters) take(run string) (all []chan *Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if of := w.runs[run]; of != nil {
		all, of.ended = of.ended, nil
	}
	return all
}

// has reports whether callers wait for the end of a run.
func (w *waiters) has(run string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	of := w.runs[run]
	return of != nil && len(of.ended) > 0
}

// all returns the runs for whose ends callers wait.
func (w *waiters) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.runs))
}

// delay reports whether callers wait for a run, or are about to read it because it has ended. If so, then is called when
// the last of them has left.
func (w *waiters) delay(run string, then func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	of := w.runs[run]
	if of != nil {
		of.then = then
	}
	return of != nil
}

// driverWait is a driver that is inside Wait or Logs, and the run whose end it waits for. The nil driverWait is that of any
// other caller.
type driverWait struct {
	sched   *scheduler
	by      *attempt
	run     string
	limited bool // the wait ends by itself at some time
	pause   time.Duration
}

// driverWaits are the drivers that wait for the ends of runs.
type driverWaits struct {
	mu       sync.Mutex // guards what follows
	all      map[*driverWait]struct{}
	survey   *survey // the newest; nil before the first
	surveyed time.Time
}

type survey = sched.Survey[record.Key, *runner]

// enterWait notes that the caller waits for the end of a run, if the caller is a driver of this engine. It returns an
// ErrConflict if the run cannot end before the call of the driver returns.
func (s *scheduler) enterWait(ctx context.Context, run string) (*driverWait, error) {
	a, _ := call.MakerOf(ctx).(*attempt)
	if a == nil || a.sched != s {
		return nil, nil
	}
	w := &driverWait{sched: s, by: a, run: run, pause: firstCheck}
	if at, ok := ctx.Deadline(); ok {
		own, has := a.Context().Deadline()
		w.limited = !has || at.Before(own)
	}
	s.driverWaits.mu.Lock()
	if s.driverWaits.all == nil {
		s.driverWaits.all = map[*driverWait]struct{}{}
	}
	s.driverWaits.all[w] = struct{}{}
	s.driverWaits.mu.Unlock()
	if err := w.check(); err != nil {
		w.leave()
		return nil, err
	}
	return w, nil
}

// leave notes that the caller waits no longer.
func (w *driverWait) leave() {
	if w == nil {
		return
	}
	w.sched.driverWaits.mu.Lock()
	defer w.sched.driverWaits.mu.Unlock()
	delete(w.sched.driverWaits.all, w)
}

// The pauses between the looks of a waiting driver at whether its wait can end.
const (
	firstCheck   = 100 * time.Millisecond
	longestCheck = 5 * time.Second
)

// again returns a channel that receives a value when the caller must call check again.
func (w *driverWait) again() <-chan time.Time {
	if w == nil {
		return nil
	}
	after := time.After(w.pause)
	w.pause = min(2*w.pause, longestCheck)
	return after
}

// check returns an ErrConflict if the run cannot end before the call of the driver returns. If so, the driver counts no longer
// as one that waits, so that of the drivers that wait in a circle no more are refused than needed.
func (w *driverWait) check() error {
	s := w.sched
	s.driverWaits.mu.Lock()
	defer s.driverWaits.mu.Unlock()
	why, stale := s.whyStuck(w, w.pause/2)
	if why != "" && stale {
		why, _ = s.whyStuck(w, 0)
	}
	if why == "" {
		return nil
	}
	delete(s.driverWaits.all, w)
	return fmt.Errorf("%w: run %s cannot end before this call of driver %q returns, so the call must not wait for it: %s",
		ErrConflict, w.run, w.by.driver.name, why)
}

// whyStuck returns why a run cannot end before the driver that waits for it returns, and an empty text if the run can end. The
// caller holds the lock of the waits. A survey of the pool that is not older than age will do; stale reports whether an earlier
// one was used.
//
// At first, all drivers that wait count as stuck, and all runs on which they depend. One after the other, those are taken out that
// can go on although the others do not. What is left when no more can be taken out waits in a circle.
func (s *scheduler) whyStuck(w *driverWait, age time.Duration) (why string, stale bool) {
	d := newDeadlock(s, age)
	switch t := s.pool.Find(w.run); {
	case t == nil:
		return "", false
	case t.Owner == w.by.runner:
		return "it is the run of the call itself", false
	case t.Owner.Key == w.by.runner.Key:
		return "it is a later run of the same resource", false
	}
	for d.changed = true; d.changed; {
		d.changed = false
		if why = d.whyRun(w.run); why == "" {
			return "", false
		}
		for other := range s.driverWaits.all {
			if d.isStuck(other.by) && other.by != w.by && (other.limited || d.whyRun(other.run) == "") {
				d.returns(other.by)
			}
		}
		for r, goesOn := range d.runs {
			if !goesOn && d.why(r) == "" {
				d.runs[r], d.changed = true, true
			}
		}
	}
	return why, d.stale
}

// deadlock is what is known while the drivers and runs are found that wait in a circle.
type deadlock struct {
	sched     *scheduler
	stuck     map[*attempt]bool // the value is whether the call has a worker; an abandoned call has none
	workers   int               // stuck calls that have a worker
	drivers   map[string]int    // stuck calls by the name of their driver
	resources map[record.Key][]*attempt
	runs      map[*runner]bool // the runs that have, or are before, what another run waits for; true if the run can go on
	changed   bool             // something can go on, or there is another run to look at
	age       time.Duration
	seen      *survey // nil until it is needed
	stale     bool    // seen was made for an earlier deadlock
}

func newDeadlock(s *scheduler, age time.Duration) *deadlock {
	d := &deadlock{
		sched: s, stuck: map[*attempt]bool{}, drivers: map[string]int{}, resources: map[record.Key][]*attempt{},
		runs: map[*runner]bool{}, age: age,
	}
	for w := range s.driverWaits.all {
		a := w.by
		if d.isStuck(a) {
			continue
		}
		d.stuck[a] = a.Running()
		d.count(a, 1)
		d.resources[a.runner.Key] = append(d.resources[a.runner.Key], a)
	}
	return d
}

// survey returns where the tasks of the pool stand.
func (d *deadlock) survey() *survey {
	of := &d.sched.driverWaits
	switch now := time.Now(); {
	case d.seen != nil:
	case of.survey != nil && now.Sub(of.surveyed) < d.age:
		d.seen, d.stale = of.survey, true
	default:
		d.seen = d.sched.pool.Survey()
		of.survey, of.surveyed = d.seen, now
	}
	return d.seen
}

// returns notes that a call can return.
func (d *deadlock) returns(a *attempt) {
	d.count(a, -1)
	delete(d.stuck, a)
	d.changed = true
}

// count counts a stuck call.
func (d *deadlock) count(a *attempt, by int) {
	d.drivers[a.driver.name] += by
	if d.stuck[a] {
		d.workers += by
	}
}

func (d *deadlock) isStuck(a *attempt) bool {
	_, stuck := d.stuck[a]
	return stuck
}

// goesOn reports whether a run can go on although the stuck calls do not return, as far as is known.
func (d *deadlock) goesOn(r *runner) bool {
	goesOn, known := d.runs[r]
	if !known {
		d.runs[r], d.changed = false, true
	}
	return goesOn
}

// whyRun returns what why returns, for the run with an ID.
func (d *deadlock) whyRun(id string) string {
	if t := d.sched.pool.Find(id); t != nil {
		return d.why(t.Owner)
	}
	return ""
}

// why returns why a run cannot end while the stuck calls do not return. It returns an empty text if the run can end, as far as
// is known.
func (d *deadlock) why(r *runner) string {
	inFlight := r.underWay()
	for _, a := range inFlight {
		if d.isStuck(a) {
			return fmt.Sprintf("its driver %q waits for a run that waits for this call", a.driver.name)
		}
	}
	if len(inFlight) > 0 {
		return ""
	}
	for _, a := range d.resources[r.Key] {
		if d.isStuck(a) {
			return "an earlier run of its resource waits for a run that waits for this call"
		}
	}
	return d.whyInLine(r)
}

// whyInLine returns why a run stays in line for a slot, a worker, a place in its pipeline, or the end of an earlier run: stuck calls
// and runs have all of them.
func (d *deadlock) whyInLine(r *runner) string {
	waits := d.sched.pool.WaitsFor(r.ID)
	for _, driver := range waits.Drivers {
		slots, stuck := d.survey().Slots[driver], d.drivers[driver]
		for _, other := range slots.Reserved {
			if !d.goesOn(other) {
				stuck++
			}
		}
		if n := slots.InUse + len(slots.Reserved); n > 0 && n <= stuck {
			return fmt.Sprintf("the slots of driver %q are taken by calls that wait for runs", driver)
		}
	}
	if waits.Room != "" {
		if in := d.survey().InRoom[waits.Room]; len(in) > 0 && !slices.ContainsFunc(in, d.goesOn) {
			return fmt.Sprintf("the places of pipeline %q are taken by runs that wait for runs", waits.Room)
		}
	}
	if waits.Worker && d.survey().Busy <= d.workers {
		return fmt.Sprintf("all %d workers are taken by calls that wait for runs", d.sched.opts.Workers)
	}
	if !waits.Begun {
		for _, other := range d.survey().WithKey[r.Key] {
			if other.ID < r.ID && !d.goesOn(other) {
				return "an earlier run of its resource cannot end: " + d.why(other)
			}
		}
	}
	return ""
}

// follow tells the callers that wait for the ends of runs of other engines.
type follow struct {
	mu      sync.Mutex // guards what follows
	callers int
	end     context.CancelFunc // ends the watch; nil if there is none
	linger  *time.Timer        // ends the watch some time after the last caller has left; nil until then
}

// followRuns has the callers of Wait told about the ends of runs of other engines, until the returned function is called. The watch goes
// on for a lease after the last of them, because a new one begins with reads.
func (f *fleet) followRuns() (leave func()) {
	if f == nil {
		return func() {}
	}
	w := &f.follow
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.callers++; w.callers == 1 && w.end == nil {
		ctx, cancel := context.WithCancel(f.ctx)
		if f.sched.background.Go(func() { f.watchRuns(ctx) }) {
			w.end = cancel
		} else {
			cancel()
		}
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch w.callers--; {
		case w.callers > 0 || w.end == nil:
		case w.linger == nil:
			w.linger = time.AfterFunc(f.sched.opts.Lease, w.leave)
		default:
			w.linger.Reset(f.sched.opts.Lease)
		}
	}
}

// leave ends the watch if nobody waits.
func (w *follow) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.callers == 0 && w.end != nil {
		w.end()
		w.end = nil
	}
}

// watchRuns wakes the callers that wait for the ends of runs, until ctx ends.
func (f *fleet) watchRuns(ctx context.Context) {
	f.hint(ctx, record.RunPrefix, 0, func(key string) (err error) {
		changed := []string{strings.TrimPrefix(key, record.RunPrefix)}
		if key == "" {
			changed = f.sched.waiters.all()
		}
		for _, id := range changed {
			err = errors.Join(err, f.runChanged(ctx, id))
		}
		return err
	})
}

// runChanged wakes who waits for the end of a run, if it has ended.
func (f *fleet) runChanged(ctx context.Context, id string) error {
	s := f.sched
	if !s.waiters.has(id) || s.worksOn(id) {
		return nil
	}
	rec, _, err := ledger.Load[record.Run](ctx, s.ledger, record.RunKey(id))
	switch {
	case err == nil && !rec.State.Final():
		return nil
	case err != nil && !ledger.Permanent(err):
		return err
	}
	for _, w := range s.waiters.take(id) {
		w <- nil // who waits reads the run, or gets the error
	}
	return nil
}
