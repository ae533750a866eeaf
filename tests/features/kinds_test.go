package features_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
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

// sentinels are the errors that callers look for.
var sentinels = []error{
	conveyor.ErrNotFound, conveyor.ErrExists, conveyor.ErrConflict, conveyor.ErrInvalid, conveyor.ErrTooLarge, conveyor.ErrClosed,
	conveyor.ErrCanceled, conveyor.ErrSuperseded, conveyor.ErrTimeout, conveyor.ErrGap, conveyor.ErrShutdown,
	context.Canceled, context.DeadlineExceeded,
	store.ErrNotFound, store.ErrConflict, store.ErrClosed, store.ErrLocked, store.ErrCorrupt, store.ErrUnknown,
}

// eachStore runs a test in a bubble on a new store of each kind.
func eachStore(t *testing.T, test func(t *testing.T, st store.Store)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, memory.New()) })
	})
	t.Run("shared", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, memory.NewShared()) })
	})
	t.Run("file", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st, err := file.Open(t.Context(), filepath.Join(t.TempDir(), "conveyor.db"), file.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, st.Close()) })
			test(t, st)
		})
	})
}

func TestEveryKindOfAnErrorIsFoundAgain(t *testing.T) {
	_, document := conveyor.ParseResource(strings.NewReader(`{"name":"a","resource":"r",` + "\n" + `"bad":1}`))
	require.Error(t, document)
	late := func(err error) rig.Func {
		return func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			<-ctx.Done()
			return conveyor.Done(), err
		}
	}
	cases := []struct {
		name   string
		answer rig.Func
		is     []error
	}{
		{"none", rig.Always(conveyor.Done(), rig.ErrBoom), nil},
		{"out of time with something invalid", late(fmt.Errorf("so: %w", conveyor.ErrInvalid)), []error{conveyor.ErrTimeout, conveyor.ErrInvalid}},
		{"out of time with the error of the context", late(context.DeadlineExceeded), []error{conveyor.ErrTimeout, context.DeadlineExceeded}},
		{"many", rig.Always(conveyor.Done(), errors.Join(conveyor.ErrConflict, fmt.Errorf("b: %w", conveyor.ErrTooLarge), store.ErrUnknown)),
			[]error{conveyor.ErrConflict, conveyor.ErrTooLarge, store.ErrUnknown}},
		{"a panic with a sentinel", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			panic(fmt.Errorf("kaboom: %w", conveyor.ErrExists))
		}, []error{conveyor.ErrExists}},
		{"a panic inside an error", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), fmt.Errorf("so: %w", errors.Join(conveyor.ErrGap, &conveyor.PanicError{Value: "kaboom"}))
		}, []error{conveyor.ErrGap}},
		{"a fault of a document", rig.Always(conveyor.Done(), fmt.Errorf("read: %w", document)), []error{conveyor.ErrInvalid}},
		{"an output that is too large", rig.Always(conveyor.DoneWith(strings.Repeat("x", 1000)), nil), []error{conveyor.ErrTooLarge}},
	}
	for _, sentinel := range sentinels {
		cases = append(cases, struct {
			name   string
			answer rig.Func
			is     []error
		}{sentinel.Error(), rig.Always(conveyor.Done(), fmt.Errorf("so: %w", sentinel)), []error{sentinel}})
	}
	eachStore(t, func(t *testing.T, st store.Store) {
		opts := conveyor.Options{StepTimeout: time.Second, Limits: conveyor.Limits{Output: 900}}
		e := rig.NewOn(t, st, opts).MustStart()
		ids := make([]string, len(cases))
		for i, c := range cases {
			d := fmt.Sprint("d", i)
			e.Driver(d, rig.DriverOf(c.answer), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 1}))
			e.PipelineNamed(d, d)
			ids[i] = e.Finish(rig.Along(d, d)).ID
		}
		for life := range 3 {
			switch life {
			case 1:
				e = e.Reborn(opts)
			case 2:
				e = e.Crashed(opts)
			}
			for i, c := range cases {
				err := e.MustGetRun(ids[i]).Err()
				require.Error(t, err, c.name)
				for _, sentinel := range sentinels {
					wanted := false
					for _, is := range c.is {
						wanted = wanted || is == sentinel
					}
					require.Equal(t, wanted, errors.Is(err, sentinel), "%s: %v of %v", c.name, sentinel, err)
				}
				var step *conveyor.StepError
				require.ErrorAs(t, err, &step)
				require.Equal(t, e.MustGetRun(ids[i]).Steps[0].Reason, step.Err.Error(), "the text stays")
				var panicked *conveyor.PanicError
				require.Equal(t, strings.Contains(c.name, "a panic"), errors.As(err, &panicked), c.name)
				if panicked != nil {
					require.IsType(t, "", panicked.Value)
					require.Contains(t, panicked.Value, "kaboom")
					require.NotContains(t, panicked.Value, "driver panicked")
				}
				var field *conveyor.FieldError
				require.Equal(t, strings.Contains(c.name, "a fault of") || strings.Contains(c.name, "an output"), errors.As(err, &field), c.name)
				if c.name == "a fault of a document" {
					require.Equal(t, document.Error(), field.Error())
					require.Equal(t, []any{"bad", 2, 1}, []any{field.Field, field.Line, field.Column})
				}
			}
		}
	})
}

// The first version recorded the first kind of an error, and neither the others nor the field.
func TestAnAttemptOfTheFirstVersionKeepsItsOneKind(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.Permanent(errors.Join(conveyor.ErrInvalid, conveyor.ErrTimeout)))))
		e.Pipeline("d")
		run := e.Finish(rig.Object("a", nil))
		e.Stop()
		attempt := store.Put("att/"+run.ID+"/1/0000000000000001", []byte(fmt.Sprintf(
			`{"started":%d,"ended":%d,"error":%q,"kind":"timeout"}`, run.StartedAt.UnixNano(), run.EndedAt.UnixNano(), run.Steps[0].Reason)))
		_, err := st.Commit(t.Context(), attempt)
		require.NoError(t, err)
		err = rig.NewOn(t, st, conveyor.Options{}).MustGetRun(run.ID).Err()
		require.ErrorIs(t, err, conveyor.ErrTimeout)
		require.NotErrorIs(t, err, conveyor.ErrInvalid)
	})
}

func TestAFieldErrorThatAProgramMadeIsInvalid(t *testing.T) {
	err := error(&conveyor.FieldError{Field: "a\nb", Problem: "is \x1b[31mred"})
	require.ErrorIs(t, err, conveyor.ErrInvalid)
	require.Equal(t, `conveyor: invalid: a\nb: is \x1b[31mred`, err.Error())
}
