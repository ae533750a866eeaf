package conveyortest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
)

// Recorder records the calls of drivers. The zero value is ready to use. A Recorder is safe for concurrent use. An
// [Engine] has a Recorder of its own. Make a Recorder to record the drivers of another engine, on a store of your
// choice.
type Recorder struct {
	mu    sync.Mutex // guards calls; not held while a driver is called
	calls []Call
}

// Call is one call of a driver.
type Call struct {
	Driver     string
	Step       string // its id
	Resource   conveyor.Key
	Generation int64
	Spec       json.RawMessage
	Settings   json.RawMessage // the step's With
	Run        string
	Cause      conveyor.Cause
	Attempt    int
	Resumed    bool
	Finalize   bool   // a call of Finalize, not of Reconcile
	Key        string // the idempotency key
	// Result and Err are what the driver returned. A Result has no methods; compare it with another Result, such as
	// conveyor.DoneWith("/src"). If the driver panicked and so did not return, Err is an error that says so.
	Result conveyor.Result
	Err    error
	Began  time.Time
	Ended  time.Time // zero while the call is under way
}

// String returns the name of the driver, followed by what is special about the call: "tester" for a first attempt,
// "tester/2" for a second attempt, "tester finalize" for a call of Finalize, and "tester resumed" for a call that is
// repeated after a crash.
func (c Call) String() string {
	text := c.Driver
	if c.Attempt > 1 {
		text += fmt.Sprintf("/%d", c.Attempt)
	}
	if c.Finalize {
		text += " finalize"
	}
	if c.Resumed {
		text += " resumed"
	}
	return text
}

// Record returns a driver that passes each call on to d and records the call. The driver is a [conveyor.Finalizer] if d
// is one. If d is nil, Record returns nil.
func (r *Recorder) Record(d conveyor.Driver) conveyor.Driver {
	if d == nil {
		return nil // for Register to refuse
	}
	plain := recorded{recorder: r, driver: d}
	if f, ok := d.(conveyor.Finalizer); ok {
		return recordedFinalizer{plain, f}
	}
	return plain
}

// Calls returns a copy of the calls recorded so far, in the order in which the calls began.
func (r *Recorder) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

type reconcile = func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error)

type recorded struct {
	recorder *Recorder
	driver   conveyor.Driver
}

func (d recorded) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return d.recorder.record(ctx, req, false, d.driver.Reconcile)
}

type recordedFinalizer struct {
	recorded
	finalizer conveyor.Finalizer
}

func (d recordedFinalizer) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return d.recorder.record(ctx, req, true, d.finalizer.Finalize)
}

var errNotReturned = errors.New("conveyortest: the driver did not return: it panicked, or called runtime.Goexit")

func (r *Recorder) record(ctx context.Context, req *conveyor.Request, finalize bool, call reconcile) (result conveyor.Result, err error) {
	c := Call{
		Driver: req.Step.Driver, Step: req.Step.ID, Resource: req.Resource.Key(), Generation: req.Resource.Generation,
		Spec: bytes.Clone(req.Resource.Spec), Settings: bytes.Clone(req.Step.With), Run: req.Run, Cause: req.Cause,
		Attempt: req.Attempt, Resumed: req.Resumed, Finalize: finalize, Key: req.IdempotencyKey(), Began: time.Now(),
	}
	r.mu.Lock()
	n := len(r.calls)
	r.calls = append(r.calls, c)
	r.mu.Unlock()
	err = errNotReturned
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls[n].Result, r.calls[n].Err, r.calls[n].Ended = result, err, time.Now()
	}()
	return call(ctx, req)
}
