package rig

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
)

// Func is what a driver does at a call.
type Func = func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error)

// DriverOf returns a driver that calls fn.
func DriverOf(fn Func) conveyor.Driver { return conveyor.DriverFunc(fn) }

// Always answers every call alike.
func Always(result conveyor.Result, err error) Func {
	return func(context.Context, *conveyor.Request) (conveyor.Result, error) { return result, err }
}

// Taking takes some time and then is done. It returns early when its context ends.
func Taking(d time.Duration) Func {
	return func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
		select {
		case <-time.After(d):
			return conveyor.Done(), nil
		case <-ctx.Done():
			return conveyor.Result{}, context.Cause(ctx)
		}
	}
}

// Deaf takes its time whatever its context says.
func Deaf(d time.Duration, result conveyor.Result, err error) Func {
	return func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		time.Sleep(d)
		return result, err
	}
}

// Patience is how long the engine waits for a driver whose context has ended.
const Patience = 5 * time.Second

// DeepPanic panics when it has called itself n times.
func DeepPanic(n int) (conveyor.Result, error) {
	if n == 0 {
		panic("deep")
	}
	return DeepPanic(n - 1)
}

// InTurn gives the first answer to the first call, and the last one to all calls after it.
func InTurn(answers ...Func) Func {
	var mu sync.Mutex
	return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		mu.Lock()
		answer := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		mu.Unlock()
		return answer(ctx, req)
	}
}

// Approval awaits the signal "go" and is then done with its payload. It halts when the time is over.
func Approval(timeout time.Duration) Func {
	return func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var who string
		ok, err := req.Signal(&who)
		if err != nil {
			return conveyor.Halt("nobody answered"), nil
		}
		if !ok {
			return conveyor.Await("go", timeout), nil
		}
		return conveyor.DoneWith(who), nil
	}
}

// Awaiting awaits the signal "go" and is then done with its payload, or without one when the time is over.
func Awaiting(limit time.Duration) Func {
	return func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var payload string
		switch got, err := req.Signal(&payload); {
		case errors.Is(err, conveyor.ErrTimeout):
			return conveyor.DoneWith("it did not come"), nil
		case err != nil:
			return conveyor.Done(), conveyor.Permanent(err)
		case got:
			return conveyor.DoneWith(payload), nil
		}
		return conveyor.Await("go", limit), nil
	}
}

// ErrBoom is the error of drivers that fail.
var ErrBoom = errors.New("boom")

// Call is what a [Recorder] saw of one call.
type Call struct {
	Resource   string
	Generation int64
	Spec       string
	Run, Step  string
	Cause      conveyor.Cause
	Attempt    int
	Resumed    bool
	Key        string
	Began      time.Time
	Ended      time.Time // zero while under way
}

// Recorder is a driver that keeps what it was called with. The zero value is done at once.
type Recorder struct {
	Answer Func // nil for always done

	mu    sync.Mutex
	calls []Call
}

// Recording returns a recorder that answers like a Func.
func Recording(answer Func) *Recorder { return &Recorder{Answer: answer} }

// Reconcile implements [conveyor.Driver].
func (r *Recorder) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	r.mu.Lock()
	n := len(r.calls)
	r.calls = append(r.calls, Call{
		Resource: req.Resource.Name, Generation: req.Resource.Generation, Spec: string(req.Resource.Spec),
		Run: req.Run, Step: req.Step.ID, Cause: req.Cause, Attempt: req.Attempt, Resumed: req.Resumed,
		Key: req.IdempotencyKey(), Began: time.Now(),
	})
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls[n].Ended = time.Now()
	}()
	if r.Answer == nil {
		return conveyor.Done(), nil
	}
	return r.Answer(ctx, req)
}

// All returns the calls so far, in the order in which they began.
func (r *Recorder) All() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Call(nil), r.calls...)
}

// Last returns the call that began last.
func (r *Recorder) Last() Call {
	all := r.All()
	return all[len(all)-1]
}

// Steps lists the calls as "step" or "step/attempt" where that is not the first, with a "+" where it was resumed.
func (r *Recorder) Steps() (steps []string) {
	for _, c := range r.All() {
		s := c.Step
		if c.Attempt > 1 {
			s += fmt.Sprintf("/%d", c.Attempt)
		}
		if c.Resumed {
			s += "+"
		}
		steps = append(steps, s)
	}
	return steps
}

// Undoer is a driver that can be finalized.
type Undoer struct {
	*Recorder
	Undo *Recorder
}

// Undoing returns a driver that reconciles with one recorder and finalizes with the other.
func Undoing(do, undo *Recorder) Undoer { return Undoer{do, undo} }

// Finalize implements [conveyor.Finalizer].
func (u Undoer) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return u.Undo.Reconcile(ctx, req)
}

// Gauge counts the calls that are under way at once, and the most that were, by a name.
type Gauge struct {
	mu        sync.Mutex
	now, most map[string]int
}

// Around counts the calls of fn.
func (g *Gauge) Around(name func(*conveyor.Request) string, fn Func) Func {
	return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		n := name(req)
		g.add(n, 1)
		defer g.add(n, -1)
		return fn(ctx, req)
	}
}

func (g *Gauge) add(name string, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now == nil {
		g.now, g.most = map[string]int{}, map[string]int{}
	}
	g.now[name] += n
	g.most[name] = max(g.most[name], g.now[name])
}

// Peak returns how many calls of a name were under way at once at most.
func (g *Gauge) Peak(name string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most[name]
}

// ByResource names a call after its resource.
func ByResource(req *conveyor.Request) string { return req.Resource.Name }

// ByNothing gives all calls one name.
func ByNothing(*conveyor.Request) string { return "" }
