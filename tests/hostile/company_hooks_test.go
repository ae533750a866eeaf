package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// misdeed is something that code which the engine calls may do instead of its duty.
type misdeed struct {
	name string
	do   func(c *company)
}

// misdeeds are what observers, loggers and the like do in the tests. The engine may be called back, but not waited for.
func misdeeds() []misdeed {
	return []misdeed{
		{"panics", func(*company) { panic("ouch") }},
		{"panics with a list that holds itself", func(*company) {
			list := make([]any, 1)
			list[0] = list
			panic(list)
		}},
		{"panics with itself", func(*company) { panic(again{}) }},
		{"ends its goroutine", func(*company) { runtime.Goexit() }},
		{"never returns", func(c *company) { c.stuck() }},
		{"takes its time", func(*company) { time.Sleep(time.Minute) }},
		{"calls the engine", func(c *company) {
			ctx := context.Background()
			_, _ = c.Stats(ctx)
			for run, err := range c.Runs(ctx, conveyor.RunFilter{Limit: 3}) {
				if err == nil {
					_, _ = c.GetRun(ctx, run.ID)
					_ = c.Signal(ctx, run.ID, "hello", 1)
				}
			}
			_, _ = c.Apply(ctx, rig.Along("none", "x"))
		}},
	}
}

// requireShutdown stops an engine, within a minute, of which something may be stuck that is none of its drivers.
func (c *company) requireShutdown() {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	require.NoError(c.T, c.Shutdown(ctx))
	require.LessOrEqual(c.T, time.Since(began), time.Minute)
	c.letGo()
	time.Sleep(100 * time.Hour) // for those that take their time
	synctest.Wait()
}

// companyWith is a company whose options call its code, which it does not have before.
func companyWith(t *testing.T, opts func(c func() *company) conveyor.Options) *company {
	var made atomic.Pointer[company]
	c := newCompany(t, opts(made.Load))
	made.Store(c)
	c.Driver("bad", rig.DriverOf(rig.InTurn(rig.Always(conveyor.Done(), rig.ErrBoom), rig.Always(conveyor.Done(), nil))))
	c.PipelineNamed("bad", "bad")
	synctest.Wait()
	return c
}

func TestHostileObserversHarmNobody(t *testing.T) {
	for _, m := range misdeeds() {
		t.Run("an observer that "+m.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var told atomic.Int64
				c := companyWith(t, func(c func() *company) conveyor.Options {
					return conveyor.Options{Observer: conveyor.ObserverFunc(func(context.Context, conveyor.Event) {
						if told.Add(1); c() != nil {
							m.do(c())
						}
					})}
				})
				c.arrive()
				c.requireHealth(90 * time.Second)
				c.requireEnd(endsWell.atAnyAttempt())
				c.requireShutdown()
				if m.name != "never returns" && m.name != "takes its time" {
					require.Greater(t, told.Load(), int64(4*healthy), "it is told of all the same")
				}
			})
		})
	}
}

func TestHostileAdmissionsHarmNobodyElse(t *testing.T) {
	for _, m := range misdeeds() {
		asked := func(c func() *company, in string) conveyor.Options {
			return conveyor.Options{Admission: conveyor.AdmissionFunc(func(_ context.Context, s conveyor.StepInfo) (func(), time.Duration, error) {
				if s.Pipeline != "bad" {
					return nil, 0, nil
				}
				if in == "admit" {
					m.do(c())
				}
				return func() {
					if in == "release" {
						m.do(c())
					}
				}, 0, nil
			})}
		}
		for _, in := range []string{"admit", "release"} {
			t.Run(in+" that "+m.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var made atomic.Pointer[company]
					c := newCompany(t, asked(made.Load, in))
					made.Store(c)
					c.Driver("bad", new(rig.Recorder), conveyor.Timeout(hostileTimeout), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: hostileTries}))
					c.PipelineNamed("bad", "bad")
					c.arrive()
					c.requireHealth(3 * time.Minute)
					switch {
					case m.name == "never returns":
						c.requireEnd(comesAgain)
					case m.name == "takes its time":
						c.requireEnd(expectation{finally: conveyor.StateFailed, attempt: 2, text: "the driver did not return"})
					case m.name == "calls the engine", in == "release":
						c.requireEnd(endsWell)
					default:
						c.requireEnd(fails("driver panicked"))
					}
					c.requireRest()
					c.requireShutdown()
				})
			})
		}
	}
}

