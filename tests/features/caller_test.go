package features_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
)

type tenantKey struct{}

// ofTenant is the context of a call by an actor for a tenant, which carryTenant gives to the run.
func ofTenant(ctx context.Context, actor, tenant string) context.Context {
	return conveyor.As(context.WithValue(ctx, tenantKey{}, tenant), actor)
}

func carryTenant(ctx context.Context) map[string]string {
	tenant, _ := ctx.Value(tenantKey{}).(string)
	if tenant == "" {
		return nil
	}
	return map[string]string{"tenant": tenant}
}

// origins is a driver that keeps of each call the kind, the step, the actor and the tenant.
type origins struct {
	mu   sync.Mutex // guards seen
	seen []string
}

// take returns the calls since the last call of take.
func (o *origins) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := o.seen
	o.seen = nil
	return seen
}

func (o *origins) note(req *conveyor.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", req.Kind, req.Step.ID, req.By, req.Carried["tenant"])))
}

func (o *origins) Reconcile(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
	o.note(req)
	return conveyor.Done(), nil
}

func (o *origins) Finalize(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
	o.note(req)
	return conveyor.Done(), nil
}

// TestWhoAskedAndWhatTheyCarryReachTheSteps makes a run with each verb, each by another actor for another tenant.
func TestWhoAskedAndWhatTheyCarryReachTheSteps(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{Carry: carryTenant}).MustStart()
		d := new(origins)
		e.Driver("d", d)
		e.Pipeline("d")
		key := rig.Object("a", nil).Key()
		var last *conveyor.Run
		for _, c := range []struct {
			by     string
			call   func(ctx context.Context) (*conveyor.Run, error)
			called string
		}{
			{"creator", func(ctx context.Context) (*conveyor.Run, error) { return e.Create(ctx, rig.Object("a", 1)) }, "reconcile 1"},
			{"applier", func(ctx context.Context) (*conveyor.Run, error) { return e.Apply(ctx, rig.Object("a", 2)) }, "reconcile 1"},
			{"trigger", func(ctx context.Context) (*conveyor.Run, error) { return e.Trigger(ctx, key) }, "reconcile 1"},
			{"retrier", func(ctx context.Context) (*conveyor.Run, error) {
				return e.Retry(ctx, last.ID, conveyor.RetryFrom{Start: true})
			}, "reconcile 1"},
			{"roller", func(ctx context.Context) (*conveyor.Run, error) { return e.Rollback(ctx, key, 1) }, "reconcile 1"},
			{"deleter", func(ctx context.Context) (*conveyor.Run, error) { return e.Delete(ctx, key) }, "finalize 1"},
		} {
			run, err := c.call(ofTenant(t.Context(), c.by, "of "+c.by))
			require.NoError(t, err)
			require.Equal(t, c.by, run.By)
			last = e.Ended(run.ID)
			require.Equal(t, []string{c.called + " " + c.by + " of " + c.by}, d.take())
			require.Equal(t, c.by, last.By)
			require.Equal(t, map[string]string{"tenant": "of " + c.by}, last.Carried)
		}
	})
}

func TestACoalescedGenerationHasTheOriginOfItsNewestApply(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{Carry: carryTenant}).MustStart()
		d := new(origins)
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if _, err := rig.Taking(time.Minute)(ctx, req); err != nil {
				return conveyor.Result{}, err
			}
			return d.Reconcile(ctx, req)
		}))
		e.Pipeline("d")
		apply := func(actor string, spec any) *conveyor.Run {
			run, err := e.Apply(ofTenant(t.Context(), actor, actor), rig.Object("a", spec))
			require.NoError(t, err)
			return run
		}
		first := apply("one", 1)
		apply("two", 2)
		queued := apply("three", 3)
		require.Equal(t, "three", queued.By)
		apply("four", 3) // nothing has changed, so nobody else is behind it
		_, err := e.Trigger(ofTenant(t.Context(), "five", "five"), rig.Object("a", nil).Key())
		require.NoError(t, err)
		require.Equal(t, "three", e.MustGetRun(queued.ID).By)
		require.Equal(t, map[string]string{"tenant": "three"}, e.MustGetRun(queued.ID).Carried)
		e = e.Crashed(conveyor.Options{})
		e.Driver("d", d)
		e.MustStart()
		e.Ended(first.ID)
		ended := e.Ended(queued.ID)
		require.Equal(t, "three", ended.By)
		require.Equal(t, []string{"reconcile 1 one one", "reconcile 1 three three"}, d.take())
		o := e.MustGet(rig.Object("a", nil))
		require.Equal(t, "three", o.UpdatedBy)
		var by []string
		for _, revision := range rig.Drain(t, e.Revisions(t.Context(), o.Key())) {
			by = append(by, revision.UpdatedBy)
		}
		require.Equal(t, []string{"one", "two", "three"}, by)
	})
}

func TestQueuedRunsKeepTheirOwnOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Carry: carryTenant}).MustStart()
		d := new(origins)
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			time.Sleep(time.Minute)
			return d.Reconcile(ctx, req)
		}))
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		for i, actor := range []string{"one", "two", "three"} {
			_, err := e.Apply(ofTenant(t.Context(), actor, actor), rig.Object("a", i))
			require.NoError(t, err)
		}
		time.Sleep(time.Hour)
		require.Equal(t, []string{"reconcile 1 one one", "reconcile 1 two two", "reconcile 1 three three"}, d.take())
	})
}

func TestWhatTheEngineDoesByItselfIsDoneByTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Carry: carryTenant}).MustStart()
		d := new(origins)
		ctx := ofTenant(t.Context(), "ada", "acme")
		_, err := e.Apply(ctx, rig.Loose("loose", "a", nil))
		require.NoError(t, err)
		synctest.Wait()
		e.Driver("d", d, conveyor.Listen("loose"))
		synctest.Wait()
		p := rig.PipelineOf("d")
		p.Resync = conveyor.Duration(time.Minute)
		e.Save(p)
		_, err = e.Apply(ctx, rig.Object("a", nil))
		require.NoError(t, err)
		time.Sleep(time.Minute + time.Second)
		require.Equal(t, []string{"reconcile d conveyor", "reconcile 1 ada acme", "reconcile 1 conveyor"}, d.take())
	})
}

func TestWhoSignaledAndWhatTheyCarryStayWithTheSignal(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{Carry: carryTenant}).MustStart()
		var seen []string
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			ok, err := req.Signal(nil)
			require.NoError(t, err)
			by, carried := req.SignalFrom()
			seen = append(seen, strings.TrimSpace(fmt.Sprintf("%v %s %s; %s %s", ok, by, carried["tenant"], req.By, req.Carried["tenant"])))
			if !ok {
				return conveyor.Await("go", 0), nil
			}
			if len(seen) == 2 {
				return conveyor.Result{}, rig.ErrBoom
			}
			return conveyor.Done(), nil
		}))
		e.Driver("after", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			by, carried := req.SignalFrom()
			require.Empty(t, by)
			require.Empty(t, carried)
			return conveyor.Done(), nil
		}))
		e.Pipeline("d", "after")
		run, err := e.Apply(ofTenant(t.Context(), "ada", "acme"), rig.Object("a", nil))
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, e.Signal(ofTenant(t.Context(), "bob", "bobs"), run.ID, "go", "payload"))
		ended := e.Ended(run.ID)
		require.Equal(t, []string{"false  ; ada acme", "true bob bobs; ada acme", "true bob bobs; ada acme"}, seen)
		require.Equal(t, "bob", ended.Step("1").Waits[0].By)
		require.Equal(t, "ada", ended.By)
	})
}

// TestSignalsOfAnOlderFormatAreDelivered puts a signal as the first two formats have recorded it before one of the present format.
func TestSignalsOfAnOlderFormatAreDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		var seen []string
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var payload string
			if ok, _ := req.Signal(&payload); ok {
				seen = append(seen, payload)
			}
			if len(seen) == 2 {
				return conveyor.Done(), nil
			}
			return conveyor.Await("go", 0), nil
		}))
		e.Driver("slow", rig.DriverOf(rig.Taking(time.Minute)))
		e.Pipeline("slow", "d")
		run := e.MustApply(rig.Object("a", nil))
		_, err := e.Store.Commit(t.Context(), store.Put("sig/"+run.ID+"/go/"+run.ID, []byte(`"old"`)))
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NoError(t, e.Signal(t.Context(), run.ID, "go", "new"))
		require.NoError(t, e.Ended(run.ID).Err())
		require.Equal(t, []string{"old", "new"}, seen)
		for r, err := range e.Store.List(t.Context(), store.Query{Prefix: "sig/"}) {
			require.NoError(t, err)
			require.Fail(t, "a signal is left", r.Key)
		}
	})
}

