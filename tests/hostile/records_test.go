package hostile_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// garbage is what may stand in the place of a record.
var garbage = []struct {
	name string
	// of makes it of a record, and of another one of the same kind. nil: there is none.
	of func(value, other []byte, luck *rand.Rand) []byte
	// ruined says that what comes out is never a record of the kind that it replaces, which must be noticed.
	ruined bool
}{
	{"no record", func([]byte, []byte, *rand.Rand) []byte { return removed }, false},
	{"nothing", func([]byte, []byte, *rand.Rand) []byte { return []byte{} }, true},
	{"half of it", func(value, _ []byte, _ *rand.Rand) []byte { return value[:len(value)/2] }, true},
	{"null", func([]byte, []byte, *rand.Rand) []byte { return []byte("null") }, true},
	{"an empty object", func([]byte, []byte, *rand.Rand) []byte { return []byte("{}") }, false},
	{"a value of another type", func([]byte, []byte, *rand.Rand) []byte { return []byte(`"text"`) }, true},
	{"numbers beyond all bounds", func(value, _ []byte, _ *rand.Rand) []byte {
		return digits.ReplaceAll(value, []byte("${1}99999999999999999999"))
	}, false},
	{"other numbers", func(value, _ []byte, luck *rand.Rand) []byte {
		return digits.ReplaceAllFunc(value, func(d []byte) []byte {
			n := []string{"-1", "0", "1", "2", "9223372036854775807", "-9223372036854775808"}[luck.IntN(6)]
			return append(d[:1:1], n...)
		})
	}, false},
	{"nesting without end", func([]byte, []byte, *rand.Rand) []byte { return bytes.Repeat([]byte("["), 1<<20) }, true},
	{"bytes of all kinds", func(value, _ []byte, luck *rand.Rand) []byte {
		noise := make([]byte, len(value)+1)
		for i := range noise {
			noise[i] = byte(luck.Uint32())
		}
		return append([]byte{0xff}, noise...)
	}, true},
	{"another record of the kind", func(_, other []byte, _ *rand.Rand) []byte { return other }, false},
	{"a flipped bit", flipped, false},
	{"a flipped bit elsewhere", flipped, false},
	{"a flipped bit anywhere", flipped, false},
	{"two fields exchanged", func(value, _ []byte, luck *rand.Rand) []byte {
		var fields map[string]json.RawMessage
		if json.Unmarshal(value, &fields) != nil || len(fields) < 2 {
			return nil
		}
		names := slices.Sorted(maps.Keys(fields))
		a, b := names[luck.IntN(len(names))], names[luck.IntN(len(names))]
		fields[a], fields[b] = fields[b], fields[a]
		return rig.JSON(fields)
	}, false},
	{"a field less", func(value, _ []byte, luck *rand.Rand) []byte {
		var fields map[string]json.RawMessage
		if json.Unmarshal(value, &fields) != nil || len(fields) == 0 {
			return nil
		}
		names := slices.Sorted(maps.Keys(fields))
		delete(fields, names[luck.IntN(len(names))])
		return rig.JSON(fields)
	}, false},
}

// removed stands for no record at all.
var removed = []byte("removed")

func flipped(value, _ []byte, luck *rand.Rand) []byte {
	if len(value) == 0 {
		return nil
	}
	value = bytes.Clone(value)
	value[luck.IntN(len(value))] ^= 1 << luck.IntN(8)
	return value
}

// digits finds the numbers of a record that are values, with the character before them.
var digits = regexp.MustCompile(`([:,\[])-?[0-9]+`)

