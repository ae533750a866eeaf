package conveyor

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
	"github.com/stretchr/testify/require"
)

// TestValuesAndRecordsMirrorEachOther fills every field of each type that has a twin below, converts it there and back, and
// compares both the values and what is written of either as JSON. A field that was added on one side alone is found.
func TestValuesAndRecordsMirrorEachOther(t *testing.T) {
	mirrors(t, toStep, fromStep)
	mirrors(t, toPolicy, fromPolicy)
	mirrors(t, func(s Status) record.Status {
		return record.Status{Phase: plan.State(s.Phase), ObservedGeneration: s.ObservedGeneration, Run: s.Run, Message: s.Message}
	}, fromStatus)
	mirrors(t, func(k Key) record.Key { return record.Key(k) }, func(k record.Key) Key { return Key(k) })
	mirrors(t, func(l LogLine) record.LogLine { return record.LogLine(l) }, func(l record.LogLine) LogLine { return LogLine(l) })
	for state := range State(plan.NumStates) {
		mirrorsAs(t, state, plan.State(state))
		require.Equal(t, plan.State(state).Final(), state.Final())
	}
	for cause := range CauseRetried {
		mirrorsAs(t, cause+1, record.Cause(cause+1))
	}
	for policy := range Queue {
		mirrorsAs(t, policy+1, record.ChangePolicy(policy+1))
	}
	mirrorsAs(t, Duration(90*time.Second), document.Duration(90*time.Second))
}

// A definition is written by the root and read by the packages below, which know a plan.
func TestADefinitionIsReadAsThePlanOfItsSteps(t *testing.T) {
	spec := full[PipelineSpec](t)
	spec.Steps[0].After = nil
	doc := record.Encode(definition{plan.PresentRule, spec})
	var read plan.Plan
	require.NoError(t, record.Decode(store.Record{Key: "definition", Value: doc}, &read))
	require.Equal(t, toPlan(spec), read.Ready())
}

func TestThePlannersStepHasOneName(t *testing.T) {
	require.Equal(t, PlanStep, plan.PlannerStep)
}

func TestADriversPolicyIsTheOneBelow(t *testing.T) {
	none := retry.Policy{}
	require.Equal(t, retry.Combine(nil, nil, none, none), toPolicy(fromPolicy(retry.Combine(nil, nil, none, none))))
}

func mirrors[Value, Twin any](t *testing.T, to func(Value) Twin, from func(Twin) Value) {
	t.Helper()
	value, twin := full[Value](t), full[Twin](t)
	require.Equal(t, twin, to(value), "a field of %T is not converted", value)
	require.Equal(t, value, from(twin), "a field of %T is not converted", twin)
	mirrorsAs(t, value, twin)
}

func mirrorsAs(t *testing.T, value, twin any) {
	t.Helper()
	a, err := document.Marshal(value)
	require.NoError(t, err)
	b, err := document.Marshal(twin)
	require.NoError(t, err)
	require.Equal(t, string(a), string(b), "%T and %T are written differently", value, twin)
}

// full returns a value whose every field is set, to the same in each type of the same shape.
func full[T any](t *testing.T) (value T) {
	t.Helper()
	fillValue(t, reflect.ValueOf(&value).Elem())
	return value
}

func fillValue(t *testing.T, v reflect.Value) {
	t.Helper()
	switch at := v.Addr().Interface().(type) {
	case *time.Time:
		*at = time.Unix(1, 2).UTC()
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(2)
	case reflect.Uint8:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(t, v.Elem())
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"a": "b"}))
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(slices.Clone([]byte("1")))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillValue(t, v.Index(0))
	case reflect.Struct:
		for i := range v.NumField() {
			require.True(t, v.Type().Field(i).IsExported(), "%s has a field that is not", v.Type())
			fillValue(t, v.Field(i))
		}
	default:
		require.Fail(t, "no value", "%s", v.Type())
	}
}

// selfWrapped is an error of a driver that wraps itself.
type selfWrapped struct{}

func (selfWrapped) Error() string   { return "again" }
func (e selfWrapped) Unwrap() error { return e }

