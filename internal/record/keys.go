package record

import (
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/store"
)

// What is kept, and under which key. Names hold no slash, so that a key splits in one way only, and no key is the
// prefix of another resource's, run's or step's keys. Run ids sort by time, so new records of a kind lie side by
// side in an ordered store.
//
//	format                      the version of all this
//	res/TYPE/NAME               a resource without its spec: resourceRecord
//	rev/TYPE/NAME/GENERATION    the spec of one generation: revisionRecord
//	rix/TYPE/NAME/RUN           the runs of a resource: empty
//	tmb/TYPE/NAME               a name whose resource was deleted: graveRecord
//	que/TYPE/NAME/PLACE         a run that is queued behind another queued one: queueRecord
//	rsy/DUE/TYPE/NAME           when a resource is to be run again: empty. What is due comes first.
//	unh/TYPE/NAME               resources without a pipeline that no driver listened to: empty
//	pip/NAME                    the pipeline as it is now: pipelineRecord
//	pir/NAME/HASH               a definition it has or had, never changed: PipelineSpec
//	run/RUN                     a run: runRecord; written when it is queued, starts, is told to stop, and ends
//	act/RUN                     the runs that have not ended: empty. Recovery reads these and never the history.
//	pln/RUN                     the plan of a run whose steps are not those of a definition: plan
//	stp/RUN/STEP                a step: stepRecord, written at the start and the end of each attempt
//	att/RUN/STEP/ATTEMPT        an attempt that failed: attemptRecord
//	ckp/RUN/STEP                what a step has saved in between: any JSON
//	sig/RUN/NAME/ID             a signal that nobody has taken yet: any JSON. The ids sort by the time they came.
//	log/RUN/SEQ                 log lines from the numbered one on: []LogLine
//
// Numbers in keys are 16 hexadecimal digits, so that they sort. Every record is a JSON object whose unknown fields
// are passed over; a change that an older program must not pass over raises recordFormat.
const (
	Version = 1

	FormatKey        = "format"
	ResourcePrefix   = "res/"
	revisionPrefix   = "rev/"
	runIndexPrefix   = "rix/"
	gravePrefix      = "tmb/"
	queuePrefix      = "que/"
	ResyncPrefix     = "rsy/"
	UnheardPrefix    = "unh/"
	PipelinePrefix   = "pip/"
	pipelineHistory  = "pir/"
	RunPrefix        = "run/"
	ActivePrefix     = "act/"
	planPrefix       = "pln/"
	stepPrefix       = "stp/"
	attemptPrefix    = "att/"
	CheckpointPrefix = "ckp/"
	SignalPrefix     = "sig/"
	logPrefix        = "log/"
)

func ResourceKey(k Key) string { return ResourcePrefix + k.Type + "/" + k.Name }

func RevisionsOf(k Key) string { return revisionPrefix + k.Type + "/" + k.Name + "/" }

func RevisionKey(k Key, gen int64) string { return fmt.Sprintf("%s%016x", RevisionsOf(k), gen) }

func RunsOf(k Key) string { return runIndexPrefix + k.Type + "/" + k.Name + "/" }

func TombstoneKey(k Key) string { return gravePrefix + k.Type + "/" + k.Name }

func PendingOf(k Key) string { return queuePrefix + k.Type + "/" + k.Name + "/" }

func PendingKey(k Key, place int64) string { return PendingOf(k) + hex16(place) }

func ResyncKey(due Time, k Key) string {
	return ResyncPrefix + hex16(int64(due)) + "/" + k.Type + "/" + k.Name
}

func ParseResyncKey(key string) (due Time, k Key, err error) {
	parts := strings.Split(strings.TrimPrefix(key, ResyncPrefix), "/")
	if len(parts) == 3 {
		_, err = fmt.Sscanf(parts[0], "%x", &due)
		k = Key{Type: parts[1], Name: parts[2]}
	}
	if len(parts) != 3 || err != nil {
		return 0, Key{}, fmt.Errorf("%w: key %s", store.ErrCorrupt, key)
	}
	return due, k, nil
}

func UnlistenedKey(k Key) string { return UnheardPrefix + k.Type + "/" + k.Name }

func PipelineKey(name string) string { return PipelinePrefix + name }

func DefinitionKey(name, hash string) string { return pipelineHistory + name + "/" + hash }

func RunKey(run string) string { return RunPrefix + run }

func ActiveKey(run string) string { return ActivePrefix + run }

func PlanKey(run string) string { return planPrefix + run }

func StepsOf(run string) string { return stepPrefix + run + "/" }

func StepKey(run, step string) string { return stepPrefix + run + "/" + step }

func AttemptsOf(run string) string { return attemptPrefix + run + "/" }

func AttemptKey(run, step string, n int) string {
	return attemptPrefix + run + "/" + step + "/" + hex16(int64(n))
}

func CheckpointKey(run, step string) string { return CheckpointPrefix + run + "/" + step }

func SignalsOf(run, name string) string { return SignalPrefix + run + "/" + name + "/" }

func LogsOf(run string) string { return logPrefix + run + "/" }

func LogKey(run string, seq int64) string { return LogsOf(run) + hex16(seq) }

// hex16 is a number as keys hold it.
func hex16(n int64) string {
	const digits = "0123456789abcdef"
	var b [16]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = digits[n&15]
		n >>= 4
	}
	return string(b[:])
}
