package conveyor

import (
	"math"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// RetryPolicy defines how often a failed attempt is repeated, and after which delay. Policies are combined field by
// field. A field that is zero in the policy of a step is taken from the policy of the pipeline, then of the driver,
// then from [Options].Retry, and then from the default. The delay before attempt n+1 is Initial·Multiplierⁿ⁻¹, at
// most Max. The delay is then changed at random by up to the fraction Jitter, up or down.
type RetryPolicy struct {
	MaxAttempts int      `json:"maxAttempts,omitempty"` // maximum number of attempts, the first one included; default 3; -1 means no limit
	Initial     Duration `json:"initial,omitzero"`      // default 1s
	Max         Duration `json:"max,omitzero"`          // default 1m; an Initial that is larger than Max counts as Max
	Multiplier  float64  `json:"multiplier,omitempty"`  // at least 1; default 2
	Jitter      float64  `json:"jitter,omitempty"`      // fraction of the delay, at most 1; default 0.2; -1 means none
}

func validateRetry(p RetryPolicy, field string, f *fault.Fields) {
	if p.MaxAttempts < -1 {
		f.Add(fault.Invalidf(field+".maxAttempts", "%d is less than -1", p.MaxAttempts))
	}
	if p.Initial < 0 {
		f.Add(fault.Invalidf(field+".initial", "%s is negative", p.Initial))
	}
	if p.Max < 0 {
		f.Add(fault.Invalidf(field+".max", "%s is negative", p.Max))
	}
	if p.Multiplier != 0 && !(p.Multiplier >= 1 && p.Multiplier <= math.MaxFloat32) {
		f.Add(fault.Invalidf(field+".multiplier", "%v is not 1 or more", p.Multiplier))
	}
	if p.Jitter != -1 && !(p.Jitter >= 0 && p.Jitter <= 1) {
		f.Add(fault.Invalidf(field+".jitter", "%v is neither -1 nor between 0 and 1", p.Jitter))
	}
}
