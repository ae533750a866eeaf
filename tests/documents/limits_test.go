package documents_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store/memory"
)

func TestLimitDocument(t *testing.T) {
	e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Document: 300}})
	o := &DockerBuild{Meta: conveyor.Meta{Name: "a", Type: "r"}}
	o.Spec.Repository = strings.Repeat("a", 300-len(`{"name":"a","resource":"r","spec":{"repository":""}}`))
	_, err := e.Apply(t.Context(), o)
	require.NoError(t, err)
	o = &DockerBuild{Meta: conveyor.Meta{Name: "b", Type: "r"}, Spec: o.Spec}
	o.Spec.Repository += "a"
	_, err = e.Apply(t.Context(), o)
	requireFaults(t, err, fault{"", 0, 0, conveyor.ErrTooLarge, "301 bytes, more than the limit of 300 (Limits.Document)"})

	p := rig.PipelineOf("d")
	p.Description = strings.Repeat("a", 300-len(`{"name":"p","resource":"r","description":"","steps":[{"id":"1","driver":"d"}]}`))
	require.NoError(t, e.SavePipeline(t.Context(), p))
	p.Description += "a"
	requireFaults(t, e.SavePipeline(t.Context(), p), fault{"", 0, 0, conveyor.ErrTooLarge, "301 bytes as a document, more than the limit of 300 (Limits.Document)"})
}

// A definition is recorded with the rule of its order, and a record of a store has a limit of its own.
func TestLimitDocumentLeavesRoomInTheRecord(t *testing.T) {
	e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Document: 4 << 20}})
	const most = 4<<20 - len(`"rule":1,`)
	p := rig.PipelineOf("d")
	p.Steps[0].With = rig.JSON(strings.Repeat("a", most-len(`{"name":"p","resource":"r","steps":[{"id":"1","driver":"d","with":""}]}`)))
	require.NoError(t, e.SavePipeline(t.Context(), p))
	p.Steps[0].With = rig.JSON(strings.Repeat("a", len(p.Steps[0].With)-1))
	requireFaults(t, e.SavePipeline(t.Context(), p), fault{"", 0, 0, conveyor.ErrTooLarge, fmt.Sprintf("%d bytes as a document, more than the limit of %d (a fixed limit)", most+1, most)})
}

func TestLimitDepth(t *testing.T) {
	// Levels count from the outermost of the document, whether or not there was a text of it.
	e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Depth: 5}})
	_, err := e.Apply(t.Context(), rig.Loose("r", "a", []any{[]any{[]any{[]any{}}}}))
	require.NoError(t, err)
	_, err = e.Apply(t.Context(), rig.Loose("r", "b", []any{[]any{[]any{[]any{[]any{}}}}}))
	requireFaults(t, err, fault{"spec[0][0][0][0]", 1, 5, conveyor.ErrTooLarge, "6 levels deep, more than the limit of 5 (Limits.Depth)"})
	p := rig.PipelineOf("d")
	p.Steps[0].With = json.RawMessage(`{"a":[7]}`)
	require.NoError(t, e.SavePipeline(t.Context(), p))
	p.Steps[0].With = json.RawMessage(`{"a":[{}]}`)
	requireFaults(t, e.SavePipeline(t.Context(), p), fault{"steps[0].with.a[0]", 1, 7, conveyor.ErrTooLarge, "6 levels deep, more than the limit of 5 (Limits.Depth)"})
}

func TestLimitsSayTheirMaximumAndWhy(t *testing.T) {
	for name, most := range map[string]int{
		"Document": 4 << 20, "Depth": 9_990, "Steps": 1 << 20, "Spec": 3 << 20, "Output": 4 << 20, "ErrorText": 2 << 20, "LogLines": 1 << 20,
		"LogLine": 4 << 20, "Attempts": 1 << 20, "WatchBuffer": 1 << 20, "Queue": 1 << 20, "Interruptions": 1 << 20,
	} {
		var limits conveyor.Limits
		field := reflect.ValueOf(&limits).Elem().FieldByName(name)
		field.SetInt(int64(most))
		_, err := conveyor.New(memory.New(), conveyor.Options{Limits: limits})
		require.NoError(t, err, name)
		field.SetInt(int64(most + 1))
		_, err = conveyor.New(memory.New(), conveyor.Options{Limits: limits})
		require.ErrorIs(t, err, conveyor.ErrInvalid)
		require.ErrorContains(t, err, fmt.Sprintf("Limits.%s: %d is more than %d, the maximum: ", name, most+1, most))
		require.Regexp(t, "record|memory", err)
	}
}