func TestWhoEndedARunIsOnRecord(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
		p := rig.PipelineOf("d")
		p.OnChange = conveyor.Supersede
		e.Save(p)
		for _, c := range []struct {
			name string
			end  func(ctx context.Context, o *conveyor.Object, run string) error
		}{
			{"cancel", func(ctx context.Context, _ *conveyor.Object, run string) error { return e.Cancel(ctx, run, "enough") }},
			{"delete", func(ctx context.Context, o *conveyor.Object, _ string) error {
				_, err := e.Delete(ctx, o.Key())
				return err
			}},
			{"supersede", func(ctx context.Context, o *conveyor.Object, _ string) error {
				o.Spec = rig.JSON(2)
				_, err := e.Apply(ctx, o)
				return err
			}},
		} {
			o := rig.Object(c.name, 1)
			run := e.MustApply(o)
			time.Sleep(time.Second)
			require.NoError(t, c.end(conveyor.As(t.Context(), "bob"), o, run.ID))
			ended := e.Ended(run.ID)
			require.Equal(t, "bob", ended.StoppedBy, c.name)
			require.Empty(t, ended.By)
			require.Equal(t, conveyor.KindCancellation, ended.ErrorKind)
		}
	})
}

func TestAnActorThatCannotBeIsRefusedByEveryVerb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		key := rig.Object("a", nil).Key()
		verbs := map[string]func(ctx context.Context) error{
			"Apply":   func(ctx context.Context) error { _, err := e.Apply(ctx, rig.Object("a", 2)); return err },
			"Create":  func(ctx context.Context) error { _, err := e.Create(ctx, rig.Object("b", 2)); return err },
			"Trigger": func(ctx context.Context) error { _, err := e.Trigger(ctx, key); return err },
			"Retry": func(ctx context.Context) error {
				_, err := e.Retry(ctx, e.RunsOf(rig.Object("done", nil))[0].ID, conveyor.RetryFrom{})
				return err
			},
			"Rollback":       func(ctx context.Context) error { _, err := e.Rollback(ctx, key, 1); return err },
			"Delete":         func(ctx context.Context) error { _, err := e.Delete(ctx, key); return err },
			"Cancel":         func(ctx context.Context) error { return e.Cancel(ctx, run.ID, "") },
			"Signal":         func(ctx context.Context) error { return e.Signal(ctx, run.ID, "go", nil) },
			"SavePipeline":   func(ctx context.Context) error { return e.SavePipeline(ctx, rig.Named("q", rig.PipelineOf("d"))) },
			"DeletePipeline": func(ctx context.Context) error { return e.DeletePipeline(ctx, "p") },
			"Pause":          func(ctx context.Context) error { return e.Pause(ctx, conveyor.Target{All: true}, "") },
			"Resume":         func(ctx context.Context) error { return e.Resume(ctx, conveyor.Target{All: true}) },
		}
		canceled := e.MustApply(rig.Object("done", nil))
		require.NoError(t, e.Cancel(t.Context(), canceled.ID, ""))
		e.Ended(canceled.ID)
		before := rig.Dump(t, e.Store.Store)
		for _, c := range []struct {
			name, actor, says string
			is                error
		}{
			{"too long", strings.Repeat("x", 254), "actor: 254 bytes, more than the limit of 253 (a fixed limit)", conveyor.ErrTooLarge},
			{"no text", "\xff", "is invalid UTF-8", conveyor.ErrInvalid},
			{"with a line end", "a\nb", "has a control character", conveyor.ErrInvalid},
			{"the engine", "conveyor", `"conveyor" is the engine itself`, conveyor.ErrInvalid},
		} {
			for _, verb := range slices.Sorted(maps.Keys(verbs)) {
				err := verbs[verb](conveyor.As(t.Context(), c.actor))
				require.ErrorIs(t, err, c.is, "%s %s", verb, c.name)
				require.ErrorContains(t, err, c.says, "%s %s", verb, c.name)
			}
		}
		require.Equal(t, before, rig.Dump(t, e.Store.Store))
		_, err := e.Trigger(conveyor.As(conveyor.As(t.Context(), "conveyor"), strings.Repeat("é", 126)), key)
		require.NoError(t, err, "the innermost actor counts")
	})
}

func TestWhatIsCarriedIsBoundedAndCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := map[string]string{}
		e := rig.New(t, conveyor.Options{Carry: func(context.Context) map[string]string { return shared }, Limits: conveyor.Limits{Carried: 20}}).MustStart()
		var got map[string]string
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			got = maps.Clone(req.Carried)
			if req.Carried != nil {
				req.Carried["k"] = "changed by a driver"
			}
			return conveyor.Done(), nil
		}))
		e.Pipeline("d", "d")
		apply := func(value string) error {
			shared = map[string]string{"k": value}
			run, err := e.Apply(t.Context(), rig.Object("a", value))
			shared["k"] = "changed by the caller"
			if err != nil {
				return err
			}
			run.Carried["k"] = "changed by the owner of a run"
			require.Equal(t, value, e.Ended(run.ID).Carried["k"])
			require.Equal(t, map[string]string{"k": value}, got)
			return nil
		}
		require.NoError(t, apply(strings.Repeat("x", 12)))
		err := apply(strings.Repeat("x", 13))
		require.ErrorIs(t, err, conveyor.ErrTooLarge)
		require.ErrorContains(t, err, "Carry: 21 bytes as JSON, more than the limit of 20 (Limits.Carried)")
		require.ErrorIs(t, apply("\xff"), conveyor.ErrInvalid)
		shared = nil
		require.NoError(t, e.Finish(rig.Object("b", nil)).Err())
		require.Nil(t, got)
	})
}

func TestWrapIsAroundEveryCall(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		var seen []string
		around := func(name string) func(conveyor.Call) conveyor.Call {
			return func(next conveyor.Call) conveyor.Call {
				return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					seen = append(seen, fmt.Sprintf("%s(%s %s", name, req.Kind, req.Step.ID))
					r, err := next(context.WithValue(ctx, tenantKey{}, name), req)
					seen = append(seen, fmt.Sprintf("%s)", name))
					return r, err
				}
			}
		}
		admitted := 0
		e := rig.NewOn(t, st, conveyor.Options{
			Wrap: []func(conveyor.Call) conveyor.Call{around("outer"), around("inner")},
			Admission: conveyor.AdmissionFunc(func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) {
				admitted++
				return nil, 0, nil
			}),
		}).MustStart()
		e.Driver("d", rig.Undoing(rig.Recording(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			require.Equal(t, "inner", ctx.Value(tenantKey{}))
			return conveyor.Done(), nil
		}), new(rig.Recorder)))
		e.Driver("plain", new(rig.Recorder))
		f := rig.NewFanOut()
		f.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			return []conveyor.Step{{ID: "a", Driver: "d"}, {ID: "b", Driver: "plain"}}, nil
		}
		f.Finally = []conveyor.Step{{ID: "last", Driver: "plain"}}
		e.SavePlanned(f)
		require.NoError(t, e.Finish(rig.Object("a", nil)).Err())
		whole := func(call string) []string {
			return []string{"outer(" + call, "inner(" + call, "inner)", "outer)"}
		}
		require.Equal(t, slices.Concat(whole("plan .plan"), whole("reconcile a"), whole("reconcile b"), whole("reconcile last")), seen)
		require.Equal(t, 3, admitted)
		seen = nil
		deletion, err := e.Delete(t.Context(), rig.Object("a", nil).Key())
		require.NoError(t, err)
		require.NoError(t, e.Ended(deletion.ID).Err())
		require.Equal(t, whole("finalize a"), seen, "a driver that has nothing to finalize is passed over as without middleware")
	})
}