// TestRule11GarbageInAnyRecordStopsNothingElse puts garbage of many kinds in the place of each record of a store in
// which there is one of every kind, and starts an engine on it. Nothing panics or hangs; what does not need the record
// goes on; and every call that needs it answers with an error that says which record it is.
func TestRule11GarbageInAnyRecordStopsNothingElse(t *testing.T) {
	share := testenv.Bound(t, "CONVEYOR_GARBAGE", testenv.Some(t, 20, 100), 8) // of a hundred cases
	whole := newRich(t)
	prefixes := map[string]int{} // a definition is held to the hash in its key, so that there any change is noticed
	for _, key := range whole.keys {
		prefixes[prefixOf(key)]++
	}
	require.Len(t, prefixes, 19, "a kind of record is missing: %v", prefixes)
	var cases atomic.Int64
	t.Cleanup(func() { testenv.Figure(t, "%d cases in records of %d kinds", cases.Load(), len(prefixes)) })
	for _, prefix := range slices.Sorted(maps.Keys(prefixes)) {
		t.Run(strings.TrimSuffix(prefix, "/"), func(t *testing.T) {
			t.Parallel()
			tried := 0
			for i, g := range garbage {
				if slices.Contains([]string{"act", "rix", "rsy", "unh"}, prefix) && i%5 > 0 {
					continue // what matters is the key
				}
				for _, key := range whole.keys {
					if prefixOf(key) != prefix || whole.isGood(key) {
						continue
					}
					if tried++; tried%100 >= share {
						continue
					}
					luck := rand.New(rand.NewPCG(hashOf(g.name), hashOf(whole.label(key))))
					value := g.of(whole.records[key], whole.other(key), luck)
					if value == nil || bytes.Equal(value, whole.records[key]) {
						continue
					}
					cases.Add(1)
					whole.endure(t, map[string][]byte{key: value}, g.ruined || prefix == "pir", fmt.Sprintf("%s in %s", g.name, whole.label(key)))
				}
			}
		})
	}
}

// TestRule11GarbageInManyRecordsStopsNothingElse does the same to several records at once.
func TestRule11GarbageInManyRecordsStopsNothingElse(t *testing.T) {
	t.Parallel()
	whole := newRich(t)
	var keys []string
	for _, key := range whole.keys {
		if !whole.isGood(key) && key != "format" {
			keys = append(keys, key)
		}
	}
	for seed := range testenv.Bound(t, "CONVEYOR_GARBAGE_SEEDS", testenv.Some(t, 10, 30), 5) {
		luck := rand.New(rand.NewPCG(uint64(seed), 0))
		damage := map[string][]byte{}
		var what []string
		for range 1 + luck.IntN(len(keys)) {
			key := keys[luck.IntN(len(keys))]
			g := garbage[luck.IntN(len(garbage))]
			if value := g.of(whole.records[key], whole.other(key), luck); value != nil && len(value) < 1<<20 {
				damage[key] = value
				what = append(what, g.name+" in "+whole.label(key))
			}
		}
		whole.endure(t, damage, false, fmt.Sprintf("seed %d: %s", seed, strings.Join(what, "; ")))
	}
}

func prefixOf(key string) string {
	prefix, _, _ := strings.Cut(key, "/")
	return prefix
}

func hashOf(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return h.Sum64()
}

// rich is a store with a record of every kind, as a process left it that died.
type rich struct {
	records map[string][]byte
	owner   map[string]string // of each run: its resource's key
	number  map[string]string // of each run: a name that is the same each time
	labels  map[string]string // of each key
	keys    []string          // in the order of the labels
}

// richTypes are the resources, by type; those of the type good are not to be harmed.
func (r *rich) isGood(key string) bool {
	return key != "format" && (strings.Contains(key, "/good/") || strings.HasSuffix(key, "/good") || strings.HasPrefix(r.ownerOf(key).Type, "good"))
}

// ownerOf is the resource that a record belongs to; zero for a pipeline's and the format.
func (r *rich) ownerOf(key string) conveyor.Key {
	parts := strings.Split(key, "/")
	at := 1
	switch parts[0] {
	case "format", "pip", "pir", "pse":
		return conveyor.Key{}
	case "rsy":
		at = 2
	case "res", "rev", "rix", "tmb", "que", "unh":
	default:
		kind, name, _ := strings.Cut(r.owner[parts[1]], "/")
		return conveyor.Key{Type: kind, Name: name}
	}
	return conveyor.Key{Type: parts[at], Name: parts[at+1]}
}

// label is a key without what differs from time to time.
func (r *rich) label(key string) string { return r.labels[key] }