func TestFailureOfDriverError(t *testing.T) {
	boom := errors.New("boom")
	after := func(d time.Duration) *time.Duration { return &d }
	limits := Limits{ErrorText: 80 + len(text.CutMark)}
	ranOut := fmt.Errorf("%w: the attempt took longer than 1s", ErrTimeout)
	for _, c := range []struct {
		name string
		err  error
		want run.Failure
	}{
		{"an ordinary error", boom, run.Failure{Text: "boom"}},
		{"an error for good", Permanent(boom), run.Failure{Text: "boom", Permanent: true}},
		{"an error for good inside another", fmt.Errorf("so: %w", Permanent(boom)), run.Failure{Text: "so: boom", Permanent: true}},
		{"an error for good among others", errors.Join(boom, Permanent(boom)), run.Failure{Text: "boom\nboom", Permanent: true}},
		{"an error with a delay", RetryAfter(time.Hour, boom), run.Failure{Text: "boom", After: after(time.Hour)}},
		{"an error without a delay", RetryAfter(0, boom), run.Failure{Text: "boom", After: after(0)}},
		{"an error with a negative delay", RetryAfter(-1, boom), run.Failure{Text: "boom", After: after(0)}},
		{"a delay around an error for good", RetryAfter(time.Hour, Permanent(boom)), run.Failure{Text: "boom", After: after(time.Hour)}},
		{"an error for good around a delay", Permanent(RetryAfter(time.Hour, boom)), run.Failure{Text: "boom", Permanent: true}},
		{"an error that wraps itself", selfWrapped{}, run.Failure{Text: "again"}},

		{"out of time", ranOut, run.Failure{Text: ranOut.Error(), Kind: fault.KindTimeout, Class: fault.ClassTimeout}},
		{"canceled", ErrCanceled, run.Failure{Text: "conveyor: canceled", Kind: fault.KindCanceled, Class: fault.ClassCancellation}},
		{"not found", fmt.Errorf("so: %w", ErrNotFound), run.Failure{Text: "so: conveyor: not found", Kind: fault.KindNotFound}},
		{"invalid", fmt.Errorf("so: %w", ErrInvalid), run.Failure{Text: "so: conveyor: invalid", Kind: fault.KindInvalid}},
		{"too large", Permanent(tooLarge("output", 2, 1, "bytes", "Limits.Output")),
			run.Failure{Text: "conveyor: too large: output: 2 bytes, more than the limit of 1 (Limits.Output)", Kind: fault.KindTooLarge, Permanent: true,
				Field: &fault.Field{Path: "output", Problem: "2 bytes, more than the limit of 1 (Limits.Output)", TooLarge: true}}},
		{"of two kinds", errors.Join(ErrCanceled, ErrTooLarge), run.Failure{Text: "conveyor: canceled\nconveyor: too large", Kind: fault.KindTooLarge, AlsoKinds: []fault.Kind{fault.KindCanceled}, Class: fault.ClassCancellation}},
		{"out of time with something invalid", &endedError{ErrTimeout, fmt.Errorf("so: %w", ErrInvalid)},
			run.Failure{Text: "conveyor: timed out: so: conveyor: invalid", Kind: fault.KindInvalid, AlsoKinds: []fault.Kind{fault.KindTimeout}, Class: fault.ClassTimeout}},
		{"of a kind that the first version did not keep", ErrConflict, run.Failure{Text: "conveyor: conflict", Kind: "conflict"}},

		{"a panic", &PanicError{Value: "boom", Stack: []byte("stack")}, run.Failure{Text: "driver panicked: boom", Kind: fault.KindPanic, Class: fault.ClassError, Stack: "stack"}},
		{"a panic with a sentinel", &PanicError{Value: ErrTimeout, Stack: []byte("stack")},
			run.Failure{Text: "driver panicked: conveyor: timed out", Kind: fault.KindPanic, Class: fault.ClassError, AlsoKinds: []fault.Kind{fault.KindTimeout}, Stack: "stack"}},
		{"a panic with an error for good", &PanicError{Value: Permanent(boom)}, run.Failure{Text: "driver panicked: boom", Kind: fault.KindPanic, Class: fault.ClassError, Permanent: true}},
		{"with a reason", Reason(boom, "no-image"), run.Failure{Text: "boom", Code: "no-image"}},
		{"with a reason around an error for good", Reason(Permanent(boom), "no-image"), run.Failure{Text: "boom", Code: "no-image", Permanent: true}},
		{"with a reason inside an error for good", Permanent(fmt.Errorf("so: %w", Reason(boom, "no-image"))), run.Failure{Text: "so: boom", Code: "no-image", Permanent: true}},
		{"with two reasons, of which the outer one counts", Reason(Reason(boom, "inner"), "outer"), run.Failure{Text: "boom", Code: "outer"}},
		{"with a reason that is none", Reason(boom, "no image"), run.Failure{Text: "boom", Code: "invalid-reason"}},
		{"with a reason of 64 bytes", Reason(boom, strings.Repeat("x", 64)), run.Failure{Text: "boom", Code: strings.Repeat("x", 64)}},
		{"with a reason of 65 bytes", Reason(boom, strings.Repeat("x", 65)), run.Failure{Text: "boom", Code: "invalid-reason"}},
		{"of a plan that is refused", &refusedPlan{Permanent(fmt.Errorf("so: %w", ErrInvalid))},
			run.Failure{Text: "so: conveyor: invalid", Kind: fault.KindRefusedPlan, AlsoKinds: []fault.Kind{fault.KindInvalid}, Class: fault.ClassError, Permanent: true}},
		{"a panic inside another error", fmt.Errorf("so: %w", &PanicError{Value: "boom", Stack: []byte("stack")}),
			run.Failure{Text: "so: driver panicked: boom", Kind: fault.KindPanic, Class: fault.ClassError, Stack: "stack"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Class = cmp.Or(c.want.Class, fault.ClassFailure)
			require.Equal(t, &c.want, failureOf(c.err))
			// What the engine keeps of a driver's error stands for the same.
			require.Equal(t, &c.want, failureOf(contained(c.err, nil, limits)))
		})
	}
}

