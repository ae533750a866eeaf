package conveyor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Target is what [Engine.Pause] holds. Exactly one of its fields is set.
type Target struct {
	All      bool   `json:"all,omitempty"`      // everything, also pipelines and drivers that come later
	Type     string `json:"type,omitempty"`     // the runs of all resources of this type, with a pipeline and without one
	Pipeline string `json:"pipeline,omitempty"` // the runs along this pipeline
	Driver   string `json:"driver,omitempty"`   // the steps of this driver, in all pipelines
	Resource Key    `json:"resource,omitzero"`  // the runs of this resource
}

// String returns the target in words: "everything", or the kind and the name.
func (t Target) String() string {
	switch {
	case t.All:
		return "everything"
	case t.Type != "":
		return "type " + text.Quote(t.Type)
	case t.Pipeline != "":
		return "pipeline " + text.Quote(t.Pipeline)
	case t.Driver != "":
		return "driver " + text.Quote(t.Driver)
	case t.Resource != Key{}:
		return "resource " + text.Quote(t.Resource.String())
	}
	return "nothing"
}

// validate returns an error unless exactly one field is set, with valid names.
func (t Target) validate() error {
	var f fault.Fields
	set := 0
	name := func(field, name string) {
		f.Name("target."+field, name)
		set++
	}
	if t.All {
		set++
	}
	if t.Type != "" {
		name("Type", t.Type)
	}
	if t.Pipeline != "" {
		name("Pipeline", t.Pipeline)
	}
	if t.Driver != "" {
		name("Driver", t.Driver)
	}
	if (t.Resource != Key{}) {
		f.Name("target.Resource.Type", t.Resource.Type)
		name("Resource.Name", t.Resource.Name)
	}
	if set != 1 {
		f.Add(fault.Invalidf("target", "has %d fields that are set; set one of All, Type, Pipeline, Driver and Resource", set))
	}
	return fieldErrors(f.List())
}

// held returns the target in the form that records use.
func (t Target) held() record.Held {
	return record.Held{All: t.All, Type: t.Type, Pipeline: t.Pipeline, Driver: t.Driver, Resource: record.Key(t.Resource)}
}

func fromHeld(h record.Held) Target {
	return Target{All: h.All, Type: h.Type, Pipeline: h.Pipeline, Driver: h.Driver, Resource: Key(h.Resource)}
}

// Pause is a pause that is in force.
type Pause struct {
	Target Target    `json:"target"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"` // the actor who paused; see [As]
	At     time.Time `json:"at"`
}

// Pause stops the line: no step of the target starts any more. When Pause returns nil, the pause is recorded, and no step that
// it holds can start in this engine, not even one that was being decided about at the same moment. A step has started when its
// start is recorded; its driver can be called a moment later. The pause stays, over restarts too, until [Engine.Resume] ends it.
// What the target names need not exist.
//
// What is applied meanwhile is accepted. A run that cannot begin is [StateBlocked] with a reason such as "paused by ada:
// freeze" as soon as a worker has looked at it, and takes up newer generations and definitions until it begins. A run that has begun ends the steps that have
// begun, their retries, requeues and waits included. Then it is blocked with the same reason. What is held needs no worker
// and no slot of a driver, and a run that has not begun needs no place within [PipelineSpec].MaxRuns.
//
// A pause holds the steps of a pipeline, the drivers that listen to a type, and a [Planner]. It does not hold Finally steps
// and deletions. Cancel, Delete, Signal and all other methods work on what is held. The Timeout of a pipeline goes on counting
// in a run that has begun.
//
// Pauses add up: what several of them hold goes on when the last of them has ended. A pause of a target that is paused
// already replaces the actor and the reason of the earlier one. The reason is for people, and stands in the log of the engine; it is
// cut to [Limits].ErrorText.
//
// Pause can be called before Start. It returns an [ErrInvalid] for an invalid target or actor, [ErrClosed] after Shutdown, or
// an error of the store. If ctx ends first, Pause returns the cause of ctx. The pause may then be recorded, and steps that
// were being decided about may still start. After a [store.ErrUnknown] the target is held in this engine, and the pause may
// be recorded.
func (e *Engine) Pause(ctx context.Context, t Target, reason string) error {
	by, err := e.mayChangePause(ctx, t)
	if err != nil {
		return err
	}
	p := &record.Pause{Reason: text.Truncate(reason, e.opts.Limits.ErrorText), By: by, At: record.TimeOf(clock.Now())}
	if err := e.pause(ctx, t, p); err != nil {
		return fmt.Errorf("pause %s: %w", t, err)
	}
	e.reportPause(t, by, p.Reason)
	return e.sched.settle(ctx)
}

