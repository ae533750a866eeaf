package schedules_test

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// explorerDriver is a driver of the explorer. Those that finalize are explorerFinalizers.
type explorerDriver struct {
	x    *explorer
	life *lifetime
	name string
}

func (d *explorerDriver) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return d.x.work(ctx, d.life, d.name, req)
}

type explorerFinalizer struct{ explorerDriver }

func (d *explorerFinalizer) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	d.x.mu.Lock()
	d.x.see(sawFinalized)
	d.x.mu.Unlock()
	return d.x.work(ctx, d.life, d.name, req)
}

type answerKind int

const (
	answerSuccess answerKind = iota
	answerSkip
	answerHalt
	answerRequeue
	answerAwait
	answerError // and those after it
	answerRetryAfter
	answerPermanent
	answerPanic
	answerGoexit
	answerContext // what the context said
)

var answerNames = [...]string{"success", "skip", "halt", "requeue", "await", "error", "retry after", "permanent", "panic", "goexit", "context"}

func (a answerKind) failed() bool { return a >= answerError }

// work is a call of a driver: what it does follows from the seed, the run, the step and how often that was called.
func (x *explorer) work(ctx context.Context, l *lifetime, name string, req *conveyor.Request) (result conveyor.Result, err error) {
	v, d := x.called(ctx, l, name, req)
	if v == nil {
		return conveyor.Result{}, errors.New("the process is dead")
	}
	v.answer = answerGoexit
	stop := context.AfterFunc(ctx, func() { x.contextOver(v, context.Cause(ctx)) })
	defer func() {
		if stop(); ctx.Err() != nil {
			x.contextOver(v, context.Cause(ctx))
		}
		x.returned(v)
	}()
	if d.oneIn(12) {
		x.readsItself(l, req)
	}
	if answer := x.spendTime(ctx, v, &d); answer != nil {
		v.answer = answerContext
		return conveyor.Result{}, answer
	}
	return x.answers(v, &d)
}

// spendTime is the time that a call takes. It returns an error if the context ended meanwhile and the driver minds.
func (x *explorer) spendTime(ctx context.Context, v *visit, d *dice) error {
	length := pick(d, 0, d.upTo(time.Millisecond), d.upTo(50*time.Millisecond), d.upTo(time.Second), d.upTo(8*time.Second))
	if x.storm {
		length = pick(d, d.upTo(10*time.Millisecond), d.upTo(300*time.Millisecond))
	}
	minds := pick(d, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 10, 10, 5, 1) // of 20
	lag := time.Duration(0)                                                        // after the end of its context
	switch minds {
	case 10:
		lag = d.upTo(4 * time.Second) // it has something to put right
	case 5:
		length = d.between(6*time.Second, 20*time.Second) // it does not look at its context
	case 1:
		lag = 0
	}
	if x.isCalm() {
		length, minds, lag = d.upTo(20*time.Millisecond), 20, 0
	}
	over := ctx.Done()
	if minds == 5 {
		over = nil
	}
	if length > 0 || ctx.Err() != nil {
		timer := time.NewTimer(length)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-v.life.gone:
			return errors.New("the process is dead")
		case <-over:
		}
		if lag > 0 {
			select {
			case <-time.After(lag):
			case <-v.life.gone:
			}
		}
		if minds == 1 {
			return nil // it was as good as done
		}
		return context.Cause(ctx)
	}
	return nil
}

// answers chooses what a driver says. The longer a step goes on, the sooner it is done.
func (x *explorer) answers(v *visit, d *dice) (conveyor.Result, error) {
	x.mu.Lock()
	calm := x.calm || v.run.steps[v.step].calls > 8
	x.mu.Unlock()
	v.delay = pick(d, 0, d.upTo(time.Millisecond), d.upTo(time.Second), d.upTo(10*time.Second))
	switch n := d.n(100); {
	case calm || n < 50:
	case n < 56:
		v.answer = answerSkip
		return conveyor.Skip("not needed"), nil
	case n < 57:
		v.answer = answerHalt
		return conveyor.Halt("enough"), nil
	case n < 76:
		v.answer = answerError
		return conveyor.Result{}, rig.ErrBoom
	case n < 80:
		v.answer = answerRetryAfter
		return conveyor.Result{}, conveyor.RetryAfter(v.delay, rig.ErrBoom)
	case n < 82:
		v.answer = answerPermanent
		return conveyor.Result{}, conveyor.Permanent(rig.ErrBoom)
	case n < 90:
		v.answer = answerRequeue
		return conveyor.RequeueAfter(v.delay), nil
	case n < 96:
		v.answer, v.wait = answerAwait, "go"
		if d.oneIn(3) {
			v.delay = 0 // for ever
		}
		return conveyor.Await(v.wait, v.delay), nil
	case n < 98:
		v.answer = answerPanic
		panic("ouch")
	case n < 99:
		runtime.Goexit()
	}
	v.answer = answerSuccess
	if d.oneIn(2) {
		return conveyor.Done(), nil
	}
	x.mu.Lock()
	x.see(sawOutput)
	x.mu.Unlock()
	return conveyor.DoneWith(v.run.alias), nil
}

// readsItself has a driver read its own run: that it is called must be on record, and what it comes after too.
func (x *explorer) readsItself(l *lifetime, req *conveyor.Request) {
	run, err := l.engine.GetRun(context.Background(), req.Run)
	x.mu.Lock()
	defer x.mu.Unlock()
	if l.over {
		return
	}
	x.see(sawGetRun)
	if err != nil {
		x.fault("a driver cannot read its own run: %v", err)
		return
	}
	r := x.runs[req.Run]
	i := r.plan.position(req.Step.ID)
	if s := run.Steps[i]; s.State == conveyor.StateRunning && s.Attempt != req.Attempt || s.State == conveyor.StatePending {
		x.fault("run %s step %s attempt %d is called, and reads that attempt %d is %s", r.alias, req.Step.ID, req.Attempt, s.Attempt, s.State)
	}
	for _, b := range r.plan.before[i] {
		if s := run.Steps[b].State; !s.Final() {
			x.fault("rule 1: run %s step %s is called, and reads that step %s before it is %s", r.alias, req.Step.ID, r.plan.all[b].ID, s)
		}
	}
}
