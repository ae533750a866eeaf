package hostile_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// badSteps is a pipeline that is planned badly.
type badSteps struct {
	conveyor.PipelineSpec
	plan func(ctx context.Context) ([]conveyor.Step, error)
}

func (b badSteps) Plan(ctx context.Context, _ *conveyor.Object) ([]conveyor.Step, error) {
	return b.plan(ctx)
}

func TestHostilePlannersAndFinalizersHarmNobodyElse(t *testing.T) {
	retries := &conveyor.RetryPolicy{MaxAttempts: hostileTries}
	for _, m := range misdeeds() {
		var end expectation
		switch m.name {
		case "calls the engine":
			end = endsWell
		case "never returns":
			end = comesAgain
		case "takes its time":
			end = expectation{finally: conveyor.StateFailed, attempt: 2, text: "the driver did not return"}
		default:
			end = fails("driver panicked")
		}
		t.Run("a Planner that "+m.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCompany(t, conveyor.Options{StepTimeout: hostileTimeout})
				p := rig.Named("bad", conveyor.PipelineSpec{Resource: "r", Retry: retries})
				require.NoError(t, c.SavePipeline(t.Context(), badSteps{p, func(context.Context) ([]conveyor.Step, error) {
					m.do(c)
					return []conveyor.Step{{Driver: "good"}}, nil
				}}))
				c.arrive()
				c.requireHealth(3 * time.Minute)
				c.requireEnd(end)
				c.requireRest()
				c.requireShutdown()
			})
		})
		t.Run("a Finalizer that "+m.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCompany(t, conveyor.Options{StepTimeout: hostileTimeout})
				c.Driver("bad", rig.Undoing(new(rig.Recorder), rig.Recording(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
					m.do(c)
					return conveyor.Done(), nil
				})))
				p := rig.Named("bad", rig.PipelineOf("bad"))
				p.Retry = retries
				c.Save(p)
				c.arrive()
				for i, run := range c.bad {
					require.NoError(t, c.Ended(run.ID).Err())
					deletion, err := c.Delete(context.Background(), run.Resource)
					require.NoError(t, err)
					c.bad[i] = deletion
				}
				c.requireHealth(3 * time.Minute)
				c.requireEnd(end)
				c.requireRest()
				c.requireShutdown()
			})
		})
	}
	for name, steps := range map[string][]conveyor.Step{
		"too many steps":         make([]conveyor.Step, 100_000),
		"steps without a driver": {{}},
		"steps that go in a circle": {
			{ID: "a", Driver: "good", After: []string{"b"}}, {ID: "b", Driver: "good", After: []string{"a"}},
		},
		"a step with settings that are no JSON": {{Driver: "good", With: []byte("{")}},
		"a step with a name of a megabyte":      {{ID: strings.Repeat("n", 1<<20), Driver: "good"}},
	} {
		t.Run("a Planner that returns "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCompany(t, conveyor.Options{})
				require.NoError(t, c.SavePipeline(t.Context(), badSteps{rig.Named("bad", conveyor.PipelineSpec{Resource: "r"}),
					func(context.Context) ([]conveyor.Step, error) { return steps, nil }}))
				c.arrive()
				c.requireHealth(90 * time.Second)
				c.requireEnd(failsForGood("plan: "))
				c.requireRest()
			})
		})
	}
}

func TestHostileConsumersHarmNobody(t *testing.T) {
	type consumer = func(ctx context.Context, c *company, run *conveyor.Run, use func())
	for _, reads := range []struct {
		name    string
		consume consumer
	}{
		{"Watch", func(ctx context.Context, c *company, run *conveyor.Run, use func()) {
			for range c.Watch(ctx, conveyor.WatchOptions{}) {
				use()
			}
		}},
		{"Logs", func(ctx context.Context, c *company, run *conveyor.Run, use func()) {
			for range c.Logs(ctx, run.ID, conveyor.LogOptions{Follow: true}) {
				use()
			}
		}},
		{"List", func(ctx context.Context, c *company, run *conveyor.Run, use func()) {
			for range c.List(ctx, conveyor.ResourceFilter{Type: "r"}) {
				use()
			}
		}},
		{"Runs", func(ctx context.Context, c *company, run *conveyor.Run, use func()) {
			for range c.Runs(ctx, conveyor.RunFilter{}) {
				use()
			}
		}},
		{"Revisions", func(ctx context.Context, c *company, run *conveyor.Run, use func()) {
			for range c.Revisions(ctx, run.Resource) {
				use()
			}
		}},
		{"Pipelines", func(ctx context.Context, c *company, run *conveyor.Run, use func()) {
			for range c.Pipelines(ctx) {
				use()
			}
		}},
	} {
		for _, m := range append(misdeeds(), misdeed{"leaves early", nil}) {
			t.Run("a consumer of "+reads.name+" that "+m.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := companyWith(t, func(func() *company) conveyor.Options { return conveyor.Options{} })
					c.Driver("talks", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
						for range 10 {
							req.Log.Info("hello")
							time.Sleep(time.Second)
						}
						return conveyor.Done(), nil
					}))
					c.PipelineNamed("bad", "talks")
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					talker := c.MustApply(rig.Along("bad", "talker"))
					c.bad = append(c.bad, talker)
					panics := make(chan any, hostiles)
					used := make(chan bool, 1)
					for range hostiles {
						go func() {
							defer func() { panics <- recover() }()
							leave, end := context.WithCancel(ctx)
							defer end()
							reads.consume(leave, c, talker, func() {
								select {
								case used <- true:
								default:
								}
								if m.do == nil {
									end()
									runtime.Goexit()
								}
								m.do(c)
							})
						}()
					}
					c.arrive()
					c.requireHealth(2 * time.Minute)
					require.True(t, <-used)
					if strings.HasPrefix(m.name, "panics") {
						for range hostiles {
							require.NotNil(t, <-panics, "the panic reaches the one who reads")
						}
					}
					c.requireEnd(endsWell)
					c.requireRest()
					cancel()
					c.requireShutdown()
				})
			})
		}
	}
}