// index works out the labels, and puts the keys in their order.
func (r *rich) index() {
	var pairs []string
	for run, number := range r.number {
		pairs = append(pairs, run, number)
	}
	shorten := strings.NewReplacer(pairs...)
	r.labels = map[string]string{}
	for key := range r.records {
		r.labels[key] = shorten.Replace(key)
	}
	r.keys = slices.SortedFunc(maps.Keys(r.records), func(a, b string) int { return strings.Compare(r.labels[a], r.labels[b]) })
}

// other is another record of the kind that is not good either.
func (r *rich) other(key string) []byte {
	for _, k := range r.keys {
		if k != key && prefixOf(k) == prefixOf(key) && !r.isGood(k) && !bytes.Equal(r.records[k], r.records[key]) {
			return r.records[k]
		}
	}
	return nil
}

// richPipelines are the pipelines, each for a type of its own name. The name of a step's driver is what it does.
func richPipelines() []conveyor.Pipeline {
	of := func(name string, drivers ...string) conveyor.PipelineSpec {
		p := rig.PipelineOf(drivers...)
		p.Name, p.Resource = name, name
		return p
	}
	line := rig.Queueing(of("line", "hold"))
	resync := of("resync", "ok")
	resync.Resync = conveyor.Duration(10 * time.Hour)
	graph := of("graph", "ok", "hold", "ok", "ok")
	graph.Steps[1].After, graph.Steps[2].After, graph.Steps[3].After = []string{"1"}, []string{"1"}, []string{"2", "3"}
	finally := of("finally", "ok")
	finally.Finally = []conveyor.Step{{Driver: "hold"}, {Driver: "ok"}}
	replace := of("replace", "hold")
	replace.OnChange = conveyor.Supersede
	few := of("few", "hold")
	few.MaxRuns = 1
	planned := rig.NewFanOut()
	planned.PipelineSpec = conveyor.PipelineSpec{Name: "planned", Resource: "planned"}
	planned.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
		return []conveyor.Step{{Driver: "ok"}, {Driver: "hold"}}, nil
	}
	return []conveyor.Pipeline{
		of("good", "ok", "hold", "log"), of("done", "ok", "log", "save"), of("failed", "ok", "fail"), of("waits", "ok", "await", "ok"),
		of("told", "hold", "await", "ok"), of("retries", "fail"), line, resync, graph, finally, replace, few, of("blocked", "missing"), of("paused", "ok"),
		of("undone", "undo", "ok"), planned,
	}
}

// richDrivers registers the drivers.
func richDrivers(e *rig.Engine) {
	retries := conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 2, Initial: conveyor.Duration(time.Hour), Jitter: -1})
	e.Driver("ok", rig.DriverOf(rig.Always(conveyor.DoneWith(map[string]int{"a": 1}), nil)))
	e.Driver("hold", rig.DriverOf(rig.Taking(time.Hour)))
	e.Driver("fail", rig.DriverOf(rig.Always(conveyor.Done(), rig.ErrBoom)), retries)
	e.Driver("log", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		req.Log.Info("hello", "n", 1)
		return conveyor.Done(), nil
	}))
	e.Driver("await", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if got, err := req.Signal(nil); got || err != nil {
			return conveyor.Done(), err
		}
		return conveyor.Await("go", 0), nil
	}), retries)
	e.Driver("save", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var n int
		if known, err := req.Restore(&n); known || err != nil {
			return conveyor.Done(), err
		}
		if err := req.Checkpoint(ctx, 7); err != nil {
			return conveyor.Done(), err
		}
		return conveyor.RequeueAfter(3 * time.Hour), nil
	}), retries)
	e.Driver("undo", rig.Undoing(new(rig.Recorder), rig.Recording(rig.Taking(time.Hour))))
	e.Driver("ear", rig.DriverOf(rig.Taking(time.Hour)), conveyor.Listen("heard"))
}

