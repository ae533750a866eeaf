package conveyor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Cancel ends a run. When it returns nil, the cancellation is recorded and survives a crash. The contexts of running
// attempts end with [ErrCanceled]. No other step of the run starts any more, except for its Finally steps. The
// Finally steps start when the running attempts have returned, or at once if there are none. When the Finally steps
// have ended, the run is canceled. The reason is for people.
//
// On a shared store, Cancel works on the run of any engine. The contexts of its attempts end when that engine has noticed.
//
// Cancel can be called again as long as the run has not ended. Until the Finally steps start, a second call changes
// nothing, and the reason of the first call counts. A call while Finally steps run ends these steps too.
// Cancel returns [ErrConflict] if the run has ended, [ErrNotFound] if there is no such run, and [ErrClosed] after
// Shutdown. If ctx ends first, Cancel returns the cause of ctx, and the run may or may not be canceled.
func (e *Engine) Cancel(ctx context.Context, runID, reason string) error {
	if err := e.sched.accepting(); err != nil {
		return err
	}
	actor, err := actorOf(ctx)
	if err != nil {
		return err
	}
	of, err := e.ledger.Run(ctx, runID)
	if err != nil {
		return err
	}
	if of.Rec.State.Final() {
		return fmt.Errorf("%w: run %s is %s", ErrConflict, runID, of.Rec.State)
	}
	cause := fmt.Errorf("%w: %s", ErrCanceled, text.Plain(text.Truncate(reason, e.opts.Limits.ErrorText)))
	if reason == "" {
		cause = ErrCanceled
	}
	stop := run.StopRequest{Kind: plan.StopCancel, Reason: reason, By: actor, Cause: cause}
	if e.sched.fleet != nil {
		return e.sched.fleet.requests().stopRun(ctx, of, stop)
	}
	return e.sched.stopRun(ctx, of, stop)
}

// Signal sends a signal to a run, for the step that awaits it (see [Await]). When Signal returns nil, the signal is
// recorded. It is kept until a step awaits it or the run ends. It is delivered to one step, once. Of several signals
// with the same name, the oldest is delivered first. The payload is encoded as JSON; nil is sent as null.
//
// Signal returns [ErrNotFound] if there is no such run, [ErrConflict] if the run has ended, and [ErrClosed] after
// Shutdown. It returns an [ErrInvalid] or [ErrTooLarge] if the name is invalid, if the payload cannot be encoded, or
// if its JSON is larger than [Limits].Output. It can return an error of the store. After a [store.ErrUnknown] the
// signal may be recorded, or even delivered. After any other error it is not recorded.
func (e *Engine) Signal(ctx context.Context, runID, name string, payload any) error {
	if err := e.sched.accepting(); err != nil {
		return err
	}
	if problem := text.NameFault(name); problem != "" {
		return invalid("signal", "%s", problem)
	}
	origin, err := e.origin(ctx)
	if err != nil {
		return err
	}
	data, err := document.Marshal(payload)
	if err != nil {
		return fmt.Errorf("%w: payload of type %T: %w", ErrInvalid, payload, foreign(err))
	}
	if len(data) > e.opts.Limits.Output {
		return tooLarge("payload", len(data), e.opts.Limits.Output, "bytes", "Limits.Output")
	}
	if err := fieldErrors(document.Check("payload", data, e.opts.Limits.document(), 0)); err != nil {
		return err
	}
	if text.NameFault(runID) != "" {
		return ledger.NoRun(runID)
	}
	if err := e.recordSignal(ctx, runID, name, &record.Signal{Payload: data, Origin: origin}); err != nil {
		return fmt.Errorf("run %s: signal %s: %w", text.Quote(runID), name, err)
	}
	return nil
}

