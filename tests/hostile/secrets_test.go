package hostile_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// canary is part of every secret of these tests. The name after it says where the secret was put.
const canary = "cAnArY"

func secret(place string) string { return "(" + canary + "-" + place + ")" }

// disguises are what a secret may look like where it is not printed as it is.
var disguises = func() (all []string) {
	all = []string{canary, hex.EncodeToString([]byte(canary)), strings.Trim(fmt.Sprint([]byte(canary)), "[]")}
	for shift := range 3 { // base64 of a text in which it begins at any place
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + canary + "xxx"))
		all = append(all, text[4:8])
	}
	return all
}()

// ears are a logger that keeps every line, at every level, and an observer that keeps every event.
type ears struct {
	mu     sync.Mutex
	out    bytes.Buffer
	events bytes.Buffer
}

func (e *ears) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.out.Write(p)
}

func (e *ears) Observe(_ context.Context, event conveyor.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprintf(&e.events, "%+v %s\n", event, rig.JSON(event))
}

func (e *ears) options(more conveyor.Options) conveyor.Options {
	more.Logger = slog.New(slog.NewTextHandler(e, &slog.HandlerOptions{Level: slog.Level(-100), AddSource: true}))
	if more.Observer == nil {
		more.Observer = e
	}
	return more
}

