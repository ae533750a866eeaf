package features_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
)

var stressSeeds = flag.Int("stress.seeds", 0, "how many seeds TestEverythingTogetherComesToRest plays, if not as many as the bounds say")

// TestEverythingTogetherComesToRest has a program do random things with all that pipelines, resources and runs can do,
// restarts among them, and then lets it end. Nothing may be left behind: no unfinished run, no place in a line, no due
// time, no slot or room in use; and never were there two calls at once for a resource. A seed that fails is played
// again with -run 'TestEverythingTogetherComesToRest/SEED$'; more of them: -stress.seeds=10000.
func TestEverythingTogetherComesToRest(t *testing.T) {
	for seed := range cmp.Or(*stressSeeds, testenv.Some(t, 40, 150)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &chaos{t: t, luck: luck{rand: rand.New(rand.NewPCG(uint64(seed), 0))}}
				c.opts = conveyor.Options{
					Workers:   1 + c.n(4),
					Retention: conveyor.Retention{Runs: c.n(3), Revisions: c.n(3)},
					Admission: conveyor.AdmissionFunc(c.admit),
				}
				c.open(rig.New(t, c.opts))
				for range 150 {
					c.act()
					time.Sleep(time.Duration(c.n(60)) * time.Second)
				}
				c.save(false)
				time.Sleep(100 * time.Hour)
				c.requireRest()
			})
		})
	}
}

// luck is a source of random numbers for several goroutines.
type luck struct {
	mu   sync.Mutex
	rand *rand.Rand
}

func (l *luck) n(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rand.IntN(n)
}

// chaos is a program that does random things.
type chaos struct {
	luck
	t    *testing.T
	e    *rig.Engine
	opts conveyor.Options
	busy rig.Gauge
	runs []string
}

func (c *chaos) admit(context.Context, conveyor.StepInfo) (func(), time.Duration, error) {
	if c.n(4) == 0 {
		return nil, time.Second, nil
	}
	return func() {}, 0, nil
}

func (c *chaos) work(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	switch c.n(8) {
	case 0:
		return conveyor.Result{}, rig.ErrBoom
	case 1:
		return conveyor.RequeueAfter(time.Minute), nil
	case 2:
		return conveyor.Await("go", time.Hour), nil
	case 3:
		return conveyor.Skip("not needed"), nil
	}
	return rig.Taking(time.Duration(c.n(100))*time.Second)(ctx, req)
}

func (c *chaos) open(e *rig.Engine) {
	c.e = e
	work := c.busy.Around(rig.ByResource, c.work)
	d := rig.Undoing(rig.Recording(work), rig.Recording(work))
	e.Driver("d", d, conveyor.Concurrency(2))
	e.Driver("e", d, conveyor.Concurrency(1))
	c.save(true)
	e.MustStart()
}

// save saves three pipelines: p0, p1 with a cleanup, and p2 whose steps are planned.
func (c *chaos) save(resync bool) {
	for i := range 3 {
		p := rig.Named(fmt.Sprint("p", i), rig.PipelineOf("d", "e", "d"))
		p.OnChange = conveyor.ChangePolicy(1 + c.n(3))
		p.MaxRuns = c.n(3)
		if c.n(2) == 0 && resync {
			p.Resync = conveyor.Duration(10 * time.Minute)
		}
		if i == 1 {
			p.Finally = []conveyor.Step{{Driver: "e"}}
		}
		if i < 2 {
			c.e.Save(p)
			continue
		}
		p.Steps = nil
		f := rig.NewFanOut()
		f.PipelineSpec = p
		f.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			if c.n(4) == 0 {
				return nil, rig.ErrBoom
			}
			return []conveyor.Step{{Driver: "d"}, {ID: "b", Driver: "e"}}, nil
		}
		c.e.SavePlanned(f)
	}
}

// act does one thing. Most can be refused, at the wrong moment, which is fine.
func (c *chaos) act() {
	o := rig.Along(fmt.Sprint("p", c.n(3)), fmt.Sprint("x", c.n(5)))
	o.Spec = rig.JSON(c.n(100))
	recent := ""
	if n := len(c.runs); n > 0 {
		recent = c.runs[max(0, n-1-c.n(6))]
	}
	ctx := c.t.Context()
	var run *conveyor.Run
	switch c.n(14) {
	case 0, 1, 2, 3, 4:
		run, _ = c.e.Apply(ctx, o)
	case 5:
		run, _ = c.e.Trigger(ctx, o.Key())
	case 6:
		run, _ = c.e.Delete(ctx, o.Key())
	case 7:
		_ = c.e.Cancel(ctx, recent, "not needed")
	case 8:
		run, _ = c.e.Retry(ctx, recent, conveyor.RetryFrom{Newest: c.n(2) == 0})
	case 9:
		_ = c.e.Signal(ctx, recent, "go", 1)
	case 10:
		run, _ = c.e.Rollback(ctx, o.Key(), int64(1+c.n(4)))
	case 11:
		c.save(true)
	case 12:
		if c.n(4) == 0 {
			_ = c.e.DeletePipeline(ctx, fmt.Sprint("p", c.n(3)))
		}
	case 13:
		c.restart()
	}
	if run != nil {
		c.runs = append(c.runs, run.ID)
	}
}

// restart starts the program again, now and then: after a shutdown, or after its death.
func (c *chaos) restart() {
	switch c.n(6) {
	case 0:
		c.open(c.e.Reborn(c.opts))
	case 1:
		old := c.e
		again := old.Crashed(c.opts)
		old.Stop() // its goroutines; nothing that they do reaches the store
		c.open(again)
	}
}

func (c *chaos) requireRest() {
	for key := range rig.Dump(c.t, c.e.Store.Store) {
		for _, prefix := range []string{"act/", "que/", "rsy/"} {
			require.False(c.t, strings.HasPrefix(key, prefix), "%s is left over", key)
		}
	}
	rig.RequireAtRest(c.t, c.e.Store)
	st := c.e.MustStats()
	require.Zero(c.t, st.Unfinished+st.Ready+st.Due+st.Busy, "%+v", st)
	require.Empty(c.t, st.Runs)
	for name, p := range st.Pipelines {
		require.Zero(c.t, p.AtWork+p.Waiting, name)
	}
	for name, s := range st.Slots {
		require.Zero(c.t, s.Busy+s.Waiting, name)
	}
	for i := range 5 {
		require.LessOrEqual(c.t, c.busy.Peak(fmt.Sprint("x", i)), 1, "two calls at once")
	}
}
