package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestHostileDriversHarmNobodyElse(t *testing.T) {
	t.Cleanup(func() {
		testenv.Figure(t, "%d hostile drivers, each beside %d healthy resources", len(hostileDrivers()), healthy)
	})
	for _, h := range hostileDrivers() {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			h.expectation.beside(t, func(c *company) conveyor.Driver {
				return rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) { return h.acts(c, ctx, req) })
			})
		})
	}
}

// hostile is a driver that does something that a driver should not do.
type hostile struct {
	name string
	acts func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error)
	expectation
}

func TestHostileDriversAreMany(t *testing.T) {
	names := map[string]bool{}
	for _, h := range hostileDrivers() {
		names[h.name] = true
	}
	require.Len(t, names, len(hostileDrivers()))
	require.GreaterOrEqual(t, len(names), 30)
}

// hostileDrivers are all of them.
func hostileDrivers() []hostile {
	var all []hostile
	for _, some := range [][]hostile{panickers(), liars(), overstayers(), talkers(), meddlers()} {
		all = append(all, some...)
	}
	return all
}

// panicking and answering make the short ones.
func panicking(name string, value func(c *company) any, x expectation) hostile {
	return hostile{name, func(c *company, _ context.Context, _ *conveyor.Request) (conveyor.Result, error) { panic(value(c)) }, x}
}

func answering(name string, answer func(c *company) (conveyor.Result, error), x expectation) hostile {
	return hostile{name, func(c *company, _ context.Context, _ *conveyor.Request) (conveyor.Result, error) { return answer(c) }, x}
}

func returning(name string, err func(c *company) error, x expectation) hostile {
	return answering(name, func(c *company) (conveyor.Result, error) { return conveyor.Done(), err(c) }, x)
}

// overstayers do not return when they should.
func overstayers() []hostile {
	late := func(name string, result conveyor.Result, err error) hostile {
		return hostile{name, func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt == 1 {
				time.Sleep(time.Minute)
				return result, err
			}
			return conveyor.Done(), nil
		}, expectation{finally: conveyor.StateSucceeded, attempt: 2, text: "the driver did not return"}}
	}
	return []hostile{
		answering("never returns", func(c *company) (conveyor.Result, error) {
			c.stuck()
			return conveyor.DoneWith("late"), nil
		}, comesAgain),
		{"never returns, and neither do the thousand goroutines that it starts", func(c *company, _ context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			for range 1000 {
				go c.stuck()
			}
			c.stuck()
			return conveyor.Done(), nil
		}, comesAgain},
		{"waits for a lock that nobody gives back", func(c *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			turn := make(chan struct{}) // as a lock that lets time pass in a bubble
			select {
			case turn <- struct{}{}:
			case <-c.release:
			}
			return conveyor.Done(), nil
		}, comesAgain},
		{"waits for the end of its own run, whatever its context says", func(c *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			_, err := c.Wait(context.Background(), req.Run)
			return conveyor.Done(), err
		}, waits(conveyor.StateRetrying)},
		{"waits for the end of its own run", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			_, err := c.Wait(ctx, req.Run)
			return conveyor.Done(), err
		}, fails("it is the run of the call itself")},
		{"waits for a log that ends with its own run", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for _, err := range c.Logs(ctx, req.Run, conveyor.LogOptions{Follow: true}) {
				if err != nil {
					return conveyor.Done(), err
				}
			}
			return conveyor.Done(), errors.New("the log has ended")
		}, fails("it is the run of the call itself")},
		late("succeeds long after its time", conveyor.DoneWith("late"), nil),
		late("fails long after its time", conveyor.Done(), rig.ErrBoom),
		late("fails for good long after its time", conveyor.Done(), conveyor.Permanent(rig.ErrBoom)),
		late("awaits a signal long after its time", conveyor.Await("go", 0), nil),
		{"panics long after its time", func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt == 1 {
				time.Sleep(time.Minute)
				panic("late")
			}
			return conveyor.Done(), nil
		}, expectation{finally: conveyor.StateSucceeded, attempt: 2, text: "the driver did not return"}},
		{"returns at the very moment at which it is given up", func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt == 1 {
				time.Sleep(hostileTimeout + rig.Patience)
				return conveyor.Done(), conveyor.RetryAfter(0, rig.ErrBoom)
			}
			return conveyor.Done(), nil
		}, expectation{finally: conveyor.StateSucceeded, attempt: 2}},
		{"succeeds although its time is over", func(_ *company, ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			<-ctx.Done()
			time.Sleep(rig.Patience - 1)
			return conveyor.DoneWith("just in time"), nil
		}, endsWell},
		{"computes without a pause", func(*company, context.Context, *conveyor.Request) (conveyor.Result, error) {
			n := uint64(1)
			for range 10_000_000 {
				n = n*6364136223846793005 + 1
			}
			return conveyor.DoneWith(n != 0), nil
		}, endsWell},
	}
}

