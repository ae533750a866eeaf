package features_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
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

// bounded is a store that states limits. A commit that passes them fails the test.
type bounded struct {
	store.Store
	t      *testing.T
	limits store.Limits

	mu         sync.Mutex // guards what follows
	ops, bytes int        // of the largest commits
	commits    int
	refused    error
}

func newBounded(t *testing.T, limits store.Limits) *bounded {
	return &bounded{Store: memory.New(), t: t, limits: limits}
}

func (b *bounded) Limits() store.Limits { return b.limits }

func (b *bounded) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	size := 0
	var keys []string
	for _, op := range ops {
		size += op.Size()
		keys = append(keys, fmt.Sprintf("%s (%d)", op.Key()[:min(len(op.Key()), 60)], op.Size()))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.limits.Check(ops); err != nil {
		if b.refused == nil {
			b.t.Errorf("%v: %s", err, strings.Join(keys[:min(len(keys), 20)], ", "))
		}
		b.refused = err
		return 0, store.ErrClosed // otherwise the engine would try again for ever
	}
	b.ops, b.bytes, b.commits = max(b.ops, len(ops)), max(b.bytes, size), b.commits+1
	return b.Store.Commit(ctx, ops...)
}

// stated are limits of stores: those of a server as it comes, and of one that accepts hardly more than an engine needs.
var stated = []struct {
	name   string
	limits store.Limits
}{
	{"128 ops and 1.5 MiB", store.Limits{Ops: 128, Bytes: 3 << 19}},
	{"20 ops and 256 KiB", store.Limits{Ops: 20, Bytes: 256 << 10, Value: 200 << 10}},
}

func eachStated(t *testing.T, test func(t *testing.T, st *bounded, limits conveyor.Limits)) {
	limits := stated
	if testenv.Race {
		limits = stated[1:] // which is as much of a race, in a tenth of the time
	}
	for _, s := range limits {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newBounded(t, s.limits)
				limits := largest(t, st)
				limits.Steps, limits.Attempts = 400, 1
				test(t, st, limits)
			})
		})
	}
}

var accepted = regexp.MustCompile(`more than this store accepts \((\d+), so that all that is written together fits into a commit of (\d+) bytes\); lower it or raise the limit of the server$`)

// largest returns the largest limits that New accepts, found out from what it says of larger ones.
func largest(t *testing.T, st store.Store) (l conveyor.Limits) {
	for _, field := range []struct {
		name  string
		value *int
		most  int // on any store
	}{
		{"Carried", &l.Carried, 64 << 10},
		{"ErrorText", &l.ErrorText, 2 << 20},
		{"Spec", &l.Spec, 3 << 20},
		{"Document", &l.Document, 4 << 20},
		{"Output", &l.Output, 4 << 20},
		{"LogLine", &l.LogLine, 4 << 20},
	} {
		*field.value = field.most
		_, err := conveyor.New(st, conveyor.Options{Limits: l})
		if err == nil {
			continue
		}
		require.ErrorIs(t, err, conveyor.ErrInvalid)
		var of *conveyor.FieldError
		require.ErrorAs(t, err, &of)
		require.Equal(t, "Limits."+field.name, of.Field)
		require.Contains(t, of.Problem, fmt.Sprintf("%d, more than", field.most))
		found := accepted.FindStringSubmatch(of.Problem)
		require.NotNil(t, found, of.Problem)
		*field.value, err = strconv.Atoi(found[1])
		require.NoError(t, err)
		require.Positive(t, *field.value)
		_, err = conveyor.New(st, conveyor.Options{Limits: l})
		require.NoError(t, err, "what is said to be accepted is accepted")
	}
	return l
}

