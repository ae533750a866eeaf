package record

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/retry"
	"github.com/conveyor-go/conveyor/store"
)

// storedTypes are what the values of a store are decoded into. What a checkpoint holds is any JSON, and the keys of the
// indexes have no values.
var storedTypes = []reflect.Type{
	reflect.TypeFor[Format](), reflect.TypeFor[Resource](), reflect.TypeFor[Revision](),
	reflect.TypeFor[Tombstone](), reflect.TypeFor[Pending](), reflect.TypeFor[Pipeline](),
	reflect.TypeFor[Run](), reflect.TypeFor[plan.Plan](),
	reflect.TypeFor[Step](), reflect.TypeFor[Attempt](), reflect.TypeFor[[]LogLine](),
	reflect.TypeFor[Signal](), reflect.TypeFor[Pause](), reflect.TypeFor[Engine](), reflect.TypeFor[Heartbeat](),
}

// storedSamples are sound records, and what is none.
var storedSamples = []any{
	Format{Format: Version},
	Resource{ID: "x", Pipeline: "p", Metadata: Metadata{"a": []byte(`"b"`), "c": []byte(`{"d":true}`)}, Version: 2, Generation: 1, First: 1, Created: 1, Updated: 2,
		Status: Status{Phase: plan.Failed, Run: "r", Message: "<m>"}, Active: "a", Pending: "b", Cause: Updated, Queued: 1, LastPosition: 2},
	Signal{Payload: []byte(`"go"`), Origin: Origin{By: "ada", Carried: map[string]string{"a": "b"}}},
	Pause{Reason: "freeze", By: "ada", At: 1},
	Engine{Name: "n", Started: 1, Format: 3, Lease: time.Second, Dead: 2, By: "x"},
	Heartbeat{Count: 1, Clock: 1, Drivers: []string{"d"}, Planned: []string{"p"}, Owned: 1, Busy: 1, Free: 1},
	Revision{Pipeline: "p", Version: 1, At: 1, Spec: []byte(`{"a":[1,"\u2028"]}`)},
	Tombstone{Generation: 3},
	Pending{Run: "r", Generation: 2, Cause: Updated},
	Pipeline{Hash: "h", Resource: "r", Saved: 1, OnChange: Queue, Resync: 1, MaxRuns: 2, Planned: true},
	plan.Plan{Timeout: 1, Retry: &retry.Policy{MaxAttempts: 1}, Steps: []plan.Step{{ID: "1", Driver: "d", With: []byte(`null`)}}},
	Run{Type: "r", Name: "a", ResourceID: "x", Cause: Created, State: plan.Running, Started: 1, Generation: 1, Stop: plan.StopHalt, FailedStep: "1"},
	Run{Type: "r", Name: "a", ResourceID: "x", Cause: Retried, State: plan.Queued, Of: "b", From: "/", Newest: true, Position: 1},
	plan.Plan{Steps: []plan.Step{{ID: "1", Driver: "d"}, {ID: "2", Driver: "d", After: []string{"1"}}}},
	plan.Plan{Rule: plan.PresentRule, Steps: []plan.Step{{ID: "1", Driver: "d", After: []string{"3"}}, {ID: "2"}, {ID: "3", After: []string{}}}},
	plan.Plan{Steps: []plan.Step{{ID: "1", Driver: "d"}}, Independent: true, Finalize: true, Planned: true},
	Step{State: plan.Retrying, Attempt: 1, Due: 1, Resumed: true, Output: []byte(`1`)},
	Step{State: plan.Waiting, Attempt: 1, Await: "go", Signal: []byte(`{"a":null}`), TimedOut: true, Waits: []Wait{{Signal: "go", From: 1, To: 2}}},
	Attempt{Started: 1, Ended: 2, Error: "boom", Kind: fault.KindPanic, AlsoKinds: []fault.Kind{fault.KindTimeout}, Field: &fault.Field{Path: "a", Problem: "b"}, Stack: "s"},
	[]LogLine{{Seq: 1, Step: "1", Message: "m", Attrs: []byte(`{}`)}},
	struct{}{}, nil, 1, "", true,
}