// recordSignal records a signal for a run, and gives the run its turn.
func (e *Engine) recordSignal(ctx context.Context, runID, name string, signal *record.Signal) error {
	if err := e.checkFormat(ctx); err != nil { // an older program would take the record for the payload
		return err
	}
	if err := e.followIDs(ctx, record.SignalsOf(runID, name), record.SignalID); err != nil { // the oldest signal is delivered first
		return err
	}
	put := store.Put(record.SignalKey(runID, name, e.ids.Next(clock.Now())), record.Encode(signal)).IfAbsent()
	for {
		rec, rev, err := ledger.Load[record.Run](ctx, e.ledger, record.RunKey(runID))
		switch {
		case errors.Is(err, store.ErrNotFound):
			return ErrNotFound
		case err != nil:
			return err
		case rec.State.Final():
			return fmt.Errorf("%w: the run is %s", ErrConflict, rec.State)
		}
		if err := record.Rewritable(rec.Needs); err != nil {
			return err
		}
		ops := []store.Op{put, store.Check(record.RunKey(runID), rev)}
		if e.sched.fleet != nil {
			ops = run.Send(runID, *rec, rev, put)
		}
		_, err = e.ledger.Commit(ctx, ops)
		switch {
		case errors.Is(err, store.ErrConflict):
			continue // the run started or ended in the meantime
		case errors.Is(err, ledger.ErrNotCommitted):
			// The signal was not found in the store. But a step may have taken the signal before the store was read.
			return fmt.Errorf("%w: %w", store.ErrUnknown, ledger.TextOnly(err))
		case err != nil:
			return err
		}
		if e.sched.fleet != nil {
			e.sched.fleet.look() // the owner finds what is asked of the run
		} else {
			r := e.sched.take(runID, rec.Key(), record.Lane(rec.Pipeline, rec.Key()))
			r.noteLeftovers()
			e.sched.enqueue(r)
		}
		e.logUnawaited(ctx, runID, name)
		// If the run has ended in the meantime, it may have ended without noticing the signal.
		if rec, _, err := ledger.Load[record.Run](ctx, e.ledger, record.RunKey(runID)); err == nil && rec.State.Final() {
			_ = e.ledger.RemoveAll(ctx, ledger.Leftovers(runID)...) // if this fails, Retention removes the signal
		}
		return nil
	}
}

// logUnawaited says in the log that a signal was sent to a run that waits for other signals, and not for this one. It may be
// misspelt.
func (e *Engine) logUnawaited(ctx context.Context, runID, name string) {
	if e.sched.log.Silent() {
		return
	}
	of, err := e.ledger.Run(ctx, runID)
	if err != nil {
		return
	}
	awaited := of.Awaited()
	if len(awaited) > 0 && !slices.Contains(awaited, name) {
		e.sched.log.Warn("signal is kept, and the run awaits another one", "run", runID, "resource", of.Rec.Key().String(), "signal", name,
			"awaited", strings.Join(awaited, ", "))
	}
}

// requests are what callers ask of the runs of a shared store, whoever owns them. A request is a commit that changes the record of
// the run, and nothing else: its owner takes it over when it reads the record again.
type requests struct{ *fleet }

func (f *fleet) requests() requests { return requests{f} }

// changed has the loop look at what somebody asks of a run of this engine. The end of a run removes the entry too: there is no hurry if
// the engine does not know the run.
func (q requests) changed(key string) {
	p := q.seat.Load()
	if p == nil {
		return // it looks when it has one
	}
	run, own := strings.CutPrefix(key, record.AskKey(p.ID, ""))
	switch {
	case key == "" || own && q.sched.pool.Find(run) != nil:
		q.look()
	case own:
		nudge(q.later)
	}
}

// answerAsked has the runs of this engine looked at of which somebody asks something.
func (q requests) answerAsked(p *seat) error {
	s := q.sched
	prefix := record.AskKey(p.ID, "")
	for r, err := range s.ledger.Store.List(q.ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return err
		}
		id := r.Key[len(prefix):]
		handled := make(chan error, 1)
		t := s.pool.Find(id)
		if t == nil {
			if err := q.fleet.heir().takeUp(p, []string{id}, false); err != nil {
				return err
			}
			t = s.pool.Find(id)
		}
		if t != nil {
			t.Owner.noteLeftovers()
			if !s.background.Go(func() { s.drive(t.Owner, message{refresh: true, handled: handled}, false) }) {
				return nil
			}
			select {
			case err := <-handled:
				if err != nil && !errors.Is(err, errForeign) && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrUnsupported) && !ledger.Permanent(err) {
					return err // a run that cannot go on, because of a damaged record, is in the log
				}
			case <-q.ctx.Done():
				return q.ctx.Err()
			}
		}
		// What was asked is in the record of the run, which was read after the entry.
		if _, err := s.ledger.Commit(q.ctx, []store.Op{store.Delete(r.Key).If(r.Revision)}); err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return nil
}