func TestNewRefusesLimitsThatTheStoreDoesNotAccept(t *testing.T) {
	small := stated[1].limits
	cases := []struct {
		name   string
		limits store.Limits
		opts   conveyor.Limits
		want   []string
	}{
		{"no limits of the store", store.Limits{}, conveyor.Limits{Spec: 3 << 20, Document: 4 << 20, Output: 4 << 20, ErrorText: 2 << 20, LogLine: 4 << 20}, nil},
		{"limits that no engine feels", store.Limits{Ops: 10_000, Bytes: 64 << 20}, conveyor.Limits{Spec: 3 << 20}, nil},
		{"all defaults", small, conveyor.Limits{}, nil},
		{"one that fits", small, conveyor.Limits{Spec: 10_000}, nil},
		{"one that does not", small, conveyor.Limits{Spec: 4 << 18},
			[]string{"Limits.Spec: 1048576, more than this store accepts (", "so that all that is written together fits into a commit of 262144 bytes); lower it or raise the limit of the server"}},
		{"several that do not", small, conveyor.Limits{Output: 1 << 20, LogLine: 1 << 20}, []string{"Limits.Output: 1048576, more", "Limits.LogLine: 1048576, more"}},
		{"values only", store.Limits{Value: 200 << 10}, conveyor.Limits{Output: 1 << 20}, []string{"Limits.Output: 1048576, more", "fits into a value of 204800 bytes"}},
		{"more than any store accepts", small, conveyor.Limits{Spec: 8 << 20}, []string{"Limits.Spec: 8388608 is more than 3145728, the maximum"}},
		{"too few ops", store.Limits{Ops: 19}, conveyor.Limits{}, []string{"store: accepts 19 ops in a commit, fewer than the 20 that an engine needs; raise the limit of the server"}},
		{"too few bytes", store.Limits{Bytes: 1000}, conveyor.Limits{}, []string{"store: accepts 1000 bytes in a commit, fewer than the 262144"}},
		{"too small values", store.Limits{Value: 1000}, conveyor.Limits{}, []string{"store: accepts 1000 bytes in a value, fewer than the 131072"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := conveyor.New(newBounded(t, c.limits), conveyor.Options{Limits: c.opts})
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, conveyor.ErrInvalid)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

// worst is a text of so many bytes as JSON, in which nearly each byte needs an escape.
func worst(n int) string { return strings.Repeat("\x01", n/6) }

// fill is a JSON string of so many bytes.
func fill(n int) string { return strings.Repeat("x", n-2) }

// longName is a name as long as names can be.
func longName(i int) string { return fmt.Sprintf("%0253d", i) }

// many is a number of steps that is too large for one commit, and whose pipeline is not too large.
func many(l conveyor.Limits) int { return min(100, l.Document/500) }

// wide is a graph of n steps that all start at once, with the longest names there are.
func wide(n int, driver string) conveyor.PipelineSpec {
	p := conveyor.PipelineSpec{Name: "p", Resource: "r"}
	for i := range n {
		p.Steps = append(p.Steps, conveyor.Step{ID: longName(i), Driver: driver, After: conveyor.AtOnce()})
	}
	return p
}

// fillDocument makes a pipeline as large as its document can be.
func fillDocument(p conveyor.PipelineSpec, limit int) conveyor.PipelineSpec {
	p.Steps[0].With = rig.JSON("")
	p.Steps[0].With = rig.JSON(fill(2 + limit - len(rig.JSON(p))))
	return p
}

// full is a resource with the largest spec and metadata.
func full(l conveyor.Limits, name string) *conveyor.Object {
	o := rig.Object(name, fill(l.Spec))
	o.Metadata = map[string]string{"m": fill(l.Spec - len(`{"m":}`))}
	return o
}

// largeEngine is an engine with the largest limits, and what each call carries.
func largeEngine(t *testing.T, st *bounded, limits conveyor.Limits) *rig.Engine {
	return rig.NewOn(t, st, conveyor.Options{
		Limits: limits, Workers: 1000, Retry: conveyor.RetryPolicy{MaxAttempts: 2, Initial: conveyor.Duration(time.Second), Jitter: -1},
		Carry: func(context.Context) map[string]string {
			return map[string]string{"c": fill(limits.Carried - len(`{"c":}`))}
		},
	})
}

// TestEverythingAtItsLargestFitsIntoTheStore has an engine with the largest limits that a store accepts do what makes the
// largest commits, each case as large as it can be. The store fails the test if a commit passes its limits.
func TestEverythingAtItsLargestFitsIntoTheStore(t *testing.T) {
	log := func(req *conveyor.Request, l conveyor.Limits, lines int) {
		for range lines {
			req.Log.Info(fill(l.LogLine))
		}
	}
	cases := []struct {
		name string
		do   func(t *testing.T, e *rig.Engine, l conveyor.Limits)
	}{
		{"all steps of a graph fail at once, with panics and logs", func(t *testing.T, e *rig.Engine, l conveyor.Limits) {
			steps := many(l)
			e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				if len(req.Step.With) == 0 && req.Attempt == 1 {
					log(req, l, 1)
				}
				time.Sleep(time.Second)
				if req.Attempt == 1 {
					return rig.DeepPanic(2000)
				}
				panic(worst(l.ErrorText))
			}))
			e.Save(fillDocument(wide(steps, "d"), l.Document))
			run := e.Finish(full(l, "a"))
			require.Equal(t, conveyor.StateFailed, run.State)
			for _, s := range run.Steps {
				require.Equal(t, conveyor.StateFailed, s.State)
				require.Equal(t, 2, s.Attempt)
			}
			require.Len(t, e.AllLogs(run.ID, conveyor.LogOptions{}), steps-1)
		}},
		{"large outputs at once, and retries that keep them", func(t *testing.T, e *rig.Engine, l conveyor.Limits) {
			var broken atomic.Bool
			broken.Store(true)
			calls := new(atomic.Int64)
			e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				calls.Add(1)
				if err := req.Checkpoint(context.Background(), fill(l.Output)); err != nil {
					return conveyor.Done(), err
				}
				time.Sleep(time.Second)
				if req.Step.Name == "last" && broken.Load() {
					return conveyor.Done(), conveyor.Permanent(errors.New(worst(l.ErrorText)))
				}
				return conveyor.DoneWith(fill(l.Output)), nil
			}))
			p := wide(10, "d")
			p.Steps = append(p.Steps, conveyor.Step{ID: "last", Name: "last", Driver: "d"})
			p.Finally = []conveyor.Step{{ID: "after", Driver: "d"}}
			e.Save(fillDocument(p, l.Document))
			run := e.Finish(full(l, "a"))
			require.Equal(t, conveyor.StateFailed, run.State)
			for _, newest := range []bool{false, true} {
				broken.Store(!newest)
				before := calls.Load()
				again, err := e.Retry(t.Context(), run.ID, conveyor.RetryFrom{Newest: newest})
				require.NoError(t, err)
				run = e.Ended(again.ID)
				require.Equal(t, newest, run.State == conveyor.StateSucceeded)
				require.EqualValues(t, 2, calls.Load()-before, "the last step and the cleanup are called again")
				for _, s := range run.Steps[:10] {
					require.Equal(t, conveyor.StateSucceeded, s.State)
					require.Len(t, s.Output, l.Output)
				}
			}
		}},
		{"many steps wait and are woken at once, by large signals and by the time", func(t *testing.T, e *rig.Engine, l conveyor.Limits) {
			e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				if got, err := req.Signal(nil); got || err != nil {
					return conveyor.Done(), errors.New(worst(l.ErrorText))
				}
				return conveyor.Await(req.Step.ID, time.Hour), nil
			}))
			e.Save(fillDocument(wide(60, "d"), l.Document))
			run := e.MustApply(full(l, "a"))
			synctest.Wait()
			require.NoError(t, e.Pause(t.Context(), conveyor.Target{All: true}, worst(l.ErrorText)))
			for i := range 10 {
				require.NoError(t, e.Signal(conveyor.As(t.Context(), fill(253)), run.ID, longName(i), fill(l.Output)))
				require.NoError(t, e.Signal(conveyor.As(t.Context(), fill(253)), run.ID, longName(i), fill(l.Output)))
			}
			require.NoError(t, e.Resume(t.Context(), conveyor.Target{All: true}))
			require.Equal(t, conveyor.StateFailed, e.Ended(run.ID).State)
		}},
		{"the first step halts the run, and a cancel ends all steps", func(t *testing.T, e *rig.Engine, l conveyor.Limits) {
			e.Driver("halt", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				return conveyor.Halt(worst(l.ErrorText)), nil
			}))
			e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				log(req, l, 1)
				<-ctx.Done()
				return conveyor.Done(), errors.New(worst(l.ErrorText))
			}))
			p := wide(many(l), "d")
			p.Steps = append([]conveyor.Step{{ID: "first", Driver: "halt"}}, p.Steps...)
			for i := range p.Steps[1:] {
				p.Steps[i+1].After = []string{"first"}
			}
			e.Save(fillDocument(p, l.Document))
			require.Equal(t, conveyor.StateSucceeded, e.Finish(full(l, "a")).State)

			p.Steps = p.Steps[1:]
			for i := range p.Steps {
				p.Steps[i].After = conveyor.AtOnce()
			}
			e.Save(p)
			run := e.MustApply(full(l, "b"))
			synctest.Wait()
			require.NoError(t, e.Cancel(t.Context(), run.ID, worst(l.ErrorText)))
			run = e.Ended(run.ID)
			require.Equal(t, conveyor.StateCanceled, run.State)
			for _, s := range run.Steps {
				require.Equal(t, conveyor.StateCanceled, s.State)
			}
		}},
		{"a line, an error and the end of the run come together", func(t *testing.T, e *rig.Engine, l conveyor.Limits) {
			line := min(l.LogLine, 200<<10) // a larger one would be written at once
			e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				req.Log.Info(fill(line))
				return conveyor.Done(), conveyor.Permanent(errors.New(worst(l.ErrorText)))
			}))
			e.Save(fillDocument(wide(1, "d"), l.Document))
			run := e.Finish(full(l, "a"))
			require.Equal(t, conveyor.StateFailed, run.State)
			require.Len(t, e.AllLogs(run.ID, conveyor.LogOptions{}), 1)
		}},
		{"all steps are blocked at once, are paused, and go on", func(t *testing.T, e *rig.Engine, l conveyor.Limits) {
			e.Save(fillDocument(wide(many(l), "d"), l.Document))
			run := e.MustApply(full(l, "a"))
			synctest.Wait()
			for _, s := range e.MustGetRun(run.ID).Steps {
				require.Equal(t, conveyor.StateBlocked, s.State)
			}
			require.NoError(t, e.Pause(t.Context(), conveyor.Target{Driver: "d"}, fill(l.ErrorText-100)))
			e.Driver("d", new(rig.Recorder))
			synctest.Wait()
			for _, s := range e.MustGetRun(run.ID).Steps {
				require.Contains(t, s.Reason, "paused")
			}
			require.NoError(t, e.Resume(t.Context(), conveyor.Target{Driver: "d"}))
			require.Equal(t, conveyor.StateSucceeded, e.Ended(run.ID).State)
		}},
		{"planned steps, and a deletion that passes them over, with hundreds of generations", func(t *testing.T, e *rig.Engine, l conveyor.Limits) {
			e.Driver("d", new(rig.Recorder))
			planner := rig.NewFanOut()
			planner.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
				p := wide(many(l), "d")
				return fillDocument(p, l.Document-400).Steps, nil
			}
			e.SavePlanned(planner)
			run := e.Finish(full(l, "a"))
			require.NoError(t, run.Err())
			require.Len(t, run.Steps, many(l)+1)
			small := rig.Object("a", 0)
			for i := range 300 {
				small.Spec = rig.JSON(i)
				_, err := e.Apply(t.Context(), small)
				require.NoError(t, err)
			}
			synctest.Wait()
			require.NoError(t, e.Finish(full(l, "a")).Err())
			gone, err := e.Delete(t.Context(), small.Key())
			require.NoError(t, err)
			require.NoError(t, e.Ended(gone.ID).Err())
			_, err = e.Get(t.Context(), small.Key())
			require.ErrorIs(t, err, conveyor.ErrNotFound)
			for r, err := range e.Store.List(t.Context(), store.Query{Prefix: "rev/"}) {
				require.NoError(t, err)
				require.Fail(t, "a generation is left", r.Key)
			}
		}},
		{"planned steps have large outputs, and a retry keeps them", func(t *testing.T, e *rig.Engine, l conveyor.Limits) {
			e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				if req.Step.Name == "last" && req.Cause != conveyor.CauseRetried {
					return conveyor.Done(), conveyor.Permanent(errors.New(worst(l.ErrorText)))
				}
				return conveyor.DoneWith(fill(l.Output)), nil
			}))
			planner := rig.NewFanOut()
			planner.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
				p := wide(3, "d")
				p.Steps = append(p.Steps, conveyor.Step{ID: "last", Name: "last", Driver: "d"})
				return fillDocument(p, l.Document-400).Steps, nil
			}
			e.SavePlanned(planner)
			run := e.Finish(full(l, "a"))
			require.Equal(t, conveyor.StateFailed, run.State)
			for _, newest := range []bool{false, true} {
				again, err := e.Retry(t.Context(), run.ID, conveyor.RetryFrom{Newest: newest})
				require.NoError(t, err)
				require.NoError(t, e.Ended(again.ID).Err())
			}
		}},
		{"drivers that listen, and long logs that are cut", func(t *testing.T, e *rig.Engine, l conveyor.Limits) {
			for i := range 6 {
				e.Driver(longName(i), rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					for range 3 {
						log(req, l, 10)
						time.Sleep(2 * time.Second)
					}
					return conveyor.Done(), nil
				}), conveyor.Listen("loose"))
			}
			o := full(l, "a")
			o.Type, o.Pipeline = "loose", ""
			run := e.Finish(o)
			require.NoError(t, run.Err())
			for i := range 6 {
				require.LessOrEqual(t, len(e.AllLogs(run.ID, conveyor.LogOptions{Step: run.Steps[i].ID})), l.LogLines+1)
			}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			eachStated(t, func(t *testing.T, st *bounded, limits conveyor.Limits) {
				limits.LogLines = 20
				e := largeEngine(t, st, limits).MustStart()
				c.do(t, e, limits)
				e.Stop()
				rig.RequireAtRest(t, st)
				t.Logf("largest commits: %d ops of %d, %d bytes of %d; limits: %+v", st.ops, st.limits.Ops, st.bytes, st.limits.Bytes, limits)
			})
		})
	}
}