// heard returns the lines in which there is a secret, in whatever form.
func (e *ears) heard() (lines []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for line := range strings.Lines(e.out.String()) {
		if slices.ContainsFunc(disguises, func(d string) bool { return strings.Contains(line, d) }) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (e *ears) has(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Contains(e.out.String(), text)
}

// secretError is an error of a driver's own type.
type secretError struct{ Password string }

func (e *secretError) Error() string { return "cannot log in with " + e.Password }

// vault is a resource with a secret wherever a resource may have one.
func vault(name string) *conveyor.Object {
	o := rig.Object(name, map[string]any{"password": secret("spec"), "nested": map[string]any{secret("key"): []any{1, secret("nested")}}})
	o.Metadata = map[string]string{"token": secret("metadata"), secret("label"): ""}
	return o
}

// TestSecretsAreInNoLogLineOfTheEngine has secrets in all that a program gives to the engine, and has everything go
// well and wrong with it. A line of the log may name resources, runs, steps and drivers; there is a secret in none.
func TestSecretsAreInNoLogLineOfTheEngine(t *testing.T) {
	places := 0
	t.Cleanup(func() { testenv.Figure(t, "%d kinds of drivers, 0 lines with a secret", places) })
	fails := func(err error) rig.Func { return rig.Always(conveyor.Done(), err) }
	panics := func(v any) rig.Func {
		return func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic(v) }
	}
	for _, c := range []struct {
		name   string
		driver rig.Func
		// kept is where the secret of the driver can be found afterwards: it is on record, and so for the program.
		kept string
	}{
		{"a success without anything", rig.Always(conveyor.Done(), nil), ""},
		{"an output", rig.Always(conveyor.DoneWith(map[string]string{"token": secret("output")}), nil), "output"},
		{"an output that is too large", rig.Always(conveyor.DoneWith(strings.Repeat(secret("output"), 50)), nil), ""},
		{"an output that is no JSON", rig.Always(conveyor.DoneWith(json.RawMessage(`{"`+secret("output")+`":`)), nil), ""},
		{"an output with a field twice", rig.Always(conveyor.DoneWith(json.RawMessage(`{"a":"`+secret("output")+`","a":1}`)), nil), ""},
		{"an output that cannot be encoded", rig.Always(conveyor.DoneWith(func() { _ = secret("output") }), nil), ""},
		{"a skip", rig.Always(conveyor.Skip(secret("skip")), nil), "skip"},
		{"a halt", rig.Always(conveyor.Halt(secret("halt")), nil), "halt"},
		{"an error", fails(errors.New(secret("error"))), "error"},
		{"an error of several lines", fails(errors.New("first\n" + secret("lines") + "\nlast")), "lines"},
		{"an error that is too long", fails(errors.New(strings.Repeat(secret("long"), 100))), "long"},
		{"a wrapped error", fails(fmt.Errorf("log in: %w", &secretError{secret("wrapped")})), "wrapped"},
		{"joined errors", fails(errors.Join(rig.ErrBoom, &secretError{secret("joined")})), "joined"},
		{"an error of the library with a secret around it", fails(fmt.Errorf("%s: %w", secret("around"), conveyor.ErrInvalid)), "around"},
		{"a permanent error", fails(conveyor.Permanent(errors.New(secret("permanent")))), "permanent"},
		{"an error with a delay", fails(conveyor.RetryAfter(time.Second, errors.New(secret("after")))), "after"},
		{"an error that panics when it is read", fails((*secretError)(nil)), ""},
		{"a panic of a text", panics(secret("panic")), "panic"},
		{"a panic of an error", panics(&secretError{secret("panic-error")}), "panic-error"},
		{"a panic of a struct", panics(struct{ A, B string }{"a", secret("panic-struct")}), "panic-struct"},
		{"a panic of bytes", panics([]byte(secret("panic-bytes"))), ""},
		{"a panic of a map", panics(map[string]any{secret("panic-map"): 1}), "panic-map"},
		{"a Goexit", func(context.Context, *conveyor.Request) (conveyor.Result, error) { runtime.Goexit(); panic("never") }, ""},
		{"a timeout", func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			<-ctx.Done()
			return conveyor.Done(), errors.New(secret("timeout"))
		}, "timeout"},
		{"a call that is given up, and answers late", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			time.Sleep(10 * time.Minute)
			return conveyor.DoneWith(secret("late")), nil
		}, ""},
		{"a call that is given up, and panics late", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			time.Sleep(10 * time.Minute)
			panic(secret("late"))
		}, ""},
		{"a bad signal", rig.Always(conveyor.Await("/"+secret("await"), 0), nil), ""},
		{"a checkpoint, kept and refused", func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var into int
			var other struct {
				conveyor.Meta
				Spec struct{ Repository string }
			}
			kept := req.Checkpoint(ctx, secret("checkpoint"))
			if !errors.Is(kept, store.ErrClosed) { // since the engine has died
				assert.NoError(t, kept, "the secret was not in play")
			}
			return conveyor.Done(), conveyor.Permanent(errors.Join(
				req.Checkpoint(ctx, strings.Repeat(secret("large"), 50)),
				req.Checkpoint(ctx, json.RawMessage(`{"`+secret("no-json")+`":`)),
				req.Checkpoint(ctx, func() {}), req.Settings(&into), req.Resource.Decode(&other),
				func() error { _, err := req.Restore(&into); return err }(),
			))
		}, ""},
	} {
		places++
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var all ears
				opts := all.options(conveyor.Options{
					Limits: conveyor.Limits{Output: 500, ErrorText: 500}, StepTimeout: time.Minute, Retention: conveyor.Retention{Runs: 5},
				})
				e := rig.New(t, opts).MustStart()
				e.Driver("ok", rig.DriverOf(rig.Always(conveyor.DoneWith(secret("earlier")), nil)))
				e.Driver("d", rig.Undoing(rig.Recording(c.driver), rig.Recording(c.driver)), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 2}))
				p := rig.PipelineOf("ok", "d", "ok")
				p.Description, p.Metadata = secret("description"), map[string]string{"a": secret("pipeline")}
				p.Steps[1].Name, p.Steps[1].With = secret("step"), rig.JSON(map[string]string{"token": secret("settings")})
				p.Finally = []conveyor.Step{{Driver: "d", With: rig.JSON(secret("settings"))}}
				e.Save(p)
				run := e.Finish(vault("a"))
				if c.kept != "" {
					require.Contains(t, fmt.Sprint(rig.Dump(t, e.Store)), secret(c.kept), "the secret was not in play")
				}
				require.Contains(t, fmt.Sprint(rig.Dump(t, e.Store)), secret("settings"))
				_, _ = e.Retry(t.Context(), run.ID, conveyor.RetryFrom{})
				time.Sleep(time.Hour)
				removed, err := e.Delete(t.Context(), vault("a").Key())
				require.NoError(t, err)
				e.Ended(removed.ID)
				time.Sleep(time.Hour)
				e.MustApply(vault("b"))
				e = e.Crashed(opts)
				e.Driver("ok", new(rig.Recorder))
				e.Driver("d", rig.DriverOf(c.driver))
				e.MustStart()
				time.Sleep(time.Hour)
				e.Stop()
				require.Empty(t, all.heard())
				for _, place := range []string{"spec", "key", "nested", "metadata", "label", "description", "pipeline", "step", "settings", "earlier", "output", "checkpoint"} {
					require.NotContains(t, all.events.String(), secret(place), "an event tells of it")
				}
			})
		})
	}
}