// reread reads a run again, after a conflict or because somebody asks something of it. What is asked takes effect on the attempts
// under way. It returns errForeign if the run is not this engine's, and errEnded if it has ended.
func (q requests) reread(r *runner) error {
	s, held := q.sched, r.held.Run
	if held == nil {
		return nil
	}
	r.held.Head, r.held.Rev = nil, 0
	rec, rev, err := ledger.Load[record.Run](s.base, s.ledger, record.RunKey(r.ID))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return errEnded
	case err != nil:
		return err
	case rec.State.Final():
		return errEnded
	case !q.owns(rec) || rec.Claims != held.Rec.Claims:
		return errForeign
	}
	before := held.Rec
	if rec.Turn != before.Turn { // a commit has happened of which this engine thought that it had not
		err = q.reload(r)
	} else {
		held.Rec, held.Rev = *rec, rev
	}
	if err != nil {
		return err
	}
	if cause := askedStop(&before, rec); cause != nil {
		for _, a := range r.underWay() {
			a.End(cause)
		}
	}
	return nil
}

// askedStop returns the cause with which the attempts of a run must end, because somebody has asked that the run end. It returns nil
// if nobody has.
func askedStop(before, now *record.Run) error {
	if now.Stop == before.Stop && now.CutShort == before.CutShort {
		return nil
	}
	cause := ErrCanceled
	if now.Stop == plan.StopSupersede && !now.CutShort {
		cause = ErrSuperseded
	}
	if now.StopReason == "" {
		return cause
	}
	return fmt.Errorf("%w: %s", cause, text.Plain(now.StopReason))
}

// settled finds out whether a commit has happened whose outcome was unknown, and that another write of the record of the run makes
// look like a conflict: anybody can write a request into that record, but only the owner raises the turn. It returns the run as it is
// on record now. It returns errMoved if the commit has made the run, and the run has gone on without this engine, and an error that wraps
// [store.ErrUnknown] if a record cannot be read.
func (q requests) settled(d *decision, conflict error) (*record.RunState, error) {
	if !ledger.IsOverwritten(conflict) {
		return nil, conflict // nothing was written
	}
	t, r := d.t, d.runner
	rec, _, err := ledger.Load[record.Run](q.sched.base, q.sched.ledger, record.RunKey(r.ID))
	switch {
	case errors.Is(err, store.ErrNotFound) && d.creates:
		return nil, errMoved // it has ended, and was removed
	case errors.Is(err, store.ErrNotFound):
		return nil, conflict
	case err != nil:
		return nil, unsettled(err)
	case rec.Turn != t.Rec().Turn || rec.Owner != t.Rec().Owner || rec.Claims != t.Rec().Claims:
		if d.creates {
			return nil, errMoved // no other commit makes a run with this id
		}
		return nil, conflict
	case !d.creates && t.Rec().Turn == r.held.Run.Rec.Turn:
		return nil, conflict
	}
	now, err := q.sched.ledger.Run(q.sched.base, r.ID)
	switch {
	case errors.Is(err, ErrNotFound) && d.creates:
		return nil, errMoved
	case errors.Is(err, ErrNotFound):
		return nil, conflict
	case err != nil:
		return nil, unsettled(err)
	}
	return now, nil
}

// unsettled returns the error for a commit of which nobody knows whether it has happened, because a record could not be read.
func unsettled(read error) error {
	if ledger.Permanent(read) {
		return fmt.Errorf("%w (reading back: %w)", store.ErrUnknown, read)
	}
	return fmt.Errorf("%w: %w", store.ErrUnknown, ledger.TextOnly(read))
}

// errMoved means that a run was made, and that this engine no longer knows what has become of it.
var errMoved = errors.New("conveyor: the run has gone on")

