package plan

import "slices"

// Next decides: it returns the steps that may start now, in order, and whether the run is over. The states are what
// is recorded of the steps, by position; a retry or a wait that has come due is given as queued. Steps that are to
// stop start nothing more, and are over as soon as none of them runs; then comes Finally, unless that is to stop too.
//
// Invariant: a step is never returned before each of the steps it depends on has a recorded success, skip, or failure
// that is tolerated; and none of Finally before nothing of Steps can run any more.
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

// survey looks for what keeps a run from being over, and for a failure that is not tolerated.
func (p *Plan) survey(states []State) (running, waiting, failed bool) {
	for i, s := range states {
		switch s {
		case Running:
			running = true
		case Retrying, Waiting:
			waiting = true
		case Failed:
			failed = failed || !p.Step(i).ContinueOnError
		}
	}
	return running, waiting, failed
}

// nextInOrder returns the first step that is not done, if it may start.
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

// startableSteps returns every step that may start and whose predecessors are done.
func (p *Plan) startableSteps(states []State) (start []int) {
	for i, s := range states {
		if s.startable() && !slices.ContainsFunc(p.Before(i), func(b int) bool { return !p.passed(states, b) }) {
			start = append(start, i)
		}
	}
	return start
}

// passed says that a step is done, as far as those after it are concerned.
func (p *Plan) passed(states []State, i int) bool {
	return states[i] == Succeeded || states[i] == Skipped || states[i] == Failed && p.Step(i).ContinueOnError
}

// only returns a slice of one position, not to be changed.
func only(i int) []int {
	if i < len(positions) {
		return positions[i : i+1]
	}
	return []int{i}
}

// positions are in their places, so that the usual plan needs no memory to say what comes next.
var positions = func() (p [256]int) {
	for i := range p {
		p[i] = i
	}
	return p
}()

// NextOfFinally goes through Finally in order. A step of it that fails holds up none of the others, for each may be
// the one that puts something back.
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

// Through says that nothing of Steps can run any more, so that what is left is Finally.
func (p *Plan) Through(states []State, stop bool) bool {
	_, over := p.nextOfSteps(states[:len(p.Steps)], stop)
	return over
}

// Succeeded says that the steps are through and none of them stands in the way of a success.
func (p *Plan) Succeeded(states []State) bool {
	end, _ := p.Outcome(states, StopNone)
	return p.Through(states, false) && end == Succeeded
}

// Outcome decides how the steps of a run that is through with them have ended. The step is the one that made it fail,
// or -1.
func (p *Plan) Outcome(states []State, stop Stop) (end State, step int) {
	failed := -1
	for i, s := range states[:len(p.Steps)] {
		if s == Failed && !p.Steps[i].ContinueOnError {
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

// FailedCleanup returns the first step of Finally whose failure is not tolerated, or -1. It turns a success into a
// failure.
func (p *Plan) FailedCleanup(states []State) int {
	for i := len(p.Steps); i < len(states); i++ {
		if states[i] == Failed && !p.Step(i).ContinueOnError {
			return i
		}
	}
	return -1
}