// cutting are the limits that refuse nothing: what is larger is cut, the oldest of it is dropped, or a watcher gets ErrGap.
var cutting = []string{"ErrorText", "LogLines", "LogLine", "Attempts", "WatchBuffer"}

// Who reads that a limit was passed wants to know which field of Limits to change.
func TestAPassedLimitIsNamed(t *testing.T) {
	text := func(bytes int) string { return strings.Repeat("a", bytes-2) } // of so many bytes as JSON
	nested := func(levels int) json.RawMessage {
		return json.RawMessage(strings.Repeat("[", levels) + strings.Repeat("]", levels))
	}
	apply := func(t *testing.T, opts conveyor.Options, o conveyor.Resource) error {
		_, err := rig.New(t, opts).Apply(t.Context(), o)
		return err
	}
	calls := func(t *testing.T, opts conveyor.Options, answer rig.Func) error {
		e := rig.New(t, opts).MustStart()
		e.Driver("d", rig.DriverOf(answer))
		e.Pipeline("d")
		return e.Finish(rig.Object("a", nil)).Err()
	}
	returns := func(t *testing.T, opts conveyor.Options, output any) error {
		return calls(t, opts, rig.Always(conveyor.DoneWith(output), nil))
	}
	checkpoints := func(t *testing.T, opts conveyor.Options, v any) (err error) {
		require.NoError(t, calls(t, opts, func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			err = req.Checkpoint(ctx, v)
			return conveyor.Done(), nil
		}))
		return err
	}
	signals := func(t *testing.T, opts conveyor.Options, payload any) error {
		e := rig.New(t, opts).MustStart()
		return e.Signal(t.Context(), e.MustApply(rig.Loose("r", "a", nil)).ID, "go", payload)
	}
	plans := func(t *testing.T, opts conveyor.Options, steps ...conveyor.Step) error {
		e := rig.New(t, opts).MustStart()
		f := rig.NewFanOut()
		f.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) { return steps, nil }
		e.SavePlanned(f)
		return e.Finish(rig.Object("a", nil)).Err()
	}
	with := func(v json.RawMessage) conveyor.PipelineSpec {
		p := rig.PipelineOf("d")
		p.Steps[0].With = v
		return p
	}
	parsed := func(_ conveyor.PipelineSpec, err error) error { return err }
	drivers := func(n int) []string { return slices.Repeat([]string{"d"}, n) }

	cases := []struct {
		limit string
		what  string
		n     int // what the limit is set to
		says  string
		pass  func(t *testing.T, opts conveyor.Options, n int) error // returns the answer to n
	}{
		{"Document", "a resource", 300, "301 bytes", func(t *testing.T, opts conveyor.Options, n int) error {
			o := &DockerBuild{Meta: conveyor.Meta{Name: "a", Type: "r"}}
			o.Spec.Repository = strings.Repeat("a", n-len(`{"name":"a","resource":"r","spec":{"repository":""}}`))
			return apply(t, opts, o)
		}},
		{"Document", "a pipeline", 300, "301 bytes as a document", func(t *testing.T, opts conveyor.Options, n int) error {
			p := with(rig.JSON(text(n - len(`{"name":"p","resource":"r","steps":[{"id":"1","driver":"d","with":}]}`))))
			return rig.New(t, opts).SavePipeline(t.Context(), p)
		}},
		{"Document", "a plan", 300, "steps: ", func(t *testing.T, opts conveyor.Options, n int) error {
			return plans(t, opts, conveyor.Step{Driver: "d", With: rig.JSON(text(n))})
		}},
		{"Document", "a text that is parsed", 2 << 20, "at least 2097153 bytes", func(_ *testing.T, _ conveyor.Options, n int) error {
			return parsed(conveyor.ParsePipeline(strings.NewReader(strings.Repeat(" ", n))))
		}},
		{"Depth", "a resource", 5, "spec[0][0][0][0]: 6 levels deep", func(t *testing.T, opts conveyor.Options, n int) error {
			return apply(t, opts, rig.Loose("r", "a", nested(n-1)))
		}},
		{"Depth", "metadata", 5, "metadata.m[0][0][0]: 6 levels deep", func(t *testing.T, opts conveyor.Options, n int) error {
			o := rig.Loose("r", "a", nil)
			o.MetadataJSON = map[string]json.RawMessage{"m": nested(n - 2)}
			return apply(t, opts, o)
		}},
		{"Depth", "a pipeline", 5, "steps[0].with[0][0]: 6 levels deep", func(t *testing.T, opts conveyor.Options, n int) error {
			return rig.New(t, opts).SavePipeline(t.Context(), with(nested(n-3)))
		}},
		{"Depth", "a text that is parsed", 32, "33 levels deep", func(_ *testing.T, _ conveyor.Options, n int) error {
			return parsed(conveyor.ParsePipeline(bytes.NewReader(nested(n))))
		}},
		{"Depth", "an output", 5, "output[0][0][0][0][0]: 6 levels deep", func(t *testing.T, opts conveyor.Options, n int) error {
			return returns(t, opts, nested(n))
		}},
		{"Depth", "a checkpoint", 5, "checkpoint[0][0][0][0][0]: 6 levels deep", func(t *testing.T, opts conveyor.Options, n int) error {
			return checkpoints(t, opts, nested(n))
		}},
		{"Depth", "a payload", 5, "payload[0][0][0][0][0]: 6 levels deep", func(t *testing.T, opts conveyor.Options, n int) error {
			return signals(t, opts, nested(n))
		}},
		{"Steps", "a pipeline", 2, "steps: 3 steps", func(t *testing.T, opts conveyor.Options, n int) error {
			return rig.New(t, opts).SavePipeline(t.Context(), rig.PipelineOf(drivers(n)...))
		}},
		{"Steps", "a text that is parsed", 256, "steps: 257 steps", func(_ *testing.T, _ conveyor.Options, n int) error {
			return parsed(conveyor.ParsePipeline(bytes.NewReader(rig.JSON(rig.PipelineOf(drivers(n)...)))))
		}},
		{"Steps", "a plan", 2, "steps: 3 steps", func(t *testing.T, opts conveyor.Options, n int) error {
			return plans(t, opts, rig.PipelineOf(drivers(n)...).Steps...)
		}},
		{"Steps", "drivers that listen", 2, `3 drivers listen to resources of type "r"`, func(t *testing.T, opts conveyor.Options, n int) error {
			e := rig.New(t, opts).MustStart()
			for i := range n {
				e.Driver(fmt.Sprint("d", i), new(rig.Recorder), conveyor.Listen("r"))
			}
			return e.Finish(rig.Loose("r", "a", nil)).Err()
		}},
		{"Spec", "a spec", 100, "spec: 101 bytes", func(t *testing.T, opts conveyor.Options, n int) error {
			return apply(t, opts, rig.Loose("r", "a", text(n)))
		}},
		{"Spec", "metadata", 100, "metadata: 101 bytes as JSON", func(t *testing.T, opts conveyor.Options, n int) error {
			o := rig.Loose("r", "a", nil)
			o.Metadata = map[string]string{"k": text(n - len(`{"k":}`))}
			return apply(t, opts, o)
		}},
		{"Output", "an output", 100, "output: 101 bytes", func(t *testing.T, opts conveyor.Options, n int) error {
			return returns(t, opts, text(n))
		}},
		{"Output", "a checkpoint", 100, "checkpoint: 101 bytes", func(t *testing.T, opts conveyor.Options, n int) error {
			return checkpoints(t, opts, text(n))
		}},
		{"Output", "a payload", 100, "payload: 101 bytes", func(t *testing.T, opts conveyor.Options, n int) error {
			return signals(t, opts, text(n))
		}},
		{"Queue", "runs of one resource", 3, "queue: 4 pending runs", func(t *testing.T, opts conveyor.Options, n int) (err error) {
			e := rig.New(t, opts)
			e.Save(rig.Queueing(rig.PipelineOf("d")))
			for i := range n {
				require.NoError(t, err)
				_, err = e.Apply(t.Context(), rig.Object("a", i))
			}
			return err
		}},
		{"Interruptions", "deaths of the process", 2, "interrupted 3 times", func(t *testing.T, opts conveyor.Options, n int) error {
			dying := rig.DriverOf(rig.Taking(time.Second))
			e := rig.New(t, opts).MustStart()
			e.Driver("d", dying)
			e.Pipeline("d")
			id := e.MustApply(rig.Object("a", nil)).ID
			for range n {
				synctest.Wait() // the driver is at work
				e = e.Crashed(opts)
				e.Driver("d", dying)
				e.MustStart()
			}
			return e.Ended(id).Err()
		}},
		{"Carried", "what a call carries", 100, "Carry: 101 bytes as JSON", func(t *testing.T, opts conveyor.Options, n int) error {
			opts.Carry = func(context.Context) map[string]string { return map[string]string{"k": text(n - len(`{"k":}`))} }
			return apply(t, opts, rig.Loose("r", "a", nil))
		}},
	}
	named := slices.Clone(cutting)
	for _, c := range cases {
		named = append(named, c.limit)
		t.Run(c.limit+" by "+c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var opts conveyor.Options
				reflect.ValueOf(&opts.Limits).Elem().FieldByName(c.limit).SetInt(int64(c.n))
				err := c.pass(t, opts, c.n+1)
				require.ErrorContains(t, err, c.says)
				require.ErrorContains(t, err, fmt.Sprintf("more than the limit of %d (Limits.%s)", c.n, c.limit))
			})
		})
	}
	for field := range reflect.TypeFor[conveyor.Limits]().Fields() {
		require.Contains(t, named, field.Name, "a new limit needs a case here, or cuts")
	}
}

