package conveyor

import (
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// Retention bounds what is kept of the past of each resource. The zero value keeps everything. Retention is applied
// each time a run of the resource ends, and after every 256th generation. A resource without activity is not pruned.
//
// Some records are never removed, with any setting: runs that have not ended, runs that an unfinished run repeats,
// the newest run of a resource, its current generation, and the generations that unfinished runs have pinned. The
// steps, the attempts and the log of a run are removed together with the run. Its checkpoints, and the signals that
// no step took, are removed when the run ends.
type Retention struct {
	// Runs is the number of ended runs to keep, the newest ones. 0 means all.
	Runs int
	// Age is the maximum age of a kept run, counted from its end. 0 means no limit.
	Age time.Duration
	// Revisions is the number of generations to keep, the newest ones. 0 means all.
	Revisions int
}

func (r Retention) validate(f *fault.Fields) {
	if r.Runs < 0 {
		f.Add(fault.Invalidf("Retention.Runs", "%d is negative", r.Runs))
	}
	if r.Age < 0 {
		f.Add(fault.Invalidf("Retention.Age", "%s is negative", r.Age))
	}
	if r.Revisions < 0 {
		f.Add(fault.Invalidf("Retention.Revisions", "%d is negative", r.Revisions))
	}
}

// tidyEvery is after how many generations the past of a resource is looked through, if no run of it has ended meanwhile.
const tidyEvery = 256
