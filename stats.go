package conveyor

import (
	"context"
	"strings"
	"time"
)

// Stats is what an engine is doing at one moment.
type Stats struct {
	Unfinished int `json:"unfinished"` // runs that have not ended
	// Runs counts the unfinished runs by their state, as [Run].State would show it.
	Runs map[State]int `json:"runs,omitempty"`
	// Ended counts the runs that have ended since the engine was made, by how they did.
	Ended map[State]int64 `json:"ended,omitempty"`
	Ready int             `json:"ready"` // of the unfinished, waiting for a worker
	// OldestReady is when the one that has been waiting for a worker longest began to; zero when Ready is 0.
	OldestReady time.Time `json:"oldestReady,omitzero"`
	Due         int       `json:"due"`     // of the unfinished, waiting for a time: a retry, a requeue, a deadline
	Workers     int       `json:"workers"` // as in Options
	Busy        int       `json:"busy"`    // workers at work
	Stray       int       `json:"stray"`   // calls given up that have not returned, which hold no worker
	// Blocked counts the runs that wait for something to be mended, by the reason that their step gives. A run whose
	// steps wait for several things is counted with each.
	Blocked map[string]int `json:"blocked,omitempty"`
	// Slots tells how the drivers are used, by name.
	Slots map[string]DriverStats `json:"slots,omitempty"`
	// Pipelines tells of the pipelines that have runs at work, or a limit for them, by name.
	Pipelines map[string]PipelineStats `json:"pipelines,omitempty"`
}

// DriverStats is what one driver is doing.
type DriverStats struct {
	Busy    int `json:"busy"`            // attempts under way
	Limit   int `json:"limit,omitempty"` // as given to Concurrency; 0 for none
	Waiting int `json:"waiting"`         // runs that wait for a slot
}

// PipelineStats is what the runs of one pipeline are doing.
type PipelineStats struct {
	AtWork  int `json:"atWork"`          // runs that have begun and not ended
	Limit   int `json:"limit,omitempty"` // MaxRuns, as it was when the pipeline was saved or a run of it last began; 0 for none
	Waiting int `json:"waiting"`         // runs that wait until there is room for them
}

// Stats reports what the engine is doing. It reads nothing from the store, so it costs little and does not fail while
// ctx has not ended.
func (e *Engine) Stats(ctx context.Context) (Stats, error) {
	if ctx.Err() != nil {
		return Stats{}, context.Cause(ctx)
	}
	return e.sched.stats(), nil
}

func (s *pool) stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Unfinished: len(s.journeys), Ready: s.ready.Len(), OldestReady: s.oldestReadyLocked(), Due: len(s.due),
		Workers: s.limit, Busy: s.limit - s.free, Stray: s.stuck,
		Runs: map[State]int{}, Ended: map[State]int64{}, Blocked: map[string]int{},
		Slots: map[string]DriverStats{}, Pipelines: map[string]PipelineStats{},
	}
	for state := range numStates {
		if n := s.showing[state]; n > 0 {
			st.Runs[state] = n
		}
		if n := s.endings[state]; n > 0 {
			st.Ended[state] = n
		}
	}
	for name, waiting := range s.blocked {
		st.Blocked[missing(name)] = len(waiting)
	}
	for name, d := range s.drivers {
		if !strings.HasPrefix(name, PlanStep) {
			st.Slots[name] = DriverStats{Busy: d.busy, Limit: d.limit, Waiting: d.waiting.Len() - d.dead}
		}
	}
	for name, room := range s.rooms {
		if room.busy > 0 || room.limit > 0 {
			st.Pipelines[name] = PipelineStats{AtWork: room.busy, Limit: room.limit, Waiting: room.waiting.Len() - room.dead}
		}
	}
	return st
}

// showsLocked takes note of the state of an unfinished run.
func (s *pool) showsLocked(j *task, state State) {
	s.showing[j.state]--
	j.state = state
	s.showing[state]++
}

// oldestReadyLocked returns when the one that has waited longest for a worker began to; zero for none.
func (s *pool) oldestReadyLocked() (since time.Time) {
	for j := range s.ready.Heads() {
		since = earlier(since, j.since)
	}
	return since
}