func newRich(t *testing.T) *rich {
	r := &rich{records: map[string][]byte{}, owner: map[string]string{}, number: map[string]string{}}
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		richDrivers(e)
		for _, p := range richPipelines() {
			require.NoError(t, e.SavePipeline(t.Context(), p))
		}
		e.MustStart()
		apply := func(kind, name string, spec any) string {
			o := rig.Object(name, spec)
			o.Type, o.Pipeline = kind, kind
			o.Metadata = map[string]string{"label": "of " + name}
			if kind == "heard" || kind == "unheard" {
				o.Pipeline = ""
			}
			return e.MustApply(o).ID
		}
		for _, kind := range []string{"failed", "done", "resync", "unheard"} {
			apply(kind, "x", 1)
		}
		gone := apply("done", "gone", 1)
		e.Ended(gone)
		removed, err := e.Delete(t.Context(), conveyor.Key{Type: "done", Name: "gone"})
		require.NoError(t, err)
		e.Ended(removed.ID)
		apply("undone", "x", 1)
		time.Sleep(90 * time.Minute)
		require.NoError(t, e.Pause(conveyor.As(t.Context(), "ada"), conveyor.Target{Pipeline: "paused"}, "freeze"))
		require.NoError(t, e.Pause(t.Context(), conveyor.Target{Driver: "missing"}, ""))
		for _, kind := range []string{"paused", "waits", "told", "retries", "line", "graph", "finally", "replace", "few", "blocked", "heard", "planned"} {
			apply(kind, "x", 1)
		}
		apply("few", "y", 1)
		apply("done", "y", 1)
		for i := range 3 {
			apply("line", "x", 2+i)
		}
		apply("good", "x", 1)
		apply("good", "y", 1)
		time.Sleep(time.Minute)
		for _, kind := range []string{"told", "waits"} {
			name := map[string]string{"told": "go", "waits": "later"}[kind]
			o := rig.Object("x", nil)
			o.Type = kind
			require.NoError(t, e.Signal(t.Context(), e.MustGet(o).Status.Run, name, map[string]int{"a": 1}))
		}
		_, err = e.Delete(t.Context(), conveyor.Key{Type: "undone", Name: "x"})
		require.NoError(t, err)
		apply("good", "y", 2)
		time.Sleep(time.Minute)
		for rec, err := range e.Store.List(t.Context(), store.Query{}) {
			require.NoError(t, err)
			r.records[rec.Key] = rec.Value
		}
		for i, run := range rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{})) {
			r.owner[run.ID], r.number[run.ID] = run.Resource.String(), fmt.Sprint("run", i)
		}
	})
	r.index()
	return r
}

// endure starts an engine on the records with some of them replaced, and tries everything on what they belong to.
func (r *rich) endure(t *testing.T, damage map[string][]byte, ruined bool, what string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Logf("with %s", what)
				for key, value := range damage {
					t.Logf("%s: %.300q", key, value)
				}
			}
		}()
		st := memory.New()
		var ops []store.Op
		for key, value := range r.records {
			if bad, ok := damage[key]; ok {
				value = bad
			}
			if bytes.Equal(value, removed) {
				continue
			}
			ops = append(ops, store.Put(key, value))
		}
		_, err := st.Commit(t.Context(), ops...)
		require.NoError(t, err)
		e := rig.NewOn(t, st, conveyor.Options{})
		richDrivers(e)
		for _, p := range richPipelines()[15:] { // planned by code
			fair(t, e.SavePipeline(t.Context(), p))
		}
		before := rig.Dump(t, st)
		if err := e.Start(t.Context()); err != nil {
			require.Contains(t, damage, "format")
			namesKey(t, err, "format")
			require.Equal(t, before, rig.Dump(t, st))
			return
		}
		if _, ok := damage["format"]; ok {
			require.False(t, ruined, "it was not noticed")
		}
		time.Sleep(time.Minute)
		r.tryAll(t, e, damage, ruined)
		time.Sleep(50 * time.Hour)
		for i, want := range []int64{1, 2} {
			o := rig.Object([]string{"x", "y"}[i], nil)
			o.Type = "good"
			good := e.MustGet(o)
			require.Equal(t, conveyor.StateSucceeded, good.Status.Phase)
			require.Equal(t, want, good.Status.ObservedGeneration)
		}
		more := rig.Object("z", 1)
		more.Type, more.Pipeline = "good", "good"
		require.NoError(t, e.Finish(more).Err())
	})
}

