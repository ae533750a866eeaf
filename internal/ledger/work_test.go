package ledger

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// TestWork reads what the runs of a resource have done.
func TestWork(t *testing.T) {
	planOf := func(drivers ...string) *plan.Plan {
		p := new(plan.Plan)
		for i, d := range drivers {
			p.Steps = append(p.Steps, plan.Step{ID: fmt.Sprint(i + 1), Driver: d})
		}
		return p
	}
	planned := func(drivers ...string) *plan.Plan {
		p := new(plan.Plan).Unplanned("p")
		p.Steps = append(p.Steps, planOf(drivers...).Steps...)
		return p
	}
	type past struct {
		number int64 // 0 means the next one, and -1 none
		plan   *plan.Plan
		calls  int // steps that were called, from the first
		change func(*record.Run)
		broken bool
	}
	deletion := func(r *record.Run) { r.Cause = record.Deleted }
	unbegun := func(r *record.Run) { r.Started, r.State = 0, plan.Canceled }
	earlier := func(r *record.Run) { r.ResourceID = "earlier" }
	ab := planOf("a", "b")
	all, first, second, none := []bool{true, true}, []bool{true, false}, []bool{false, true}, []bool{false, false}
	long := []past{{plan: ab, calls: 1}}
	for range maxWorkRuns {
		long = append(long, past{plan: ab, calls: 1})
	}
	for _, c := range []struct {
		name   string
		runs   []past // the oldest first
		plan   *plan.Plan
		called []bool
	}{
		{"no run", nil, nil, nil},
		{"one run", []past{{plan: ab, calls: 2}}, ab, all},
		{"a step was not called", []past{{plan: ab, calls: 1}}, ab, first},
		{"a run of whose steps none was called", []past{{plan: ab}}, ab, none},
		{"a step was called by an earlier run", []past{{plan: ab, calls: 2}, {plan: ab, calls: 1}}, ab, all},
		{"a step of that id had another driver", []past{{plan: planOf("x", "b"), calls: 2}, {plan: ab}}, ab, second},
		{"another step was put in front", []past{{plan: ab, calls: 2}, {plan: planOf("x", "a", "b"), calls: 1}}, planOf("x", "a", "b"), []bool{true, true, true}},
		{"another step of the driver was called", []past{{plan: planOf("a", "a"), calls: 1}}, planOf("a", "a"), first},
		{"another step of the driver was called earlier", []past{{plan: planOf("b", "a"), calls: 1}, {plan: ab, calls: 1}}, ab, all},
		{"the newest run has other steps", []past{{plan: planOf("x", "y"), calls: 2}, {plan: ab, calls: 1}}, ab, first},
		{"a deletion does not count", []past{{plan: ab, calls: 1}, {plan: planOf("b", "a"), calls: 2, change: deletion}}, ab, first},
		{"nor does a run that never began", []past{{plan: ab, calls: 1}, {change: unbegun}}, ab, first},
		{"nor a run whose steps were never planned", []past{{plan: ab, calls: 1}, {plan: planned(), calls: 1}}, ab, first},
		{"nor a resource that had the name before", []past{{plan: ab, calls: 2, change: earlier}, {plan: ab, calls: 1}}, ab, first},
		{"nor such a resource alone", []past{{plan: ab, calls: 2, change: earlier}}, nil, nil},
		{"planned steps", []past{{plan: planned("a", "b"), calls: 2}}, planned("a", "b"), []bool{true, true, false}},
		{"the first runs are gone", []past{{number: 3, plan: ab, calls: 1}}, ab, all},
		{"a run between is gone", []past{{plan: ab, calls: 1}, {number: 3, plan: ab, calls: 1}}, ab, all},
		{"the newest runs are gone", []past{{plan: ab, calls: 1}, {number: 3, change: unbegun}}, ab, all},
		{"a very long past", long, ab, all},
		{"the runs have no numbers", []past{{number: -1, plan: ab, calls: 1}}, ab, all},
		{"an earlier run is damaged", []past{{plan: ab, calls: 1, broken: true}, {plan: ab, calls: 1}}, ab, all},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBook(t)
			var number int64
			for _, p := range c.runs {
				if number++; p.number != 0 {
					number = max(p.number, 0)
				}
				b.putPast(number, p.plan, p.calls, p.change)
				if p.broken {
					b.put(record.RunKey(fmt.Sprint("r", number)), []byte("damaged"))
				}
			}
			w, err := b.Work(t.Context(), app, head(1).ID)
			require.NoError(t, err)
			require.Equal(t, c.called, w.Called)
			if c.plan == nil {
				require.Nil(t, w.Plan)
			} else {
				require.Equal(t, c.plan.Ready(), w.Plan)
			}
		})
	}
	t.Run("the newest run is damaged", func(t *testing.T) {
		b := newBook(t)
		b.putPast(1, ab, 2, nil)
		b.put(record.RunKey("r1"), []byte("damaged"))
		_, err := b.Work(t.Context(), app, head(1).ID)
		require.ErrorIs(t, err, store.ErrCorrupt)
	})
}

// putPast writes a run that has called the first steps of a plan.
func (b *book) putPast(number int64, p *plan.Plan, calls int, change func(*record.Run)) {
	run := ended(1)
	run.ResourceID, run.Number = head(1).ID, number
	if change != nil {
		change(run)
	}
	id := fmt.Sprint("r", number)
	b.put(record.RunKey(id), run, record.RunIndexKey(app, number, id), []byte(nil))
	if p == nil {
		return
	}
	b.put(record.PlanKey(id), p)
	for i := range calls {
		b.put(record.StepKey(id, p.Step(i).ID), &record.Step{State: plan.Succeeded, Attempt: 1})
	}
}