func TestOutcomeTellsTheCauseOfTheEndFirst(t *testing.T) {
	limits := Limits{ErrorText: 100}
	boom := Permanent(errors.New("boom"))
	f := failureOf(contained(boom, ErrCanceled, limits))
	require.Equal(t, &run.Failure{Text: "conveyor: canceled: boom", Kind: fault.KindCanceled, Class: fault.ClassCancellation, Permanent: true}, f)
	f = failureOf(contained(fmt.Errorf("so: %w", ErrCanceled), ErrCanceled, limits))
	require.Equal(t, &run.Failure{Text: "so: conveyor: canceled", Kind: fault.KindCanceled, Class: fault.ClassCancellation}, f)
}

func TestOutcomeOfAttempt(t *testing.T) {
	boom := errors.New("boom")
	ended := record.TimeOf(time.Unix(1000, 0))
	policy := RetryPolicy{MaxAttempts: 7, Initial: Duration(time.Second)}
	ofEngine := RetryPolicy{MaxAttempts: 9, Max: Duration(time.Hour)}
	combined := retry.Policy{MaxAttempts: 7, Initial: toPolicy(policy).Initial, Max: toPolicy(ofEngine).Max, Multiplier: 2, Jitter: 0.2}
	failed := &run.Failure{Text: "boom", Class: fault.ClassFailure}
	planned := new(plan.Plan)
	ranOut := fmt.Errorf("%w: the attempt took longer than 1s", ErrTimeout)
	for _, c := range []struct {
		name    string
		outcome outcome
		want    run.Outcome
	}{
		{"done", outcome{result: Done()}, run.Outcome{Kind: run.Done}},
		{"the zero result", outcome{}, run.Outcome{Kind: run.Done}},
		{"done with an output", outcome{result: DoneWith(1), output: []byte("1")}, run.Outcome{Kind: run.Done, Output: []byte("1")}},
		{"done although the process shuts down", outcome{cause: ErrShutdown}, run.Outcome{Kind: run.Done}},
		{"done although the run is canceled", outcome{cause: ErrCanceled}, run.Outcome{Kind: run.Done}},
		{"skipped", outcome{result: Skip("not today")}, run.Outcome{Kind: run.Skip, Reason: "not today"}},
		{"halted", outcome{result: Halt("enough")}, run.Outcome{Kind: run.Halt, Reason: "enough"}},
		{"requeued", outcome{result: RequeueAfter(time.Hour)}, run.Outcome{Kind: run.Requeue, Delay: time.Hour}},
		{"requeued into the past", outcome{result: RequeueAfter(-time.Hour)}, run.Outcome{Kind: run.Requeue}},
		{"waits for a signal", outcome{result: Await("go", time.Hour)}, run.Outcome{Kind: run.Await, Reason: "go", Delay: time.Hour}},
		{"waits for a signal without a limit", outcome{result: Await("go", -1)}, run.Outcome{Kind: run.Await, Reason: "go"}},
		{"refused by the host", outcome{result: Result{kind: run.Refused, delay: time.Hour}}, run.Outcome{Kind: run.Refused, Delay: time.Hour}},
		{"planned", outcome{result: Result{kind: run.Planned}, plan: planned}, run.Outcome{Kind: run.Planned, Plan: planned}},
		{"failed", outcome{err: boom}, run.Outcome{Kind: run.Failed, Failure: failed, Policy: combined}},
		{"failed whatever it returned besides", outcome{result: Skip("not today"), err: boom},
			run.Outcome{Kind: run.Failed, Reason: "not today", Failure: failed, Policy: combined}},
		{"failed when it was out of time", outcome{err: ranOut, cause: ranOut},
			run.Outcome{Kind: run.Failed, Failure: &run.Failure{Text: ranOut.Error(), Kind: fault.KindTimeout, Class: fault.ClassTimeout}, Policy: combined}},
		{"failed when the run was canceled", outcome{err: ErrCanceled, cause: ErrCanceled},
			run.Outcome{Kind: run.Failed, Failure: &run.Failure{Text: ErrCanceled.Error(), Kind: fault.KindCanceled, Class: fault.ClassCancellation}, Policy: combined}},
		{"failed with the sentinel of a shutdown, of its own accord", outcome{err: ErrShutdown},
			run.Outcome{Kind: run.Failed, Failure: &run.Failure{Text: ErrShutdown.Error(), Kind: "shutdown", Class: fault.ClassCancellation}, Policy: combined}},
		{"interrupted by a shutdown", outcome{err: boom, cause: ErrShutdown}, run.Outcome{Kind: run.Cut}},
		{"interrupted by a shutdown, even for good", outcome{err: Permanent(boom), cause: fmt.Errorf("%w: now", ErrShutdown)}, run.Outcome{Kind: run.Cut}},
		{"interrupted by a newer generation", outcome{err: boom, cause: fmt.Errorf("%w: generation 2 came", ErrSuperseded)}, run.Outcome{Kind: run.Cut}},
	} {
		t.Run(c.name, func(t *testing.T) {
			step := &plan.Step{ID: "a", Driver: "d"}
			c.outcome.attempt = &attempt{
				index: 3, number: 4, step: step, plan: new(plan.Plan), driver: &driver{opts: driverOptions{retry: policy}},
			}
			c.outcome.ended = ended
			c.want.Step, c.want.Attempt, c.want.Ended = 3, 4, ended
			require.Equal(t, c.want, c.outcome.value(ofEngine))
		})
	}
}

func TestOutcomeCombinesPoliciesNearestFirst(t *testing.T) {
	a := &attempt{
		step: &plan.Step{Retry: &retry.Policy{MaxAttempts: 2}}, plan: &plan.Plan{Retry: &retry.Policy{MaxAttempts: 3, Multiplier: 3}},
		driver: &driver{opts: driverOptions{retry: RetryPolicy{MaxAttempts: 4, Multiplier: 4, Initial: Duration(4)}}},
	}
	o := outcome{attempt: a, err: errors.New("boom")}
	got := o.value(RetryPolicy{MaxAttempts: 5, Multiplier: 5, Initial: 5, Max: 5}).Policy
	require.Equal(t, toPolicy(RetryPolicy{MaxAttempts: 2, Multiplier: 3, Initial: 4, Max: 5, Jitter: 0.2}), got)
}
