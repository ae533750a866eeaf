package engines_test

import (
	"context"
	"fmt"
	"iter"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/ids"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// ahead is a handle of a shared store for an engine whose clock is ahead, or behind if by is negative. All engines of a process have
// one clock. So the engine has the right time and sees other records: every time that it reads is earlier by as much, and every time
// that it writes becomes later. What is in the store is what an engine with such a clock would have read and written. The ids that an
// engine makes begin with the time and are moved too; the engine and its callers know a run by another id than the store does.
type ahead struct {
	store.Store
	by time.Duration
}

var (
	_ store.Watcher = ahead{}
	_ store.Limited = ahead{}
)

// aTime matches an id, or all but its last letter, a time in a value, and a time in a key.
var aTime = regexp.MustCompile(`\b(?:[0-9a-hjkmnp-tv-z]{25,26}|[0-9]{18}|[0-9a-f]{16})\b`)

// moved returns a text with every time of the year in which bubbles begin moved, and those of the months around it.
func moved(text string, by time.Duration) string {
	const letters = "0123456789abcdefghjkmnpqrstvwxyz"
	begin, end := time.Date(1999, 12, 1, 0, 0, 0, 0, time.UTC), time.Date(2001, 2, 1, 0, 0, 0, 0, time.UTC)
	return aTime.ReplaceAllStringFunc(text, func(word string) string {
		var n int64
		unit, rest, err := int64(1), "", error(nil)
		switch len(word) {
		case 25, 26:
			unit, rest, word = int64(time.Millisecond), word[10:], word[:10]
			for i := range len(word) {
				n = n<<5 | int64(strings.IndexByte(letters, word[i]))
			}
		case 18:
			n, err = strconv.ParseInt(word, 10, 64)
		default:
			n, err = strconv.ParseInt(word, 16, 64)
		}
		if err != nil || n > math.MaxInt64/unit || n*unit < begin.UnixNano() || n*unit > end.UnixNano() {
			return word + rest // it is no time
		}
		n += int64(by) / unit
		switch len(word) {
		case 18:
			return strconv.FormatInt(n, 10)
		case 16:
			return fmt.Sprintf("%016x", n)
		}
		var id [10]byte
		for i := len(id) - 1; i >= 0; i-- {
			id[i], n = letters[n&31], n>>5
		}
		return string(id[:]) + rest
	})
}

// toStore returns what the store has for a text of the engine.
func (a ahead) toStore(text string) string { return moved(text, a.by) }

// fromStore returns what the engine sees for a text of the store.
func (a ahead) fromStore(text string) string { return moved(text, -a.by) }

func (a ahead) seen(r store.Record) store.Record {
	r.Key = a.fromStore(r.Key)
	if len(r.Value) > 0 {
		r.Value = []byte(a.fromStore(string(r.Value)))
	}
	return r
}

func (a ahead) Limits() store.Limits { return store.LimitsOf(a.Store) }

func (a ahead) Get(ctx context.Context, key string) (store.Record, error) {
	r, err := a.Store.Get(ctx, a.toStore(key))
	return a.seen(r), err
}

func (a ahead) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	q.Prefix, q.After = a.toStore(q.Prefix), a.toStore(q.After)
	return func(yield func(store.Record, error) bool) {
		for r, err := range a.Store.List(ctx, q) {
			if !yield(a.seen(r), err) {
				return
			}
		}
	}
}

func (a ahead) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for c, err := range a.Store.(store.Watcher).Watch(ctx, a.toStore(prefix), after) {
			c.Key = a.fromStore(c.Key)
			if !yield(c, err) {
				return
			}
		}
	}
}

func (a ahead) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	there := make([]store.Op, 0, len(ops))
	for _, op := range ops {
		key := a.toStore(op.Key())
		there = append(there, rebuilt(op, key, []byte(a.toStore(string(op.Value())))))
	}
	return a.Store.Commit(ctx, there...)
}

// clocked is a process with a clock of its own.
type clocked struct {
	*process
	clock ahead
}

// slowLease is that of engines in a test that takes hours, so that there are not too many heartbeats.
const slowLease = time.Minute