// strayReturned takes off the record that this engine has a call for a resource which it has given up, if it has none any more.
func (q requests) strayReturned(k record.Key) {
	if q.fleet == nil || q.sched.pool.IsAway(k) {
		return
	}
	s := q.sched
	s.background.Go(func() {
		s.upkeep.retryStore("note the return of a call that was given up", func() error {
			for {
				head, rev, err := s.ledger.Resource(q.ctx, k)
				if err != nil || head == nil || head.Stray == "" || head.Stray != q.member().ID || s.pool.IsAway(k) || record.Rewritable(head.Needs) != nil {
					return err // the mark is void when this engine leaves
				}
				next := *head
				next.Stray = ""
				if _, err = s.ledger.Commit(q.ctx, []store.Op{store.Put(record.ResourceKey(k), record.Encode(&next)).If(rev)}); !errors.Is(err, store.ErrConflict) {
					return err
				}
			}
		})
	})
}

// commitOwned commits writes of an attempt, such as a checkpoint, under the condition that the run is still this engine's. Requests of
// others change the record of the run meanwhile, and are no reason to refuse.
func (q requests) commitOwned(ctx context.Context, a *attempt, ops []store.Op) (store.Revision, error) {
	l := a.sched.ledger
	if q.fleet == nil {
		return l.Commit(ctx, ops)
	}
	for {
		rec, rev, err := ledger.Load[record.Run](ctx, l, record.RunKey(a.runner.ID))
		if err != nil {
			return 0, err
		}
		switch {
		case rec.State.Final():
			return 0, store.ErrConflict
		case !q.owns(rec) || rec.Claims != a.request.token:
			return 0, ErrLeaseLost
		}
		committed, err := l.Commit(ctx, append(slices.Clip(ops), store.Check(record.RunKey(a.runner.ID), rev)))
		if !errors.Is(err, store.ErrConflict) {
			return committed, err
		}
		if _, now, err := ledger.Load[record.Run](ctx, l, record.RunKey(a.runner.ID)); err != nil || now == rev {
			return 0, store.ErrConflict // it is the record of the step that has changed
		}
	}
}

// dropForeign gives up a run that is not this engine's. Its attempts end, and what they return is discarded. Who waits for the end of
// the run goes on waiting, unless the run has ended elsewhere.
func (s *scheduler) dropForeign(r *runner) {
	for _, a := range r.underWay() {
		a.disown()
	}
	r.mu.Lock()
	r.gone = true
	r.mu.Unlock()
	s.pool.Remove(&r.task, 0)
	if log := r.openLog(); log != nil {
		s.flusher.forget(log)
	}
	r.unload()
	s.followers.Wake(r.ID)
	if s.waiters.has(r.ID) {
		s.background.Go(func() {
			s.upkeep.retryStore("look whether run "+r.ID+" has ended", func() error { return s.fleet.runChanged(s.fleet.ctx, r.ID) })
		})
	}
}

// preemption returns the writes by which the active run of a resource is asked to end for the sake of the run that waits behind it.
// They belong to the commit that makes the other run wait, so that a death in between loses nothing.
func (q requests) preemption(ctx context.Context, next *record.Resource) ([]store.Op, error) {
	by := run.Preempt(next)
	if by == nil {
		return nil, nil
	}
	active, err := q.sched.ledger.Run(ctx, by.Run)
	if err == nil {
		err = record.Rewritable(active.Rec.Needs)
	}
	if err != nil {
		return nil, err
	}
	return run.Ask(active, &by.Stop, q.sched.limits), nil
}