// talkers use their request in other ways than they should.
func talkers() []hostile {
	return []hostile{
		{"logs 100,000 lines", func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 1_000 * healthy / hostiles {
				req.Log.Info("line", "n", i)
			}
			return conveyor.Done(), nil
		}, endsWell},
		{"logs lines of a megabyte", func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info(strings.Repeat("x", 1<<20), strings.Repeat("k", 1<<20), strings.Repeat("y", 1<<20))
			return conveyor.Done(), nil
		}, endsWell},
		{"logs what is no text", func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			noise := make([]byte, 10_000)
			for i := range noise {
				noise[i] = byte(rand.IntN(256))
			}
			odd := []any{string(noise), noise, "", "\xff", "without a value"}
			req.Log.Log(context.Background(), slog.Level(1<<30), string(noise), odd...)
			req.Log.WithGroup(string(noise)).With(string(noise), noise).Error("\x00")
			return conveyor.Done(), nil
		}, endsWell},
		{"logs values that panic, lead to themselves or have no JSON", func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			r := new(ring)
			r.Next = r
			for _, v := range []any{
				r, (*odd)(nil), func() {}, make(chan int), encodes(func() ([]byte, error) { panic("no") }), oddText(func() string { panic("no") }),
			} {
				req.Log.Info("value", "v", v)
				req.Log.With("v", v).WithGroup("g").Info("value", "v", v)
			}
			return conveyor.Done(), nil
		}, endsWell},
		{"logs a value that panics with itself", func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("value", "v", again{})
			return conveyor.Done(), nil
		}, fails("driver panicked")},
		{"logs a value that ends the goroutine", func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("value", "v", encodes(func() ([]byte, error) { runtime.Goexit(); return nil, nil }))
			return conveyor.Done(), nil
		}, fails("Goexit")},
		{"logs after its end", func(c *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			go func() {
				for range 100 {
					time.Sleep(time.Second)
					req.Log.Info("still here")
				}
			}()
			return conveyor.Done(), nil
		}, endsWell},
		{"uses all of its request after its end", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			go func() {
				for range 10 {
					time.Sleep(time.Second)
					var v any
					_ = req.Output("1", &v)
					_ = req.Settings(&v)
					_, _ = req.Signal(&v)
					_, _ = req.Restore(&v)
					if req.Checkpoint(context.WithoutCancel(ctx), "late") == nil {
						panic("a checkpoint of a step that has ended")
					}
					_ = req.IdempotencyKey()
				}
			}()
			return conveyor.Done(), nil
		}, endsWell},
		{"changes its request all the time", func(_ *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			change := func(i int) {
				req.Resource.Metadata = map[string]string{"n": fmt.Sprint(i)}
				req.Resource.Name, req.Resource.Pipeline, req.Resource.Spec = "other", "other", []byte("{")
				req.Run, req.Step.ID, req.Step.Driver, req.Attempt = "other", "other", "other", -1
				req.Step.After, req.Step.With = append(req.Step.After, "x"), append(req.Step.With, '!')
				req.Log = nil
			}
			change(0)
			go func() {
				for i := range 100 {
					time.Sleep(time.Second)
					change(i)
				}
			}()
			return conveyor.Done(), nil
		}, endsWell},
		{"saves a thousand checkpoints", func(_ *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 1_000 {
				if err := req.Checkpoint(ctx, i); err != nil {
					return conveyor.Done(), err
				}
			}
			return conveyor.Done(), nil
		}, endsWell},
		{"saves checkpoints that cannot be saved", func(_ *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), errors.Join(
				req.Checkpoint(ctx, strings.Repeat("x", 1<<20)), req.Checkpoint(ctx, func() {}), req.Checkpoint(ctx, nested(100)))
		}, fails("checkpoint")},
		{"saves a checkpoint that panics", func(_ *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), req.Checkpoint(ctx, encodes(func() ([]byte, error) { panic("no JSON today") }))
		}, fails("no JSON today")},
		{"decodes into what panics", func(_ *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			_ = req.Checkpoint(ctx, 1)
			_, err := req.Restore(new(decodesBadly))
			return conveyor.Done(), err
		}, fails("cannot read")},
		{"asks for a thousand calls at once", func(_ *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			n := 0
			if _, err := req.Restore(&n); err != nil {
				return conveyor.Done(), err
			}
			if n++; n > 1_000 {
				return conveyor.Done(), nil
			}
			return conveyor.RequeueAfter(0), req.Checkpoint(ctx, n)
		}, endsWell},
		{"takes 50 MiB of memory", func(*company, context.Context, *conveyor.Request) (conveyor.Result, error) {
			memory := make([]byte, 50<<20)
			for i := 0; i < len(memory); i += 4096 {
				memory[i] = 1
			}
			return conveyor.DoneWith(len(memory)), nil
		}, endsWell},
	}
}

