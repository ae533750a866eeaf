package conveyor

import (
	"context"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/text"
)

// Admission decides whether the host has capacity, for instance memory or CPU, for a call of a driver (see
// [Options].Admission).
type Admission interface {
	// Admit is called in a worker before each call of a driver, also for Finally steps and for finalizers. It is
	// called concurrently for different steps. It returns one of three results:
	//
	//	release, 0, nil    There is capacity: the driver is called. release can be nil. It is called once, when the
	//	                   driver has returned, however it returned, and even long after the call was abandoned.
	//	nil, d, nil        There is no capacity now: Admit is called again after d. Meanwhile the step is waiting: its
	//	                   due time is in the store, and it holds no goroutine, no worker and no slot of the driver. This
	//	                   uses no attempt.
	//	nil, 0, err        The attempt fails with err and is retried as after an error of the driver.
	//
	// A release that is returned together with d or err is called at once.
	//
	// Each refusal costs a commit of its own. Therefore d should be about as long as it takes until there is capacity
	// again.
	//
	// A call of Admit is part of the attempt: ctx ends with the time of the attempt, a panic fails the attempt, and a
	// call that does not return delays nobody else. The same is true for release, with two exceptions: a panic in
	// release is only logged, by the type of its value, and a call of runtime.Goexit in release has no effect. In
	// both cases the result of the driver counts.
	Admit(ctx context.Context, s StepInfo) (release func(), retryAfter time.Duration, err error)
}

// AdmissionFunc lets an ordinary function be used as an [Admission].
type AdmissionFunc func(ctx context.Context, s StepInfo) (release func(), retryAfter time.Duration, err error)

// Admit calls f.
func (f AdmissionFunc) Admit(ctx context.Context, s StepInfo) (release func(), retryAfter time.Duration, err error) {
	return f(ctx, s)
}

// StepInfo describes the step that is about to start.
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
	return by.Admit(a.Context(), StepInfo{
		Resource: Key(a.journey.Key), Pipeline: a.request.Resource.Pipeline, Run: a.journey.ID, Cause: a.request.Cause,
		Step: fromStep(*a.step), Attempt: a.number,
	})
}

// releaseRoom gives back what Admit has granted.
func (s *scheduler) releaseRoom(a *attempt, release func()) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("release of an admission panicked", "run", a.journey.ID, "step", a.step.ID, "panic", text.TypeOf(v))
		}
	}()
	release()
}