// TestWrapIsPartOfTheAttempt looks at what a middleware can do wrong, and what becomes of the attempt.
func TestWrapIsPartOfTheAttempt(t *testing.T) {
	boom := errors.New("boom of the middleware")
	var otherRequest *conveyor.Request
	for _, c := range []struct {
		name  string
		wrap  func(t *testing.T, ctx context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error)
		state conveyor.State
		says  string
		calls int // of the driver
		tries int
	}{
		{"it does nothing", func(_ *testing.T, ctx context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			return next(ctx, req)
		}, conveyor.StateSucceeded, "", 1, 1},
		{"it answers itself", func(*testing.T, context.Context, *conveyor.Request, conveyor.Call) (conveyor.Result, error) {
			return conveyor.Skip("not needed"), nil
		}, conveyor.StateSkipped, "not needed", 0, 1},
		{"it turns a success into an error", func(_ *testing.T, ctx context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			r, _ := next(ctx, req)
			return r, boom
		}, conveyor.StateFailed, "boom of the middleware", 2, 2},
		{"it panics", func(*testing.T, context.Context, *conveyor.Request, conveyor.Call) (conveyor.Result, error) {
			panic("boom of the middleware")
		}, conveyor.StateFailed, "driver panicked: boom of the middleware", 0, 2},
		{"it calls next twice", func(t *testing.T, ctx context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			_, err := next(ctx, req)
			require.NoError(t, err)
			return next(ctx, req)
		}, conveyor.StateFailed, "next: was called a second time", 1, 1},
		{"it calls next without a context", func(_ *testing.T, _ context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			return next(nil, req) //nolint:staticcheck // on purpose
		}, conveyor.StateFailed, "next: was called without the context or the request", 0, 1},
		{"it calls next with a context of its own", func(_ *testing.T, _ context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			return next(context.Background(), req)
		}, conveyor.StateFailed, "next: was called with a context that is not derived", 0, 1},
		{"it calls next without a request", func(_ *testing.T, ctx context.Context, _ *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			return next(ctx, nil)
		}, conveyor.StateFailed, "next: was called without the context or the request", 0, 1},
		{"it calls next with a request that it has made", func(_ *testing.T, ctx context.Context, _ *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			return next(ctx, &conveyor.Request{})
		}, conveyor.StateFailed, "next: was called without the context or the request", 0, 1},
		{"it calls next with the request of another call", func(_ *testing.T, ctx context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			if otherRequest == nil {
				otherRequest = req
				return conveyor.Result{}, boom
			}
			return next(ctx, otherRequest)
		}, conveyor.StateFailed, "next: was called with a context that is not derived", 0, 2},
		{"it calls next with a copy of the request", func(_ *testing.T, ctx context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			other := *req
			return next(ctx, &other)
		}, conveyor.StateSucceeded, "", 1, 1},
		{"it returns before next", func(_ *testing.T, ctx context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			go func() { _, _ = next(ctx, req) }()
			time.Sleep(time.Millisecond)
			return conveyor.Done(), nil
		}, conveyor.StateFailed, "next: had not returned when the middleware returned", 1, 1},
		{"it calls next when it has returned", func(t *testing.T, ctx context.Context, req *conveyor.Request, next conveyor.Call) (conveyor.Result, error) {
			time.AfterFunc(time.Minute, func() {
				_, err := next(ctx, req)
				require.ErrorContains(t, err, "next: was called after the middleware had returned")
			})
			return conveyor.Done(), nil
		}, conveyor.StateSucceeded, "", 0, 1},
		{"it returns a panic of the driver", nil, conveyor.StateFailed, "driver panicked: boom of the driver", 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				otherRequest = nil
				calls := 0
				e := rig.New(t, conveyor.Options{
					Retry: conveyor.RetryPolicy{MaxAttempts: 2},
					Wrap: []func(conveyor.Call) conveyor.Call{func(next conveyor.Call) conveyor.Call {
						return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
							if c.wrap != nil {
								return c.wrap(t, ctx, req, next)
							}
							r, err := next(ctx, req)
							var panicked *conveyor.PanicError
							require.ErrorAs(t, err, &panicked, "a middleware sees a panic as an error")
							return r, err
						}
					}},
				}).MustStart()
				e.Driver("d", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
					calls++
					time.Sleep(time.Second)
					if c.wrap == nil {
						panic("boom of the driver")
					}
					return conveyor.Done(), nil
				}))
				e.Pipeline("d")
				run := e.Finish(rig.Object("a", nil))
				require.Equal(t, c.state, run.Step("1").State, run.Reason)
				require.Contains(t, run.Step("1").Reason, c.says)
				require.Equal(t, c.calls, calls)
				require.Equal(t, c.tries, run.Step("1").Attempt)
				time.Sleep(time.Hour)
			})
		})
	}
}