func TestAFixedLimitSaysThatItIsFixed(t *testing.T) {
	long := strings.Repeat("n", 254)
	for _, c := range []struct {
		name string
		pass func(e *rig.Engine) error
		says string
	}{
		{"of a name", func(e *rig.Engine) error {
			_, err := e.Apply(t.Context(), rig.Loose("r", long, nil))
			return err
		}, "name: has 254 bytes, more than the limit of 253 (a fixed limit)"},
		{"of an actor", func(e *rig.Engine) error {
			_, err := e.Apply(conveyor.As(t.Context(), long), rig.Loose("r", "a", nil))
			return err
		}, "actor: 254 bytes, more than the limit of 253 (a fixed limit)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorContains(t, c.pass(rig.New(t, conveyor.Options{})), c.says)
		})
	}
}

func TestLimitSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Steps: 2}}).MustStart()
		e.Save(rig.PipelineOf("d", "d"))
		requireFaults(t, e.SavePipeline(t.Context(), rig.PipelineOf("d", "d", "d")),
			fault{"steps", 0, 0, conveyor.ErrTooLarge, "3 steps, more than the limit of 2 (Limits.Steps)"})

		e.Driver("x", new(rig.Recorder), conveyor.Listen("loose"))
		e.Driver("y", new(rig.Recorder), conveyor.Listen("loose"))
		require.Equal(t, conveyor.StateSucceeded, e.Finish(rig.Loose("loose", "a", 1)).State)
		e.Driver("z", new(rig.Recorder), conveyor.Listen("loose"))
		run := e.Finish(rig.Loose("loose", "a", 2))
		require.Equal(t, conveyor.StateFailed, run.State)
		require.ErrorContains(t, run.Err(), "3 drivers listen")
	})
}