// TestADividedDecisionDiesAtEachCommit has the process die at each commit of a program whose decisions need several commits:
// many steps end at once, a retry keeps many, and a deletion passes over many and removes many generations. The end is the
// same as without the death, and nothing is called twice but a call that the death has interrupted.
func TestADividedDecisionDiesAtEachCommit(t *testing.T) {
	for _, ops := range []int{20, 26} { // a change of one step in a commit, and of three
		t.Run(fmt.Sprint(ops, " ops"), func(t *testing.T) {
			for n, whole := 1, false; !whole; n++ {
				synctest.Test(t, func(t *testing.T) {
					whole = dieDivided(t, newBounded(t, store.Limits{Ops: ops, Bytes: 256 << 10}), n)
				})
				require.False(t, t.Failed(), "dies at commit %d", n)
				require.Less(t, n, 300)
			}
		})
	}
}

// dieDivided has the process die at the nth commit. It returns true if the program was through before.
func dieDivided(t *testing.T, st *bounded, n int) (whole bool) {
	const steps = 8
	type called struct{ run, step string }
	var mu sync.Mutex
	calls := map[called]int{}
	reborn := false
	driver := rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		mu.Lock()
		c := called{req.Run, req.Step.ID}
		calls[c]++
		if calls[c] > 1 && !(reborn && req.Resumed && calls[c] == 2) {
			t.Errorf("dies at commit %d: call %d of step %s", n, calls[c], req.Step.ID)
		}
		mu.Unlock()
		time.Sleep(time.Second)
		if req.Step.ID == "bad" && req.Cause != conveyor.CauseRetried {
			return conveyor.Done(), conveyor.Permanent(errors.New("bad"))
		}
		return conveyor.DoneWith(req.Step.ID), nil
	})
	p := wide(steps, "d")
	p.Steps = append(p.Steps, conveyor.Step{ID: "bad", Driver: "d"})
	p.Finally = []conveyor.Step{{ID: "after", Driver: "d"}}
	o := rig.Object("a", 0)

	var events []conveyor.Event
	opts := conveyor.Options{Observer: conveyor.ObserverFunc(func(_ context.Context, e conveyor.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	})}
	// program does what is left to do, and reports whether it got to its end.
	program := func(e *rig.Engine) bool {
		e.Driver("d", driver)
		if e.Start(t.Context()) != nil || e.SavePipeline(t.Context(), p) != nil {
			return false
		}
		newest, err := e.Get(t.Context(), o.Key())
		if err != nil && !errors.Is(err, conveyor.ErrNotFound) {
			return false
		}
		for i := range 12 { // the first makes a run, and another one takes up the rest
			if newest != nil && newest.DeletedAt != nil {
				break
			}
			if _, err := e.Apply(t.Context(), rig.Object("a", i)); err != nil {
				return false
			}
		}
		end := func() *conveyor.Run {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			for {
				found, err := e.Get(t.Context(), o.Key())
				if err != nil {
					return nil
				}
				run, err := e.Wait(ctx, found.Status.Run)
				if err != nil {
					return nil
				}
				if now, err := e.Get(t.Context(), o.Key()); errors.Is(err, conveyor.ErrNotFound) || err == nil && now.Status.Run == run.ID {
					return run
				}
			}
		}
		run := end()
		if run != nil && run.State == conveyor.StateFailed && run.Cause != conveyor.CauseDeleted {
			if _, err := e.Retry(t.Context(), run.ID, conveyor.RetryFrom{Newest: n%2 == 0}); err != nil {
				return false
			}
			run = end()
		}
		if run != nil && run.Cause != conveyor.CauseDeleted {
			deletion, err := e.Delete(t.Context(), o.Key())
			if err != nil {
				return false
			}
			run, err = e.Wait(t.Context(), deletion.ID)
			return err == nil && run.State == conveyor.StateSucceeded
		}
		_, err = e.Get(t.Context(), o.Key())
		return errors.Is(err, conveyor.ErrNotFound)
	}

	e := rig.NewOn(t, st, opts)
	var left atomic.Int64
	left.Store(int64(n))
	e.Store.Refusing(func([]string) error {
		if left.Add(-1) <= 0 {
			e.Store.CutOff()
			return store.ErrClosed
		}
		return nil
	})
	whole = program(e)
	synctest.Wait()
	if whole {
		e.Stop()
		requireEventsInOrder(t, events)
	} else {
		mu.Lock()
		reborn = true
		mu.Unlock()
		e = e.Crashed(opts)
		require.True(t, program(e), "dies at commit %d", n)
	}
	all := rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{}))
	for _, run := range all {
		for _, s := range run.Steps {
			switch {
			case run.Cause == conveyor.CauseDeleted:
				require.Equal(t, conveyor.StateSkipped, s.State)
			case s.ID == "bad" && run.Cause != conveyor.CauseRetried:
				require.Equal(t, conveyor.StateFailed, s.State)
			default:
				require.Equal(t, conveyor.StateSucceeded, s.State, "dies at commit %d: step %s of a run that is %s", n, s.ID, run.Cause)
				require.JSONEq(t, string(rig.JSON(s.ID)), string(s.Output))
			}
		}
		want := conveyor.StateFailed
		if run.Cause == conveyor.CauseDeleted || run.Cause == conveyor.CauseRetried {
			want = conveyor.StateSucceeded
		}
		require.Equal(t, want, run.State)
		if run.Cause == conveyor.CauseRetried {
			require.Zero(t, calls[called{run.ID, longName(0)}], "what was kept is not called again")
		}
	}
	require.GreaterOrEqual(t, len(all), 4)
	for _, prefix := range []string{"rev/", "res/", "act/"} {
		for r := range st.List(t.Context(), store.Query{Prefix: prefix}) {
			require.Fail(t, "is left", "dies at commit %d: %s", n, r.Key)
		}
	}
	return whole
}

