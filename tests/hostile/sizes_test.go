package hostile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// gauge is a store that fails the test if it is given what a store refuses.
type gauge struct {
	store.Store

	mu      sync.Mutex
	refused error
	largest map[string]int // bytes of a value, by the kind of the record
}

func (g *gauge) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	g.mu.Lock()
	if err := store.CheckOps(ops); err != nil {
		g.refused = err
	}
	for _, op := range ops {
		kind, _, _ := strings.Cut(op.Key(), "/")
		g.largest[kind] = max(g.largest[kind], len(op.Value()))
		if v := op.Value(); v != nil && !json.Valid(v) {
			g.refused = fmt.Errorf("%s is no JSON", op.Key())
		}
	}
	refused := g.refused
	g.mu.Unlock()
	if refused != nil {
		return 0, store.ErrClosed // the engine would try again for a day
	}
	return g.Store.Commit(ctx, ops...)
}

// units are what hostile texts are made of. In JSON most of them are larger than in memory.
var units = []string{"\x00", "\x1b[0m", "\n", "\xff", "\xff\xfe ", "\u2028", `"`, `\`, "<", "é", "𝄞", "\x7f", "x"}

// worst is a combination of limits, and of texts and answers of callers and drivers.
type worst struct {
	limits  conveyor.Limits
	unit    string // what the texts consist of
	size    int    // bytes of the texts
	answer  string // of the drivers
	nesting int    // levels of what is nested
	labels  int    // in the metadata
	cancel  bool   // the run is canceled
}

// largestLimits are the largest limits that New accepts, where they concern the size of records.
var largestLimits = conveyor.Limits{
	Document: 4 << 20, Depth: 9_990, Spec: 3 << 20, Output: 4 << 20, ErrorText: 2 << 20, LogLine: 4 << 20,
}

// draws makes a combination of limits that New accepts, each of them often the largest or the smallest, and of what is as
// large as it may be, or larger.
var draws = rapid.Custom(func(t *rapid.T) worst {
	limit := func(name string, most int) int {
		return rapid.OneOf(rapid.Just(most), rapid.Just(1), rapid.Just(0), rapid.IntRange(1, most)).Draw(t, name)
	}
	return worst{
		limits: conveyor.Limits{
			Document: largestLimits.Document, Depth: limit("depth", largestLimits.Depth), Spec: limit("spec", largestLimits.Spec),
			Output: limit("output", largestLimits.Output), ErrorText: limit("error text", largestLimits.ErrorText),
			LogLine:  limit("log line", largestLimits.LogLine),
			LogLines: rapid.SampledFrom([]int{0, 1, 2, 1 << 20}).Draw(t, "log lines"),
			Attempts: rapid.SampledFrom([]int{0, 1}).Draw(t, "attempts"),
		},
		unit:    rapid.SampledFrom(units).Draw(t, "unit"),
		size:    rapid.SampledFrom([]int{1, 1_000, 300 << 10, 3 << 20}).Draw(t, "size"),
		answer:  rapid.SampledFrom([]string{"error", "permanent", "panic", "skip", "halt", "output", "signal"}).Draw(t, "answer"),
		nesting: rapid.SampledFrom([]int{0, 100, 9_989, 9_990, 9_998, 20_000}).Draw(t, "nesting"),
		labels:  rapid.SampledFrom([]int{0, 10, 100_000}).Draw(t, "labels"),
		cancel:  rapid.Bool().Draw(t, "cancel"),
	}
})

// TestNoDriverAndNoLimitMakesARecordThatAStoreRefuses has callers and drivers say hostile things, by all limits that New
// accepts. Each record fits into a store and can be read back, and each run ends.
func TestNoDriverAndNoLimitMakesARecordThatAStoreRefuses(t *testing.T) {
	cases := []worst{
		{largestLimits, "\x00", 2 << 20, "permanent", 0, 0, false},
		{largestLimits, "\x1b[0m", 3 << 20, "halt", 9_990, 20_000, false},
		{largestLimits, "\x00", 400 << 10, "signal", 100, 100_000, true},
		{largestLimits, "\u2028", 1 << 20, "panic", 9_998, 10, true},
	}
	for seed := range testenv.Some(t, 2, 16) {
		cases = append(cases, draws.Example(seed))
	}
	if testenv.Race {
		cases = []worst{{largestLimits, "\x00", 100 << 10, "signal", 100, 1_000, true}} // texts of megabytes take long
	}
	largest := map[string]int{}
	for i, c := range cases {
		t.Run(fmt.Sprint(i, " ", c.answer), func(t *testing.T) {
			t.Logf("%+v", c)
			sayTheWorst(t, c, largest)
		})
	}
	testenv.Figure(t, "the largest values, by the kind of the record: %v", largest)
}

// sayTheWorst runs a resource by the worst limits. It keeps the size of the largest value of each kind of record.
func sayTheWorst(t *testing.T, c worst, largest map[string]int) {
	limits, answer, cancel := c.limits, c.answer, c.cancel
	long := strings.Repeat(c.unit, c.size/len(c.unit)+1)
	nested := json.RawMessage(strings.Repeat("[", c.nesting) + "1" + strings.Repeat("]", c.nesting))
	labels := map[string]string{}
	for i := range c.labels {
		labels[fmt.Sprint(i)] = strings.ToValidUTF8(c.unit, "?")
	}
	synctest.Test(t, func(t *testing.T) {
		g := &gauge{Store: memory.New(), largest: largest}
		r := rig.NewOn(t, g, conveyor.Options{Limits: limits, Retry: conveyor.RetryPolicy{MaxAttempts: 2}}).MustStart()
		r.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info(long)
			req.Log.Info(long, "k", long, "n", nested)
			req.Log.With("w", long).WithGroup("g").Log(ctx, slog.Level(math.MaxInt), "m", "k", long)
			record := slog.NewRecord(time.Date(20_000, 1, 1, 0, 0, 0, 0, time.UTC), slog.Level(math.MinInt), long, 0)
			_ = req.Log.Handler().Handle(ctx, record)
			_ = req.Checkpoint(ctx, long)
			_ = req.Checkpoint(ctx, nested)
			if req.Step.ID == "2" || cancel {
				time.Sleep(time.Minute)
			}
			switch answer {
			case "error":
				return conveyor.Done(), errors.New(long)
			case "permanent":
				return conveyor.Done(), conveyor.Permanent(errors.New(long))
			case "panic":
				panic(long)
			case "skip":
				return conveyor.Skip(long), nil
			case "halt":
				return conveyor.Halt(long), nil
			case "output":
				if req.Step.ID == "2" {
					return conveyor.DoneWith(nested), nil
				}
				return conveyor.DoneWith(long), nil
			}
			if got, err := req.Signal(nil); !got && err == nil {
				return conveyor.Await("go", time.Hour), nil
			}
			return conveyor.Done(), errors.New(long)
		}))
		r.Driver("tidy", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.Permanent(errors.New(long)))))
		p := rig.PipelineOf("d", "d")
		p.Finally = []conveyor.Step{{Driver: "tidy"}}
		r.Save(p)
		o := rig.Object("a", nil)
		o.Spec, o.Metadata = rig.JSON(strings.ToValidUTF8(long, "?")), labels
		if _, err := r.Apply(t.Context(), o); err != nil {
			require.ErrorIs(t, err, conveyor.ErrTooLarge)
			o.Spec, o.Metadata = nil, nil
			r.MustApply(o)
		}
		id := r.RunsOf(o)[0].ID
		synctest.Wait()
		for _, payload := range []any{long, nested} {
			err := r.Signal(t.Context(), id, "go", payload)
			known := errors.Is(err, conveyor.ErrConflict) || errors.Is(err, conveyor.ErrTooLarge) || errors.Is(err, conveyor.ErrInvalid)
			require.True(t, err == nil || known, "%v", err)
		}
		if cancel {
			if err := r.Cancel(t.Context(), id, long); err != nil {
				require.ErrorIs(t, err, conveyor.ErrConflict)
			}
		}
		time.Sleep(24 * time.Hour)
		require.NoError(t, g.refused)
		require.True(t, r.MustGetRun(id).State.Final(), "the run ends")
		r.AllLogs(id, conveyor.LogOptions{})
		_, err := r.Retry(t.Context(), id, conveyor.RetryFrom{Start: true})
		if err != nil {
			require.ErrorIs(t, err, conveyor.ErrConflict)
		}
		r = r.Crashed(conveyor.Options{Limits: limits})
		r.Driver("d", new(rig.Recorder))
		r.Driver("tidy", new(rig.Recorder))
		r.MustStart()
		time.Sleep(24 * time.Hour)
		for _, run := range r.RunsOf(o) {
			require.True(t, run.State.Final(), "the run ends")
		}
		require.NoError(t, g.refused)
	})
}
