package conveyor

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"unicode"

	"github.com/conveyor-go/conveyor/internal/call"
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/text"
)

// actorKey is the key of the actor of a context.
type actorKey struct{}

// As returns a context that names the actor of the calls that get it: the person, the service or the job on whose behalf
// the program calls the engine. The actor is on record with what the call has done: with the run ([Run].By), the cancel
// ([Run].StoppedBy), the signal ([Wait].By), the generation ([Meta].UpdatedBy) and the pause ([Pause].By). It is in the
// events of that run ([Event].By) and in the requests to its drivers ([Request].By). A pipeline that is saved or deleted
// shows its actor in the event only.
//
// An actor has at most 253 bytes of UTF-8 without control characters, and is not "conveyor", which is the actor of what the
// engine does by itself: a resync, and the run of a resource to whose type a driver begins to listen. A call with any other
// actor returns an [ErrInvalid] or [ErrTooLarge], and does nothing. An empty actor names nobody, as if As had not been
// called. The engine does not check that an actor is who it says.
//
// The context that a driver gets names no actor: what a driver does with the engine is done by nobody, unless the driver
// calls As. [Request].By tells it for whom it works.
func As(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// engineActor is the actor of what the engine does by itself.
const engineActor = "conveyor"

// byEngine is the origin of the runs that the engine makes by itself.
var byEngine = record.Origin{By: engineActor}

// actorOf returns the actor of a context, or the fault of a name that no actor can have.
func actorOf(ctx context.Context) (string, error) {
	actor, _ := ctx.Value(actorKey{}).(string)
	var f fault.Fields
	switch f.Text("actor", actor); {
	case len(actor) > text.MaxName:
		f.Add(fault.Larger("actor", len(actor), text.MaxName, "bytes", text.FixedLimit))
	case strings.ContainsFunc(actor, unicode.IsControl):
		f.Add(fault.Invalidf("actor", "%s has a control character", text.Quote(actor)))
	case actor == engineActor:
		f.Add(fault.Invalidf("actor", "%q is the engine itself; choose another name", actor))
	}
	return actor, fieldErrors(f.List())
}

// origin returns who makes a call of the engine with this context, and what [Options].Carry gives it to carry.
func (e *Engine) origin(ctx context.Context) (o record.Origin, err error) {
	if o.By, err = actorOf(ctx); err != nil || e.opts.Carry == nil {
		return o, err
	}
	o.Carried = maps.Clone(e.opts.Carry(ctx))
	var f fault.Fields
	f.Labels("Carry", o.Carried)
	if err := fieldErrors(f.List()); err != nil {
		return o, err
	}
	if len(o.Carried) == 0 {
		o.Carried = nil
	} else if size, limit := len(record.Encode(o.Carried)), e.opts.Limits.Carried; size > limit {
		return o, tooLarge("Carry", size, limit, "bytes as JSON", "Limits.Carried")
	}
	return o, nil
}

// CallKind is the kind of a call of user code for a step.
type CallKind uint8

const (
	CallReconcile CallKind = iota + 1 // of [Driver.Reconcile]
	CallFinalize                      // of the Finalize of a [Finalizer], for the deletion of the resource
	CallPlan                          // of the Plan of a [Planner]
)

var callKindNames = document.Enum[CallKind]{What: "kind of call", Names: []string{"", "reconcile", "finalize", "plan"}}

// String returns the name that documents use, and "unset" for the zero value.
func (k CallKind) String() string { return callKindNames.Text(k) }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (k CallKind) MarshalText() ([]byte, error) { return callKindNames.Marshal(k) }

// UnmarshalText accepts exactly what MarshalText returns.
func (k *CallKind) UnmarshalText(b []byte) error { return callKindNames.Unmarshal(b, k) }

// Call is one call of user code for a step: of Reconcile, Finalize or Plan, as [Request].Kind says. See [Options].Wrap.
type Call func(ctx context.Context, req *Request) (Result, error)

// plannedSteps is the output of the Result of a Plan.
type plannedSteps struct{ steps []Step }

// wrap returns the call of user code with the middleware around it, the first one outermost. It returns nil if there is no
// middleware.
func wrap(middleware []func(next Call) Call, f *fault.Fields) Call {
	var whole Call
	for i := len(middleware) - 1; i >= 0; i-- {
		field := "Wrap[" + strconv.Itoa(i) + "]"
		if middleware[i] == nil {
			f.Add(fault.Invalidf(field, "is nil"))
			continue
		}
		if whole == nil {
			whole = callDriver
		}
		if whole = middleware[i](whole); whole == nil {
			f.Add(fault.Invalidf(field, "returned nil"))
			return nil
		}
	}
	return whole
}

// The states of the next of an attempt.
const (
	nextReady int32 = iota
	nextCalled
	nextOver // the outermost middleware has returned
)

// callDriver is what the innermost middleware gets as next. It calls the driver of the attempt that the request is for. A
// panic of the driver becomes its error, so that each middleware sees it as one.
func callDriver(ctx context.Context, req *Request) (r Result, err error) {
	a, err := nextOf(ctx, req)
	if err != nil {
		return Result{}, Permanent(err)
	}
	defer close(a.nextReturned)
	defer func() {
		if v := recover(); v != nil {
			err = panicked(v, a.sched.opts.Limits)
		}
	}()
	return a.callUser(ctx, req)
}

// nextOf returns the attempt whose driver a middleware is about to call. The attempt returns it only once.
func nextOf(ctx context.Context, req *Request) (*attempt, error) {
	if ctx == nil || req == nil || req.attempt == nil {
		return nil, invalid("next", "was called without the context or the request that the middleware was given")
	}
	a := req.attempt
	if made, _ := call.MakerOf(ctx).(*attempt); made != a {
		return nil, invalid("next", "was called with a context that is not derived from the one that the middleware was given")
	}
	if a.next.CompareAndSwap(nextReady, nextCalled) {
		return a, nil
	}
	if a.next.Load() == nextOver {
		return nil, invalid("next", "was called after the middleware had returned")
	}
	return nil, invalid("next", "was called a second time; it can be called once in a call")
}

// callUser calls the method of the driver.
func (a *attempt) callUser(ctx context.Context, req *Request) (Result, error) {
	if a.kind == CallFinalize {
		return a.driver.impl.(Finalizer).Finalize(ctx, req)
	}
	r, err := a.driver.impl.Reconcile(ctx, req)
	if err == nil && a.kind == CallPlan {
		a.planned, _ = r.output.(*plannedSteps)
	}
	return r, err
}

// callWrapped calls the driver with the middleware around it.
func (a *attempt) callWrapped(whole Call) (r Result, err error) {
	a.nextReturned = make(chan struct{})
	early := false
	func() {
		defer func() { early = a.endNext() }() // also if the middleware panics or ends its goroutine
		r, err = whole(a.Context(), &a.request)
	}()
	if early {
		err = Permanent(invalid("next", "had not returned when the middleware returned"))
	}
	if err == nil && (a.kind == CallPlan || r.kind == run.Planned) {
		if by, _ := r.output.(*plannedSteps); by == nil || by != a.planned {
			err = Permanent(invalid("result", "the Result of a Plan must be returned as it came, and by the middleware of its own call"))
		}
	}
	return r, err
}

// endNext takes next from the middleware, which is over. If next was called, endNext waits for its return, because the call of
// the driver is part of the attempt, and its resource must have no other. It reports whether it had to wait.
func (a *attempt) endNext() (early bool) {
	if a.next.Swap(nextOver) != nextCalled {
		return false
	}
	select {
	case <-a.nextReturned:
		return false
	default:
		<-a.nextReturned
		return true
	}
}
