package hostile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

// nasty are texts that a terminal or a reader of a log would act upon, or that are very long.
var nasty = map[string]string{
	"an escape sequence":    "a\x1b[2J\x1b]0;owned\a",
	"an end of a line":      "a\nINFO all is well\r\n",
	"a change of direction": "a\u202egnp.exe\u2066",
	"another control":       "a\u009b2J\u0085\x00\x7f",
	"another line":          "a\u2028b\u2029",
	"nothing to be seen":    "a\u200b\ufeff\u00ad",
	"a long text":           strings.Repeat("x\x1b[2J", 1<<14),
	"no UTF-8":              "a\xff\xfe",
}

// requireQuoted fails unless an error is short and has nothing that a terminal would act upon. The parts of a joined
// error are on lines of their own.
func requireQuoted(t *testing.T, err error, what ...any) {
	t.Helper()
	require.Error(t, err, what...)
	if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) > 1 && strings.Contains(err.Error(), "\n") {
		for _, one := range joined.Unwrap() {
			requireQuoted(t, one, what...)
		}
		return
	}
	text := strings.ReplaceAll(err.Error(), "\nconveyor: ", "; conveyor: ") // joined and wrapped
	require.Less(t, len(text), 16<<10, what...)
	for _, r := range text {
		require.True(t, strconv.IsPrint(r), "%v: %q has %U", what, text, r)
	}
}

// TestTextsOfOthersAreQuotedInEveryError gives nasty texts to everything that takes a text and may refuse it.
func TestTextsOfOthersAreQuotedInEveryError(t *testing.T) {
	for name, bad := range nasty {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			e := rig.New(t, conveyor.Options{Validate: func(_ context.Context, o *conveyor.Object) error {
				if o.Name == "rejected" {
					return errors.New("it has " + string(o.Spec) + bad)
				}
				return nil
			}}).MustStart()
			e.Driver("wait", rig.DriverOf(rig.Always(conveyor.Await("go", 0), nil)))
			e.Pipeline("wait")
			run := e.MustApply(rig.Object("a", nil))
			synctest.Wait()
			for what, err := range refusals(ctx, e, run.ID, bad) {
				requireQuoted(t, err, what, name)
			}
		})
	}
}

