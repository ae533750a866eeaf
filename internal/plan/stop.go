package plan

// Stop says why a run shall end before its steps are done.
type Stop string

const (
	StopNone      Stop = ""
	StopHalt      Stop = "halt"
	StopCancel    Stop = "cancel"
	StopTimeout   Stop = "timeout"
	StopSupersede Stop = "supersede"
)