// fair requires that an error is one that the documentation knows.
func fair(t *testing.T, err error) {
	t.Helper()
	for _, known := range []error{
		nil, conveyor.ErrNotFound, conveyor.ErrConflict, conveyor.ErrExists, conveyor.ErrInvalid, store.ErrCorrupt, conveyor.ErrTooLarge,
	} {
		if errors.Is(err, known) {
			return
		}
	}
	require.Fail(t, "an error that nobody knows", "%v", err)
}

// namesKey requires an ErrCorrupt that names the record.
func namesKey(t *testing.T, err error, key string) {
	t.Helper()
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.ErrorContains(t, err, key)
	require.Less(t, len(err.Error()), 4<<10)
}

// tryAll calls every verb on what the records belong to.
func (r *rich) tryAll(t *testing.T, e *rig.Engine, damage map[string][]byte, ruined bool) {
	for key := range damage {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		parts := strings.Split(key, "/")
		k := r.ownerOf(key)
		if parts[0] == "pse" {
			var err error
			for _, failed := range e.Pauses(ctx) {
				err = errors.Join(err, failed)
			}
			fair(t, err)
			if ruined {
				namesKey(t, err, key)
			}
			for _, target := range []conveyor.Target{{Pipeline: "paused"}, {Driver: "missing"}} {
				fair(t, e.Resume(ctx, target)) // the record of the other one may be damaged too, and gone
			}
			require.Empty(t, rig.Drain(t, e.Pauses(ctx)), "what is damaged can be resumed")
			continue
		}
		if k == (conveyor.Key{}) && key != "format" {
			k = conveyor.Key{Type: parts[1], Name: "x"}
			_, err := e.GetPipeline(ctx, parts[1])
			fair(t, err)
			if ruined {
				namesKey(t, err, key)
			}
		}
		answers := map[string]error{}
		_, answers["res"] = e.Get(ctx, k)
		for _, err := range e.Revisions(ctx, k) {
			answers["rev"] = errors.Join(answers["rev"], err)
		}
		for _, run := range slices.Sorted(maps.Keys(r.owner)) {
			if r.owner[run] != k.String() {
				continue
			}
			_, err := e.GetRun(ctx, run)
			for _, prefix := range []string{"run", "stp", "att", "pln"} {
				answers[prefix+run] = err
			}
			for _, err := range e.Logs(ctx, run, conveyor.LogOptions{}) {
				answers["log"+run] = errors.Join(answers["log"+run], err)
			}
			brief, cancel := context.WithTimeout(ctx, time.Second)
			_, err = e.Wait(brief, run)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) { // it has not ended
				fair(t, err)
			}
			for _, err := range e.Logs(ctx, run, conveyor.LogOptions{After: 1 << 40}) {
				fair(t, err)
			}
		}
		for name, err := range answers {
			fair(t, err)
			if ruined && (name == parts[0] || len(parts) > 1 && name == parts[0]+parts[1]) {
				namesKey(t, err, key)
			}
		}
		for _, err := range e.List(ctx, conveyor.ResourceFilter{Type: k.Type}) {
			fair(t, err)
		}
		for _, err := range e.Runs(ctx, conveyor.RunFilter{Resource: k, Newest: true}) {
			fair(t, err)
		}
		_, err := e.Trigger(ctx, k)
		fair(t, err)
		for _, run := range slices.Sorted(maps.Keys(r.owner)) {
			if r.owner[run] != k.String() {
				continue
			}
			fair(t, e.Signal(ctx, run, "go", 2))
			_, err := e.Retry(ctx, run, conveyor.RetryFrom{})
			fair(t, err)
			fair(t, e.Cancel(ctx, run, "enough"))
			time.Sleep(time.Second)
			_, err = e.Retry(ctx, run, conveyor.RetryFrom{Newest: true})
			fair(t, err)
			_, err = e.Retry(ctx, run, conveyor.RetryFrom{Start: true})
			fair(t, err)
		}
		_, err = e.Rollback(ctx, k, 1)
		fair(t, err)
		if k.Type != "" {
			o := rig.Object(k.Name, 7)
			o.Type, o.Pipeline = k.Type, k.Type
			if k.Type == "heard" || k.Type == "unheard" {
				o.Pipeline = ""
			}
			_, err = e.Apply(ctx, o)
			fair(t, err)
			if ruined && (parts[0] == "res" || parts[0] == "tmb" || parts[0] == "pip" && k.Type != "undone") {
				namesKey(t, err, key)
			}
		}
		time.Sleep(time.Second)
		_, err = e.Delete(ctx, k)
		fair(t, err)
	}
}

