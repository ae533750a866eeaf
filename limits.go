package conveyor

import "github.com/conveyor-go/conveyor/internal/fault"

// Limits bound what the engine accepts and keeps. For each field zero means its default. [New] refuses a negative
// value, and one beyond what a record of a store, or the memory, could ever hold: more than 4 MiB for bytes, more
// than 1,048,576 for the rest, more than 10,000 for Depth. What passes a limit is answered with an [ErrTooLarge] that names the limit, or is cut where the field
// says so. Names have a fixed limit of 253 bytes.
//
// They bound the memory of an engine too, beside what its store holds. An unfinished run that waits, for a time, a signal,
// a driver, a slot, room or a worker, holds less than 1 KiB; of those that wait for a worker, up to 1,024 are kept whole,
// with spec and outputs. The events kept for watchers hold WatchBuffer times ErrorText and 2 KiB at the very most, however
// many watch and however slow they are. A step at work holds its lines of log until they are written, which is about
// 1 MiB, or LogLines times LogLine while the store fails. Up to 1,000 of the engine's own lines wait for a slow logger.
// A goroutine is there for each call of a driver, a given-up one included, and for nothing that waits.
type Limits struct {
	Document      int // bytes of a JSON document; default 2 MiB
	Depth         int // levels of nesting in a JSON document, of which a spec is the second; default 32
	Steps         int // steps of one pipeline, or drivers listening to one type; default 256
	Spec          int // bytes of a spec, and of the metadata of one resource; default 1 MiB
	Output        int // bytes of a step's output as JSON; a larger one fails the attempt; default 256 KiB
	ErrorText     int // bytes kept of an error, of a reason and of a panic's stack; the rest is cut, marked; default 8 KiB
	LogLines      int // lines kept per step; later ones only reach the engine's logger; default 10,000
	LogLine       int // bytes kept of one log line, its attributes included; the rest is cut, marked; default 8 KiB
	Attempts      int // ended attempts kept per step, the newest; default 32
	WatchBuffer   int // events a watcher may fall behind before it gets ErrGap; default 1,024
	Queue         int // runs of one resource that wait in line under the policy queue; default 10,000
	Interruptions int // deaths of the process during one step before its run fails; default 5
}

const (
	defaultDocument      = 2 << 20
	defaultDepth         = 32
	defaultSteps         = 256
	defaultSpec          = 1 << 20
	defaultOutput        = 256 << 10
	defaultErrorText     = 8 << 10
	defaultLogLines      = 10_000
	defaultLogLine       = 8 << 10
	defaultAttempts      = 32
	defaultWatchBuffer   = 1_024
	defaultQueue         = 10_000
	defaultInterruptions = 5
)

// withDefaults fills what is zero.
func (l Limits) withDefaults() Limits {
	for _, f := range l.fields() {
		if *f.value == 0 {
			*f.value = f.standard
		}
	}
	return l
}

type limitField struct {
	name     string
	value    *int
	standard int
	most     int
}

// fields lists the limits of this very l, so that a new one is named once.
func (l *Limits) fields() []limitField {
	return []limitField{
		{"Document", &l.Document, defaultDocument, maxBytesLimit},
		{"Depth", &l.Depth, defaultDepth, maxDepthLimit},
		{"Steps", &l.Steps, defaultSteps, maxCountLimit},
		{"Spec", &l.Spec, defaultSpec, maxBytesLimit},
		{"Output", &l.Output, defaultOutput, maxBytesLimit},
		{"ErrorText", &l.ErrorText, defaultErrorText, maxBytesLimit},
		{"LogLines", &l.LogLines, defaultLogLines, maxCountLimit},
		{"LogLine", &l.LogLine, defaultLogLine, maxBytesLimit},
		{"Attempts", &l.Attempts, defaultAttempts, maxCountLimit},
		{"WatchBuffer", &l.WatchBuffer, defaultWatchBuffer, maxCountLimit},
		{"Queue", &l.Queue, defaultQueue, maxCountLimit},
		{"Interruptions", &l.Interruptions, defaultInterruptions, maxCountLimit},
	}
}

const (
	maxBytesLimit = 4 << 20 // what fits into one record of a store
	maxCountLimit = 1 << 20
	maxDepthLimit = 10_000 // the standard decoder's own
)

func (l *Limits) validate(f *fault.Fields) {
	for _, field := range l.fields() {
		if *field.value < 0 {
			f.Add(fault.Invalidf("Limits."+field.name, "%d is negative", *field.value))
		}
		if *field.value > field.most {
			f.Add(fault.Invalidf("Limits."+field.name, "%d is more than %d", *field.value, field.most))
		}
	}
}