// decodesBadly panics when it is decoded.
type decodesBadly struct{}

func (*decodesBadly) UnmarshalJSON([]byte) error { panic("cannot read") }

// meddlers call the engine in ways that do not help.
func meddlers() []hostile {
	var lock sync.Mutex
	return []hostile{
		{"applies its own resource with its lock held", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			lock.Lock()
			defer lock.Unlock()
			o := req.Resource
			o.Metadata = map[string]string{"by": "itself"}
			o.Version = 0
			_, err := c.Apply(ctx, o)
			return conveyor.Done(), err
		}, endsWell},
		{"calls the engine from a hundred goroutines", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					_, _ = c.Get(ctx, req.Resource.Key())
					_, _ = c.GetRun(ctx, req.Run)
					_, _ = c.Stats(ctx)
					for range c.Runs(ctx, conveyor.RunFilter{Resource: req.Resource.Key()}) {
						break
					}
					for range c.List(ctx, conveyor.ResourceFilter{Type: "r"}) {
						break
					}
				})
			}
			all.Wait()
			return conveyor.Done(), nil
		}, endsWell},
		{"registers drivers and saves pipelines", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 100 {
				name := fmt.Sprint(req.Resource.Name, "-", i)
				err := errors.Join(c.Register(name, new(rig.Recorder)), c.SavePipeline(ctx, rig.Named(name, rig.PipelineOf(name))), c.DeletePipeline(ctx, name))
				if err != nil {
					return conveyor.Done(), err
				}
			}
			return conveyor.Done(), nil
		}, endsWell},
		{"saves its own pipeline again and again", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 20 {
				if err := c.SavePipeline(ctx, rig.Named("bad", rig.AtMost(rig.PipelineOf("bad"), 1+i%3))); err != nil {
					return conveyor.Done(), err
				}
			}
			return conveyor.Done(), c.SavePipeline(ctx, rig.Named("bad", rig.PipelineOf("bad")))
		}, endsWell},
		{"cancels itself", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), errors.Join(c.Cancel(ctx, req.Run, "tired of it"), context.Cause(ctx))
		}, expectation{finally: conveyor.StateCanceled, attempt: 1}},
		{"cancels itself, and goes on", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			_ = c.Cancel(ctx, req.Run, "tired of it")
			time.Sleep(time.Hour)
			return conveyor.Done(), nil
		}, expectation{finally: conveyor.StateCanceled, attempt: 1}},
		{"sends itself a thousand signals", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 1_000 {
				if err := c.Signal(ctx, req.Run, fmt.Sprint("signal-", i%10), i); err != nil {
					return conveyor.Done(), err
				}
			}
			return conveyor.Done(), nil
		}, endsWell},
		{"sends itself signals that cannot be sent", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), conveyor.Permanent(errors.Join(
				c.Signal(ctx, req.Run, "", 1), c.Signal(ctx, req.Run, "s", func() {}), c.Signal(ctx, "no-such-run", "s", 1)))
		}, failsForGood("signal")},
		{"retries its own run before that has ended", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			_, err := c.Retry(ctx, req.Run, conveyor.RetryFrom{})
			return conveyor.Done(), err
		}, fails("conveyor: conflict")},
		{"starts the engine once more", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), c.Start(ctx)
		}, fails("conveyor: conflict")},
		{"leaves loops over the engine in a panic", func(c *company, ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for range c.Runs(ctx, conveyor.RunFilter{}) {
				panic("in a loop")
			}
			return conveyor.Done(), nil
		}, fails("in a loop")},
		{"gives the engine no context", func(c *company, _ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			_, err := c.Apply(nilContext, req.Resource)
			return conveyor.Done(), err
		}, fails("nil pointer")},
	}
}

// nilContext is what no caller should give.
var nilContext context.Context