// badHandler does something at one of the methods of a slog.Handler.
type badHandler struct {
	at   string
	do   func()
	told *atomic.Int64
}

func (h *badHandler) misdo(at string) {
	h.told.Add(1)
	if h.at == at {
		h.do()
	}
}

func (h *badHandler) Enabled(context.Context, slog.Level) bool  { h.misdo("Enabled"); return true }
func (h *badHandler) Handle(context.Context, slog.Record) error { h.misdo("Handle"); return nil }
func (h *badHandler) WithAttrs([]slog.Attr) slog.Handler        { h.misdo("WithAttrs"); return h }
func (h *badHandler) WithGroup(string) slog.Handler             { h.misdo("WithGroup"); return h }

func TestHostileLoggersHarmNobody(t *testing.T) {
	for _, m := range misdeeds() {
		for _, at := range []string{"Enabled", "Handle", "WithAttrs", "WithGroup"} {
			t.Run(at+" that "+m.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var told atomic.Int64
					c := companyWith(t, func(c func() *company) conveyor.Options {
						return conveyor.Options{
							Logger: slog.New(&badHandler{at: at, told: &told, do: func() {
								if c() != nil {
									m.do(c())
								}
							}}),
							// So that the engine has something to say.
							Observer: conveyor.ObserverFunc(func(context.Context, conveyor.Event) { panic("no observer") }),
						}
					})
					c.Driver("talks", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
						req.Log.WithGroup("g").With("k", "v").Info("hello")
						return conveyor.Done(), nil
					}), conveyor.Timeout(hostileTimeout))
					c.PipelineNamed("bad", "talks")
					c.arrive()
					c.requireHealth(3 * time.Minute)
					switch m.name {
					case "never returns":
						c.requireEnd(comesAgain)
					case "takes its time":
						time.Sleep(24 * time.Hour)
					case "ends its goroutine":
						c.requireEnd(expectation{finally: conveyor.StateFailed, attempt: 3, text: "Goexit"})
					default:
						c.requireEnd(endsWell)
					}
					for _, run := range c.bad {
						lines := c.AllLogs(run.ID, conveyor.LogOptions{})
						require.NotEmpty(t, lines, "kept whatever becomes of it")
						require.Equal(t, "hello", lines[0].Message)
						require.JSONEq(t, `{"g":{"k":"v"}}`, string(lines[0].Attrs))
					}
					c.requireShutdown()
					require.NotZero(t, told.Load())
				})
			})
		}
	}
}

func TestAStoreThatFailsIsToldOfByALoggerThatBlocksWithoutHoldingUpARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &dam{Store: memory.New()}
		release := make(chan struct{})
		var told atomic.Int64
		e := rig.NewOn(t, disk, conveyor.Options{Logger: slog.New(&badHandler{at: "Handle", told: &told, do: func() { <-release }})}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Pipeline("d")
		var runs []*conveyor.Run
		for i := range 10 {
			runs = append(runs, e.MustApply(rig.Object(fmt.Sprint("n", i), nil)))
		}
		open := disk.shut("", errDisk)
		time.Sleep(time.Hour) // more lines than are kept for a logger
		open()
		for _, run := range runs {
			require.NoError(t, e.Ended(run.ID).Err())
		}
		require.LessOrEqual(t, told.Load(), int64(2), "it is at the first line")
		close(release)
		time.Sleep(time.Second)
		require.Greater(t, told.Load(), int64(1000), "the others wait for it, as many as there is room for")
		require.LessOrEqual(t, told.Load(), int64(2100))
	})
}

