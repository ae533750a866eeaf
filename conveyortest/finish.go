package conveyortest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
)

// Finish applies a resource, waits until its run has ended, and returns the run, whether it succeeded or not.
//
// Finish waits for everything that comes by itself, however long it takes: retries, requeues, drivers at work, and waits
// that have a timeout. In a bubble of testing/synctest they take no time. Finish fails the test if the resource cannot be
// applied or the run cannot be waited for, and with a message that says why if the run cannot end by itself:
//
//   - It is blocked, for example because the name of a driver is misspelt.
//   - A step awaits a signal without a timeout, in a pipeline without a timeout, and nothing is left to happen in the
//     engine that could send the signal. Call Apply, Signal and Wait instead of Finish. Finish believes this only when
//     nothing has happened for a second, so that a signal which was sent before, or is sent at this moment, is in time.
//   - It waits for another run, and that run cannot go on for one of these reasons.
//
// If the engine crashes before the run has ended, Finish returns nil; the resource may or may not have been recorded
// then.
func (e *Engine) Finish(r conveyor.Resource) *conveyor.Run {
	e.t.Helper()
	e.checkBubble()
	run, err := e.finish(r)
	if err != nil && !e.Crashed() {
		e.t.Fatalf("conveyortest: finish: %v", err)
	}
	return run
}

func (e *Engine) finish(r conveyor.Resource) (*conveyor.Run, error) {
	ctx, cancel := context.WithCancelCause(e.t.Context())
	events := e.Watch(ctx, conveyor.WatchOptions{})
	run, err := e.Apply(ctx, r)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	id := run.ID
	happened := make(chan struct{}, 1) // the first goroutine sends, the second receives; size 1: one event is as good as two
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() {
		for event, err := range events {
			if err != nil {
				return
			}
			if event.Run == id && event.State == conveyor.StateBlocked {
				cancel(fmt.Errorf("run %s of %s is blocked: %s", id, event.Resource, event.Reason))
				return
			}
			select {
			case happened <- struct{}{}:
			default:
			}
		}
	})
	watching.Go(func() { e.findStuck(ctx, id, happened, cancel) })
	run, err = e.Wait(ctx, id)
	if why := context.Cause(ctx); err != nil && why != nil {
		err = why // without what Wait says about the run, which is the same
	}
	return run, err
}

// quiet is for how long nothing must have happened before the runs are looked at. They are looked at twice before a test
// fails: what one look has read of two runs was not true of both at the same moment.
const quiet = 500 * time.Millisecond

// findStuck looks at the runs whenever nothing has happened for a while. When the run with an id cannot end by itself,
// findStuck calls stuck with an error that says why, and returns.
func (e *Engine) findStuck(ctx context.Context, id string, happened <-chan struct{}, stuck func(error)) {
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	looks := 0 // since something has happened
	for {
		select {
		case <-ctx.Done():
			return
		case <-happened:
			looks = 0
		case <-timer.C:
			why := e.whyStuck(ctx, id)
			if why == nil {
				looks = 0
				continue // until something happens
			}
			if looks++; looks == 2 {
				stuck(why)
				return
			}
		}
		timer.Reset(quiet)
	}
}

// whyStuck returns an error that says why the run with an id cannot end by itself. It returns nil if the run may end, or if
// any other run can go on: it may send a signal, or make room.
func (e *Engine) whyStuck(ctx context.Context, id string) error {
	var own *conveyor.Run
	var others []*conveyor.Run
	for run, err := range e.Runs(ctx, conveyor.RunFilter{Unfinished: true}) {
		switch {
		case err != nil || goesOn(run):
			return nil
		case run.ID == id:
			own = run
		default:
			others = append(others, run)
		}
	}
	if own == nil {
		return nil
	}
	if own.State == conveyor.StateQueued {
		return held(own, others)
	}
	return waits(own)
}

// held returns an error that says which runs hold up a queued run.
func held(run *conveyor.Run, others []*conveyor.Run) error {
	text := fmt.Sprintf("run %s of %s is queued, and what it waits for cannot go on:", run.ID, run.Resource)
	for _, other := range others {
		if other.State != conveyor.StateQueued && (other.Resource == run.Resource || other.Pipeline == run.Pipeline) {
			text += "\n" + describe(other)
		}
	}
	return errors.New(text)
}

// waits returns an error that says what a run that has begun waits for. It returns nil for a run that is between two
// states.
func waits(run *conveyor.Run) error {
	if run.State == conveyor.StateBlocked {
		return fmt.Errorf("run %s of %s is blocked: %s", run.ID, run.Resource, run.Reason)
	}
	for i := range run.Steps {
		if s := &run.Steps[i]; s.Awaiting != "" {
			return fmt.Errorf("run %s of %s: step %s (driver %s) awaits the signal %q, and nothing is left to happen that could send it; "+
				"call Apply, Signal and Wait instead of Finish", run.ID, run.Resource, s.ID, s.Driver, s.Awaiting)
		}
	}
	return nil
}

// goesOn reports whether something comes by itself that a run waits for: a time, the end of a call, or a worker or a slot,
// which others give back at the end of a call. Room in a pipeline is what other runs make.
func goesOn(run *conveyor.Run) bool {
	for _, what := range run.WaitsFor {
		if !strings.HasPrefix(what, "room in pipeline ") {
			return true
		}
	}
	for i := range run.Steps {
		s := &run.Steps[i]
		if s.State == conveyor.StateRunning || s.State == conveyor.StateQueued || !s.Due.IsZero() {
			return true
		}
	}
	return !run.Deadline.IsZero()
}
