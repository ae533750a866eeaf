package conveyor

import (
	"context"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/text"
)

// Admission asks the host for room, in memory or CPU say, before a driver is called (see [Options].Admission).
type Admission interface {
	// Admit is called in a worker before each call of a driver, for steps of Finally and finalizers too; concurrently for
	// different steps. It answers one of three things:
	//
	//	release, 0, nil    there is room: the driver is called. release, which may be nil, is called once when the driver
	//	                   has returned, however it ended, and even if that was long after it was given up.
	//	nil, d, nil        there is no room now: ask again after d. Meanwhile the step is waiting: that is a due time in the
	//	                   store, and no goroutine, no worker and no slot of the driver is held. It uses no attempt.
	//	nil, 0, err        the attempt fails with err, and is retried as after an error of the driver. A release beside it,
	//	                   or beside d, is called at once.
	//
	// To ask costs a commit of its own when the answer is no, so d should be as long as a change of that answer may take.
	// Admit counts as part of the attempt: ctx ends with the attempt's time, a panic fails it, and a call that does not
	// return holds up nobody else. The same goes for release, but that its panic is only logged, by its type, and its call
	// of runtime.Goexit changes nothing: what the driver has answered counts.
	Admit(ctx context.Context, s StepInfo) (release func(), retryAfter time.Duration, err error)
}

// AdmissionFunc makes an Admission of a function.
type AdmissionFunc func(ctx context.Context, s StepInfo) (release func(), retryAfter time.Duration, err error)

// Admit calls f.
func (f AdmissionFunc) Admit(ctx context.Context, s StepInfo) (release func(), retryAfter time.Duration, err error) {
	return f(ctx, s)
}

// StepInfo says which step is about to start.
type StepInfo struct {
	Resource Key
	Pipeline string // empty for a resource without one
	Run      string
	Cause    Cause
	Step     Step
	Attempt  int
}

// admit asks for room. Without an error, and without a time after which to ask again, the driver may be called.
func (a *attempt) admit(by Admission, limits Limits) (release func(), retryAfter time.Duration, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicked(v, limits)
		}
		if err != nil {
			err = fmt.Errorf("admission: %w", err)
		}
	}()
	return by.Admit(a.ctx, StepInfo{
		Resource: a.journey.key, Pipeline: a.request.Resource.Pipeline, Run: a.journey.id, Cause: a.request.Cause,
		Step: a.step.clone(), Attempt: a.number,
	})
}

// releaseRoom gives back what Admit has granted.
func (s *scheduler) releaseRoom(a *attempt, release func()) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("release of an admission panicked", "run", a.journey.id, "step", a.step.ID, "panic", text.TypeOf(v))
		}
	}()
	release()
}

// refuse has the step wait for room. It has not been called, so what was to be told to its driver stays.
func (s *stepRecord) refuse(o *outcome) {
	s.State, s.Again, s.Due = StateWaiting, true, toInstant(o.ended).after(o.result.delay)
	s.Reason = "waits for room on the host"
}