func TestRule11ADamagedSignalDamagesNoStep(t *testing.T) {
	for _, c := range []struct{ end, value string }{
		{"", ""}, {"", `{"a":`}, {"", "null null"}, {"~", ""}, {"~", `{"payload":`}, {"~", `{"by":"ada"}`}, {"~", `{"payload":1,"by":2}`}, {"~", "null"}, {"~", `"go"`},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{}).MustStart()
			e.Driver("ask", rig.DriverOf(rig.Approval(0)))
			e.Pipeline("ask")
			run := e.MustApply(rig.Object("a", nil))
			synctest.Wait()
			e.Stop()
			key := "sig/" + run.ID + "/go/1" + c.end
			_, err := e.Store.Store.Commit(t.Context(), store.Put(key, []byte(c.value)))
			require.NoError(t, err)
			var out rig.Buffer
			e = rig.NewOn(t, e.Store.Store, conveyor.Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
			e.Driver("ask", rig.DriverOf(rig.Approval(0)))
			e.MustStart()
			synctest.Wait()
			require.Equal(t, conveyor.StateWaiting, e.MustGetRun(run.ID).State)
			require.Contains(t, out.String(), key)
			// It goes on as soon as somebody has taken the record away.
			_, err = e.Store.Store.Commit(t.Context(), store.Delete(key))
			require.NoError(t, err)
			require.NoError(t, e.Signal(t.Context(), run.ID, "go", nil))
			require.NoError(t, e.Ended(run.ID).Err())
		})
	}
}

func TestRule11ADamagedCheckpointFailsTheAttemptThatAsksForIt(t *testing.T) {
	for _, value := range []string{"", `{"a":`, "1 1"} {
		synctest.Test(t, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{}).MustStart()
			var got error
			e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				key := "ckp/" + req.Run + "/1"
				if _, err := e.Store.Commit(t.Context(), store.Put(key, []byte(value))); err != nil {
					return conveyor.Done(), err
				}
				n := 7
				known, err := req.Restore(&n)
				require.False(t, known)
				require.Equal(t, 7, n)
				namesKey(t, err, key)
				got = err
				return conveyor.Done(), conveyor.Permanent(err)
			}))
			e.Pipeline("d")
			require.ErrorContains(t, e.Finish(rig.Object("a", nil)).Err(), "ckp/")
			require.Error(t, got)
		})
	}
}

// A resource's record that is older than what belongs to it must not have a call try for ever.
func TestRule11ARecordThatIsGoneIsNotMissedForEver(t *testing.T) {
	e := rig.New(t, conveyor.Options{})
	e.Save(rig.Queueing(rig.PipelineOf("d")))
	for i := range 4 {
		e.MustApply(rig.Object("a", i))
		e.MustApply(rig.Object("b", i))
	}
	older, err := e.Store.Get(t.Context(), "res/r/b")
	require.NoError(t, err)
	_, err = e.Store.Commit(t.Context(), store.Delete("res/r/a"),
		store.Put("res/r/b", bytes.Replace(older.Value, []byte(`"lastPlace":3`), []byte(`"lastPlace":1`), 1)))
	require.NoError(t, err)
	for _, name := range []string{"a", "b"} {
		_, err := e.Apply(t.Context(), rig.Object(name, 9))
		namesKey(t, err, "res/r/"+name)
	}
	_, err = e.Trigger(t.Context(), conveyor.Key{Type: "r", Name: "a"})
	require.ErrorIs(t, err, conveyor.ErrNotFound)
}