// refusals returns the errors of calls to which a text is given.
func refusals(ctx context.Context, e *rig.Engine, run, bad string) map[string]error {
	key := conveyor.Key{Type: bad, Name: bad}
	quoted := string(rig.JSON(bad))
	errs := map[string]error{}
	second := func(what string) func(_ any, err error) {
		return func(_ any, err error) { errs[what] = err }
	}
	pipeline := func(doc string) error { _, err := conveyor.ParsePipeline(strings.NewReader(doc)); return err }
	resource := func(doc string) error { _, err := conveyor.ParseResource(strings.NewReader(doc)); return err }
	for at, doc := range map[string]string{
		"unknown field":         `{"name":"p","resource":"r","steps":[{"driver":"d"}],` + quoted + `:1}`,
		"unknown nested field":  `{"name":"p","resource":"r","steps":[{"driver":"d",` + quoted + `:1}]}`,
		"repeated label":        `{"name":"p","resource":"r","steps":[{"driver":"d"}],"metadata":{` + quoted + `:"1",` + quoted + `:"2"}}`,
		"repeated setting":      `{"name":"p","resource":"r","steps":[{"driver":"d","with":{` + quoted + `:1,` + quoted + `:2}}]}`,
		"name":                  `{"name":` + quoted + `,"resource":"r","steps":[{"driver":"d"}]}`,
		"driver":                `{"name":"p","resource":"r","steps":[{"driver":` + quoted + `}]}`,
		"step":                  `{"name":"p","resource":"r","steps":[{"id":` + quoted + `,"driver":"d"},{"id":` + quoted + `,"driver":"d"}]}`,
		"after":                 `{"name":"p","resource":"r","steps":[{"driver":"d","after":[` + quoted + `,` + quoted + `]}]}`,
		"ring":                  `{"name":"p","resource":"r","steps":[{"id":` + quoted + `,"driver":"d","after":["b"]},{"id":"b","driver":"d","after":[` + quoted + `]}]}`,
		"itself":                `{"name":"p","resource":"r","steps":[{"id":` + quoted + `,"driver":"d","after":[` + quoted + `]}]}`,
		"duration":              `{"name":"p","resource":"r","steps":[{"driver":"d"}],"timeout":` + quoted + `}`,
		"policy":                `{"name":"p","resource":"r","steps":[{"driver":"d"}],"onChange":` + quoted + `}`,
		"number":                `{"name":"p","resource":"r","steps":[{"driver":"d"}],"maxRuns":1` + strings.Repeat("0", 1<<14) + `}`,
		"no JSON":               `{` + bad,
		"a raw text in a value": `{"name":"` + bad,
	} {
		errs["pipeline: "+at] = pipeline(doc)
	}
	for at, doc := range map[string]string{
		"unknown field": `{"name":"a","resource":"r",` + quoted + `:1}`,
		"in the spec":   `{"name":"a","resource":"r","spec":{` + quoted + `:{` + quoted + `:1,` + quoted + `:2}}}`,
		"in a list":     `{"name":"a","resource":"r","spec":[{` + quoted + `:[[{"a":1,"a":2}]]}]}`,
		"type":          `{"name":"a","resource":` + quoted + `}`,
		"time":          `{"name":"a","resource":"r","createdAt":` + quoted + `}`,
		"phase":         `{"name":"a","resource":"r","status":{"phase":` + quoted + `}}`,
	} {
		errs["resource: "+at] = resource(doc)
	}
	o := rig.Object("a", nil)
	o.Name, o.Metadata = bad, map[string]string{bad + "\xff": bad}
	second("Apply")(e.Apply(ctx, o))
	second("Apply of a spec")(e.Apply(ctx, &conveyor.Object{Meta: conveyor.Meta{Name: "b", Type: "r"}, Spec: json.RawMessage(bad)}))
	second("Apply along")(e.Apply(ctx, rig.Along(bad, "a")))
	second("Apply of a type of its own")(e.Apply(ctx, &illegible{bad: bad}))
	rejected := rig.Object("rejected", nil)
	rejected.Spec = rig.JSON(strings.Repeat("x", 1<<14) + "\u202e")
	second("Validate")(e.Apply(ctx, rejected))
	second("Get")(e.Get(ctx, key))
	second("Trigger")(e.Trigger(ctx, key))
	second("Delete")(e.Delete(ctx, key))
	second("Rollback")(e.Rollback(ctx, key, 1))
	second("GetRun")(e.GetRun(ctx, bad))
	second("Wait")(e.Wait(ctx, bad))
	second("Retry")(e.Retry(ctx, bad, conveyor.RetryFrom{}))
	second("Retry from a step and the start")(e.Retry(ctx, run, conveyor.RetryFrom{Start: true, Step: bad}))
	second("GetPipeline")(e.GetPipeline(ctx, bad))
	errs["DeletePipeline"] = e.DeletePipeline(ctx, bad)
	errs["SavePipeline"] = e.SavePipeline(ctx, conveyor.PipelineSpec{Name: bad, Resource: bad, Steps: []conveyor.Step{{ID: bad, Driver: bad}}})
	errs["Cancel"] = e.Cancel(ctx, bad, "")
	errs["Signal by run"] = e.Signal(ctx, bad, "go", nil)
	errs["Signal by name"] = e.Signal(ctx, run, bad, nil)
	errs["Signal with"] = e.Signal(ctx, run, "go", illegible{bad: bad})
	errs["Register"] = e.Register(bad, new(rig.Recorder))
	errs["Register nothing"] = e.Register(bad, nil)
	errs["Register a listener"] = e.Register("d", new(rig.Recorder), conveyor.Listen(bad))
	for _, err := range e.Logs(ctx, bad, conveyor.LogOptions{}) {
		errs["Logs"] = err
	}
	for _, err := range e.Revisions(ctx, key) {
		errs["Revisions"] = err
	}
	for _, since := range []string{bad, bad + "-1"} {
		for _, err := range e.Watch(ctx, conveyor.WatchOptions{Since: conveyor.Cursor(since)}) {
			errs["Watch from "+strconv.Itoa(len(since)-len(bad))] = err
		}
	}
	unplanned := &conveyor.Request{}
	errs["Output"] = unplanned.Output(bad, new(string))
	errs["Checkpoint"] = unplanned.Checkpoint(ctx, illegible{bad: bad})
	errs["Settings"] = (&conveyor.Request{Step: conveyor.Step{ID: bad, With: rig.JSON(bad)}}).Settings(new(picky))
	var state conveyor.State
	errs["State"] = state.UnmarshalText([]byte(bad))
	errs["Decode"] = (&conveyor.Object{Meta: conveyor.Meta{Name: bad}, Spec: rig.JSON(bad)}).Decode(new(pickyResource))
	errs["FieldError"] = &conveyor.FieldError{Field: bad[:min(len(bad), 100)], Problem: bad[:min(len(bad), 100)]}
	return errs
}

