package plan

// PlannerStep is PlanStep for those below.
const PlannerStep = ".plan"

func PlannerName(pipeline string) string { return PlannerStep + "/" + pipeline }

// Unplanned is the plan of a run of a pipeline whose steps are to be planned.
func (p *Plan) Unplanned(pipeline string) *Plan {
	u := *p
	u.Steps = []Step{{ID: PlannerStep, Name: "Plan the steps", Driver: PlannerName(pipeline)}}
	u.Planned = true
	return &u
}

// Plans says that the step at a position is the one that plans the others.
func (p *Plan) Plans(i int) bool { return p.Planned && i == 0 }