func TestWrapCannotChangeAPlan(t *testing.T) {
	var kept conveyor.Result
	for _, c := range []struct {
		name string
		wrap func(r conveyor.Result, req *conveyor.Request) conveyor.Result
		says string
	}{
		{"as it came", func(r conveyor.Result, _ *conveyor.Request) conveyor.Result { return r }, ""},
		{"another result", func(conveyor.Result, *conveyor.Request) conveyor.Result { return conveyor.Done() }, "result: the Result of a Plan must be returned as it came"},
		{"the plan in the place of a step", func(r conveyor.Result, req *conveyor.Request) conveyor.Result {
			if req.Kind == conveyor.CallPlan {
				kept = r
				return r
			}
			return kept
		}, "result: the Result of a Plan must be returned as it came"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Wrap: []func(conveyor.Call) conveyor.Call{func(next conveyor.Call) conveyor.Call {
					return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
						r, err := next(ctx, req)
						return c.wrap(r, req), err
					}
				}}}).MustStart()
				e.Driver("d", new(rig.Recorder))
				f := rig.NewFanOut()
				f.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
					return []conveyor.Step{{Driver: "d"}}, nil
				}
				e.SavePlanned(f)
				run := e.Finish(rig.Object("a", nil))
				require.Equal(t, c.says == "", run.Err() == nil, run.Reason)
				require.Contains(t, run.Reason, c.says)
			})
		})
	}
}

func TestWrapIsAbandonedWithItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Wrap: []func(conveyor.Call) conveyor.Call{func(next conveyor.Call) conveyor.Call {
			return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				r, err := next(ctx, req)
				time.Sleep(time.Hour)
				return r, err
			}
		}}}).MustStart()
		e.Driver("d", new(rig.Recorder), conveyor.Timeout(time.Second), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 1}))
		e.Pipeline("d")
		began := time.Now()
		run := e.Finish(rig.Object("a", nil))
		require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
		require.Equal(t, time.Second+rig.Patience, time.Since(began))
		time.Sleep(2 * time.Hour)
	})
}

// TestWrapThatDoesNotReturnLeavesNoCallBehind has a middleware that is over while the driver is at work. The resource
// has no second call before the first one has returned.
func TestWrapThatDoesNotReturnLeavesNoCallBehind(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func()
	}{
		{"panic", func() { panic("over") }},
		{"Goexit", runtime.Goexit},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now, most atomic.Int32
				e := rig.New(t, conveyor.Options{Wrap: []func(conveyor.Call) conveyor.Call{func(next conveyor.Call) conveyor.Call {
					return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
						if req.Attempt > 1 {
							return next(ctx, req)
						}
						go func() { _, _ = next(ctx, req) }()
						time.Sleep(time.Second)
						c.end()
						return conveyor.Done(), nil
					}
				}}}).MustStart()
				e.Driver("d", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
					most.Store(max(most.Load(), now.Add(1)))
					time.Sleep(time.Hour)
					now.Add(-1)
					return conveyor.Done(), nil
				}))
				e.Pipeline("d")
				run := e.Finish(rig.Object("a", nil))
				require.NoError(t, run.Err())
				require.Equal(t, 2, run.Steps[0].Attempt)
				require.EqualValues(t, 1, most.Load())
			})
		})
	}
}