// TestSecretsThatADriverLogsAreInItsLinesAlone tells what a driver says from what the engine does.
func TestSecretsThatADriverLogsAreInItsLinesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all ears
		e := rig.New(t, all.options(conveyor.Options{})).MustStart()
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Debug("told", "token", secret("told"))
			req.Log.With("user", secret("with")).WithGroup("g").Info(secret("message"))
			return conveyor.Done(), errors.New(secret("error"))
		}), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 2}))
		e.Pipeline("d")
		run := e.Finish(vault("a"))
		require.Error(t, run.Err())
		lines := all.heard()
		require.Len(t, lines, 4)
		for i, line := range lines {
			require.Equal(t, i%2 == 0, strings.Contains(line, secret("told")), line)
			require.Equal(t, i%2 == 1, strings.Contains(line, secret("with")) && strings.Contains(line, secret("message")), line)
			require.Equal(t, 1+i%2, strings.Count(line, canary), line)
			require.Contains(t, line, "run="+run.ID+" step=1 driver=d")
		}
	})
}

// TestSecretsInWhatTheProgramSaysAreNotLogged goes through the calls of a program, and what it is asked by the engine.
func TestSecretsInWhatTheProgramSaysAreNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all ears
		refused := errors.New(secret("validate"))
		first := true
		opts := all.options(conveyor.Options{
			Limits: conveyor.Limits{Spec: 1000, Output: 200, Document: 2000, Depth: 8},
			Validate: func(_ context.Context, o *conveyor.Object) error {
				if o.Name == "refused" {
					return refused
				}
				return nil
			},
			Admission: conveyor.AdmissionFunc(func(_ context.Context, s conveyor.StepInfo) (func(), time.Duration, error) {
				switch {
				case s.Step.ID == "admit-error" && s.Attempt == 1:
					return nil, 0, errors.New(secret("admission"))
				case s.Step.ID == "admit-panic" && s.Attempt == 1:
					panic(secret("admission"))
				}
				return func() { panic(&secretError{secret("release")}) }, 0, nil
			}),
			Observer: conveyor.ObserverFunc(func(ctx context.Context, event conveyor.Event) {
				all.Observe(ctx, event)
				if first = !first; first {
					panic(secret("observer"))
				}
				panic(&secretError{secret("observer")})
			}),
		})
		e := rig.New(t, opts).MustStart()
		e.Driver("ask", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var n int
			if got, err := req.Signal(&n); got || err != nil {
				return conveyor.Done(), conveyor.Permanent(err)
			}
			return conveyor.Await("go", time.Hour), nil
		}))
		e.Driver("ok", rig.DriverOf(rig.Always(conveyor.Done(), nil)))
		p := rig.PipelineOf("ok", "ok", "ask")
		p.Steps[0].ID, p.Steps[1].ID = "admit-error", "admit-panic"
		e.Save(p)
		ctx := t.Context()
		run := e.MustApply(vault("a"))
		time.Sleep(10 * time.Minute)
		var told []string
		tell := func(err error) {
			require.Error(t, err)
			told = append(told, err.Error())
		}
		tell(e.Signal(ctx, run.ID, "go", strings.Repeat(secret("payload"), 50)))
		tell(e.Signal(ctx, run.ID, "go", json.RawMessage(`{"`+secret("payload"))))
		tell(e.Signal(ctx, run.ID, "go", json.RawMessage(`[[[[[[[[["`+secret("payload")+`"]]]]]]]]]`)))
		require.NoError(t, e.Signal(ctx, run.ID, "go", secret("payload")))
		require.Error(t, e.Ended(run.ID).Err(), "it is no number")

		large := vault("large")
		large.Spec = rig.JSON(strings.Repeat(secret("large"), 100))
		_, err := e.Apply(ctx, large)
		tell(err)
		large.Spec = json.RawMessage(`{"a":` + secret("no-json"))
		_, err = e.Apply(ctx, large)
		tell(err)
		large.Spec = json.RawMessage(`{"a":[[[[[[[["` + secret("deep") + `"]]]]]]]]}`)
		_, err = e.Apply(ctx, large)
		tell(err)
		large.Spec = json.RawMessage(`{"a":"` + secret("twice") + `","a":"` + secret("twice") + `"}`)
		_, err = e.Apply(ctx, large)
		tell(err)
		_, err = e.Apply(ctx, &struct {
			conveyor.Meta
			Spec  string `json:"spec"`
			Other string `json:"other"`
		}{Meta: conveyor.Meta{Name: "a", Type: "r"}, Spec: secret("spec"), Other: secret("other")})
		tell(err)
		p.Steps[0].With = rig.JSON(strings.Repeat(secret("settings"), 200))
		tell(e.SavePipeline(ctx, p))
		for _, text := range told {
			require.NotContains(t, text, canary, "the error of a call gives it away")
		}
		_, err = e.Apply(ctx, vault("refused"))
		require.ErrorIs(t, err, refused)

		held := e.MustApply(vault("held"))
		time.Sleep(10 * time.Minute)
		require.NoError(t, e.Cancel(ctx, held.ID, secret("reason")))
		require.Equal(t, secret("reason"), e.Ended(held.ID).Reason)

		planned := rig.NewFanOut()
		planned.PipelineSpec.Name = "planned"
		for i, plan := range []func(context.Context, *conveyor.Object) ([]conveyor.Step, error){
			func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
				return nil, errors.New(secret("plan"))
			},
			func(context.Context, *conveyor.Object) ([]conveyor.Step, error) { panic(secret("plan")) },
			func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
				return []conveyor.Step{{Driver: "d", With: json.RawMessage(`{"` + secret("plan"))}}, nil
			},
			func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
				return []conveyor.Step{{Driver: "d", With: rig.JSON(strings.Repeat(secret("plan"), 200))}}, nil
			},
		} {
			planned.Func = plan
			e.SavePlanned(planned)
			o := vault(fmt.Sprint("planned", i))
			o.Pipeline = "planned"
			run := e.MustApply(o)
			require.Equal(t, conveyor.StateFailed, e.Ended(run.ID).State)
			_, err := e.Delete(ctx, o.Key())
			require.NoError(t, err)
			time.Sleep(time.Hour)
		}
		e.Stop()
		require.True(t, all.has("observer panicked"))
		require.True(t, all.has("release of an admission panicked"))
		require.True(t, all.has("hostile_test.secretError"), "what has panicked is told by its type")
		require.Empty(t, all.heard())
	})
}

