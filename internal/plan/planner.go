package plan

// PlannerStep is the id of the step that plans the other steps of a run. No other step has this id, because the name of
// a step cannot start with a dot.
const PlannerStep = ".plan"

// PlannerName returns the name of the driver that carries out the planning step of a pipeline. No registered driver has
// this name, because the name of a driver cannot contain a slash.
func PlannerName(pipeline string) string { return PlannerStep + "/" + pipeline }

// Unplanned returns the plan with which a run of a planned pipeline starts. Its only step, besides Finally, plans the
// other steps.
func (p *Plan) Unplanned(pipeline string) *Plan {
	u := *p
	u.Steps = []Step{{ID: PlannerStep, Name: "Plan the steps", Driver: PlannerName(pipeline)}}
	u.Planned = true
	return &u
}

// HasWork reports whether there is a step, besides the one that plans the others and those of Finally.
func (p *Plan) HasWork() bool { return len(p.Steps) > 1 || len(p.Steps) == 1 && !p.Planned }

// Plans reports whether the step at a position is the one that plans the other steps.
func (p *Plan) Plans(i int) bool { return p.Planned && i == 0 }