// startClocked starts a process whose clock is ahead.
func (w *world) startClocked(name string, by time.Duration, drivers map[string]rig.Func) *clocked {
	clock := ahead{w.disk.Join(), by}
	p := &process{disk: clock, w: w, name: name}
	e, err := conveyor.New(line{p}, conveyor.Options{Lease: slowLease, Name: name})
	require.NoError(w.t, err)
	p.Engine = e
	for id, answer := range drivers {
		require.NoError(w.t, e.Register(id, rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			as := &conveyor.Request{Resource: req.Resource, Run: clock.toStore(req.Run), Step: req.Step}
			return w.around(p, func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) { return answer(ctx, req) })(ctx, as)
		})))
	}
	w.t.Cleanup(func() { require.NoError(w.t, p.stop()) })
	require.NoError(w.t, e.Start(w.t.Context()))
	return &clocked{p, clock}
}

// apply applies a resource and returns the id of its run in the store.
func (c *clocked) apply(o conveyor.Resource) (run string) { return c.clock.toStore(c.mustApply(o).ID) }

// ended waits for the end of a run of the store.
func (c *clocked) ended(run string, within time.Duration) *conveyor.Run {
	c.w.t.Helper()
	return untilEnded(c.w.t, c.Engine, c.clock.fromStore(run), within)
}

func (c *clocked) signal(run string, payload any) {
	c.w.t.Helper()
	require.NoError(c.w.t, c.Signal(context.Background(), c.clock.fromStore(run), "go", payload))
}

// withClocks runs a test with two engines whose clocks are ten minutes apart, either way. The clock of the first one is right.
func withClocks(t *testing.T, drivers func() map[string]rig.Func, test func(t *testing.T, w *world, by time.Duration, first, second *clocked)) {
	for _, by := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		t.Run(fmt.Sprint("the second one is ahead by ", by), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				all := drivers()
				first := w.startClocked("first", 0, all)
				second := w.startClocked("second", by, all)
				time.Sleep(slowLease)
				test(t, w, by, first, second)
			})
		})
	}
}

// live returns the engines that are on record. An engine that was taken for dead begins anew under another id.
func (w *world) live() (ids []string) {
	for key, r := range w.records() {
		if strings.HasPrefix(key, "eng/") {
			require.NotContains(w.t, string(r.Value), `"dead"`)
			ids = append(ids, key)
		}
	}
	slices.Sort(ids)
	return ids
}

func TestEngines13AClockThatIsAheadIsAheadInTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		clock := ahead{disk.Join(), 10 * time.Minute}
		now := time.Now().UnixNano()
		id, later := new(ids.IDs).Next(time.Now()), new(ids.IDs).Next(time.Now().Add(10*time.Minute))
		key := fmt.Sprintf("~rdy/any/p/%016x/%s", now, id)
		_, err := clock.Commit(t.Context(), store.Put(key, fmt.Appendf(nil, `{"at":%d,"n":%d,"hash":"%064x"}`, now, 7, now)))
		require.NoError(t, err)
		got, err := clock.Get(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, key, got.Key)
		require.Equal(t, fmt.Sprintf(`{"at":%d,"n":7,"hash":"%064x"}`, now, now), string(got.Value))
		for r, err := range disk.List(t.Context(), store.Query{}) {
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("~rdy/any/p/%016x/%s", now+int64(10*time.Minute), later[:10]+id[10:]), r.Key)
			require.Equal(t, fmt.Sprintf(`{"at":%d,"n":7,"hash":"%064x"}`, now+int64(10*time.Minute), now), string(r.Value))
		}
	})
}

// TestEngines13ClocksThatAreApart has two engines with different clocks do the same work in turns.
func TestEngines13ClocksThatAreApart(t *testing.T) {
	var calls atomic.Int64
	drivers := func() map[string]rig.Func {
		calls.Store(0)
		return map[string]rig.Func{"a": quick, "s": rig.Awaiting(0), "long": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			calls.Add(1)
			return rig.Taking(20*time.Minute)(ctx, req)
		}}
	}
	withClocks(t, drivers, func(t *testing.T, w *world, by time.Duration, first, second *clocked) {
		first.mustSave(rig.PipelineOf("a"))
		first.mustSave(rig.Named("long", rig.PipelineOf("long")))
		first.mustSave(rig.Named("signals", rig.PipelineOf("a", "s", "s", "s", "s")))
		both, live := []*clocked{first, second}, w.live()

		// Each knows how far the clock of the other one is off.
		for i, c := range both {
			engines, err := c.Engines(t.Context())
			require.NoError(t, err)
			require.Len(t, engines, 2)
			for _, e := range engines {
				require.Zero(t, e.Dead)
				want := []time.Duration{by, -by}[i]
				if e.Self {
					want = 0
				}
				require.InDelta(t, want, e.Ahead, float64(slowLease/3))
			}
		}

		// The runs of a resource grow, whichever engine makes them.
		var runs []string
		for i := range 6 {
			c := both[i%2]
			run := c.apply(rig.Object("x", i))
			require.NoError(t, both[(i+1)%2].ended(run, time.Minute).Err())
			runs = append(runs, run)
		}
		require.True(t, slices.IsSorted(runs), "%v", runs)
		require.Len(t, slices.Compact(runs), 6)

		// Signals are taken in the order in which they came. The keys of those of one engine sort before those of the other one.
		waits := first.apply(rig.Along("signals", "y"))
		for i := range 4 {
			both[(i+1)%2].signal(waits, fmt.Sprint(i))
			time.Sleep(time.Millisecond)
		}
		ended := first.ended(waits, time.Minute)
		for i := range 4 {
			require.Equal(t, fmt.Sprintf(`"%d"`, i), string(ended.Steps[1+i].Output))
		}

		// A step that takes long is taken over by nobody.
		long := []string{first.apply(rig.Along("long", "l0")), second.apply(rig.Along("long", "l1"))}
		for _, run := range long {
			require.NoError(t, second.ended(run, time.Hour).Err())
		}
		require.EqualValues(t, 2, calls.Load())
		require.Equal(t, live, w.live(), "neither is taken for dead because of its clock")
	})
}