// storedGarbage is what a store may hold that is no record, of each of the kinds that documents are tried with.
var storedGarbage = []string{
	"", " ", "{", "nul", "\x00", "\ufeff{}", "{} {}", "[null]", "[{}]", "[[]]", `{"state":"unset"}`, `{"state":"running","state":1}`, `{"State":"running"}`,
	"{\"id\":\"\xff\"}", `{"id":"\ud800"}`, `{"id":"\u0000\u202e"}`, `{"name":"../x","resource":"C:\\con"}`,
	`{"attempt":1e400}`, `{"attempt":-0}`, `{"attempt":9223372036854775808}`, `{"generation":-9223372036854775808}`, `{"attempt":1.0}`,
	`{"output":` + strings.Repeat("[", 12_000) + strings.Repeat("]", 12_000) + `}`, strings.Repeat(`{"spec":`, 9_000),
	`{"steps":[{"id":"1","after":["2"]},{"id":"2","after":["1"]}]}`, `{"steps":[{"id":"1","after":["x"]}]}`, `{"steps":null}`,
	`{"rule":1,"steps":[{"id":"1","after":["2"]},{"id":"2"}]}`, `{"rule":2,"steps":[{"id":"1"}]}`, `{"rule":256,"steps":[{"id":"1"}]}`,
	`{"steps":[{"id":"1","after":[]},{"id":"2"}]}`, `{"steps":[{"id":"1","after":["2"]},{"id":"2"}]}`,
}

// Whatever a damaged store holds, it is either ErrCorrupt or a record that can be written again, and comes back as it
// was written.
func FuzzStoredRecords(f *testing.F) {
	for _, record := range storedSamples {
		f.Add(Encode(record))
	}
	for _, garbage := range storedGarbage {
		f.Add([]byte(garbage))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, shape := range storedTypes {
			first := reflect.New(shape).Interface()
			if err := Decode(store.Record{Key: "the/key", Value: data}, first); err != nil {
				require.ErrorIs(t, err, store.ErrCorrupt)
				require.ErrorContains(t, err, "the/key")
				continue
			}
			text := Encode(first)
			second := reflect.New(shape).Interface()
			require.NoError(t, Decode(store.Record{Key: "k", Value: text}, second))
			require.Equal(t, string(text), string(Encode(second)), "%s", shape)
			third := reflect.New(shape).Interface()
			require.NoError(t, Decode(store.Record{Key: "k", Value: text}, third))
			require.Equal(t, second, third)
			if p, ok := first.(*plan.Plan); ok {
				follow(t, p.Ready())
			}
		}
	})
}

// follow goes along a plan that was read, to its end.
func follow(t *testing.T, p *plan.Plan) {
	t.Helper()
	if p.Len() > 50 {
		return
	}
	states := make([]plan.State, p.Len())
	for range p.Len() + 1 {
		start, over := p.Next(states, false, false)
		if over {
			return
		}
		require.NotEmpty(t, start, "nothing starts, and it is not over")
		for _, i := range start {
			states[i] = plan.Succeeded
		}
	}
	require.Fail(t, "a plan without an end")
}

// TestEveryRecordComesBackAsItWasWritten decodes what was encoded, for every kind of record with all that it may hold.
func TestEveryRecordComesBackAsItWasWritten(t *testing.T) {
	luck := rand.New(rand.NewPCG(1, 2))
	for _, shape := range storedTypes {
		sound := 0
		for range 400 {
			record := reflect.New(shape)
			randomize(luck, record.Elem(), "")
			text := Encode(record.Interface())
			back := reflect.New(shape)
			require.NoError(t, json.Unmarshal(text, back.Interface()))
			require.Equal(t, record.Interface(), back.Interface(), "%s", text)
			require.Equal(t, string(text), string(Encode(back.Interface())))
			if Decode(store.Record{Value: text}, reflect.New(shape).Interface()) == nil {
				sound++
			}
		}
		require.NotZero(t, sound, "%s is never sound", shape)
	}
}

