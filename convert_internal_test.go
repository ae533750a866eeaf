package conveyor

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
	"github.com/conveyor-go/conveyor/store"
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
	doc := record.Encode(spec)
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
