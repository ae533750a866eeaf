package conveyor

import (
	"context"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
)

// Stats describes what an engine does at one moment.
type Stats struct {
	Unfinished int `json:"unfinished"` // runs that have not ended
	// Runs counts the unfinished runs by their state, as in [Run].State.
	Runs map[State]int `json:"runs,omitempty"`
	// Ended counts the runs that have ended since the engine was created, by their final state.
	Ended map[State]int64 `json:"ended,omitempty"`
	// What the unfinished runs wait for is counted in Ready, Due, Held and Blocked, in the Waiting of Slots, and in the
	// Waiting of Pipelines. A run that waits for several things is counted in each. [Run].WaitsFor tells it of one run.
	Ready int `json:"ready"` // unfinished runs that wait for a worker
	// OldestReady is the time since which the oldest of the Ready runs has been waiting for a worker. It is zero if
	// Ready is 0.
	OldestReady time.Time `json:"oldestReady,omitzero"`
	Due         int       `json:"due"`     // unfinished runs that wait for a time: a retry, a requeue, a deadline
	Workers     int       `json:"workers"` // as in Options
	Busy        int       `json:"busy"`    // workers that are working
	Stray       int       `json:"stray"`   // abandoned calls that have not returned; they hold no worker
	Held        int       `json:"held"`    // unfinished runs that wait for the return of an abandoned call of their resource
	// Blocked counts the runs that wait until something is corrected, by the reason that their step has. A run whose
	// steps wait for several things is counted once for each.
	Blocked map[string]int `json:"blocked,omitempty"`
	// Slots describes the use of each driver, by name.
	Slots map[string]DriverStats `json:"slots,omitempty"`
	// Pipelines describes each pipeline that has active runs or a limit for them, by name.
	Pipelines map[string]PipelineStats `json:"pipelines,omitempty"`
}

// DriverStats describes what one driver does.
type DriverStats struct {
	Busy    int `json:"busy"`            // running attempts
	Limit   int `json:"limit,omitempty"` // the limit that was passed to Concurrency; 0 for none
	Waiting int `json:"waiting"`         // runs that wait for a slot
}

// PipelineStats describes the runs of one pipeline.
type PipelineStats struct {
	AtWork  int `json:"atWork"`          // runs that have begun and not ended
	Limit   int `json:"limit,omitempty"` // MaxRuns, as it was when the pipeline was saved or its last run began; 0 for none
	Waiting int `json:"waiting"`         // runs that wait because of the limit
}

// waitsFor returns what a run waits for in this engine, in words.
func (s *scheduler) waitsFor(r *Run) (what []string) {
	if r.State.Final() {
		return nil
	}
	w := s.pool.WaitsFor(r.ID)
	if w.Held {
		what = append(what, "the return of an abandoned call")
	}
	if w.Room != "" {
		what = append(what, fmt.Sprintf("room in pipeline %q", w.Room))
	}
	for _, driver := range w.Drivers {
		what = append(what, fmt.Sprintf("a slot of driver %q", driver))
	}
	if w.Worker {
		what = append(what, "a worker")
	}
	return what
}

// Stats returns what the engine does at the moment. It reads nothing from the store. It is therefore cheap, and it
// returns an error only if ctx has ended.
func (e *Engine) Stats(ctx context.Context) (Stats, error) {
	if ctx.Err() != nil {
		return Stats{}, context.Cause(ctx)
	}
	return e.sched.stats(), nil
}

// stats converts what the pool counts.
func (s *scheduler) stats() Stats {
	now := s.pool.Stats()
	st := Stats{
		Unfinished: now.Tasks, Ready: now.Ready, OldestReady: record.Time(now.Oldest).Time(), Due: now.Due,
		Workers: now.Workers, Busy: now.Busy, Stray: now.Abandoned, Held: now.Held,
		Runs: map[State]int{}, Ended: map[State]int64{}, Blocked: map[string]int{},
		Slots: map[string]DriverStats{}, Pipelines: map[string]PipelineStats{},
	}
	for state := range State(plan.NumStates) {
		if n := now.States[state]; n > 0 {
			st.Runs[state] = n
		}
		if n := now.Ended[state]; n > 0 {
			st.Ended[state] = n
		}
	}
	for driver, n := range now.Blocked {
		st.Blocked[run.Missing(driver)] = n
	}
	for name, of := range now.Drivers {
		st.Slots[name] = DriverStats{Busy: of.InUse, Limit: of.Limit, Waiting: of.Waiting}
	}
	for name, of := range now.Runs {
		st.Pipelines[name] = PipelineStats{AtWork: of.InUse, Limit: of.Limit, Waiting: of.Waiting}
	}
	return st
}
