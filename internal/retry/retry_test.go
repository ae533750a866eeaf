package retry

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/document"
)

func BenchmarkDelay(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		standard.Delay(7)
	}
}

func TestPolicyTakesEachFieldFromTheNearest(t *testing.T) {
	second := func(n int) document.Duration { return document.Duration(n) * document.Duration(time.Second) }
	for _, c := range []struct {
		name           string
		step, pipeline *Policy
		driver, engine Policy
		want           Policy
	}{
		{"nobody says anything", nil, nil, Policy{}, Policy{}, standard},
		{"each says one thing", &Policy{MaxAttempts: 9}, &Policy{Initial: second(8)}, Policy{Max: second(70)}, Policy{Multiplier: 6},
			Policy{MaxAttempts: 9, Initial: second(8), Max: second(70), Multiplier: 6, Jitter: 0.2}},
		{"all say all", &Policy{1, 1, 1, 1, 1}, &Policy{2, 2, 2, 2, 0.2}, Policy{3, 3, 3, 3, 0.3}, Policy{4, 4, 4, 4, 0.4}, Policy{1, 1, 1, 1, 1}},
		{"all but the step", nil, &Policy{2, 2, 2, 2, 0.2}, Policy{3, 3, 3, 3, 0.3}, Policy{4, 4, 4, 4, 0.4}, Policy{2, 2, 2, 2, 0.2}},
		{"driver and engine", nil, nil, Policy{3, 3, 3, 3, 0.3}, Policy{4, 4, 4, 4, 0.4}, Policy{3, 3, 3, 3, 0.3}},
		{"engine alone", nil, nil, Policy{}, Policy{4, 4, 4, 4, 0.4}, Policy{4, 4, 4, 4, 0.4}},
		{"-1 says something", &Policy{MaxAttempts: -1, Jitter: -1}, &Policy{2, 2, 2, 2, 0.2}, Policy{}, Policy{}, Policy{-1, 2, 2, 2, -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, Combine(c.step, c.pipeline, c.driver, c.engine))
		})
	}
}

func TestPolicyExhausted(t *testing.T) {
	require.False(t, Policy{MaxAttempts: 3}.Exhausted(2))
	require.True(t, Policy{MaxAttempts: 3}.Exhausted(3))
	require.True(t, Policy{MaxAttempts: 3}.Exhausted(4))
	require.False(t, Policy{MaxAttempts: -1}.Exhausted(math.MaxInt))
}

func TestPolicyDelay(t *testing.T) {
	exact := Policy{Initial: document.Duration(time.Second), Max: document.Duration(time.Minute), Multiplier: 2, Jitter: -1}
	for _, c := range []struct {
		name   string
		policy Policy
		n      int
		want   time.Duration
	}{
		{"the first", exact, 1, time.Second},
		{"the second", exact, 2, 2 * time.Second},
		{"the sixth", exact, 6, 32 * time.Second},
		{"the one that meets the maximum", exact, 7, time.Minute},
		{"one of very many", exact, math.MaxInt, time.Minute},
		{"constant", Policy{Initial: 5, Max: 50, Multiplier: 1, Jitter: -1}, 1000, 5},
		{"a start above the maximum", Policy{Initial: 500, Max: 50, Multiplier: 2, Jitter: -1}, 1, 50},
		{"no maximum to speak of", Policy{Initial: 1, Max: math.MaxInt64, Multiplier: math.MaxFloat32, Jitter: -1}, 9, longestDelay},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, c.policy.Delay(c.n)) })
	}
}

func TestPolicyDelayStaysWithinTheJitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{
			MaxAttempts: -1,
			Initial:     document.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "initial")),
			Max:         document.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "max")),
			Multiplier:  rapid.Float64Range(1, math.MaxFloat32).Draw(t, "multiplier"),
			Jitter:      rapid.OneOf(rapid.Just(-1.0), rapid.Float64Range(0, 1)).Draw(t, "jitter"),
		}
		n := rapid.IntRange(1, math.MaxInt32).Draw(t, "n")
		middle := min(float64(p.Initial)*math.Pow(p.Multiplier, float64(n-1)), float64(p.Max), longestDelay)
		by := middle*max(p.Jitter, 0)*1.000001 + 2
		delay := float64(p.Delay(n))
		require.GreaterOrEqual(t, delay, 0.0)
		require.GreaterOrEqual(t, delay, middle-by)
		require.LessOrEqual(t, delay, middle+by)
	})
}
