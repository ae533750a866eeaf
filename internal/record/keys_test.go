package record

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/store"
)

// names are valid, and often begin with each other.
var names = rapid.OneOf(
	rapid.SampledFrom([]string{"a", "aa", "ab", "a.b", "a-", "a_", "0", "00", "A", "run", "res"}),
	rapid.StringMatching(`[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}`),
)

var numbers = rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, math.MaxInt64))

var resources = rapid.Custom(func(t *rapid.T) Key { return Key{names.Draw(t, "type"), names.Draw(t, "name")} })

// keysOf returns one key of each kind, with what it was made from.
func keysOf(t *rapid.T) map[string]string {
	k, run, step, name := resources.Draw(t, "resource"), names.Draw(t, "run"), names.Draw(t, "step"), names.Draw(t, "name")
	n := numbers.Draw(t, "n")
	of, number := " of "+k.String(), " "+hex16(n)
	return map[string]string{
		"format":                                  FormatKey,
		"resource" + of:                           ResourceKey(k),
		"revision" + of + number:                  RevisionKey(k, n),
		"index" + of + number + " " + run:         RunIndexKey(k, n, run),
		"tombstone" + of:                          TombstoneKey(k),
		"pending" + of + number:                   PendingKey(k, n),
		"resync" + of + number:                    ResyncKey(Time(n), k),
		"unlistened" + of:                         UnlistenedKey(k),
		"pipeline " + name:                        PipelineKey(name),
		"definition " + name + "/" + run:          DefinitionKey(name, run),
		"run " + run:                              RunKey(run),
		"active " + run:                           ActiveKey(run),
		"plan " + run:                             PlanKey(run),
		"step " + run + "/" + step:                StepKey(run, step),
		"attempt " + run + "/" + step + number:    AttemptKey(run, step, int(n)),
		"checkpoint " + run + "/" + step:          CheckpointKey(run, step),
		"signal " + run + "/" + name + "/" + step: SignalsOf(run, name) + step,
		"log " + run + number:                     LogKey(run, n),
		"engine " + run:                           EngineKey(run),
		"heartbeat " + run:                        HeartbeatKey(run),
		"owned " + name + "/" + run:               OwnedKey(name, run),
		"ask " + name + "/" + run:                 AskKey(name, run),
		"ready " + name + "/" + run + number:      ReadyKey(Ready{Lane: name, Due: Time(n), Run: run}),
		"needed " + step + name + run + number:    ReadyKey(Ready{Driver: step, Lane: name, Due: Time(n), Run: run}),
	}
}

// prefixesOf returns the prefixes that are listed for a resource and for a run.
func prefixesOf(k Key, run, name string) []string {
	return []string{
		RevisionsOf(k), RunsOf(k), PendingOf(k), StepsOf(run), AttemptsOf(run), LogsOf(run), SignalsOf(run, name),
		CheckpointPrefix + run + "/", SignalPrefix + run + "/", UnlistenedPrefix + k.Type + "/",
	}
}

func TestKeysOfDifferentThingsDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first, second := keysOf(t), keysOf(t)
		seen := map[string]string{}
		for _, keys := range []map[string]string{first, second} {
			for what, key := range keys {
				if other, ok := seen[key]; ok {
					require.Equal(t, other, what, "one key: %s", key)
				}
				seen[key] = what
				require.LessOrEqual(t, len(key), store.MaxKey)
			}
		}
	})
}

// Whoever lists a prefix gets what belongs to one resource, one run, or one name, and nothing else.
func TestNoPrefixContainsKeysOfAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, other := resources.Draw(t, "resource"), resources.Draw(t, "other resource")
		run, otherRun := names.Draw(t, "run"), names.Draw(t, "other run")
		name, otherName := names.Draw(t, "signal"), names.Draw(t, "other signal")
		mine, others := prefixesOf(k, run, name), prefixesOf(other, otherRun, otherName)
		for i, prefix := range mine {
			for j, foreign := range others {
				if !strings.HasPrefix(foreign, prefix) {
					continue
				}
				// The signals of one name are among the signals of the run.
				inside := strings.HasPrefix(prefix, SignalPrefix) && run == otherRun
				require.True(t, inside || i == j && foreign == prefix, "%s is inside %s", foreign, prefix)
			}
		}
		for kind, prefix := range []string{ResourcePrefix, ResyncPrefix, UnlistenedPrefix, PipelinePrefix, RunPrefix, ActivePrefix, CheckpointPrefix,
			SignalPrefix, revisionPrefix, runIndexPrefix, TombstonePrefix, PendingPrefix, DefinitionPrefix, planPrefix, StepPrefix, attemptPrefix, logPrefix} {
			count := 0
			for _, key := range keysOf(t) {
				if strings.HasPrefix(key, prefix) {
					count++
				}
			}
			require.Equal(t, 1, count, "prefix %d: %s", kind, prefix)
		}
	})
}

func TestNumbersInKeysSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, a, b := resources.Draw(t, "resource"), numbers.Draw(t, "a"), numbers.Draw(t, "b")
		for _, keys := range [][2]string{
			{RevisionKey(k, a), RevisionKey(k, b)}, {PendingKey(k, a), PendingKey(k, b)}, {LogKey("r", a), LogKey("r", b)},
			{ResyncKey(Time(a), k), ResyncKey(Time(b), k)}, {AttemptKey("r", "s", int(a)), AttemptKey("r", "s", int(b))},
		} {
			require.Equal(t, a < b, keys[0] < keys[1])
			require.Equal(t, a == b, keys[0] == keys[1])
		}
	})
}

func TestTheIndexOfRunsSortsByNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, a, b := resources.Draw(t, "resource"), numbers.Draw(t, "a"), numbers.Draw(t, "b")
		run, other := names.Draw(t, "run"), names.Draw(t, "other run")
		key, otherKey := RunIndexKey(k, a, run), RunIndexKey(k, b, other)
		switch {
		case a != b: // 0 is no number, and comes first
			require.Equal(t, a < b, key < otherKey)
		default:
			require.Equal(t, run < other, key < otherKey)
		}
		require.Equal(t, a > 0, strings.HasPrefix(key, NumberedRunsOf(k)))
		number, got, err := ParseRunIndexKey(key)
		require.NoError(t, err)
		require.Equal(t, a, number)
		require.Equal(t, run, got)
	})
	for _, key := range []string{"", "rix/build/app", "rix/build/app/", "rix/build/app/~1", "rix/build/app/~x/r", "rix/build/app/~0/r", "rix/build/app/1/r", "rix/a/b/~1/r/s"} {
		_, _, err := ParseRunIndexKey(key)
		require.ErrorIs(t, err, store.ErrCorrupt, key)
	}
}

func TestParseNamedKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := resources.Draw(t, "resource")
		for _, key := range []string{ResourceKey(k), TombstoneKey(k)} {
			got, err := ParseNamedKey(key)
			require.NoError(t, err)
			require.Equal(t, k, got)
		}
	})
	_, err := ParseNamedKey("res/build")
	require.ErrorIs(t, err, store.ErrCorrupt)
}

func TestParseResyncKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		due, k := Time(numbers.Draw(t, "due")), resources.Draw(t, "resource")
		gotDue, got, err := ParseResyncKey(ResyncKey(due, k))
		require.NoError(t, err)
		require.Equal(t, due, gotDue)
		require.Equal(t, k, got)
	})
	for _, c := range []struct{ name, key string }{
		{"nothing", ""},
		{"the prefix alone", "rsy/"},
		{"no resource", "rsy/0000000000000001"},
		{"no name", "rsy/0000000000000001/build"},
		{"too many names", "rsy/0000000000000001/build/app/x"},
		{"no number", "rsy//build/app"},
		{"a number that is none", "rsy/soon/build/app"},
		{"a number with letters behind it", "rsy/12zz/build/app"},
		{"a number with letters in its place", "rsy/00000000000012zz/build/app"},
		{"a number that is too short", "rsy/12/build/app"},
		{"a number that is too long", "rsy/00000000000000001/build/app"},
		{"a number with a sign", "rsy/+000000000000001/build/app"},
		{"a number in capitals", "rsy/000000000000000A/build/app"},
		{"another prefix", "0000000000000001/build/app"},
		{"a type that is no name", "rsy/0000000000000001/.build/app"},
		{"a name that is no name", "rsy/0000000000000001/build/a b"},
		{"a number that is too large", "rsy/ffffffffffffffff/build/app"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := ParseResyncKey(c.key)
			require.ErrorIs(t, err, store.ErrCorrupt)
			require.ErrorContains(t, err, c.key)
		})
	}
}

func TestEntriesOfReadyRunsAreReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Ready{
			Driver: rapid.OneOf(rapid.Just(""), names).Draw(t, "driver"), Due: Time(numbers.Draw(t, "due")), Run: names.Draw(t, "run"),
			Lane: rapid.OneOf(rapid.Just(Urgent), names, rapid.Map(names, func(n string) string { return Lane("", Key{Type: n}) })).Draw(t, "lane"),
		}
		got, err := ParseReadyKey(ReadyKey(e))
		require.NoError(t, err)
		require.Equal(t, e, got)
		later := e
		later.Due, later.Run = Time(numbers.Draw(t, "other due")), names.Draw(t, "other run")
		if e.Due != later.Due {
			require.Equal(t, e.Due < later.Due, ReadyKey(e) < ReadyKey(later))
		} else {
			require.Equal(t, e.Run < later.Run, ReadyKey(e) < ReadyKey(later))
		}
		engine, run, err := ParseOwnedKey(OwnedKey(e.Run, later.Run))
		require.NoError(t, err)
		require.Equal(t, []string{e.Run, later.Run}, []string{engine, run})
		engine, run, err = ParseOwnedKey(AskKey(e.Run, later.Run))
		require.NoError(t, err)
		require.Equal(t, []string{e.Run, later.Run}, []string{engine, run})
	})
	for _, key := range []string{
		"", "rdy/", "rdy/any/a/1/r", "rdy/any/a/0000000000000001", "rdy/any//0000000000000001/r", "rdy/any/../0000000000000001/r", "rdy/any/a/0000000000000001/",
		"rdy/drv/a/0000000000000001/r", "rdy/drv//a/0000000000000001/r", "rdy/x/a/0000000000000001/r", "rdx/any/a/0000000000000001/r",
		"rdy/any/a/8000000000000001/r", "rdy/any/a/000000000000000A/r",
	} {
		_, err := ParseReadyKey(key)
		require.ErrorIs(t, err, store.ErrCorrupt, key)
	}
	for _, key := range []string{"", "own/", "own/a", "own/a/", "own//a", "own/a/b/c", "rdy/a/b", "ask/.a/b"} {
		_, _, err := ParseOwnedKey(key)
		require.ErrorIs(t, err, store.ErrCorrupt, key)
	}
	for _, key := range []string{"", "eng/", "eng/.a", "eng/a/b", "own/a", "hbt/"} {
		_, err := ParseEngineKey(key)
		require.ErrorIs(t, err, store.ErrCorrupt, key)
	}
	id, err := ParseEngineKey(HeartbeatKey("a"))
	require.NoError(t, err)
	require.Equal(t, "a", id)
}

func TestRecordsOfEnginesAreChecked(t *testing.T) {
	for _, c := range []struct {
		key, value string
		into       any
		want       string // empty for nothing
	}{
		{"eng/a", `{"started":1,"format":3,"lease":1}`, new(Engine), ""},
		{"eng/a", `{"started":1,"format":3,"lease":1,"dead":2,"by":"b"}`, new(Engine), ""},
		{"eng/a", `{"format":3,"lease":1}`, new(Engine), "has no time"},
		{"eng/a", `{"started":1,"format":3}`, new(Engine), "has no lease"},
		{"eng/a", `{"started":1,"lease":1}`, new(Engine), "has no format"},
		{"eng/a", `{"started":1,"format":3,"lease":1,"dead":2}`, new(Engine), "is marked dead by nobody"},
		{"eng/a", `{"started":1,"format":3,"lease":1,"by":"b"}`, new(Engine), "is marked dead by nobody"},
		{"eng/a", `{"started":1,"format":3,"lease":1,"dead":2,"by":"b/c"}`, new(Engine), "refers to what cannot be"},
		{"hbt/a", `{"count":1,"clock":1,"drivers":["d"]}`, new(Heartbeat), ""},
		{"hbt/a", `{"clock":1}`, new(Heartbeat), "is no heartbeat"},
		{"hbt/a", `{"count":1,"clock":1,"drivers":[""]}`, new(Heartbeat), "is no heartbeat"},
		{"hbt/a", `{"count":1,"clock":1,"free":-1}`, new(Heartbeat), "is no heartbeat"},
		{"run/a", `{"resource":"r","name":"a","resourceId":"x","cause":"created","state":"queued","created":1,"owner":"e"}`, new(Run), ""},
		{"run/a", `{"resource":"r","name":"a","resourceId":"x","cause":"created","state":"canceled","created":1,"owner":"e"}`, new(Run), "has an owner"},
		{"run/a", `{"resource":"r","name":"a","resourceId":"x","cause":"created","state":"queued","created":1,"owner":"../e"}`, new(Run), "refers to what cannot be"},
	} {
		err := Decode(store.Record{Key: c.key, Value: []byte(c.value)}, c.into)
		if c.want == "" {
			require.NoError(t, err, c.value)
			continue
		}
		require.ErrorIs(t, err, store.ErrCorrupt, c.value)
		require.ErrorContains(t, err, c.want, c.value)
	}
}
