package plan

import "slices"

// Next returns the positions of the steps that can start now, in order, and whether the run is over. The caller must not
// change start. The states are the recorded states of the steps, by position. The caller gives a retry or a wait that
// has come due as Queued.
//
// If stop is set, no further one of Steps starts, and Steps are over as soon as none of them runs. Finally follows when
// Steps are over. If stopFinally is set, no step of Finally starts either.
//
// Invariant: a step is returned only after each of its predecessors has a recorded success, skip, or tolerated failure. The
// predecessors of a step without After are all the steps listed before it. A step of Finally is returned only when none of
// Steps can run any more.
func (p *Plan) Next(states []State, stop, stopFinally bool) (start []int, over bool) {
	start, over = p.nextOfSteps(states[:len(p.Steps)], stop)
	if !over {
		return start, false
	}
	return p.NextOfFinally(states, stopFinally)
}

func (p *Plan) nextOfSteps(states []State, stop bool) (start []int, over bool) {
	running, waiting, failed := p.survey(states)
	stop = stop || failed && !p.Independent
	if stop {
		return nil, !running
	}
	if p.Independent || p.after != nil {
		start = p.startableSteps(states)
	} else {
		start = p.nextInOrder(states)
	}
	return start, !running && !waiting && len(start) == 0
}

// FirstOpen returns the position of the first step that can still start: 0, or that of the first step of Finally when no
// further one of Steps can start. This is so if ending is set, or if a step has failed that stops the others.
func (p *Plan) FirstOpen(ending bool, state func(i int) State) int {
	for i := 0; i < len(p.Steps) && !ending; i++ {
		ending = p.broken(i, state(i)) && !p.Independent
	}
	if ending {
		return len(p.Steps)
	}
	return 0
}

// survey reports whether a step runs, whether a step waits for a time or a signal, and whether a step has a failure that
// is not tolerated.
func (p *Plan) survey(states []State) (running, waiting, failed bool) {
	for i, s := range states {
		switch s {
		case Running:
			running = true
		case Retrying, Waiting:
			waiting = true
		case Failed:
			failed = failed || p.broken(i, s)
		}
	}
	return running, waiting, failed
}

// nextInOrder returns the first step that is not done if that step can start.
func (p *Plan) nextInOrder(states []State) []int {
	for i := range states {
		if !p.passed(states, i) {
			if states[i].startable() {
				return only(i)
			}
			return nil
		}
	}
	return nil
}

// startableSteps returns every step that can start and whose predecessors are done. A step of a graph without After can
// start when all the steps listed before it are done.
func (p *Plan) startableSteps(states []State) (start []int) {
	listed := 0 // the steps in front of this position are known to be done
	for i, s := range states {
		if !s.startable() {
			continue
		}
		if p.after != nil && p.Steps[i].After == nil {
			for listed < i && p.passed(states, listed) {
				listed++
			}
			if listed == i {
				start = append(start, i)
			}
		} else if !slices.ContainsFunc(p.Before(i), func(b int) bool { return !p.passed(states, b) }) {
			start = append(start, i)
		}
	}
	return start
}

// passed reports whether the steps after a step can start.
func (p *Plan) passed(states []State, i int) bool {
	return states[i] == Succeeded || states[i] == Skipped || states[i] == Failed && p.Step(i).ContinueOnError
}

// broken reports whether a step with a state has a failure that is not tolerated.
func (p *Plan) broken(i int, s State) bool { return s == Failed && !p.Step(i).ContinueOnError }

// only returns a slice with one position. The caller must not change it.
func only(i int) []int {
	if i < len(positions) {
		return positions[i : i+1]
	}
	return []int{i}
}

// positions holds each number at its own index. Slices of it serve as results, so that Next allocates nothing for a plan
// of usual size.
var positions = func() (p [256]int) {
	for i := range p {
		p[i] = i
	}
	return p
}()

// NextOfFinally returns the step of Finally that can start now, and whether Finally is over. The steps of Finally run in
// order. A step that fails does not keep the next step from running, because each of them can be the one that releases
// something.
func (p *Plan) NextOfFinally(states []State, stop bool) (start []int, over bool) {
	for i := len(p.Steps); i < len(states); i++ {
		switch s := states[i]; {
		case s == Running:
			return nil, false
		case s.Final() || stop:
			continue
		case s.startable():
			return only(i), false
		default:
			return nil, false
		}
	}
	return nil, true
}

// Through reports whether none of Steps can run any more, so that only Finally is left.
func (p *Plan) Through(states []State, stop bool) bool {
	_, over := p.nextOfSteps(states[:len(p.Steps)], stop)
	return over
}

// Succeeded reports whether none of Steps can run any more and the outcome of Steps is a success.
func (p *Plan) Succeeded(states []State) bool {
	end, _ := p.Outcome(states, StopNone)
	return p.Through(states, false) && end == Succeeded
}

// Outcome returns the final state that Steps give to a run. It must be called only when none of Steps can run any more.
// The step is the position of the one that made the run fail, or -1 if there is none.
func (p *Plan) Outcome(states []State, stop Stop) (end State, step int) {
	failed := -1
	for i, s := range states[:len(p.Steps)] {
		if p.broken(i, s) {
			failed = i
			break
		}
	}
	switch stop {
	case StopCancel:
		return Canceled, -1
	case StopSupersede:
		return Superseded, -1
	case StopTimeout:
		return Failed, failed
	}
	if failed >= 0 {
		return Failed, failed
	}
	return Succeeded, -1
}

// FailedCleanup returns the position of the first step of Finally that failed and whose failure is not tolerated, or -1.
// Such a step turns the success of a run into a failure.
func (p *Plan) FailedCleanup(states []State) int {
	for i := len(p.Steps); i < len(states); i++ {
		if p.broken(i, states[i]) {
			return i
		}
	}
	return -1
}
