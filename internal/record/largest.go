package record

import "github.com/conveyor-go/conveyor/store"

// Bounded reports whether a store accepts less than any store does.
func Bounded(limits store.Limits) bool {
	return limits.Ops > 0 || limits.Bytes > 0 || limits.Value > 0 && limits.Value < store.MaxValue
}

// Sizes are the limits of the engine, in bytes as JSON, that decide how large records and commits become.
type Sizes struct {
	Carried   int // what a call of the program gives along
	ErrorText int // an error, a reason, the stack of a panic
	Spec      int // a spec, and also metadata
	Document  int // a definition of a pipeline, a plan
	Output    int // an output, a checkpoint, the payload of a signal
	LogLine   int
}

// What a store must accept for an engine to work on it with the default texts.
const (
	LeastOps   = 20        // a transition of one step, and a record of log lines: run.OpsOfStep + run.OpsOfRest + 1
	LeastBytes = 256 << 10 // of a commit
	LeastValue = 128 << 10
)

// overhead is more than the keys of one commit, the names, numbers and times in its records, and what else has a fixed
// limit in them, need together: 28 KiB for the 32 waits of a step with a signal and an actor each, 13 KiB for the field and the
// frame in a failed attempt, 6 KiB each for the names in a run and in a resource, and 10 KiB for 20 keys.
const overhead = 64 << 10

// Fill sets each size that is 0 to the standard one, or to the largest that the store accepts if this is smaller. It also returns
// the largest sizes that the store accepts. What it accepts of a size depends on those before it in [Sizes], because they are in
// the same records; a size that is larger than accepted is counted as the largest one.
//
// The engine divides its commits as long as they are too large. The bounds follow from what cannot be divided:
//
//   - A change of a resource writes the revision, with a spec and metadata, and the record of the resource, with the same
//     metadata, a reason and what is carried. A new run is in the same commit, with what is carried. It begins in another one.
//   - The begin of a run writes the run and the resource, both with the metadata, and the plan.
//   - The end of a run writes the run with two reasons and the resource with one, both with the metadata.
//   - An outcome writes the step, with an output or a signal and what that has carried, and with a reason; the failed attempt, with
//     the error and the stack of a panic; and the run if it is to stop, with metadata and two reasons.
//   - Log lines are written alone if they do not fit. One record is written again to drop lines, while another one comes.
func (s Sizes) Fill(limits store.Limits, standard Sizes) (filled, most Sizes) {
	value := limits.Value - overhead
	commit := limits.Bytes - overhead
	if limits.Bytes <= 0 {
		commit = 8 * store.MaxValue // more than any commit that cannot be divided
	}
	fill := func(size *int, standard int, most *int, bounds ...int) {
		*most = bounds[0]
		for _, b := range bounds[1:] {
			*most = min(*most, b)
		}
		if *size == 0 {
			*size = standard
		}
		*size = min(*size, *most)
	}
	f := s
	// Texts are in nearly every record. They have a share each, so that the rest remains for the other sizes.
	fill(&f.Carried, standard.Carried, &most.Carried, commit/32, value/16)
	fill(&f.ErrorText, standard.ErrorText, &most.ErrorText, commit/16, value/8)
	c, e := f.Carried, f.ErrorText
	fill(&f.Spec, standard.Spec, &most.Spec,
		(commit-e-2*c)/3,   // a change
		(commit-3*e-2*c)/2, // an end
		value/2,            // the revision
		value-2*e-c,        // the run
	)
	fill(&f.Document, standard.Document, &most.Document,
		commit-2*f.Spec-e-2*c, // a begin
		value,                 // the plan
	)
	fill(&f.Output, standard.Output, &most.Output,
		commit-f.Spec-5*e-3*c, // an outcome
		value-e-c,             // the step
	)
	fill(&f.LogLine, standard.LogLine, &most.LogLine, commit/4, value/4)
	return f, most
}

// LogChunk returns how many bytes of log lines one record has, and how many bytes of such records one commit writes, if a line has
// up to so many bytes.
func LogChunk(limits store.Limits, line int) (chunk, commit int) {
	const largest = 512 << 10
	commit = 2 * (limits.Value - overhead)
	if limits.Bytes > 0 {
		commit = min(commit, limits.Bytes-overhead)
	}
	return min(commit/2-line, largest), commit
}