// TestEngines13TimesOfARunThatIsTakenOverByAnotherClock kills the first engine while its runs wait. They are early or late by as much as
// the clock of the second one is off, and not more. If that clock says that a wait has not begun yet, the wait begins anew.
func TestEngines13TimesOfARunThatIsTakenOverByAnotherClock(t *testing.T) {
	for _, killed := range []time.Duration{time.Minute, 30 * time.Minute} {
		t.Run(fmt.Sprint("after ", killed), func(t *testing.T) {
			drivers := func() map[string]rig.Func {
				wait := rig.Always(conveyor.RequeueAfter(time.Hour), nil)
				return map[string]rig.Func{"s": rig.Awaiting(time.Hour), "never": rig.Awaiting(0), "due": rig.InTurn(wait, quick)}
			}
			withClocks(t, drivers, func(t *testing.T, w *world, by time.Duration, first, second *clocked) {
				first.mustSave(rig.Named("due", rig.PipelineOf("due")))
				first.mustSave(rig.Named("signal", rig.PipelineOf("s")))
				limited := rig.Named("limited", rig.PipelineOf("never"))
				limited.Timeout = conveyor.Duration(time.Hour)
				first.mustSave(limited)
				began := time.Now()
				runs := map[string]string{}
				for _, pipeline := range []string{"due", "signal", "limited"} {
					synctest.Wait() // a run that is made while another one waits for its turn can be begun by either engine
					runs[pipeline] = first.apply(rig.Along(pipeline, pipeline))
				}
				time.Sleep(killed)
				first.kill()
				for pipeline, run := range runs {
					ended := second.ended(run, 2*time.Hour)
					took := ended.EndedAt.Sub(began) // as the second engine sees it, which has the right time
					if by > 0 || killed > -by {
						require.InDelta(t, time.Hour-by, took, float64(time.Second), pipeline)
					} else {
						require.InDelta(t, time.Hour+killed, took, float64(2*slowLease), pipeline)
					}
					if pipeline == "limited" {
						require.ErrorIs(t, ended.Err(), conveyor.ErrTimeout)
					} else {
						require.NoError(t, ended.Err())
					}
				}
			})
		})
	}
}

// TestEngines13ResyncsOfTwoClocks has two engines look for what is due to be reconciled again. They do it early or late by as much as
// their clocks are apart, and once.
func TestEngines13ResyncsOfTwoClocks(t *testing.T) {
	var d *rig.Recorder
	drivers := func() map[string]rig.Func {
		d = new(rig.Recorder)
		return map[string]rig.Func{"a": d.Reconcile}
	}
	withClocks(t, drivers, func(t *testing.T, w *world, by time.Duration, first, second *clocked) {
		p := rig.PipelineOf("a")
		p.Resync = conveyor.Duration(30 * time.Minute)
		first.mustSave(p)
		require.NoError(t, first.ended(first.apply(rig.Object("x", 1)), time.Minute).Err())
		live := w.live()
		time.Sleep(2 * time.Hour)
		calls := d.All()
		require.GreaterOrEqual(t, len(calls), 3)
		for i := range calls[1:] {
			require.InDelta(t, 30*time.Minute, calls[i+1].Began.Sub(calls[i].Began), float64(by.Abs()+slowLease))
		}
		require.Equal(t, live, w.live())
	})
}