// TestSecretsAreNotLoggedWhenTheStoreFails has the store fail in all ways, and another engine come between.
func TestSecretsAreNotLoggedWhenTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all ears
		e := rig.New(t, all.options(conveyor.Options{Retention: conveyor.Retention{Runs: 1}})).MustStart()
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			_ = req.Checkpoint(ctx, secret("checkpoint"))
			time.Sleep(time.Second)
			return conveyor.DoneWith(secret("output")), errors.New(secret("error"))
		}), conveyor.Listen("r"))
		e.Pipeline("d", "d")
		for i, failure := range []error{store.ErrUnknown, errors.New("no space left"), context.DeadlineExceeded} {
			from := time.Now()
			e.Store.Refusing(func([]string) error {
				if s := int(time.Since(from) / time.Second); s > 0 && s < 100 && s%3 > 0 {
					return failure
				}
				return nil
			})
			for k := range 3 {
				o := vault(fmt.Sprint("x", k))
				o.Spec = rig.JSON([]any{i, k, secret("spec")})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				_, _ = e.Apply(ctx, o)
				o.Pipeline = ""
				_, _ = e.Apply(ctx, o)
				_, _ = e.Trigger(ctx, o.Key())
				cancel()
				time.Sleep(time.Second)
			}
			time.Sleep(time.Hour)
		}
		e.Store.Refusing(nil)
		other := rig.NewOn(t, e.Store.Store, all.options(conveyor.Options{}))
		other.Driver("d", rig.DriverOf(rig.Always(conveyor.DoneWith(secret("output")), nil)))
		e.MustApply(vault("shared"))
		other.MustStart() // which takes up the same run
		time.Sleep(time.Hour)
		require.True(t, all.has("store failed; trying again"))
		require.Empty(t, all.heard())
	})
}

