package schedules_test

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/conveyor-go/conveyor"
)

// policyOf combines the retry policies that apply to a call.
func (x *explorer) policyOf(v *visit) conveyor.RetryPolicy {
	plan := v.run.plan
	var p conveyor.RetryPolicy
	for _, level := range []*conveyor.RetryPolicy{
		plan.all[v.step].Retry, plan.Retry, &x.driverSetup(v.driver).retry, &x.retry,
		{MaxAttempts: 3, Initial: conveyor.Duration(time.Second), Max: conveyor.Duration(time.Minute), Multiplier: 2, Jitter: 0.2},
	} {
		if level == nil {
			continue
		}
		if p.MaxAttempts == 0 {
			p.MaxAttempts = level.MaxAttempts
		}
		if p.Initial == 0 {
			p.Initial = level.Initial
		}
		if p.Max == 0 {
			p.Max = level.Max
		}
		if p.Multiplier == 0 {
			p.Multiplier = level.Multiplier
		}
		if p.Jitter == 0 {
			p.Jitter = level.Jitter
		}
	}
	return p
}

func (x *explorer) exhausted(v *visit) bool {
	most := x.policyOf(v).MaxAttempts
	return most > 0 && x.failures(v) >= most
}

// failures says how many attempts have failed in a row if this one has.
func (x *explorer) failures(v *visit) int { return v.attempt - v.run.steps[v.step].cleared }

// soonest is the shortest delay that counts.
const soonest = 10 * time.Millisecond

// delayBounds are the least and the most that may lie between the end of a failed call and its repetition.
func (x *explorer) delayBounds(v *visit) (least, most time.Duration) {
	if v.answer == answerRetryAfter && !v.late() {
		return max(v.delay, soonest), max(v.delay, soonest)
	}
	p := x.policyOf(v)
	delay := min(float64(p.Initial)*math.Pow(p.Multiplier, float64(x.failures(v)-1)), float64(p.Max))
	if delay == float64(p.Max) {
		x.see(sawMaxDelay)
	}
	if p.Jitter < 0 {
		x.see(sawNoJitter)
		return max(time.Duration(delay), soonest), max(time.Duration(delay), soonest)
	}
	x.see(sawJitter)
	return max(time.Duration(delay*(1-p.Jitter)), soonest), max(time.Duration(delay*(1+p.Jitter))+1, soonest)
}

// checkOutcome compares what is recorded of a call with what its driver answered.
func (x *explorer) checkOutcome(l *lifetime, r *runSeen, i int, now *stepRecord) {
	v := r.steps[i].last
	if v == nil || v.life != l || v.attempt != now.Attempt || v.settled {
		// The call was never made: its context had ended before, or the process.
		if now.State == conveyor.StateSucceeded || now.State == conveyor.StateSkipped || now.State == conveyor.StateWaiting {
			x.fault("run %s step %s is %s, and was not called", r.alias, r.plan.all[i].ID, now.State)
		}
		return
	}
	v.settled = true
	ended := v.ended
	late := v.late() || v.ended == 0
	where := outcomeOf{v, late}
	if late {
		ended = v.ctxOver + int64(patienceOfEngine)
		if l.closing && (v.ctxOver == 0 || x.now() < ended) {
			x.follow(v, now.State)
			return // when it is given up is the shutdown's to say
		}
		defer x.conclude(v)
		if v.ended == 0 && v.ctxOver == 0 {
			x.fault("%s: it is under way, and recorded as %s", where, now.State)
			return
		}
		if x.now() < ended {
			x.fault("%s: given up %s too early", where, time.Duration(ended-x.now()))
		}
	}
	answer := v.answer
	if late {
		answer = answerContext
	}
	if v.answer == answerAwait && now.State == conveyor.StateQueued {
		return // the signal was there, and no worker
	}
	if l.closing && errors.Is(v.cause, conveyor.ErrShutdown) && now.State == conveyor.StateQueued {
		x.follow(v, now.State) // it was given up at the instant at which it returned
		return
	}
	// Of an outcome and a stop that come together the outcome is first.
	if want := x.expectedState(r, v, answer, &r.was); now.State != want && now.State != x.expectedState(r, v, answer, &r.rec) {
		x.fault("%s, is recorded as %s, and should be %s", where, now.State, want)
		return
	}
	switch now.State {
	case conveyor.StateRetrying:
		least, most := x.delayBounds(v)
		if gap := time.Duration(now.Due - ended); gap < least || gap > most {
			x.fault("%s: it is due %s after its end, which is not between %s and %s", where, gap, least, most)
		}
	case conveyor.StateWaiting:
		due := ended + int64(max(v.delay, soonest))
		if v.answer == answerAwait && v.delay == 0 {
			due = 0
		}
		if now.Due != due || now.Await != v.wait {
			x.fault("%s: it is due %s after its end and awaits %q, and it asked for %s and %q", where, time.Duration(now.Due-ended), now.Await, v.delay, v.wait)
		}
	case conveyor.StateFailed:
		if r.plan.all[i].ContinueOnError {
			x.see(sawTolerated)
		}
		if x.exhausted(v) {
			x.see(sawExhausted)
		}
	default:
	}
}

// outcomeOf names the outcome of a call.
type outcomeOf struct {
	*visit
	tooLate bool
}

func (o outcomeOf) String() string {
	s := fmt.Sprintf("run %s step %s attempt %d, which answered %s", o.run.alias, o.run.plan.all[o.step].ID, o.attempt, answerNames[o.answer])
	if o.tooLate {
		s += " too late"
	}
	return s
}

// expectedState says what an answer makes of a step of a run.
func (x *explorer) expectedState(r *runSeen, v *visit, answer answerKind, rec *runRecord) conveyor.State {
	ownStop := rec.Stop // for the steps; a cleanup has its own
	if v.step >= len(r.plan.Steps) {
		ownStop = ""
		if rec.CutShort {
			ownStop = "cancel"
		}
	}
	timeUp := r.was.Deadline != 0 && x.now() >= r.was.Deadline
	switch {
	case answer == answerSuccess, answer == answerHalt:
		return conveyor.StateSucceeded
	case answer == answerSkip:
		return conveyor.StateSkipped
	case answer == answerRequeue, answer == answerAwait:
		return conveyor.StateWaiting
	case errors.Is(v.cause, conveyor.ErrShutdown), errors.Is(v.cause, conveyor.ErrSuperseded):
		return conveyor.StateQueued
	case ownStop == "cancel" || ownStop == "supersede":
		if r.steps[v.step].rec.State == conveyor.StateFailed && timeUp {
			return conveyor.StateFailed
		}
		return conveyor.StateCanceled
	case answer == answerPermanent, x.exhausted(v), ownStop != "", timeUp && r.steps[v.step].rec.State == conveyor.StateFailed:
		return conveyor.StateFailed
	default:
		return conveyor.StateRetrying
	}
}
