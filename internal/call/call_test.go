package call

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errStop = errors.New("stop")

// counter is a maker that counts how often a grace period was over.
type counter struct{ atomic.Int64 }

func (c *counter) GraceOver() { c.Add(1) }

// groupOfCalls is a Group that counts until it is closed.
type groupOfCalls struct {
	sync.WaitGroup
	closed atomic.Bool
}

func (g *groupOfCalls) Enter() bool {
	if g.closed.Load() {
		return false
	}
	g.Add(1)
	return true
}

func (g *groupOfCalls) Leave() { g.Done() }

// begin returns a call, the group that its timers belong to, and its maker.
func begin(deadline time.Time) (c *Call, group *groupOfCalls, expired *counter) {
	c, group, expired = new(Call), new(groupOfCalls), new(counter)
	c.Begin(expired, deadline, context.DeadlineExceeded, group)
	c.Watch()
	return c, group, expired
}

func TestTheGracePeriodBeginsWithTheEndOfTheContext(t *testing.T) {
	for _, test := range []struct {
		name  string
		end   func(c *Call)
		cause error
	}{
		{"by its deadline", func(*Call) { time.Sleep(time.Minute) }, context.DeadlineExceeded},
		{"by End", func(c *Call) { c.End(errStop) }, errStop},
		{"by End, twice", func(c *Call) { c.End(errStop); c.End(errors.New("again")) }, errStop},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, group, expired := begin(time.Now().Add(time.Minute))
				require.NoError(t, c.Context().Err())
				test.end(c)
				synctest.Wait()
				require.Equal(t, test.cause, context.Cause(c.Context()))
				time.Sleep(Grace - 1)
				synctest.Wait()
				require.Zero(t, expired.Load())
				require.True(t, c.Running())
				time.Sleep(1)
				synctest.Wait()
				require.EqualValues(t, 1, expired.Load())
				require.True(t, c.Abandon(func() {}))
				require.True(t, c.Return(), "it came too late")
				group.Wait()
			})
		})
	}
}

func TestACallThatReturnsLeavesNothing(t *testing.T) {
	for _, test := range []struct {
		name     string
		deadline time.Duration // 0 for none
		before   func(c *Call)
	}{
		{"without a deadline", 0, func(*Call) {}},
		{"before its deadline", time.Minute, func(*Call) {}},
		{"in its grace period", 0, func(c *Call) { c.End(errStop) }},
		{"in the grace period after its deadline", time.Minute, func(*Call) { time.Sleep(time.Minute) }},
		{"after a cancel", time.Minute, func(c *Call) { c.Cancel(errStop) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var deadline time.Time
				if test.deadline > 0 {
					deadline = time.Now().Add(test.deadline)
				}
				c, group, expired := begin(deadline)
				test.before(c)
				synctest.Wait()
				require.False(t, c.Return())
				require.False(t, c.Running())
				require.False(t, c.Abandon(func() { t.Error("it has returned") }))
				require.Error(t, c.Context().Err())
				group.Wait()
				time.Sleep(time.Hour)
				synctest.Wait()
				require.Zero(t, expired.Load())
			})
		})
	}
}

func TestReturnAndAbandonExcludeEachOther(t *testing.T) {
	for range 1_000 {
		c, group, _ := begin(time.Time{})
		abandoned := make(chan bool)
		counted := false
		go func() { abandoned <- c.Abandon(func() { counted = true }) }()
		late := c.Return()
		if <-abandoned {
			require.True(t, late, "the call was abandoned, and its result is recorded too")
			require.True(t, counted)
		} else {
			require.False(t, late, "nobody's word is recorded")
		}
		group.Wait()
	}
}

func TestTheContextKnowsItsMaker(t *testing.T) {
	c, _, maker := begin(time.Now().Add(time.Hour))
	type key struct{}
	ctx := context.WithValue(c.Context(), key{}, 1)
	require.Same(t, maker, MakerOf(ctx))
	require.Equal(t, 1, ctx.Value(key{}))
	require.Nil(t, MakerOf(t.Context()))
	require.False(t, c.Return())
}

func TestStackIsCut(t *testing.T) {
	require.Contains(t, string(Stack(1<<20)), "TestStackIsCut")
	require.LessOrEqual(t, len(Stack(100)), 100)
}

func TestNothingIsCountedAfterTheGroupIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, group, expired := new(Call), new(groupOfCalls), new(counter)
		group.closed.Store(true)
		c.Begin(expired, time.Now().Add(time.Minute), context.DeadlineExceeded, group)
		c.Watch()
		c.End(errStop)
		group.Wait()
		time.Sleep(time.Hour)
		require.Zero(t, expired.Load())
		require.False(t, c.Return())
		group.Wait()
	})
}