// Resume ends the pause of a target. What the pause has held goes on, unless another pause holds it too. When Resume returns
// nil, the end of the pause is recorded.
//
// Resume returns [ErrNotFound] if this target is not paused, an [ErrInvalid] for an invalid target or actor, [ErrClosed] after
// Shutdown, the cause of ctx, or an error of the store. After an error, the target is held if the pause is on record.
func (e *Engine) Resume(ctx context.Context, t Target) error {
	by, err := e.mayChangePause(ctx, t)
	if err != nil {
		return err
	}
	if err := e.resume(ctx, t, by); err != nil {
		return fmt.Errorf("resume %s: %w", t, err)
	}
	return nil
}

// Pauses returns the pauses that are on record. If the store fails or ctx ends, the last element is the error of the store or
// the cause of ctx.
func (e *Engine) Pauses(ctx context.Context) iter.Seq2[Pause, error] {
	return func(yield func(Pause, error) bool) {
		for r, err := range e.ledger.Store.List(ctx, store.Query{Prefix: record.PausePrefix}) {
			var p Pause
			if err == nil {
				p, err = pauseOf(r)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// pauseOf returns the pause of a record.
func pauseOf(r store.Record) (Pause, error) {
	held, err := record.ParsePauseKey(r.Key)
	if err != nil {
		return Pause{}, err
	}
	var rec record.Pause
	if err := record.Decode(r, &rec); err != nil {
		return Pause{}, err
	}
	return Pause{Target: fromHeld(held), Reason: rec.Reason, By: rec.By, At: rec.At.Time()}, nil
}

// mayChangePause returns the actor of a call that changes the pause of a target, or why the call is refused.
func (e *Engine) mayChangePause(ctx context.Context, t Target) (by string, err error) {
	if err := e.sched.accepting(); err != nil {
		return "", err
	}
	if err := t.validate(); err != nil {
		return "", err
	}
	return actorOf(ctx)
}

// reportPause publishes and logs a change of a pause.
func (e *Engine) reportPause(t Target, by, reason string) {
	e.events.publish(Event{
		Time: clock.Now(), Kind: EventPause, Resource: t.eventKey(), Pipeline: t.Pipeline, Driver: t.Driver, By: by, Reason: reason,
	})
	e.sched.log.Info("something was paused or resumed", "target", t.String(), "by", by, "reason", reason)
}

// eventKey returns the resource of an event about the target. Of a type, it has the type alone.
func (t Target) eventKey() Key {
	if t.Type != "" {
		return Key{Type: t.Type}
	}
	return t.Resource
}

// pause holds a target and records it. The target is held before the pause is on record, so that no step starts after it is.
func (e *Engine) pause(ctx context.Context, t Target, p *record.Pause) error {
	pauses := &e.sched.pauses
	if err := pauses.lock(ctx); err != nil {
		return err
	}
	defer pauses.unlock()
	if err := e.checkFormat(ctx); err != nil {
		return err
	}
	held := t.held()
	pauses.set(held, p)
	key := record.PauseKey(held)
	for {
		r, err := e.ledger.Store.Get(ctx, key)
		if err == nil || errors.Is(err, store.ErrNotFound) {
			_, err = e.ledger.Commit(ctx, append(e.sched.fleet.ofPauses(), store.Put(key, record.Encode(p)).If(r.Revision)))
		}
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			e.followRecord(held)
		}
		return err
	}
}

// resume removes the record of a pause, and then holds its target no longer. The event comes in between, before those of what goes on.
func (e *Engine) resume(ctx context.Context, t Target, by string) error {
	pauses := &e.sched.pauses
	if err := pauses.lock(ctx); err != nil {
		return err
	}
	defer pauses.unlock()
	held := t.held()
	key := record.PauseKey(held)
	for {
		r, err := e.ledger.Store.Get(ctx, key)
		if err == nil {
			_, err = e.ledger.Commit(ctx, append(e.sched.fleet.ofPauses(), store.Delete(key).If(r.Revision)))
		}
		switch {
		case errors.Is(err, store.ErrConflict):
			continue
		case errors.Is(err, store.ErrNotFound) && !pauses.has(held):
			return fmt.Errorf("%w: it is not paused", ErrNotFound)
		case err == nil, errors.Is(err, store.ErrNotFound):
			e.reportPause(t, by, "resumed")
			pauses.set(held, nil)
			return nil
		}
		e.followRecord(held)
		return err
	}
}

// followRecord makes a target held if its pause is on record, after a call whose commit may or may not have happened. If the
// record cannot be read, what is held stays.
func (e *Engine) followRecord(held record.Held) {
	p, _, err := ledger.Load[record.Pause](e.sched.base, e.ledger, record.PauseKey(held))
	switch {
	case err == nil:
		e.sched.pauses.set(held, p)
	case errors.Is(err, store.ErrNotFound):
		e.sched.pauses.set(held, nil)
	}
}

// pauses are the pauses that are in force in this engine.
type pauses struct {
	pool *pool

	changing chan struct{}                                 // holds a value while a call changes a pause, so that the memory and the store change in one order
	mu       sync.Mutex                                    // guards the change of active
	active   atomic.Pointer[map[record.Held]*record.Pause] // never nil; a map is never changed
}

func (p *pauses) init(of *pool) {
	p.pool, p.changing = of, make(chan struct{}, 1)
	p.active.Store(new(map[record.Held]*record.Pause))
}

// lock waits until no other call changes a pause, or ctx ends.
func (p *pauses) lock(ctx context.Context) error {
	select {
	case p.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *pauses) unlock() { <-p.changing }

// set makes a pause hold a target, in the place of an earlier pause of the target; nil ends the pause. What an earlier pause
// has held gets its turn, and is held again if a pause holds it.
func (p *pauses) set(held record.Held, to *record.Pause) {
	p.mu.Lock()
	next := maps.Clone(*p.active.Load())
	if next == nil {
		next = map[record.Held]*record.Pause{}
	}
	before := next[held]
	if next[held] = to; to == nil {
		delete(next, held)
	}
	p.active.Store(&next)
	p.mu.Unlock()
	if before != nil && (to == nil || before.Text() != to.Text()) {
		p.pool.Unblock(record.PauseKey(held))
	}
}

// recheck gives what pauses of drivers hold its turn. It is called when a definition has changed or a driver listens: a run that
// has not begun may begin with another driver now.
func (p *pauses) recheck() {
	for held := range *p.active.Load() {
		if held.Driver != "" {
			p.pool.Recheck(record.PauseKey(held))
		}
	}
}

// has reports whether a pause holds exactly this target.
func (p *pauses) has(held record.Held) bool { return (*p.active.Load())[held] != nil }

// find returns a pause that holds a step with a driver, or the begin of a run if driver is empty. It returns nil if there is none.
func (p *pauses) find(of record.Key, pipeline, driver string) (record.Held, *record.Pause) {
	active := *p.active.Load()
	if len(active) == 0 {
		return record.Held{}, nil
	}
	for _, held := range []record.Held{{All: true}, {Type: of.Type}, {Pipeline: pipeline}, {Driver: driver}, {Resource: of}} {
		if pause := active[held]; pause != nil {
			return held, pause
		}
	}
	return record.Held{}, nil
}

// hold is [pauses.find] for a run that then gets its turn when the pause ends. It returns the name under which the pool knows
// the pause, why the run is held, and whether the pause has not held the run before.
func (p *pauses) hold(r *runner, pipeline, driver string) (name, why string, first bool) {
	for {
		held, pause := p.find(r.Key, pipeline, driver)
		if pause == nil {
			return "", "", false
		}
		name := record.PauseKey(held)
		first = p.pool.Block(&r.task, name) || first
		if (*p.active.Load())[held] == pause { // otherwise it has ended in between, and Unblock may not have found the run
			return name, pause.Text(), first
		}
	}
}

// text returns why the runs are held that the pool has blocked by a name. It reports whether the name is that of a pause.
func (p *pauses) text(name string) (why string, ok bool) {
	if !strings.HasPrefix(name, record.PausePrefix) {
		return "", false
	}
	held, err := record.ParsePauseKey(name)
	if pause := (*p.active.Load())[held]; err == nil && pause != nil {
		return pause.Text(), true
	}
	return "paused", true // it ends at this moment
}

// loadPauses reads the pauses that are on record. A record that is damaged holds its target: a step that should not have
// started cannot be taken back.
func (s *scheduler) loadPauses(ctx context.Context) error {
	if err := s.pauses.lock(ctx); err != nil {
		return err
	}
	defer s.pauses.unlock()
	gone := maps.Clone(*s.pauses.active.Load())
	var asOf store.Revision
	if s.fleet != nil {
		r, err := s.ledger.Store.Get(ctx, record.PausesKey) // before the pauses: they are at least as new
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		asOf = r.Revision
	}
	for r, err := range s.ledger.Store.List(ctx, store.Query{Prefix: record.PausePrefix}) {
		if err != nil {
			return err
		}
		held, err := record.ParsePauseKey(r.Key)
		if err != nil {
			s.log.Error("pause cannot be read; nothing is held by it", "error", err)
			continue
		}
		p := new(record.Pause)
		if err := record.Decode(r, p); err != nil {
			s.log.Error("pause cannot be read; it holds its target", "target", fromHeld(held).String(), "error", err)
			p = &record.Pause{Reason: "its record is damaged"}
		}
		delete(gone, held)
		s.pauses.set(held, p)
	}
	for held := range gone { // another engine has ended it
		s.pauses.set(held, nil)
	}
	if s.fleet != nil {
		s.fleet.pausesAsOf.Store(int64(asOf))
	}
	return nil
}

// settle waits until everything that was being decided about when it is called is on record. What is decided later is decided
// with the pauses that are in force now.
func (s *scheduler) settle(ctx context.Context) error {
	var deciding []<-chan error
	for _, r := range s.pool.Owners() {
		if handled := r.whenHandled(); handled != nil {
			deciding = append(deciding, handled)
		}
	}
	for _, handled := range deciding {
		select {
		case <-handled:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return ErrClosed
		}
	}
	return nil
}

// whenHandled returns a channel that receives a value when what is happening to the run now is on record. It returns nil if
// nothing is happening to the run.
func (r *runner) whenHandled() <-chan error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.busy {
		return nil
	}
	handled := make(chan error, 1)
	r.inbox = append(r.inbox, message{handled: handled})
	return handled
}

// reportHeld publishes and logs that a run cannot begin because of a pause.
func (s *scheduler) reportHeld(d *decision) {
	e := runEvent(d.runner.ID, d.t.Rec(), clock.Now())
	e.State, e.Reason = StateBlocked, d.t.Paused()
	s.events.publish(e)
	s.log.Warn("run is blocked", "run", d.runner.ID, "resource", d.runner.Key.String(), "pipeline", e.Pipeline, "reason", e.Reason)
}

// readPauses reads the pauses if their generation is not the one that is known, and reports whether it did.
func (f *fleet) readPauses() (changed bool, err error) {
	r, err := f.sched.ledger.Store.Get(f.sched.base, record.PausesKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	if int64(r.Revision) == f.pausesAsOf.Load() {
		return false, nil
	}
	return true, f.sched.loadPauses(f.sched.base)
}

// ofPauses returns the write that a change of a pause makes besides, so that no engine starts a step that does not know the change.
func (f *fleet) ofPauses() []store.Op {
	if f == nil {
		return nil
	}
	return []store.Op{store.Put(record.PausesKey, nil)}
}