func TestHostileValidationsReachTheirCallerAndLeaveNothing(t *testing.T) {
	for _, m := range misdeeds() {
		if m.name == "calls the engine" {
			continue // and so itself
		}
		t.Run("a Validate that "+m.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := companyWith(t, func(c func() *company) conveyor.Options {
					return conveyor.Options{Validate: func(_ context.Context, o *conveyor.Object) error {
						o.Spec, o.Name = []byte("{"), "other" // its own
						if o.Type == "odd" {
							m.do(c())
						}
						return nil
					}}
				})
				apply := func() {
					defer func() { _ = recover() }()
					_, _ = c.Apply(context.Background(), rig.Loose("odd", "x", 1))
				}
				for range hostiles {
					go apply()
				}
				synctest.Wait()
				requireNoneOf(t, c.Store, "odd")
				c.arrive()
				c.requireHealth(90 * time.Second)
				c.requireEnd(endsWell.atAnyAttempt())
				c.letGo()
				c.requireRest()
				c.requireShutdown()
			})
		})
	}
}

func requireNoneOf(t *testing.T, st store.Store, kind string) {
	t.Helper()
	for key := range rig.Dump(t, st) {
		require.NotContains(t, key, "/"+kind+"/")
	}
}

// badResource does something when it is encoded, decoded, or asked for its Meta.
type badResource struct {
	conveyor.Meta
	at string
	do func()
}

func (r *badResource) ResourceMeta() *conveyor.Meta {
	if r.at == "ResourceMeta" {
		r.do()
	}
	return &r.Meta
}

func (r *badResource) MarshalJSON() ([]byte, error) {
	if r.at == "MarshalJSON" {
		r.do()
	}
	return []byte(`{"name":"x","resource":"odd"}`), nil
}

func (r *badResource) UnmarshalJSON([]byte) error { panic("not my JSON") }

func TestAResourceThatPanicsReachesItsCallerAndLeavesNothing(t *testing.T) {
	for _, at := range []string{"ResourceMeta", "MarshalJSON"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := companyWith(t, func(func() *company) conveyor.Options { return conveyor.Options{} })
				for _, do := range []func(){func() { panic("ouch") }, func() { panic(again{}) }} {
					r := &badResource{at: at, do: do, Meta: conveyor.Meta{Name: "x", Type: "odd"}}
					require.Panics(t, func() { _, _ = c.Apply(context.Background(), r) })
				}
				requireNoneOf(t, c.Store, "odd")
				c.arrive()
				c.requireHealth(90 * time.Second)
				c.requireEnd(endsWell.atAnyAttempt())
				c.requireRest()
			})
		})
	}
}

func TestADriverForATypeThatCannotBeDecodedFails(t *testing.T) {
	fails("not my JSON").beside(t, func(*company) conveyor.Driver {
		return conveyor.For(func(context.Context, *conveyor.Request, *badResource) (conveyor.Result, error) {
			return conveyor.Done(), nil
		})
	})
}

func TestAStoreThatIsClosedUnderTheEngineEndsNothingWrongly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		e := rig.NewOn(t, st, conveyor.Options{Workers: workers}).MustStart()
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Resource.Name == "closer" {
				return conveyor.Done(), st.Close()
			}
			return rig.Taking(time.Second)(ctx, req)
		}))
		e.Pipeline("d", "d")
		e.MustApply(rig.Object("a", 1))
		e.MustApply(rig.Object("closer", 1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.Sleep(10 * time.Second)
		_, err := e.Apply(ctx, rig.Object("b", 1))
		require.ErrorIs(t, err, store.ErrClosed)
		_, err = e.Get(ctx, rig.Object("a", 1).Key())
		require.ErrorIs(t, err, store.ErrClosed)
		require.Zero(t, e.MustStats().Busy)
		require.NoError(t, errors.Join(e.Shutdown(ctx), ctx.Err()))
	})
}