// randomize gives random values to a variable, and to half of what it is made of.
func randomize(luck *rand.Rand, v reflect.Value, field string) {
	texts := []string{"a", "b-1", "\x00\x1b\u2028\u202e", "<&>\"\\", "é\U0001f600", strings.Repeat("x", 300)}
	switch into := v.Addr().Interface().(type) {
	case *json.RawMessage:
		*into = json.RawMessage([]string{`null`, `{"a":[1e999,"\ud800",{"b":-0}]}`, `"<&>"`, `[]`}[luck.IntN(4)])
		return
	case *plan.State:
		*into = plan.State(luck.IntN(int(plan.NumStates)))
		return
	case *Cause:
		*into = Cause(luck.IntN(len(causeNames.Names)))
		return
	case *ChangePolicy:
		*into = ChangePolicy(luck.IntN(len(changePolicyNames.Names)))
		return
	case *time.Time:
		*into = time.Unix(luck.Int64N(1<<32), luck.Int64N(1e9)).UTC()
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(texts[luck.IntN(len(texts))])
		if field == "Type" || field == "Name" || luck.IntN(2) == 0 {
			v.SetString(texts[luck.IntN(2)])
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt([]int64{1, 1, 2, 1 << 40, -7}[luck.IntN(5)])
	case reflect.Float64:
		v.SetFloat(luck.Float64())
	case reflect.Map:
		if v.Type() == reflect.TypeFor[map[string]string]() {
			v.Set(reflect.ValueOf(map[string]string{texts[luck.IntN(len(texts))]: texts[luck.IntN(len(texts))], texts[0]: texts[luck.IntN(len(texts))]}))
			return
		}
		v.Set(reflect.ValueOf(Metadata{
			texts[luck.IntN(len(texts))]: Encode(texts[luck.IntN(len(texts))]), texts[luck.IntN(len(texts))]: []byte(`{"a":[null,true]}`),
		}))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		randomize(luck, v.Elem(), field)
	case reflect.Slice:
		n := 1 + luck.IntN(2)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			randomize(luck, v.Index(i), field)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.IsExported() && f.Tag.Get("json") != "-" && luck.IntN(4) > 0 {
				randomize(luck, v.Field(i), f.Name)
			}
		}
	}
}

