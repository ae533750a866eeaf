package conveyor

import (
	"fmt"
	"math"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Limits bound what the engine accepts and keeps. A field that is zero has its default, or what the store accepts if this is
// smaller: a store can state limits of its own (see [store.Limited]), and what the engine writes together must fit into one
// commit. [New] rejects a value that does not. It also rejects a negative value and a value that a record of a store, or the
// memory, could never hold: more than 2 MiB for ErrorText, 3 MiB for Spec, 4 MiB for the other bytes, 9,990 for Depth, and
// 1,048,576 for the rest. Input over a limit is rejected with an
// [ErrTooLarge] that names the limit, or is cut if the field says so. Names have a fixed limit of 253 bytes.
//
// Bytes are counted as they are recorded, which is as JSON. A line end in an error, a reason or a log line therefore
// counts as 2 bytes, and most other control characters count as 6.
//
// Limits also bound the memory that an engine needs besides its store:
//
//   - An unfinished run that waits (for a time, a signal, a driver, a slot, the run limit of its pipeline, or a
//     worker) needs less than 1 KiB. Of the runs that wait for a worker, up to 1,024 are kept completely, with spec
//     and outputs.
//   - The events that are kept for watchers need at most WatchBuffer times (ErrorText + 2 KiB), independent of the
//     number and the speed of the watchers.
//   - A running step keeps its log lines until they are written. These are about 1 MiB, and as much again while they are
//     being written, or one line if that is larger. A step that logs faster than the store writes waits for the store, but
//     for at most a second as long as the store writes nothing. Then, and beyond LogLines, lines between the first and the
//     newest ones are dropped (see [LogLine].Dropped).
//   - Up to 1,000 of the engine's own log lines wait for a slow logger.
//   - Each call of a driver has a goroutine, also an abandoned call. A run that waits has none.
type Limits struct {
	Document    int // bytes of a JSON document; default 2 MiB
	Depth       int // levels of nesting in a JSON document; a spec is the second level; default 32
	Steps       int // steps of one pipeline, or drivers listening to one type; default 256
	Spec        int // bytes of a spec, and also of the metadata of one resource, as JSON; default 1 MiB
	Output      int // bytes of a step's output as JSON; a larger one fails the attempt; default 256 KiB
	ErrorText   int // bytes kept of an error, of a reason, and of the stack of a panic; the rest is cut, with a mark; default 8 KiB
	LogLines    int // lines kept per step: the first half and the newest ones (see [LogLine].Dropped); default 10,000
	LogLine     int // bytes kept of one log line, attributes included; the rest is cut, with a mark; default 8 KiB
	Attempts    int // ended attempts kept per step, the newest ones; default 32
	WatchBuffer int // events that a watcher can fall behind before it gets ErrGap; default 1,024

	// Queue is the number of runs of one resource that wait to begin under the policy [Queue], for whatever they wait. A
	// deletion counts, and is accepted beyond the limit. Default 10,000.
	Queue int
	// Interruptions is the number of deaths of the process that a step survives; one more fails it. A death counts only if
	// no other step was at work, and the count begins anew when the step writes a checkpoint or a log line. Default 5.
	Interruptions int
	// Carried is the number of bytes of what [Options].Carry returns for one call, all names and values together, as JSON.
	// Default 4 KiB.
	Carried int
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
	defaultCarried       = 4 << 10
)

// withDefaults returns l with the default in each field that is zero, or with what a store of these limits accepts if this is
// smaller.
func (l Limits) withDefaults(accepts store.Limits) Limits {
	if record.Bounded(accepts) {
		filled, _ := l.fill(accepts)
		for _, f := range l.sized(&filled) {
			*f.limit = *f.size
		}
	}
	for _, f := range l.fields() {
		if *f.value == 0 {
			*f.value = f.standard
		}
	}
	return l
}

// standardLimits returns the defaults.
func standardLimits() Limits { return Limits{}.withDefaults(store.Limits{}) }

// sizedField is a limit that decides how large records become.
type sizedField struct {
	name        string
	limit, size *int
}

// sized returns the limits that decide how large records become, with pointers to the fields of l and of s.
func (l *Limits) sized(s *record.Sizes) []sizedField {
	return []sizedField{
		{"Document", &l.Document, &s.Document},
		{"Spec", &l.Spec, &s.Spec},
		{"Output", &l.Output, &s.Output},
		{"ErrorText", &l.ErrorText, &s.ErrorText},
		{"LogLine", &l.LogLine, &s.LogLine},
		{"Carried", &l.Carried, &s.Carried},
	}
}

// fill returns the sizes of records with the defaults, and the largest ones that a store of these limits accepts.
func (l Limits) fill(accepts store.Limits) (filled, most record.Sizes) {
	var s record.Sizes
	for _, f := range l.sized(&s) {
		*f.size = *f.limit
	}
	return s.Fill(accepts, record.Sizes{
		Document: defaultDocument, Spec: defaultSpec, Output: defaultOutput, ErrorText: defaultErrorText, LogLine: defaultLogLine,
		Carried: defaultCarried,
	})
}

// validateStore adds a fault to f if a store accepts too little for any engine, and for each limit that is larger than the store
// accepts.
func (l Limits) validateStore(accepts store.Limits, f *fault.Fields) {
	if !record.Bounded(accepts) || f.Any() {
		return
	}
	for _, least := range []struct {
		of, least int
		what      string
	}{
		{accepts.Ops, record.LeastOps, "ops in a commit"},
		{accepts.Bytes, record.LeastBytes, "bytes in a commit"},
		{accepts.Value, record.LeastValue, "bytes in a value"},
	} {
		if least.of > 0 && least.of < least.least {
			f.Add(fault.Invalidf("store", "accepts %d %s, fewer than the %d that an engine needs; raise the limit of the server", least.of, least.what, least.least))
		}
	}
	if f.Any() {
		return
	}
	together := fmt.Sprintf("a commit of %d bytes", accepts.Bytes)
	if accepts.Bytes == 0 {
		together = fmt.Sprintf("a value of %d bytes", accepts.Value)
	}
	_, most := l.fill(accepts)
	for _, field := range l.sized(&most) {
		if *field.limit > *field.size {
			f.Add(fault.Invalidf("Limits."+field.name, "%d, more than this store accepts (%d, so that all that is written together fits into %s); lower it or raise the limit of the server",
				*field.limit, *field.size, together))
		}
	}
}

// limitField is one limit: its name, a pointer to its value, its default and its maximum.
type limitField struct {
	name     string
	value    *int
	standard int
	most     int
	why      string // the reason for the maximum
}

// fields returns all limits, with pointers to the fields of l. A new limit needs to be added here only.
func (l *Limits) fields() []limitField {
	return []limitField{
		{"Document", &l.Document, defaultDocument, maxBytesLimit, "a document is one record" + ofTheStore},
		{"Depth", &l.Depth, defaultDepth, maxDepthLimit, "package encoding/json reads at most 10,000 levels, and a record adds some"},
		{"Steps", &l.Steps, defaultSteps, maxCountLimit, inMemory},
		{"Spec", &l.Spec, defaultSpec, maxSpecLimit, "a spec and metadata of that size must fit into one record" + ofTheStore},
		{"Output", &l.Output, defaultOutput, maxBytesLimit, "an output and a text of Limits.ErrorText must fit into one record" + ofTheStore},
		{"ErrorText", &l.ErrorText, defaultErrorText, maxTextLimit, "two such texts and metadata of Limits.Spec must fit into one record" + ofTheStore},
		{"LogLines", &l.LogLines, defaultLogLines, maxCountLimit, inMemory},
		{"LogLine", &l.LogLine, defaultLogLine, maxBytesLimit, "a line and those that are written with it must fit into one record" + ofTheStore},
		{"Attempts", &l.Attempts, defaultAttempts, maxCountLimit, inMemory},
		{"WatchBuffer", &l.WatchBuffer, defaultWatchBuffer, maxCountLimit, inMemory},
		{"Queue", &l.Queue, defaultQueue, maxCountLimit, inMemory},
		{"Interruptions", &l.Interruptions, defaultInterruptions, maxCountLimit, inMemory},
		{"Carried", &l.Carried, defaultCarried, maxCarriedLimit, "it is in the records of a run, of its resource and of its signals, which other limits fill too"},
	}
}

// The largest limits. The largest record is that of a run: metadata of maxSpecLimit, two texts of maxTextLimit, what is
// carried, and about 4 KiB of names and numbers. It must not be larger than store.MaxValue, which is 8 MiB.
const (
	maxBytesLimit = 4 << 20
	maxSpecLimit  = 3 << 20
	maxTextLimit  = 2 << 20

	maxCarriedLimit = 64 << 10
	maxCountLimit   = 1 << 20
	maxDepthLimit   = 9_990 // encoding/json refuses more than 10,000; an output is one level deeper in the record of its step

	ofTheStore = " of a store, which has at most 8 MiB"
	inMemory   = "the memory could not hold it"
)

func (l *Limits) validate(f *fault.Fields) {
	for _, field := range l.fields() {
		if *field.value < 0 {
			f.Add(fault.Invalidf("Limits."+field.name, "%d is negative", *field.value))
		}
		if *field.value > field.most {
			f.Add(fault.Invalidf("Limits."+field.name, "%d is more than %d, the maximum: %s", *field.value, field.most, field.why))
		}
	}
}

// Retention bounds what is kept of the past of each resource. The zero value keeps everything.
//
// Retention is applied in the background: each time a run of the resource ends, after every 256th generation, when Age
// covers another run of a resource at rest, and to everything after Start. What a shutdown or a crash leaves is removed
// after the next Start. [Engine.Prune] applies it at once. The work is in proportion to what is removed. Only Age, while
// resources are at rest, has all resources looked at; this takes at most a twentieth of the time, so that in a store with
// very many resources runs can stay longer than Age by some minutes.
//
// Some records are never removed, with any setting: runs that have not ended, runs that an unfinished run repeats,
// the newest run of a resource and the newest ended one that has had steps, its current generation, and the generations
// that unfinished runs have pinned. A run is not removed while a caller of [Engine.Wait] or [Engine.Logs] that came before
// its end still reads it. The steps, the attempts and the log of a run are removed together with the run. Its checkpoints,
// and the signals that no step took, are removed when the run ends.
//
// The runs of a deleted resource are under the same limits, counted over all resources that had the name, and Age removes
// even the newest of them. Without Age, the newest Runs of them are kept. Of the name itself only its last generation and
// the number of its last run stay, because a new resource of the name continues from them.
//
// If any limit is set, the definitions of deleted pipelines and the former definitions of pipelines are removed after the
// next Start if no run on record has pinned them.
type Retention struct {
	// Runs is the number of ended runs to keep, those with the highest [Run].Number. A run that was canceled before it
	// began can be kept beyond this number until the runs that were queued before it have ended. 0 means all.
	Runs int
	// Age is the maximum age of a kept run, counted from its end. 0 means no limit.
	Age time.Duration
	// Revisions is the number of generations to keep, the newest ones. 0 means all.
	Revisions int
}

func (r Retention) validate(f *fault.Fields) {
	if r.Runs < 0 {
		f.Add(fault.Invalidf("Retention.Runs", "%d is negative", r.Runs))
	}
	if r.Age < 0 {
		f.Add(fault.Invalidf("Retention.Age", "%s is negative", r.Age))
	}
	if r.Revisions < 0 {
		f.Add(fault.Invalidf("Retention.Revisions", "%d is negative", r.Revisions))
	}
}

// RetryPolicy defines how often a failed attempt is repeated, and after which delay. Policies are combined field by
// field. A field that is zero in the policy of a step is taken from the policy of the pipeline, then of the driver,
// then from [Options].Retry, and then from the default. The delay before attempt n+1 is Initial·Multiplierⁿ⁻¹, at
// most Max. The delay is then changed at random by up to the fraction Jitter, up or down. A delay of less than 10ms counts
// as 10ms.
type RetryPolicy struct {
	MaxAttempts int      `json:"maxAttempts,omitempty"` // maximum number of attempts in a row that fail, the first one included; default 3; -1 means no limit
	Initial     Duration `json:"initial,omitzero"`      // default 1s
	Max         Duration `json:"max,omitzero"`          // default 1m; an Initial that is larger than Max counts as Max
	Multiplier  float64  `json:"multiplier,omitempty"`  // at least 1; default 2
	Jitter      float64  `json:"jitter,omitempty"`      // fraction of the delay, at most 1; default 0.2; -1 means none
}

func validateRetry(p RetryPolicy, field string, f *fault.Fields) {
	if p.MaxAttempts < -1 {
		f.Add(fault.Invalidf(field+".maxAttempts", "%d is less than -1", p.MaxAttempts))
	}
	if p.Initial < 0 {
		f.Add(fault.Invalidf(field+".initial", "%s is negative", p.Initial))
	}
	if p.Max < 0 {
		f.Add(fault.Invalidf(field+".max", "%s is negative", p.Max))
	}
	if p.Multiplier != 0 && !(p.Multiplier >= 1 && p.Multiplier <= math.MaxFloat32) {
		f.Add(fault.Invalidf(field+".multiplier", "%v is not 1 or more", p.Multiplier))
	}
	if p.Jitter != -1 && !(p.Jitter >= 0 && p.Jitter <= 1) {
		f.Add(fault.Invalidf(field+".jitter", "%v is neither -1 nor between 0 and 1", p.Jitter))
	}
}