// texts finds the texts and the numbers of a record.
var texts = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|-?[0-9]+`)

// TestSecretsInDamagedRecordsAreNotLogged puts a secret in the place of every text and number of every record, one
// after the other, as damage might that has mixed up two of them.
func TestSecretsInDamagedRecordsAreNotLogged(t *testing.T) {
	t.Parallel()
	whole := newRich(t)
	one := testenv.Bound(t, "CONVEYOR_SECRETS_ONE_OF", testenv.Some(t, 50, 17), 50) // so many cases is tried
	logged := 0
	for _, key := range whole.keys {
		value := whole.records[key]
		places := texts.FindAllIndex(value, -1)
		if whole.isGood(key) || key == "format" || len(places) == 0 || strings.HasPrefix(key, "pse/") {
			continue // the reason of a pause and who has asked for it are for the log, as Pause says
		}
		mixed := map[string][]byte{}
		for i, at := range places {
			mixed[fmt.Sprint(i)] = slices.Concat(value[:at[0]], rig.JSON(secret("damage")), value[at[1]:])
			mixed[fmt.Sprint(i, " raw")] = slices.Concat(value[:at[0]], []byte(canary), value[at[1]:])
		}
		for i, name := range slices.Sorted(maps.Keys(mixed)) {
			if i%one != int(hashOf(whole.label(key))%uint64(one)) { // the same each time
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				var all ears
				st := memory.New()
				ops := []store.Op{}
				for k, v := range whole.records {
					if k == key {
						v = mixed[name]
					}
					ops = append(ops, store.Put(k, v))
				}
				_, err := st.Commit(t.Context(), ops...)
				require.NoError(t, err)
				e := rig.NewOn(t, st, all.options(conveyor.Options{Retention: conveyor.Retention{Runs: 1}}))
				richDrivers(e)
				fair(t, e.SavePipeline(t.Context(), richPipelines()[14]))
				require.NoError(t, e.Start(t.Context()))
				time.Sleep(15 * time.Hour)
				e.Stop()
				if all.has("level=ERROR") {
					logged++
				}
				for _, line := range all.heard() {
					require.Fail(t, "a log line has it", "%s: %s", key, line)
				}
			})
		}
	}
	require.Greater(t, logged, 5, "hardly any damage was logged")
}