// TestADriverMayChangeItsRequest has a middleware and a driver change what belongs to them. The engine decides with what it
// knows itself.
func TestADriverMayChangeItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Wrap: []func(conveyor.Call) conveyor.Call{func(next conveyor.Call) conveyor.Call {
			return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				req.Kind, req.Resource = conveyor.CallFinalize, nil
				return next(ctx, req)
			}
		}}}).MustStart()
		e.Driver("slow", rig.DriverOf(rig.Taking(time.Minute)))
		e.PipelineNamed("slow", "slow")
		other := e.MustApply(rig.Along("slow", "b"))
		e.Driver("waits", rig.DriverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			_, err := e.Wait(ctx, other.ID)
			return conveyor.Done(), err
		}))
		e.Pipeline("waits")
		run := e.Finish(rig.Object("a", nil))
		require.NoError(t, run.Err())
		require.Equal(t, 1, run.Steps[0].Attempt)
	})
}

func TestACoalescedApplyReturnsWhatItCarries(t *testing.T) {
	type key struct{}
	e := rig.New(t, conveyor.Options{Carry: func(ctx context.Context) map[string]string {
		return map[string]string{"k": ctx.Value(key{}).(string)}
	}})
	e.Driver("d", new(rig.Recorder))
	e.Pipeline("d")
	_, err := e.Apply(context.WithValue(t.Context(), key{}, "first"), rig.Object("a", 1))
	require.NoError(t, err)
	run, err := e.Apply(context.WithValue(t.Context(), key{}, "second"), rig.Object("a", 2))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"k": "second"}, run.Carried)
	require.Equal(t, run.Carried, e.MustGetRun(run.ID).Carried)
}

func TestWrapThatIsNoneIsRefused(t *testing.T) {
	_, err := conveyor.New(rig.New(t, conveyor.Options{}).Store, conveyor.Options{Wrap: []func(conveyor.Call) conveyor.Call{
		nil, func(next conveyor.Call) conveyor.Call { return next },
	}})
	require.ErrorIs(t, err, conveyor.ErrInvalid)
	require.ErrorContains(t, err, "Wrap[0]: is nil")
	_, err = conveyor.New(rig.New(t, conveyor.Options{}).Store, conveyor.Options{Wrap: []func(conveyor.Call) conveyor.Call{
		func(next conveyor.Call) conveyor.Call { return next }, func(conveyor.Call) conveyor.Call { return nil },
	}})
	require.ErrorContains(t, err, "Wrap[1]: returned nil")
}

// TestEventsSayEnough has runs end in each way, and looks at what the events of the runs and of their steps say.
func TestEventsSayEnough(t *testing.T) {
	answers := func(in ...rig.Func) func() rig.Func { return func() rig.Func { return rig.InTurn(in...) } }
	for _, c := range []struct {
		name   string
		driver func() rig.Func
		change func(*conveyor.PipelineSpec)
		during func(e *rig.Engine, run string)
		want   []string
	}{
		{"a success", answers(rig.Always(conveyor.Done(), nil)), nil, nil, []string{"step 1 d succeeded 1: ", "run succeeded: "}},
		{"a failure with a reason after one without", answers(rig.Always(conveyor.Done(), rig.ErrBoom), rig.Always(conveyor.Done(), conveyor.Permanent(conveyor.Reason(rig.ErrBoom, "no-image")))),
			nil, nil, []string{"step 1 d retrying 1: failure", "step 1 d running 2: ", "step 1 d failed 2: failure no-image", "run failed: failure no-image"}},
		{"a panic", answers(func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("x") }),
			func(p *conveyor.PipelineSpec) { p.Retry = &conveyor.RetryPolicy{MaxAttempts: 1} }, nil,
			[]string{"step 1 d failed 1: error", "run failed: error"}},
		{"a timeout of the attempt", answers(rig.Taking(time.Hour)), func(p *conveyor.PipelineSpec) {
			p.Steps[0].Timeout = conveyor.Duration(time.Second)
			p.Retry = &conveyor.RetryPolicy{MaxAttempts: 1}
		}, nil, []string{"step 1 d failed 1: timeout", "run failed: timeout"}},
		{"a timeout of the run", answers(rig.Taking(time.Hour)), func(p *conveyor.PipelineSpec) { p.Timeout = conveyor.Duration(time.Second) }, nil,
			[]string{"step 1 d failed 1: timeout", "run failed: timeout"}},
		{"a cancel", answers(rig.Taking(time.Hour)), nil, func(e *rig.Engine, run string) {
			require.NoError(e.T, e.Cancel(e.T.Context(), run, "enough"))
		}, []string{"step 1 d canceled 1: cancellation", "run canceled: cancellation"}},
		{"a skip of the step", answers(rig.Always(conveyor.Skip("not needed"), nil)), nil, nil, []string{"step 1 d skipped 1: skip", "run succeeded: "}},
		{"a success after a failure", answers(rig.Always(conveyor.Done(), conveyor.Reason(rig.ErrBoom, "flaky")), rig.Always(conveyor.Done(), nil)), nil, nil,
			[]string{"step 1 d retrying 1: failure flaky", "step 1 d running 2: ", "step 1 d succeeded 2: ", "run succeeded: "}},
		{"a failure that is tolerated", answers(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom))), func(p *conveyor.PipelineSpec) { p.Steps[0].ContinueOnError = true }, nil,
			[]string{"step 1 d failed 1: failure", "run succeeded: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, st store.Store) {
				e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(c.driver()))
				p := rig.PipelineOf("d")
				if c.change != nil {
					c.change(&p)
				}
				e.Save(p)
				events := e.Watch(t.Context(), conveyor.WatchOptions{Resource: rig.Object("a", nil).Key()})
				run, err := e.Apply(asAda(t), rig.Object("a", nil))
				require.NoError(t, err)
				if c.during != nil {
					synctest.Wait()
					c.during(e, run.ID)
				}
				ended := e.Ended(run.ID)
				require.Equal(t, c.want, told(t, events)[3:], "after the resource, the begin of the run, and the start of the step")
				again := e.MustGetRun(run.ID)
				require.Equal(t, ended.ErrorKind, again.ErrorKind)
				last := c.want[len(c.want)-1]
				require.Equal(t, last[strings.Index(last, ": ")+2:], strings.TrimSpace(fmt.Sprint(again.ErrorKind, " ", again.ErrorReason)), "the same is on record")
			})
		})
	}
}