func TestLimitSpec(t *testing.T) {
	e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Spec: 100}})
	_, err := e.Apply(t.Context(), rig.Loose("r", "a", strings.Repeat("a", 98)))
	require.NoError(t, err)
	_, err = e.Apply(t.Context(), rig.Loose("r", "a", strings.Repeat("a", 99)))
	requireFaults(t, err, fault{"spec", 0, 0, conveyor.ErrTooLarge, "101 bytes, more than the limit of 100 (Limits.Spec)"})

	o := rig.Loose("r", "b", nil)
	o.Metadata = map[string]string{"key": strings.Repeat("\n", 36), "other": "vvvvvvv"} // with {"":"","":""}, and 2 bytes for \n
	_, err = e.Apply(t.Context(), o)
	require.NoError(t, err)
	o.Metadata["other"] += "v"
	_, err = e.Apply(t.Context(), o)
	requireFaults(t, err, fault{"metadata", 0, 0, conveyor.ErrTooLarge, "101 bytes as JSON, more than the limit of 100 (Limits.Spec)"})
}

func TestLimitOutput(t *testing.T) {
	for _, c := range []struct {
		name   string
		output any
		state  conveyor.State
		is     error
		says   string
	}{
		{"of the limit", strings.Repeat("<", 98), conveyor.StateSucceeded, nil, ""},
		{"over it", strings.Repeat("a", 99), conveyor.StateFailed, conveyor.ErrTooLarge, "101 bytes, more than the limit of 100 (Limits.Output)"},
		{"that nests to the limit", []any{[]any{[]any{}}}, conveyor.StateSucceeded, nil, ""},
		{"that nests deeper", []any{[]any{[]any{[]any{}}}}, conveyor.StateFailed, conveyor.ErrTooLarge, "4 levels deep, more than the limit of 3 (Limits.Depth)"},
		{"that is no JSON", func() {}, conveyor.StateFailed, conveyor.ErrInvalid, "func"},
		{"that is broken JSON", json.RawMessage("{"), conveyor.StateFailed, conveyor.ErrInvalid, "output"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Output: 100, Depth: 3}}).MustStart()
				d := rig.Recording(rig.Always(conveyor.DoneWith(c.output), nil))
				e.Driver("d", d)
				e.Pipeline("d")
				run := e.Finish(rig.Object("a", nil))
				require.Equal(t, c.state, run.State)
				require.Len(t, d.All(), 1, "the next attempt would most likely return the same")
				if c.is == nil {
					require.NoError(t, run.Err())
					return
				}
				require.ErrorIs(t, run.Err(), c.is)
				require.ErrorContains(t, run.Err(), c.says)
			})
		})
	}
}