// stopRun asks a run to end that is whoever's. It returns when the request is recorded.
func (q requests) stopRun(ctx context.Context, of *record.RunState, stop run.StopRequest) error {
	doubt := false // a commit may have happened
	for {
		if err := record.Rewritable(of.Rec.Needs); err != nil {
			return fmt.Errorf("run %s: %w", of.ID, err)
		}
		switch {
		case doubt && asksFor(&of.Rec, &stop, q.sched.limits):
			return nil
		case of.Rec.State.Final():
			return fmt.Errorf("%w: run %s is %s", ErrConflict, of.ID, of.Rec.State)
		}
		var err error
		if of.Rec.Owner == "" && of.Rec.State == plan.Queued { // it ends at once
			err = q.sched.stopRun(ctx, of, stop)
			doubt = doubt || errors.Is(err, errForeign)
		} else if ops := run.Ask(of, &stop, q.sched.limits); len(ops) > 0 {
			_, err = q.sched.ledger.Store.Commit(ctx, ops...)
			doubt = doubt || errors.Is(err, store.ErrUnknown)
			q.look()
		}
		if !errors.Is(err, errForeign) && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrUnknown) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if of, err = q.sched.ledger.Run(ctx, of.ID); err != nil {
			return err
		}
	}
}

// asksFor reports whether a request is in the record of a run.
func asksFor(rec *record.Run, stop *run.StopRequest, limits run.Limits) bool {
	return rec.Stop == stop.Kind && rec.StopBy == stop.By && rec.StopReason == text.Truncate(stop.Reason, limits.ErrorText) || rec.CutShort && rec.StopBy == stop.By
}

// lane returns the lane in which a new run of a resource waits, and nothing if the store is not shared.
func (q requests) lane(next *record.Resource, k record.Key) string {
	if q.fleet == nil {
		return ""
	}
	return record.Lane(next.Pipeline, k)
}

// takeUpChange adds to a submission what its commit must write besides, because the run that is pending takes the change up: its
// entry is moved if its lane changes, and the active run is asked to end if the change supersedes it.
func (q requests) takeUpChange(ctx context.Context, k record.Key, want *submission) error {
	if want.next.Pending == "" {
		return nil
	}
	if want.cause == record.Updated {
		want.next.Lane = record.Lane(want.next.Pipeline, k)
	}
	want.extra = append(want.extra, run.MoveEntry(want.before, want.next)...)
	asked, err := q.preemption(ctx, want.next)
	want.extra = append(want.extra, asked...)
	return err
}

// conflict finds out what a conflict means: somebody has asked something of the run, the resource or a pause has changed, or the run is
// not this engine's any more. A run without an owner that this engine wanted is left to whoever has changed it. If nothing explains
// the conflict, the records of the run are read again, and explained is false.
func (q requests) conflict(r *runner) (explained bool, err error) {
	s, held := q.sched, r.held.Run
	if held == nil {
		return true, nil
	}
	if changed, err := q.readPauses(); changed || err != nil {
		return changed, err
	}
	if !q.owns(&held.Rec) {
		q.leaveRun()
		return false, errForeign
	}
	before, head := held.Rev, r.held.Rev
	if err := q.reread(r); err != nil || r.held.Run == nil || r.held.Run.Rev != before {
		return err == nil, err
	}
	if head != 0 { // the decision has read it
		if _, rev, err := s.ledger.Resource(s.base, r.Key); err != nil || rev != head {
			return err == nil, err
		}
	}
	// What is left is the mark of this engine, which the member finds at its next renewal, and a commit whose outcome was unknown
	// and that has happened late.
	p := q.seat.Load()
	if p == nil {
		return false, errForeign
	}
	p.Wake()
	switch live, err := q.heir().isLive(p.ID); {
	case err != nil:
		return false, err
	case !live:
		return false, errForeign
	}
	return false, q.reload(r)
}

// reload reads the records of a run again, after a commit has happened of which this engine thought that it had not. A step that is
// at work on record, and that nobody calls, was started by that commit: it is called again, like after a crash.
func (q requests) reload(r *runner) error {
	underWay := r.underWay()
	if len(underWay) == 0 {
		r.unload()
		return nil
	}
	now, err := q.sched.ledger.Run(q.sched.base, r.ID)
	if err != nil {
		return err
	}
	for i := range now.Steps {
		step := &now.Steps[i]
		if step.Rec.State == plan.Running && !slices.ContainsFunc(underWay, func(a *attempt) bool { return a.index == i && a.rev == step.Rev }) {
			step.Rec.Interrupt()
		}
	}
	r.hold(now)
	return nil
}
