// Package retry computes the delays between attempts. It must not know what is attempted, and it keeps no state: a delay
// follows from a policy and the number of an attempt.
package retry

import (
	"math"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/conveyor-go/conveyor/internal/document"
)

// Policy defines how often a failed attempt is repeated, and after which delay. The delay before attempt n+1 is
// Initial·Multiplierⁿ⁻¹, at most Max. The delay is then changed at random by up to the fraction Jitter, up or down. A
// zero field means that the policy does not define it; see [Combine].
type Policy struct {
	MaxAttempts int               `json:"maxAttempts,omitempty"` // maximum number of attempts, the first one included; default 3; -1 means no limit
	Initial     document.Duration `json:"initial,omitzero"`      // default 1s
	Max         document.Duration `json:"max,omitzero"`          // default 1m; an Initial that is larger than Max counts as Max
	Multiplier  float64           `json:"multiplier,omitempty"`  // at least 1; default 2
	Jitter      float64           `json:"jitter,omitempty"`      // fraction of the delay, at most 1; default 0.2; -1 means none
}

// standard is the default of each field.
var standard = Policy{
	MaxAttempts: 3, Initial: document.Duration(time.Second), Max: document.Duration(time.Minute), Multiplier: 2, Jitter: 0.2,
}

// or returns p with its zero fields taken from less.
func (p Policy) or(less Policy) Policy {
	if p.MaxAttempts == 0 {
		p.MaxAttempts = less.MaxAttempts
	}
	if p.Initial == 0 {
		p.Initial = less.Initial
	}
	if p.Max == 0 {
		p.Max = less.Max
	}
	if p.Multiplier == 0 {
		p.Multiplier = less.Multiplier
	}
	if p.Jitter == 0 {
		p.Jitter = less.Jitter
	}
	return p
}

// Combine combines the policies that apply to a step, field by field. A field that is zero in the policy of the step is
// taken from the policy of the pipeline, then of the driver, then of the engine, and then from the default. A nil policy
// defines no field.
func Combine(step, pipeline *Policy, driver, engine Policy) Policy {
	var p Policy
	if step != nil {
		p = *step
	}
	if pipeline != nil {
		p = p.or(*pipeline)
	}
	return p.or(driver).or(engine).or(standard)
}

// Exhausted reports whether no attempt is left after this number of attempts.
func (p Policy) Exhausted(attempts int) bool {
	return p.MaxAttempts > 0 && attempts >= p.MaxAttempts
}

// longestDelay is 73 years in nanoseconds. With the jitter it is still a valid [time.Duration].
const longestDelay = 1 << 61

// Delay returns the time between the end of attempt n, counted from 1, and the start of the next attempt. Apart from the
// jitter it depends only on the recorded number n, so that a restart neither loses nor repeats a delay.
func (p Policy) Delay(n int) time.Duration {
	// For a large n the power is infinite, and min returns Max.
	interval := min(float64(p.Initial)*math.Pow(p.Multiplier, float64(n-1)), float64(p.Max), longestDelay)
	b := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(time.Duration(interval)),
		backoff.WithMultiplier(p.Multiplier),
		backoff.WithMaxInterval(time.Duration(interval)),
		backoff.WithRandomizationFactor(max(p.Jitter, 0)),
		backoff.WithMaxElapsedTime(0), // the number of attempts decides, not the time they took
	)
	return b.NextBackOff()
}