// told returns what the events of one run by ada say, up to its end.
func told(t *testing.T, events iter.Seq2[conveyor.Event, error]) (lines []string) {
	t.Helper()
	for event, err := range events {
		require.NoError(t, err)
		require.Equal(t, "ada", event.By)
		line := event.Kind.String()
		if event.Kind != conveyor.EventResource {
			require.Equal(t, "p", event.Pipeline)
			require.Equal(t, conveyor.CauseCreated, event.Cause)
			if event.Kind == conveyor.EventStep {
				line += fmt.Sprintf(" %s %s %s %d", event.Step, event.Driver, event.State, event.Attempt)
			} else {
				line += " " + event.State.String()
			}
			line += ": " + strings.TrimSpace(fmt.Sprint(event.ErrorKind, " ", event.ErrorReason))
		}
		lines = append(lines, line)
		if event.Kind == conveyor.EventRun && event.State.Final() {
			break
		}
	}
	return lines
}

func TestEventsOfPipelinesNameTheActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		events := e.Watch(t.Context(), conveyor.WatchOptions{})
		require.NoError(t, e.SavePipeline(asAda(t), rig.PipelineOf("d")))
		require.NoError(t, e.DeletePipeline(conveyor.As(t.Context(), "bob"), "p"))
		var by []string
		for event, err := range events {
			require.NoError(t, err)
			by = append(by, event.Pipeline+" "+event.By)
			if len(by) == 2 {
				break
			}
		}
		require.Equal(t, []string{"p ada", "p bob"}, by)
	})
}

func TestWrapCanPassACopyOfTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Wrap: []func(conveyor.Call) conveyor.Call{func(next conveyor.Call) conveyor.Call {
			return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				changed := *req
				changed.Carried = map[string]string{"a": "of the middleware"}
				return next(ctx, &changed)
			}
		}}}).MustStart()
		var got map[string]string
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			got = req.Carried
			return conveyor.DoneWith("output"), req.Checkpoint(ctx, 1)
		}))
		e.Pipeline("d")
		run := e.Finish(rig.Object("a", nil))
		require.NoError(t, run.Err())
		require.Equal(t, map[string]string{"a": "of the middleware"}, got)
		require.Empty(t, run.Carried, "what is on record stays")
		require.JSONEq(t, `"output"`, string(run.Steps[0].Output))
	})
}
