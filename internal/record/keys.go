package record

import (
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Version is the version of the records. Every record is a JSON object, and a reader ignores the fields that it does not
// know. A change that an older program must not ignore increases Version.
//
//	1  the first format
//	2  a plan and a definition have the rule by which After orders their steps: plan.Rule
//	   the index of the runs of a resource is in the order of their numbers; see [RunIndexKey]
//	3  pauses hold what they name: [Pause]; a signal is recorded with its origin: [Signal]
//	4  runs have owners: [Ownership]. Only shared stores have it.
const Version = 3

// SharedVersion is the version of the records on a shared store. A program that does not know of other engines must not open it.
// Programs of several versions work there at the same time while they are upgraded, so a later version does not change the format of
// the store: each record says by itself what it needs (see [Rewritable]).
const SharedVersion = 4

// The keys, and what is kept under each of them. A name contains no slash. Therefore a key can be divided into names in
// one way only, and the prefix of the keys of one resource, run or step is never a prefix of a key of another one. Run
// ids sort by time. Therefore new records of a kind stand side by side in an ordered store.
//
//	format                      the version of the records: Format
//	res/TYPE/NAME               a resource without its spec: Resource
//	rev/TYPE/NAME/GENERATION    the spec of one generation: Revision
//	rix/TYPE/NAME/~NUMBER/RUN   the index of the runs of a resource: empty
//	rix/TYPE/NAME/RUN           the same for a run that has no number
//	tmb/TYPE/NAME               a name whose resource was deleted: Tombstone
//	que/TYPE/NAME/PLACE         a run that is pending behind another pending run: Pending
//	rsy/DUE/TYPE/NAME           the time at which a resource is to be reconciled again: empty. The earliest sorts first.
//	unh/TYPE/NAME               a resource without a pipeline for which no driver was registered (unlistened): empty
//	pip/NAME                    a pipeline as it is now: Pipeline
//	pir/NAME/HASH               a present or former definition of a pipeline: its JSON document with the rule of its order.
//	                            It is never changed.
//	run/RUN                     a run: Run. Written when the run is queued, when it starts, when it is told to stop, when
//	                            the outcome of its steps is known, and when it ends.
//	act/RUN                     a run that has not ended: empty. Recovery reads these keys and never the history.
//	pln/RUN                     the plan of a run whose steps are not those of a definition: plan.Plan
//	stp/RUN/STEP                a step: Step. Written at the start and at the end of each attempt.
//	att/RUN/STEP/ATTEMPT        a failed attempt: Attempt
//	ckp/RUN/STEP                the checkpoint that a step has saved: any JSON
//	sig/RUN/NAME/ID~            a signal that no step has taken yet: Signal. The ids sort by the time of arrival.
//	sig/RUN/NAME/ID             the same in the first two formats: its payload, any JSON
//	log/RUN/SEQ                 log lines, beginning with the line SEQ: []LogLine
//	pse/KIND[/NAME...]          what is paused: Pause. See [PauseKey].
//
// A shared store has besides:
//
//	eng/ENGINE                  an engine: Engine. Written when it starts, and when it is marked dead.
//	hbt/ENGINE                  its heartbeat: Heartbeat
//	own/ENGINE/RUN              a run that the engine owns: empty
//	rdy/any/LANE/DUE/RUN        a run without an owner that any engine can begin, or is to look at: empty. See [ReadyKey].
//	rdy/drv/DRIVER/LANE/DUE/RUN a run without an owner that has begun, and needs a driver: empty
//	ask/ENGINE/RUN              a run of which somebody asks something: empty. It wakes the owner; what is asked is in the
//	                            record of the run.
//	slt/PIPELINE/N              a place among the runs of a pipeline that can be active: the run that has it
//	pse                         empty. Each change of a pause writes it, so that its revision is the generation of the pauses.
//	lst/TYPE/DRIVER             a driver that listens to a type, of whatever engine: empty
//	let/ID                      a resource that somebody has asked for, in a transaction of his own: Letter
//	ltr/ID                      what has become of it: Answered
//
// There, the keys of what comes and goes have one more letter in front; see package shortlived.
//
// A number in a key has 16 hexadecimal digits, so that keys sort by number.
const (
	FormatKey        = "format"
	ResourcePrefix   = "res/"
	revisionPrefix   = "rev/"
	runIndexPrefix   = "rix/"
	TombstonePrefix  = "tmb/"
	PendingPrefix    = "que/"
	ResyncPrefix     = "rsy/"
	UnlistenedPrefix = "unh/"
	PipelinePrefix   = "pip/"
	DefinitionPrefix = "pir/"
	RunPrefix        = "run/"
	ActivePrefix     = "act/"
	planPrefix       = "pln/"
	StepPrefix       = "stp/"
	attemptPrefix    = "att/"
	CheckpointPrefix = "ckp/"
	SignalPrefix     = "sig/"
	logPrefix        = "log/"
	PausePrefix      = "pse/"
	PausesKey        = "pse"
	EnginePrefix     = "eng/"
	HeartbeatPrefix  = "hbt/"
	OwnedPrefix      = "own/"
	ReadyPrefix      = "rdy/"
	AskPrefix        = "ask/"
	SlotPrefix       = "slt/"
	ListenerPrefix   = "lst/"
	LetterPrefix     = "let/"
	AnsweredPrefix   = "ltr/"
)

// ResourceKey returns the key of a [Resource].
func ResourceKey(k Key) string { return ResourcePrefix + k.Type + "/" + k.Name }

// RevisionsOf returns the prefix of the keys of all revisions of a resource.
func RevisionsOf(k Key) string { return revisionPrefix + k.Type + "/" + k.Name + "/" }

// IsRevisionKey reports whether a key is that of a [Revision].
func IsRevisionKey(key string) bool { return strings.HasPrefix(key, revisionPrefix) }

// RevisionKey returns the key of the [Revision] with a generation.
func RevisionKey(k Key, gen int64) string { return fmt.Sprintf("%s%016x", RevisionsOf(k), gen) }

// RunsOf returns the prefix of the index of the runs of a resource.
func RunsOf(k Key) string { return runIndexPrefix + k.Type + "/" + k.Name + "/" }

// RunIndexKey returns the key that lists a run under its resource. The keys of a resource sort by the numbers of the runs.
// The runs without a number come first, in the order of their ids: no id begins with a tilde, and every id sorts before one.
func RunIndexKey(k Key, number int64, run string) string {
	if number == 0 {
		return RunsOf(k) + run
	}
	return NumberedRunsOf(k) + hex16(number) + "/" + run
}

// NumberedRunsOf returns the prefix of the part of the index of the runs of a resource that lists the runs with numbers.
func NumberedRunsOf(k Key) string { return RunsOf(k) + "~" }

// ParseRunIndexKey returns the number and the id of the run of a key that [RunIndexKey] has made. For any other key, it
// returns an error that wraps [store.ErrCorrupt].
func ParseRunIndexKey(key string) (number int64, run string, err error) {
	parts := strings.Split(strings.TrimPrefix(key, runIndexPrefix), "/")
	switch {
	case len(parts) == 3 && parts[2] != "" && parts[2][0] != '~':
		return 0, parts[2], nil
	case len(parts) == 4 && strings.HasPrefix(parts[2], "~") && parts[3] != "":
		if number, ok := ParseNumber(parts[2][1:]); ok && number > 0 {
			return number, parts[3], nil
		}
	}
	return 0, "", BadKey(key)
}

// ParseNamedKey returns the resource of a key that [ResourceKey] or [TombstoneKey] has made. For any other key, it returns an
// error that wraps [store.ErrCorrupt].
func ParseNamedKey(key string) (Key, error) {
	parts := strings.Split(key, "/")
	if len(parts) != 3 {
		return Key{}, BadKey(key)
	}
	return Key{Type: parts[1], Name: parts[2]}, nil
}

// TombstoneKey returns the key of a [Tombstone].
func TombstoneKey(k Key) string { return TombstonePrefix + k.Type + "/" + k.Name }

// PendingOf returns the prefix of the keys of the [Pending] records of a resource.
func PendingOf(k Key) string { return PendingPrefix + k.Type + "/" + k.Name + "/" }

// PendingKey returns the key of the [Pending] record at a place.
func PendingKey(k Key, place int64) string { return PendingOf(k) + hex16(place) }

// ResyncKey returns the key that marks a resource as due for a resync at a time.
func ResyncKey(due Time, k Key) string {
	return ResyncPrefix + hex16(int64(due)) + "/" + k.Type + "/" + k.Name
}

// ParseResyncKey returns the due time and the resource of a key that [ResyncKey] has made. For any other key, it returns
// an error that wraps [store.ErrCorrupt].
func ParseResyncKey(key string) (due Time, k Key, err error) {
	number, resource, _ := strings.Cut(strings.TrimPrefix(key, ResyncPrefix), "/")
	kind, name, _ := strings.Cut(resource, "/")
	at, ok := ParseNumber(number)
	if !ok || !strings.HasPrefix(key, ResyncPrefix) || text.NameFault(kind) != "" || text.NameFault(name) != "" {
		return 0, Key{}, BadKey(key)
	}
	return Time(at), Key{Type: kind, Name: name}, nil
}

// BadKey returns the error for a key that no function of this package has made. It wraps [store.ErrCorrupt].
func BadKey(key string) error { return fmt.Errorf("%w: key %q", store.ErrCorrupt, key) }

// UnlistenedKey returns the key that marks a resource without a pipeline for which no driver was registered.
func UnlistenedKey(k Key) string { return UnlistenedPrefix + k.Type + "/" + k.Name }

// PipelineKey returns the key of a [Pipeline].
func PipelineKey(name string) string { return PipelinePrefix + name }

// DefinitionKey returns the key of a definition of a pipeline.
func DefinitionKey(name, hash string) string { return DefinitionPrefix + name + "/" + hash }

// RunKey returns the key of a [Run].
func RunKey(run string) string { return RunPrefix + run }

// ActiveKey returns the key that marks a run as not ended.
func ActiveKey(run string) string { return ActivePrefix + run }

// PlanKey returns the key of the plan of a run whose steps are not those of a definition.
func PlanKey(run string) string { return planPrefix + run }

// StepsOf returns the prefix of the keys of the steps of a run. The id of a step follows the prefix.
func StepsOf(run string) string { return StepPrefix + run + "/" }

// StepKey returns the key of a [Step].
func StepKey(run, step string) string { return StepPrefix + run + "/" + step }

// AttemptsOf returns the prefix of the keys of the failed attempts of a run.
func AttemptsOf(run string) string { return attemptPrefix + run + "/" }

// AttemptKey returns the key of a failed [Attempt].
func AttemptKey(run, step string, n int) string {
	return attemptPrefix + run + "/" + step + "/" + hex16(int64(n))
}

// CheckpointKey returns the key of the checkpoint of a step.
func CheckpointKey(run, step string) string { return CheckpointPrefix + run + "/" + step }

// SignalsOf returns the prefix of the keys of the signals with a name for a run. The id of a signal follows the prefix.
func SignalsOf(run, name string) string { return SignalPrefix + run + "/" + name + "/" }

// SignalKey returns the key of a [Signal].
func SignalKey(run, name, id string) string { return SignalsOf(run, name) + id + withOrigin }

// SignalID returns the id that is part of the key of a signal, whatever the format of its record is.
func SignalID(key string) string {
	return strings.TrimSuffix(key[strings.LastIndexByte(key, '/')+1:], withOrigin)
}

// SignalName returns the name of a signal from its key, without the prefix of the signals of the run.
func SignalName(rest string) string {
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// LogsOf returns the prefix of the keys of the log lines of a run.
func LogsOf(run string) string { return logPrefix + run + "/" }

// LogKey returns the key of a record of log lines that begins with the line seq.
func LogKey(run string, seq int64) string { return LogsOf(run) + hex16(seq) }

// ParseNumber returns the number that is written as keys contain it: as exactly 16 small hexadecimal
// digits. No key contains a negative number.
func ParseNumber(digits string) (n int64, ok bool) {
	if len(digits) != 16 {
		return 0, false
	}
	for i := range len(digits) {
		switch c := digits[i]; {
		case c >= '0' && c <= '9':
			n = n<<4 | int64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | int64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, n >= 0
}

// hex16 returns a number in the form in which keys contain it.
func hex16(n int64) string {
	const digits = "0123456789abcdef"
	var b [16]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = digits[n&15]
		n >>= 4
	}
	return string(b[:])
}
