package plan

// Stop is the reason why a run is to end before its steps are done. The empty Stop means that the run is not to end.
type Stop string

const (
	StopNone      Stop = ""
	StopHalt      Stop = "halt"      // a driver has ended the run early; the outcome of the steps decides
	StopCancel    Stop = "cancel"    // the program has canceled the run
	StopTimeout   Stop = "timeout"   // the run has reached its deadline
	StopSupersede Stop = "supersede" // a newer generation takes the place of the run
)