// requireEventsInOrder checks that each step of a run has ended once, and that the end of the run comes last.
func requireEventsInOrder(t *testing.T, events []conveyor.Event) {
	type stepOf struct{ run, step string }
	ended, over := map[stepOf]int{}, map[string]bool{}
	for _, e := range events {
		if e.Run == "" {
			continue
		}
		require.False(t, over[e.Run], "an event after the end of the run: %+v", e)
		if e.Step == "" {
			over[e.Run] = e.State.Final()
		} else if e.State.Final() {
			ended[stepOf{e.Run, e.Step}]++
		}
	}
	require.GreaterOrEqual(t, len(over), 4)
	for of, n := range ended {
		require.Equal(t, 1, n, "%+v", of)
		require.True(t, over[of.run])
	}
}

// TestHundredsOfRunsAreRemovedWithinTheLimitsOfTheStore has many runs with many records removed at once.
func TestHundredsOfRunsAreRemovedWithinTheLimitsOfTheStore(t *testing.T) {
	eachStated(t, func(t *testing.T, st *bounded, limits conveyor.Limits) {
		limits.Attempts = 0
		retry := conveyor.RetryPolicy{MaxAttempts: 3, Initial: conveyor.Duration(time.Second)}
		e := rig.NewOn(t, st, conveyor.Options{Limits: limits, Retry: retry}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), rig.ErrBoom)))
		e.Save(wide(3, "d"))
		for i := range 150 {
			e.Finish(rig.Object("a", i))
		}
		e.Save(wide(100, "d"))
		e.Finish(rig.Object("a", "wide"))
		e.Finish(rig.Object("a", "wider"))
		e = e.Reborn(conveyor.Options{Limits: limits, Retention: conveyor.Retention{Runs: 1, Revisions: 1}}).MustStart()
		_, err := e.Prune(t.Context(), conveyor.PruneOptions{})
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, e.RunsOf(rig.Object("a", nil)), 1)
		n := 0
		for _, err := range st.List(t.Context(), store.Query{Prefix: "stp/"}) {
			require.NoError(t, err)
			n++
		}
		require.Equal(t, 100, n)
	})
}