// illegible is a resource that cannot be encoded, and says so with a text of its own.
type illegible struct {
	conveyor.Meta
	bad string
}

func (i illegible) MarshalJSON() ([]byte, error) { return nil, errors.New(i.bad) }

// picky refuses every JSON, and repeats it.
type picky struct{}

func (*picky) UnmarshalJSON(b []byte) error {
	return fmt.Errorf("bad: %s", strings.Trim(string(b), `"`))
}

type pickyResource struct {
	conveyor.Meta
	Spec picky `json:"spec"`
}

// TestTextsOfOthersAreQuotedInErrorsOfRuns has drivers fail, skip and await with nasty texts, and people cancel with them.
func TestTextsOfOthersAreQuotedInErrorsOfRuns(t *testing.T) {
	for name, bad := range nasty {
		for what, answer := range map[string]rig.Func{
			"an error": rig.Always(conveyor.Done(), conveyor.Permanent(errors.New(bad))),
			"a panic":  func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic(bad) },
			"a signal": rig.Always(conveyor.Await(bad, 0), nil),
			"an output of another": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				return conveyor.Done(), conveyor.Permanent(req.Output(bad, nil))
			},
			"an output": rig.Always(conveyor.DoneWith(json.RawMessage(`{"`+bad)), nil),
			"a cancel":  rig.Taking(time.Hour),
			"time up":   rig.Deaf(2*time.Minute, conveyor.Done(), errors.New(bad)),
		} {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Retry: conveyor.RetryPolicy{MaxAttempts: 1}, StepTimeout: time.Minute}).MustStart()
				e.Driver("d", rig.DriverOf(answer))
				e.Pipeline("d")
				run := e.MustApply(rig.Object("a", nil))
				if what == "a cancel" {
					synctest.Wait()
					require.NoError(t, e.Cancel(t.Context(), run.ID, bad))
				}
				requireQuoted(t, e.Ended(run.ID).Err(), name, what)
			})
		}
	}
}

// TestKeysAreQuotedInErrorsOfStores has stores refuse keys, and the engine find records under keys that it has not made.
func TestKeysAreQuotedInErrorsOfStores(t *testing.T) {
	for name, bad := range nasty {
		for _, open := range []func(t *testing.T) store.Store{
			func(*testing.T) store.Store { return memory.New() },
			func(t *testing.T) store.Store {
				st, err := file.Open(t.Context(), filepath.Join(t.TempDir(), "conveyor.db"), file.Options{})
				require.NoError(t, err)
				return st
			},
		} {
			st := open(t)
			ctx := t.Context()
			_, err := st.Get(ctx, bad)
			requireQuoted(t, err, "Get", name)
			short := bad[:min(len(bad), 200)]
			_, err = st.Commit(ctx, store.Put(short, nil).If(7))
			requireQuoted(t, err, "a condition", name)
			_, err = st.Commit(ctx, store.Put(short, nil), store.Put(short, nil))
			requireQuoted(t, err, "two of a key", name)
			_, err = st.Commit(ctx, store.Put(short, make([]byte, store.MaxValue+1)))
			requireQuoted(t, err, "a large value", name)

			synctest.Test(t, func(t *testing.T) {
				e := rig.NewOn(t, st, conveyor.Options{})
				e.Driver("d", new(rig.Recorder))
				e.Pipeline("d")
				o := rig.Object("a", nil)
				run := e.MustApply(o)
				for _, key := range []string{"rev/r/a/" + short, "att/" + run.ID + "/1/" + short, "res/r/" + short, "pip/" + short, "run/" + short} {
					_, err := st.Commit(ctx, store.Put(key, []byte("{}")))
					require.NoError(t, err)
				}
				for _, err := range e.Revisions(ctx, o.Key()) {
					if err != nil {
						requireQuoted(t, err, "Revisions", name)
					}
				}
				for _, err := range e.List(ctx, conveyor.ResourceFilter{}) {
					if err != nil {
						requireQuoted(t, err, "List", name)
					}
				}
				for _, err := range e.Runs(ctx, conveyor.RunFilter{}) {
					if err != nil {
						requireQuoted(t, err, "Runs", name)
					}
				}
				for _, err := range e.Pipelines(ctx) {
					if err != nil {
						requireQuoted(t, err, "Pipelines", name)
					}
				}
				_, err := e.GetRun(ctx, run.ID)
				requireQuoted(t, err, "GetRun", name)
			})
			require.NoError(t, st.Close())
		}
	}
}