// TestRecordsThatNoProgramWritesAreDamage decodes what is JSON, and still cannot be.
func TestRecordsThatNoProgramWritesAreDamage(t *testing.T) {
	for _, record := range storedSamples {
		if shape := reflect.TypeOf(record); shape != nil && reflect.ValueOf(record).Kind() == reflect.Struct && shape.NumField() > 0 {
			require.NoError(t, Decode(store.Record{Value: Encode(record)}, reflect.New(shape).Interface()), "%+v", record)
		}
	}
	for _, shape := range storedTypes {
		require.ErrorIs(t, Decode(store.Record{Key: "k", Value: []byte(" null\n")}, reflect.New(shape).Interface()), store.ErrCorrupt, "%s", shape)
	}
	sound := func() Resource {
		return Resource{ID: "x", Version: 1, Generation: 2, First: 1, Status: Status{Run: "r"}}
	}
	run := func() Run {
		return Run{Type: "r", Name: "a", ResourceID: "x", Cause: Created, State: plan.Running, Started: 1, Generation: 1}
	}
	goodResource, goodRun := sound(), run()
	require.Empty(t, goodResource.Check())
	require.Empty(t, goodRun.Check())
	for _, c := range []struct {
		name   string
		record checker
	}{
		{"a format of 0", &Format{}},
		{"a resource without an id", func() checker { r := sound(); r.ID = ""; return &r }()},
		{"a resource without a run", func() checker { r := sound(); r.Status.Run = ""; return &r }()},
		{"a resource without a version", func() checker { r := sound(); r.Version = 0; return &r }()},
		{"a resource without a generation", func() checker { r := sound(); r.Generation = 0; return &r }()},
		{"a resource older than itself", func() checker { r := sound(); r.First = 3; return &r }()},
		{"a resource that keeps what is to come", func() checker { r := sound(); r.FixedGeneration = 3; return &r }()},
		{"a resource with fewer than no pending runs", func() checker { r := sound(); r.Queued = -1; return &r }()},
		{"a generation without a version", &Revision{At: 1}},
		{"a tombstone of nothing", &Tombstone{}},
		{"a pending run without an id", &Pending{Generation: 1, Cause: Created}},
		{"a pending run without a generation", &Pending{Run: "r", Cause: Created}},
		{"a pipeline without a definition", &Pipeline{Resource: "r"}},
		{"a pipeline for nothing", &Pipeline{Hash: "h"}},
		{"a run of nothing", func() checker { r := run(); r.Name = ""; return &r }()},
		{"a run of a name with a slash", func() checker { r := run(); r.Type = "a/b"; return &r }()},
		{"a run of nobody", func() checker { r := run(); r.ResourceID = ""; return &r }()},
		{"a run without a cause", func() checker { r := run(); r.Cause = 0; return &r }()},
		{"a run in no state", func() checker { r := run(); r.State = plan.Unset; return &r }()},
		{"a run in the state of a step", func() checker { r := run(); r.State = plan.Retrying; return &r }()},
		{"a run at work that has not begun", func() checker { r := run(); r.Started = 0; return &r }()},
		{"a queued run that has begun", func() checker { r := run(); r.State = plan.Queued; return &r }()},
		{"a run that has begun on nothing", func() checker { r := run(); r.Generation = 0; return &r }()},
		{"a step in no state", &Step{Attempt: 1}},
		{"a step with less than no attempts", &Step{State: plan.Running, Attempt: -1}},
		{"a plan without steps", &plan.Plan{}},
		{"a plan with an unknown predecessor", &plan.Plan{Steps: []plan.Step{{ID: "1", After: []string{"2"}}}}},
		{"a plan with a cycle that nobody wrote", &plan.Plan{Rule: plan.PresentRule, Steps: []plan.Step{{ID: "1", After: []string{"2"}}, {ID: "2"}}}},
		{"a plan by an unknown rule", &plan.Plan{Rule: plan.PresentRule + 1, Steps: []plan.Step{{ID: "1"}}}},
		{"a plan with a cycle", &plan.Plan{Steps: []plan.Step{{ID: "1", After: []string{"2"}}, {ID: "2", After: []string{"1"}}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NotEmpty(t, c.record.Check())
			err := Decode(store.Record{Key: "k", Value: Encode(c.record)}, reflect.New(reflect.TypeOf(c.record).Elem()).Interface())
			require.ErrorIs(t, err, store.ErrCorrupt)
			require.ErrorContains(t, err, `record "k"`)
		})
	}
}

// TestRecordsAreReadInBoundedMemory reads much garbage into every kind of record.
func TestRecordsAreReadInBoundedMemory(t *testing.T) {
	const size = 1 << 17
	for name, unit := range map[string]string{
		"nesting": `[`, "nesting in a field": `{"output":`, "nesting of steps": `{"steps":[`, "objects in a list": `[{},`, "a long number": `9`, "escapes": `"\u0000`,
		"tiny fields": `{"a":1,"b":2,`, "fields that come again": `{"metadata":{"a":"b"},"steps":[{}],"waits":[{}],`,
	} {
		data := bytes.Repeat([]byte(unit), size/len(unit))
		for _, whole := range [][]byte{data, closed(unit, size)} {
			for _, shape := range storedTypes {
				used := allocated(func() { _ = Decode(store.Record{Key: "k", Value: whole}, reflect.New(shape).Interface()) })
				// The largest element that two bytes, "{}", can make is a step or a line of log: about 250 bytes.
				require.Less(t, used, uint64(300*len(whole)+1<<20), "%s into %s", name, shape)
			}
		}
	}
}

// closed is a document of about a size that is made of a unit, and that is JSON where that can be had.
func closed(unit string, size int) []byte {
	n := size / len(unit)
	switch unit {
	case `[`:
		n = 9_000
		return []byte(strings.Repeat("[", n) + strings.Repeat("]", n))
	case `[{},`:
		return []byte("[" + strings.Repeat("{},", n) + "{}]")
	case `{"metadata":{"a":"b"},"steps":[{}],"waits":[{}],`:
		return []byte("{" + strings.Repeat(unit[1:], n) + `"x":0}`)
	case `{"steps":[`:
		return []byte(`{"steps":[` + strings.Repeat("{},", size/3) + `{}]}`)
	case `"\u0000`:
		return []byte(`{"id":"` + strings.Repeat(`\u0000`, n) + `"}`)
	case `9`:
		return []byte(`{"version":` + strings.Repeat("9", n) + `}`)
	}
	return []byte(`{"a":` + strings.Repeat("1", n) + `}`)
}

// allocated is how many bytes a call allocates.
func allocated(call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