func TestLimitErrorText(t *testing.T) {
	for _, c := range []struct {
		name string
		err  string
		want string
	}{
		{"of the limit", strings.Repeat("é", 20), strings.Repeat("é", 20)},
		{"over it", strings.Repeat("é", 20) + "a", strings.Repeat("é", 15) + " … [cut]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{ErrorText: 40}}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.Permanent(errors.New(c.err)))))
				e.Pipeline("d")
				step := e.Finish(rig.Object("a", nil)).Steps[0]
				require.Equal(t, c.want, step.Reason)
				require.Equal(t, c.want, step.Attempts[0].Error)
				require.LessOrEqual(t, len(step.Reason), 40)
			})
		})
	}
	t.Run("cuts reasons, stacks and panics too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{ErrorText: 40}}).MustStart()
			long := strings.Repeat("a", 41)
			cut := strings.Repeat("a", 30) + " … [cut]"
			e.Driver("skip", rig.DriverOf(rig.Always(conveyor.Skip(long), nil)))
			e.Driver("panic", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic(long) }))
			e.Save(conveyor.PipelineSpec{Name: "p", Resource: "r", Retry: &conveyor.RetryPolicy{MaxAttempts: 1},
				Steps: []conveyor.Step{{Driver: "skip"}, {Driver: "panic"}}})
			run := e.Finish(rig.Object("a", nil))
			require.Equal(t, cut, run.Steps[0].Reason)
			require.Len(t, run.Steps[1].Reason, 40)
			require.LessOrEqual(t, len(run.Steps[1].Attempts[0].Stack), 40)
			require.LessOrEqual(t, len(run.Reason), 40)
			var panicked *conveyor.PanicError
			require.ErrorAs(t, run.Err(), &panicked)

			e.Driver("wait", rig.DriverOf(rig.Taking(time.Hour)))
			e.Save(conveyor.PipelineSpec{Name: "w", Resource: "w", Steps: []conveyor.Step{{Driver: "wait"}}})
			o := rig.Loose("w", "a", nil)
			o.Pipeline = "w"
			id := e.MustApply(o).ID
			require.NoError(t, e.Cancel(t.Context(), id, long))
			require.Equal(t, cut, e.Ended(id).Reason)
		})
	})
}

func TestLimitAttempts(t *testing.T) {
	for _, c := range []struct{ attempts, first int }{{3, 1}, {4, 2}, {10, 8}} {
		t.Run(fmt.Sprintf("%d of 3", c.attempts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Attempts: 3}, Retry: conveyor.RetryPolicy{MaxAttempts: c.attempts}}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), rig.ErrBoom)))
				e.Pipeline("d")
				step := e.Finish(rig.Object("a", nil)).Steps[0]
				require.Equal(t, c.attempts, step.Attempt)
				var numbers []int
				for _, a := range step.Attempts {
					numbers = append(numbers, a.Number)
				}
				require.Equal(t, []int{c.first, c.first + 1, c.first + 2}, numbers)
			})
		})
	}
	t.Run("counts a success", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Attempts: 2}}).MustStart()
			fail := rig.Always(conveyor.Done(), rig.ErrBoom)
			e.Driver("d", rig.DriverOf(rig.InTurn(fail, fail, rig.Always(conveyor.Done(), nil))))
			e.Pipeline("d")
			step := e.Finish(rig.Object("a", nil)).Steps[0]
			require.Len(t, step.Attempts, 2)
			require.Equal(t, 3, step.Attempts[1].Number)
			require.Empty(t, step.Attempts[1].Error)
		})
	})
}

