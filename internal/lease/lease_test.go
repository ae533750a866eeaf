package lease

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// at returns a moment, after the machine has slept for some time.
func at(mono, slept time.Duration) Moment { return Moment{mono, noon.Add(mono + slept)} }

const lease = 30 * time.Second

func TestAFenceClosesAfterTwoThirdsOfTheLease(t *testing.T) {
	for _, c := range []struct {
		name    string
		renewed []time.Duration // when the renewals that were answered had begun
		now     Moment
		closed  bool
		left    time.Duration
	}{
		{"at once", nil, at(0, 0), false, 20 * time.Second},
		{"just before", nil, at(20*time.Second-1, 0), false, 1},
		{"just then", nil, at(20*time.Second, 0), true, 0},
		{"after a renewal", []time.Duration{15 * time.Second}, at(30*time.Second, 0), false, 5 * time.Second},
		{"after two that were answered in the other order", []time.Duration{15 * time.Second, 10 * time.Second}, at(30*time.Second, 0), false, 5 * time.Second},
		{"while the machine slept", nil, at(time.Second, time.Hour), true, 20*time.Second - time.Hour - time.Second},
		{"a clock that was set back", nil, at(time.Second, -time.Hour), false, 19 * time.Second},
		{"a clock that was set back does not help", nil, at(20*time.Second, -time.Hour), true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := NewFence(lease, at(0, 0))
			for _, began := range c.renewed {
				f.Renewed(at(began, 0))
			}
			require.Equal(t, c.closed, f.Closed(c.now))
			require.Equal(t, c.left, f.Left(c.now))
		})
	}
	require.Equal(t, 5*time.Second, Every(lease))
}

func TestAnObserverCountsAWholeLease(t *testing.T) {
	b, c := Seen{"b", lease, 1}, Seen{"c", 5 * time.Second, 1}
	second := func(n int) time.Duration { return time.Duration(n) * time.Second }
	// renewing returns an observer that has renewed its lease every five seconds until a moment, and that has seen b and c alive
	// at the beginning.
	renewing := func(until int) *Observer {
		o := NewObserver(lease, 0)
		o.Look(0, []Seen{b, c})
		for at := 5; at <= until; at += 5 {
			o.Renewed(second(at))
			o.Look(second(at), []Seen{b, c})
		}
		return o
	}
	require.Empty(t, renewing(5).Silent(second(5)), "just a lease is not more than one")
	require.Equal(t, []Seen{c}, renewing(5).Silent(second(5)+1), "each engine is judged by its own lease")
	require.Equal(t, []Seen{c}, renewing(30).Silent(second(30)))
	require.Equal(t, []Seen{b, c}, renewing(30).Silent(second(30)+1))

	o := renewing(30)
	o.Look(second(31), []Seen{{"b", lease, 2}, c})
	require.Equal(t, []Seen{c}, o.Silent(second(32)), "b has renewed its lease")
	o.Look(second(33), []Seen{{"b", lease, 2}})
	require.Empty(t, o.Silent(second(34)), "c is gone")
	o.Look(second(35), []Seen{c})
	require.Empty(t, o.Silent(second(36)), "c is new")

	o = renewing(30)
	require.Empty(t, o.Silent(second(41)), "an observer that does not renew its own lease judges nobody")
	o.Renewed(second(41))
	require.Empty(t, o.Silent(second(41)+1), "it counts anew")
	o = renewing(30)
	o.Renewed(second(40))
	require.Equal(t, []Seen{b, c}, o.Silent(second(40)+1), "a third of a lease is no gap")
}

// TestNoEngineIsTakenForDeadBeforeItHasStopped plays an engine that renews its lease and an engine that observes it, with any
// delays of the store and any pauses of either.
func TestNoEngineIsTakenForDeadBeforeItHasStopped(t *testing.T) {
	marked := 0
	for seed := range uint64(4_000) {
		marked += playLeases(t, rand.New(rand.NewPCG(seed, 0)))
	}
	require.Positive(t, marked)
}

// renewal is a renewal by true time.
type renewal struct {
	began, written time.Duration
	answered       time.Duration // 0 if the answer was lost
}

// playLeases returns how often the observed engine could be marked dead.
func playLeases(t *testing.T, r *rand.Rand) (marked int) {
	calm := r.IntN(8) // of 10; the others bring trouble
	delay := func() time.Duration {
		if r.IntN(10) < calm {
			return 0
		}
		most := []time.Duration{time.Millisecond, time.Second, 10 * time.Second, time.Minute}[r.IntN(4)]
		return time.Duration(r.Int64N(int64(most)))
	}
	ofLease := []time.Duration{5 * time.Second, lease, time.Minute}[r.IntN(3)]
	renewals := []renewal{{0, 0, 0}}
	for now := time.Duration(0); now < 3*time.Minute; {
		now += Every(ofLease) + delay()
		next := renewal{began: now}
		now += delay()
		next.written = now
		now += delay()
		if r.IntN(4) > 0 {
			next.answered = now
		}
		renewals = append(renewals, next)
	}
	onRecord := func(now time.Duration) (revision int64) {
		for i, r := range renewals {
			if r.written <= now {
				revision = int64(i + 1)
			}
		}
		return revision
	}
	fence := func(now time.Duration) Fence {
		f := NewFence(ofLease, at(0, 0))
		for _, r := range renewals {
			if r.answered != 0 && r.answered <= now {
				f.Renewed(at(r.began, 0))
			}
		}
		return f
	}
	const ahead = time.Hour // of the monotonic clock of the observer: it has nothing to do with that of the other machine
	o := NewObserver(lease, ahead)
	for now := time.Duration(0); now < 4*time.Minute; {
		now += Every(lease) + delay()
		seen := Seen{"b", ofLease, onRecord(now)}
		now += delay()
		o.Renewed(ahead + now)
		o.Look(ahead+now, []Seen{seen})
		now += delay()
		for _, s := range o.Silent(ahead + now) {
			if s.Heartbeat == onRecord(now) { // otherwise the mark conflicts
				marked++
				f := fence(now)
				require.True(t, f.Closed(at(now, 0)), "at %s", now)
			}
		}
	}
	return marked
}
