package hostile_test

import (
	"context"
	"fmt"
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

// A hostile driver shares an engine of four workers with a hundred healthy resources. There are more hostile resources
// than workers, they come first, and their driver has no limit of its own: whatever it does, the healthy ones must finish,
// in time and with the right answers, and nothing may be left of the engine after its Shutdown.
//
// What Go itself ends the process for cannot be survived and is not tried: a recursion that overflows the stack, two
// goroutines that write to a map at once, memory that runs out, os.Exit, and a panic in a goroutine of the driver's own.

// healthy is how many healthy resources there are.
var healthy = map[bool]int{false: 100, true: 25}[testenv.Race]

const (
	hostiles = 5
	workers  = 4

	hostileTimeout = 10 * time.Second // of an attempt
	hostileTries   = 2
)

// company is an engine with hostile and healthy resources.
type company struct {
	*rig.Engine
	release chan struct{} // closed when drivers that wait for ever shall return after all
	once    sync.Once
	began   time.Time
	good    []*conveyor.Run
	bad     []*conveyor.Run

	mu    sync.Mutex
	calls map[string]int // of the healthy drivers, by resource and step
}

func newCompany(t *testing.T, opts conveyor.Options) *company {
	c := &company{release: make(chan struct{}), began: time.Now(), calls: map[string]int{}}
	if opts.Workers == 0 {
		opts.Workers = workers
	}
	c.Engine = rig.New(t, opts).MustStart()
	t.Cleanup(c.letGo) // before the engine is stopped, should the test fail
	c.Driver("good", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		c.count(req)
		if result, err := rig.Taking(time.Second)(ctx, req); err != nil {
			return result, err
		}
		return conveyor.DoneWith(req.Step.ID + " of " + string(req.Resource.Spec)), nil
	}))
	for i := range 10 {
		c.PipelineNamed(fmt.Sprint("good", i), "good", "good", "good")
	}
	return c
}

func (c *company) count(req *conveyor.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.HasPrefix(req.Resource.Name, "good") {
		c.calls[req.Resource.Name+"/"+req.Step.ID]++
	}
}

func (c *company) letGo() { c.once.Do(func() { close(c.release) }) }

// stuck waits for ever, which is until the test has seen enough of it.
func (c *company) stuck() { <-c.release }

// arrive applies the hostile resources, and the healthy ones behind them.
func (c *company) arrive() {
	for i := range hostiles {
		c.bad = append(c.bad, c.MustApply(rig.Along("bad", fmt.Sprint("bad", i))))
	}
	for i := range healthy {
		o := rig.Along(fmt.Sprint("good", i%10), fmt.Sprint("good", i))
		o.Spec = rig.JSON(i)
		c.good = append(c.good, c.MustApply(o))
	}
}

// requireHealth waits for the healthy runs, which have so much time.
func (c *company) requireHealth(limit time.Duration) {
	c.T.Helper()
	ctx, cancel := context.WithDeadline(context.Background(), c.began.Add(limit))
	defer cancel()
	for i, run := range c.good {
		ended, err := c.Wait(ctx, run.ID)
		require.NoError(c.T, err, "a healthy run has not finished in time")
		require.Equal(c.T, conveyor.StateSucceeded, ended.State, ended.Reason)
		for k, step := range ended.Steps {
			require.JSONEq(c.T, fmt.Sprintf(`"%d of %d"`, k+1, i), string(step.Output))
			require.Equal(c.T, 1, step.Attempt)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Len(c.T, c.calls, 3*healthy)
	for step, n := range c.calls {
		require.Equal(c.T, 1, n, "calls of %s", step)
	}
}

// requireRest makes sure that, when the last late call has returned, nothing goes on and nothing is kept of what is over.
func (c *company) requireRest() {
	c.T.Helper()
	time.Sleep(2 * time.Hour)
	synctest.Wait()
	st := c.MustStats()
	require.Zero(c.T, st.Unfinished+st.Ready+st.Due+st.Busy+st.Stray+len(st.Blocked)+len(st.Runs), "%+v", st)
	for name, slots := range st.Slots {
		require.Zero(c.T, slots.Busy+slots.Waiting, name)
	}
	for name, room := range st.Pipelines {
		require.Zero(c.T, room.AtWork+room.Waiting, name)
	}
	for key := range rig.Dump(c.T, c.Store) {
		for _, prefix := range []string{"act/", "sig/", "ckp/", "que/"} {
			require.False(c.T, strings.HasPrefix(key, prefix), "%s is left", key)
		}
	}
}

// expectation is what becomes of the hostile runs.
type expectation struct {
	meanwhile conveyor.State // while drivers that wait for ever do; unset for the end
	finally   conveyor.State
	attempt   int    // at the end; 0 for any
	text      string // in the error of the first attempt, or in the reason at the end
	cancel    bool   // they would wait for ever, and are canceled
}

var (
	endsWell   = expectation{finally: conveyor.StateSucceeded, attempt: 1}
	comesAgain = expectation{meanwhile: conveyor.StateRetrying, finally: conveyor.StateSucceeded, attempt: 2, text: "the driver did not return"}
)

// atAnyAttempt leaves out how often a driver was called.
func (x expectation) atAnyAttempt() expectation {
	x.attempt = 0
	return x
}

func fails(text string) expectation {
	return expectation{finally: conveyor.StateFailed, attempt: hostileTries, text: text}
}

func failsForGood(text string) expectation {
	return expectation{finally: conveyor.StateFailed, attempt: 1, text: text}
}

func waits(as conveyor.State) expectation {
	return expectation{meanwhile: as, finally: conveyor.StateCanceled, attempt: 1, cancel: true}
}

// beside has a hostile driver at work beside healthy ones, and sees to it that all comes to the end that is expected.
func (x expectation) beside(t *testing.T, hostile func(c *company) conveyor.Driver) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, conveyor.Options{})
		c.Driver("bad", hostile(c), conveyor.Timeout(hostileTimeout), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: hostileTries}))
		c.PipelineNamed("bad", "bad")
		c.arrive()
		c.requireHealth(3 * time.Minute)
		c.requireEnd(x)
		c.requireRest()
		require.Len(t, rig.Drain(t, c.Runs(context.Background(), conveyor.RunFilter{Pipeline: "bad"})), hostiles)

		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		at := time.Now()
		require.NoError(t, c.Shutdown(ctx))
		require.Zero(t, time.Since(at))
	})
}

func (c *company) requireEnd(x expectation) {
	t := c.T
	t.Helper()
	if x.meanwhile != conveyor.StateUnset {
		time.Sleep(time.Until(c.began.Add(time.Hour)))
		synctest.Wait()
		for _, run := range c.bad {
			require.Equal(t, x.meanwhile, c.MustGetRun(run.ID).State, c.MustGetRun(run.ID).Reason)
		}
		if x.cancel {
			for _, run := range c.bad {
				require.NoError(t, c.Cancel(context.Background(), run.ID, ""))
			}
		}
		c.letGo()
	}
	for _, run := range c.bad {
		ended := c.Ended(run.ID)
		require.Equal(t, x.finally, ended.State, ended.Reason)
		if x.attempt > 0 {
			require.Equal(t, x.attempt, ended.Steps[0].Attempt)
		}
		text := ended.Reason
		if failed := ended.Steps[0].Attempts; len(failed) > 0 && failed[0].Error != "" {
			text = failed[0].Error
		}
		require.Contains(t, text, x.text)
		require.Less(t, len(text), 9<<10)
		if x.finally == conveyor.StateFailed {
			require.Error(t, ended.Err())
		}
	}
}
