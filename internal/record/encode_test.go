package record

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
)

func BenchmarkEncode(b *testing.B) {
	now := TimeOf(time.Now())
	for name, rec := range map[string]Appender{
		"step": &Step{State: plan.Succeeded, Attempt: 1, Started: now, Ended: now, Output: []byte(`"sha256:c0ffee"`)},
		"run": &Run{
			Type: "build", Name: "app", ResourceID: "00vhnczb002st21ncgztsw9h4e", Cause: Created, State: plan.Running, Generation: 1,
			Pipeline: "ci", Hash: "0123456789abcdef0123456789abcdef", Version: 1, MadeAt: now, UpdatedAt: now, Created: now, Started: now,
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = rec.AppendJSON(buf[:0])
			}
		})
	}
}

// TestRecordsAreEncodedAsTheLibraryWould holds every field of the records that are encoded by hand to package
// encoding/json, by name, by place and by when it is left out.
func TestRecordsAreEncodedAsTheLibraryWould(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringMatching(`[a-z."\\<>&]{0,20}`))
	number := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64())
	labels := rapid.Custom(func(t *rapid.T) Metadata {
		all := Metadata{}
		for name, value := range rapid.MapOfN(text, text, 0, 3).Draw(t, "") {
			all[name] = Encode(value)
		}
		return all
	})
	raw := rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage(`null`), json.RawMessage(`{"a":["<b>",1.50]}`)})
	state := rapid.Custom(func(t *rapid.T) plan.State {
		return plan.State(rapid.IntRange(0, int(plan.NumStates)-1).Draw(t, "state"))
	})
	cause := rapid.Custom(func(t *rapid.T) Cause { return Cause(rapid.IntRange(0, len(causeNames.Names)-1).Draw(t, "cause")) })
	when := rapid.Custom(func(t *rapid.T) Time { return Time(number.Draw(t, "when")) })
	count := rapid.Custom(func(t *rapid.T) int { return int(number.Draw(t, "count")) })
	origin := rapid.Custom(func(t *rapid.T) Origin {
		return Origin{By: text.Draw(t, "by"), Carried: rapid.MapOfN(text, text, 0, 3).Draw(t, "carried")}
	})
	failure := rapid.Custom(func(t *rapid.T) Failure {
		return Failure{Class: fault.Class(text.Draw(t, "class")), Code: text.Draw(t, "code")}
	})
	rapid.Check(t, func(t *rapid.T) {
		waits := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Wait {
			return Wait{Signal: text.Draw(t, "signal"), From: when.Draw(t, "from"), To: when.Draw(t, "to"), TimedOut: rapid.Bool().Draw(t, "timed out"), By: text.Draw(t, "by")}
		}), 0, 2)
		step := rapid.Custom(func(t *rapid.T) *Step {
			return &Step{
				State: state.Draw(t, ""), Attempt: count.Draw(t, ""), Started: when.Draw(t, ""), Ended: when.Draw(t, ""), Due: when.Draw(t, ""),
				Reason: text.Draw(t, ""), Resumed: rapid.Bool().Draw(t, ""), Again: rapid.Bool().Draw(t, ""), Requeues: count.Draw(t, ""),
				Interruptions: count.Draw(t, ""), Crashes: count.Draw(t, ""), Lines: count.Draw(t, ""), Output: raw.Draw(t, ""),
				Await: text.Draw(t, ""), Signal: raw.Draw(t, ""), TimedOut: rapid.Bool().Draw(t, ""), Waits: waits.Draw(t, ""),
				SignalFrom: rapid.Ptr(origin, true).Draw(t, ""), Failure: failure.Draw(t, ""),
			}
		}).Draw(t, "step")
		run := rapid.Custom(func(t *rapid.T) *Run {
			return &Run{
				Type: text.Draw(t, ""), Name: text.Draw(t, ""), ResourceID: text.Draw(t, ""), Cause: cause.Draw(t, ""), State: state.Draw(t, ""),
				Reason: text.Draw(t, ""), Generation: number.Draw(t, ""), Pipeline: text.Draw(t, ""), Hash: text.Draw(t, ""),
				Metadata: labels.Draw(t, ""), Version: number.Draw(t, ""), MadeAt: when.Draw(t, ""), UpdatedAt: when.Draw(t, ""),
				DeletedAt: when.Draw(t, ""), Created: when.Draw(t, ""), Started: when.Draw(t, ""), Ended: when.Draw(t, ""),
				Deadline: when.Draw(t, ""), Stop: plan.Stop(text.Draw(t, "")), StopReason: text.Draw(t, ""), FailedStep: text.Draw(t, ""),
				Of: text.Draw(t, ""), From: text.Draw(t, ""), Newest: rapid.Bool().Draw(t, ""), Position: number.Draw(t, ""),
				Outcome: state.Draw(t, ""), CutShort: rapid.Bool().Draw(t, ""),
				UpdatedBy: text.Draw(t, ""), Origin: origin.Draw(t, ""), StopBy: text.Draw(t, ""), Failure: failure.Draw(t, ""),
				Ownership: Ownership{Owner: text.Draw(t, ""), Claims: number.Draw(t, ""), Turn: number.Draw(t, ""), Signals: number.Draw(t, ""), Slot: number.Draw(t, "")},
			}
		}).Draw(t, "run")
		resource := rapid.Custom(func(t *rapid.T) *Resource {
			return &Resource{
				Lane: text.Draw(t, ""), Stray: text.Draw(t, ""),
				ID: text.Draw(t, ""), Pipeline: text.Draw(t, ""), Metadata: labels.Draw(t, ""), Version: number.Draw(t, ""),
				Generation: number.Draw(t, ""), First: number.Draw(t, ""), Created: when.Draw(t, ""), Updated: when.Draw(t, ""),
				Deleted: when.Draw(t, ""), Active: text.Draw(t, ""), Pending: text.Draw(t, ""), Cause: cause.Draw(t, ""),
				Supersede: rapid.Bool().Draw(t, ""), FixedGeneration: number.Draw(t, ""), Queued: count.Draw(t, ""), LastPosition: number.Draw(t, ""),
				Resync: when.Draw(t, ""), UpdatedBy: text.Draw(t, ""), Change: rapid.Ptr(origin, true).Draw(t, ""), Status: Status{
					Phase: state.Draw(t, ""), ObservedGeneration: number.Draw(t, ""), Run: text.Draw(t, ""), Message: text.Draw(t, ""),
				},
			}
		}).Draw(t, "resource")
		for _, record := range []Appender{step, run, resource} {
			want, err := document.Marshal(record)
			require.NoError(t, err)
			require.Equal(t, string(want), string(record.AppendJSON(nil)))
			require.Equal(t, string(append([]byte("before"), want...)), string(record.AppendJSON([]byte("before"))))
		}
	})
}

