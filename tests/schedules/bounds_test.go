package schedules_test

import (
	"slices"
	"time"

	"github.com/conveyor-go/conveyor"
)

// checkEnd looks at a seed as a whole. x.mu is held.
func (x *explorer) checkEnd() {
	for _, r := range x.open {
		x.fault("lost: run %s is left over, %s", r.alias, r.rec.State)
	}
	for k, res := range x.seenResources {
		x.checkAcked(k, res)
	}
	x.checkTurns()
	for _, l := range x.lives {
		x.checkEvents(l)
	}
}

// checkAcked makes sure that what Apply has acknowledged was reconciled: the last generation by a run that has begun with
// it or with a newer one, and where changes queue, every generation by one of its own. A run that was canceled in the
// line counts with what it stood for.
func (x *explorer) checkAcked(k conveyor.Key, res *resourceSeen) {
	for _, a := range res.acked {
		ok := slices.ContainsFunc(res.runs, func(r *runSeen) bool {
			stands := r.begun() || r.rec.State == conveyor.StateCanceled || r.rec.State == conveyor.StateSkipped
			return r.rec.ResourceID == a.id && stands && (r.rec.Generation == a.generation || !a.queue && r.rec.Generation > a.generation)
		})
		if !ok {
			x.fault("rule 3: generation %d of %s was acknowledged, and no run has taken it up", a.generation, k.Name)
		}
	}
}

// longestTurn is how long a run keeps its worker from step to step while others wait for one.
const longestTurnOfARun = 100 * time.Millisecond

// checkTurns measures how long runs have waited for a worker, in turns. A turn is what a worker does for one run: one
// attempt, and those after it that begin within 100 ms. The bound: a run that becomes ready when m other runs of its
// pipeline are unfinished waits for at most
//
//	Workers, the turns that are under way already
//	+ m turns of its own pipeline, those that may have come before it
//	+ (m+1) turns of each other pipeline, since each has one between two of its own
//
// and then it is looked at, which is when its start is dated. So the one run of a quiet pipeline waits for one turn of
// each worker and one of each busy pipeline, however many runs those have. A run that has not begun comes after those of its
// pipeline that have, so that m is then the turns that they have had. With a slow store the time between a start and its
// record counts too, so that there runs are counted and not turns.
func (x *explorer) checkTurns() {
	slices.SortStableFunc(x.starts, func(a, b startSeen) int { return int(a.at - b.at) })
	for _, s := range x.starts {
		if s.ready == 0 || s.at <= s.ready {
			continue
		}
		turns, ownTurns, runs := x.turnsBetween(s)
		if runs == 0 {
			continue
		}
		x.see(sawFairness)
		if s.birth {
			x.see(sawFairBirth)
		}
		own, lanes := x.unfinishedBetween(s)
		bound := x.workers + own + (own+1)*(lanes-1)
		if runs > bound {
			x.fault("fairness: run %s step %s was ready at %s and began at %s: %d runs went first, and the bound is %d",
				s.run.alias, s.run.plan.all[s.step].ID, x.since(s.ready), x.since(s.at), runs, bound)
		}
		if x.slow == 0 {
			x.see(sawFairTurns)
			if s.birth {
				own = max(own, ownTurns)
				bound = x.workers + own + (own+1)*(lanes-1)
			}
			if turns > bound {
				x.fault("fairness: run %s step %s was ready at %s and began at %s: it waited for %d turns, and the bound is %d",
					s.run.alias, s.run.plan.all[s.step].ID, x.since(s.ready), x.since(s.at), turns, bound)
			}
		}
	}
}

// turnsBetween counts the turns, those of the same pipeline, and the runs, that began while a run waited for its own.
func (x *explorer) turnsBetween(s startSeen) (turns, own, runs int) {
	lastTurn := map[*runSeen]int64{}
	i, _ := slices.BinarySearchFunc(x.starts, s.ready+1, func(o startSeen, at int64) int { return int(o.at - at) })
	for _, o := range x.starts[i:] {
		if o.at >= s.at {
			break
		}
		if o.run == s.run {
			continue
		}
		began, known := lastTurn[o.run]
		if !known {
			runs++
		}
		if !known || o.at > began+int64(longestTurnOfARun) {
			turns++
			if o.run.lane == s.run.lane {
				own++
			}
			lastTurn[o.run] = o.at
		}
	}
	return turns, own, runs
}

// unfinishedBetween counts the runs of the same pipeline that were unfinished while a run waited, and the pipelines
// that had unfinished runs, its own included.
func (x *explorer) unfinishedBetween(s startSeen) (own, lanes int) {
	seen := map[string]bool{s.run.lane: true}
	for _, r := range x.runs {
		if r == s.run || r.born > s.at || r.over != 0 && r.over < s.ready {
			continue
		}
		seen[r.lane] = true
		if r.lane == s.run.lane {
			own++
		}
	}
	return own, len(seen)
}

// checkEvents compares the events that an observer was told with what was committed: each step of each run the same
// changes in the same order, none twice, none left out. After a crash the last ones are missing.
func (x *explorer) checkEvents(l *lifetime) {
	told := map[string][]change{}
	for _, e := range l.events {
		if e.Kind == conveyor.EventGap {
			x.fault("the observer has missed events: %s", e.Reason)
		}
		if e.Kind == conveyor.EventStep {
			told[e.Run] = append(told[e.Run], change{l.number, e.Step, e.State, e.Attempt})
		}
	}
	for id, r := range x.runs {
		var recorded []change
		for _, c := range r.changes {
			if c.life == l.number {
				recorded = append(recorded, c)
			}
		}
		events := told[id]
		if len(events) > len(recorded) || !slices.Equal(events, recorded[:len(events)]) || len(events) < len(recorded) && !l.hasty {
			x.fault("the events of run %s in life %d are %v, and on record are %v", r.alias, l.number, events, recorded)
		}
	}
}