func TestLimitLogLines(t *testing.T) {
	for _, c := range []struct {
		name   string
		logged int
		want   []string
	}{
		{"of the limit", 3, []string{"line 1", "line 2", "line 3"}},
		{"one over it", 4, []string{"line 1", "log: 1 lines of the step are not kept", "line 3", "line 4"}},
		{"many over it", 10, []string{"line 1", "log: 7 lines of the step are not kept", "line 9", "line 10"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{LogLines: 3}}).MustStart()
				e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					for i := range c.logged {
						req.Log.Info(fmt.Sprintf("line %d", i+1))
					}
					return conveyor.Done(), nil
				}))
				e.Pipeline("d", "d")
				run := e.Finish(rig.Object("a", nil))
				for _, step := range []string{"1", "2"} {
					lines := rig.Drain(t, e.Logs(t.Context(), run.ID, conveyor.LogOptions{Step: step}))
					var got []string
					total := 0
					for _, l := range lines {
						got = append(got, l.Message)
						total += max(1, int(l.Dropped))
					}
					require.Equal(t, c.want, got)
					require.Equal(t, c.logged, total)
				}
			})
		})
	}
}

func TestLimitLogLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{LogLine: 50}}).MustStart()
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info(strings.Repeat("a", 50))
			req.Log.Info(strings.Repeat("a", 51))
			req.Log.Info(strings.Repeat("a", 42), slog.Int("n", 1)) // {"n":1} has 7 bytes
			req.Log.Info(strings.Repeat("a", 44), slog.Int("n", 1))
			return conveyor.Done(), nil
		}))
		e.Pipeline("d")
		lines := rig.Drain(t, e.Logs(t.Context(), e.Finish(rig.Object("a", nil)).ID, conveyor.LogOptions{}))
		require.Len(t, lines, 4)
		require.Equal(t, strings.Repeat("a", 50), lines[0].Message)
		require.Equal(t, strings.Repeat("a", 40)+" … [cut]", lines[1].Message)
		require.JSONEq(t, `{"n":1}`, string(lines[2].Attrs))
		require.Empty(t, lines[3].Attrs)
		require.Contains(t, lines[3].Message, "cut")
		for _, l := range lines {
			require.LessOrEqual(t, len(l.Message)+len(l.Attrs), 50)
		}
	})
}

func TestLimitWatchBuffer(t *testing.T) {
	for _, c := range []struct {
		name   string
		behind int
		end    error
	}{
		{"as far behind as allowed", 5, context.Canceled},
		{"further behind", 6, conveyor.ErrGap},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{WatchBuffer: 5}})
				ctx, cancel := context.WithCancel(t.Context())
				events := e.Watch(ctx, conveyor.WatchOptions{})
				for i := range c.behind {
					p := rig.PipelineOf("d")
					p.Version = fmt.Sprint(i)
					e.Save(p)
				}
				seen := 0
				for event, err := range events {
					if err != nil {
						require.ErrorIs(t, err, c.end)
						break
					}
					require.Equal(t, conveyor.EventPipeline, event.Kind)
					if seen++; seen == c.behind {
						cancel()
					}
				}
				cancel()
				require.Equal(t, c.end == context.Canceled, seen == c.behind)
			})
		})
	}
}

func TestLimitInterruptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		deaths int
		state  conveyor.State
	}{
		{"as many as the limit", 2, conveyor.StateSucceeded},
		{"one more", 3, conveyor.StateFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := conveyor.Options{Limits: conveyor.Limits{Interruptions: 2}}
				dying := rig.DriverOf(rig.Taking(time.Second))
				e := rig.New(t, opts).MustStart()
				e.Driver("d", dying)
				e.Pipeline("d")
				id := e.MustApply(rig.Object("a", nil)).ID
				for range c.deaths {
					synctest.Wait() // the driver is at work
					e = e.Crashed(opts)
					e.Driver("d", dying)
					e.MustStart()
				}
				run := e.Ended(id)
				require.Equal(t, c.state, run.State)
				if c.state == conveyor.StateFailed {
					require.ErrorContains(t, run.Err(), "more than the limit of 2 (Limits.Interruptions)")
				}
			})
		})
	}
}