// TestEveryFieldOfARecordIsEncoded finds a field that was added and forgotten.
func TestEveryFieldOfARecordIsEncoded(t *testing.T) {
	for _, record := range []Appender{new(Step), new(Run), new(Resource), new(Status)} {
		full := fill(t, record)
		want, err := document.Marshal(full)
		require.NoError(t, err)
		require.Equal(t, string(want), string(full.(Appender).AppendJSON(nil)))
	}
	require.False(t, bytes.Equal(new(Step).AppendJSON(nil), fill(t, new(Step)).(Appender).AppendJSON(nil)))
}

// fill gives every field of a struct, and of those inside it, a value other than zero.
func fill(t *testing.T, record any) any {
	t.Helper()
	v := reflect.ValueOf(record).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int, reflect.Int64:
			f.SetInt(1)
		case reflect.Uint8:
			f.SetUint(1)
		case reflect.Map:
			if f.Type() == reflect.TypeFor[map[string]string]() {
				f.Set(reflect.ValueOf(map[string]string{"a": "b", "<": "\u2028"}))
				continue
			}
			f.Set(reflect.ValueOf(Metadata{"a": []byte(`"b"`), "c": []byte(`{"d":1}`)}))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
			fill(t, f.Interface())
		case reflect.Struct:
			fill(t, f.Addr().Interface())
		case reflect.Slice:
			if f.Type() == reflect.TypeFor[json.RawMessage]() {
				f.SetBytes([]byte("1"))
				continue
			}
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			fill(t, f.Index(0).Addr().Interface())
		default:
			require.Fail(t, "no value for a field", "%s of %T", v.Type().Field(i).Name, record)
		}
	}
	return record
}