// TestKeysAreQuotedInLogLines has the engine find records under keys that it has not made, and say so.
func TestKeysAreQuotedInLogLines(t *testing.T) {
	for name, bad := range nasty {
		synctest.Test(t, func(t *testing.T) {
			st := memory.New()
			short := bad[:min(len(bad), 200)]
			_, err := st.Commit(t.Context(), store.Put("act/"+short, []byte("{}")), store.Put("run/"+short, []byte("{}")),
				store.Put("rsy/"+short, []byte("{}")), store.Put("unh/k/"+short, []byte("{}")), store.Put("res/k/"+short, []byte("{}")))
			require.NoError(t, err)
			lines := new(rawLines)
			e := rig.NewOn(t, st, conveyor.Options{Logger: slog.New(lines)}).MustStart()
			e.Driver("d", new(rig.Recorder), conveyor.Listen("k"))
			time.Sleep(time.Minute)
			e.Stop()
			require.GreaterOrEqual(t, len(lines.all), 2, name)
			for _, line := range lines.all {
				require.Less(t, len(line), 16<<10)
				for _, r := range line {
					require.True(t, strconv.IsPrint(r), "%s: %q", name, line)
				}
			}
		})
	}
}

// rawLines is a handler that does not quote.
type rawLines struct{ all []string }

func (l *rawLines) Enabled(context.Context, slog.Level) bool { return true }
func (l *rawLines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *rawLines) WithGroup(string) slog.Handler            { return l }
func (l *rawLines) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.Key + "=" + a.Value.String()
		return true
	})
	l.all = append(l.all, line)
	return nil
}

func TestAPictureOfAPipelineHasNoControlCharacters(t *testing.T) {
	for name, bad := range nasty {
		var b strings.Builder
		p := conveyor.PipelineSpec{Steps: []conveyor.Step{{ID: bad, Name: bad, Driver: bad}}}
		require.NoError(t, p.Mermaid(&b))
		for _, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
			for _, r := range line {
				require.True(t, strconv.IsPrint(r), "%s: %q", name, line)
			}
		}
	}
}

func FuzzErrorsOfDocumentsAreQuoted(f *testing.F) {
	for _, bad := range nasty {
		f.Add(`{"name":"a","resource":"r","spec":{`+strconv.Quote(bad)+`:1}}`, bad)
	}
	f.Fuzz(func(t *testing.T, doc, name string) {
		quoted := string(rig.JSON(name))
		for _, doc := range []string{doc, `{` + quoted + `:1}`, `{"spec":{` + quoted + `:1,` + quoted + `:2},"metadata":{` + quoted + `:` + quoted + `},"name":` + quoted + `}`} {
			if _, err := conveyor.ParseResource(strings.NewReader(doc)); err != nil {
				requireQuoted(t, err)
			}
			if _, err := conveyor.ParsePipeline(strings.NewReader(doc)); err != nil {
				requireQuoted(t, err)
			}
		}
	})
}
