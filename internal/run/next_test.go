package run_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/store"
)

// Changes of a host.
func free(*fakeHost)         {}
func noDriver(h *fakeHost)   { delete(h.drivers, "a") }
func noWorker(h *fakeHost)   { h.workers = 0 }
func noSlot(h *fakeHost)     { h.drivers["a"].slots = 0 }
func abandoned(h *fakeHost)  { h.held = true }
func isDraining(h *fakeHost) { h.draining = true }

func TestStateOfStepDecidesWhatStarts(t *testing.T) {
	const hour = record.Time(time.Hour)
	starts := func(attempt int) record.Step {
		return record.Step{State: plan.Running, Attempt: attempt, Started: start}
	}
	blocked := record.Step{State: plan.Blocked, Attempt: 1, Reason: `driver "a" is not registered`}
	queued := record.Step{State: plan.Queued, Attempt: 1, Again: true, Resumed: true, Interruptions: 1}
	retrying := func(due record.Time) record.Step {
		return record.Step{State: plan.Retrying, Attempt: 1, Due: due, Reason: "boom"}
	}
	waiting := func(due record.Time) record.Step {
		return record.Step{State: plan.Waiting, Attempt: 1, Again: true, Due: due, Requeues: 1}
	}
	awaiting := func(due record.Time) record.Step {
		return record.Step{State: plan.Waiting, Attempt: 1, Again: true, Due: due, Await: "go", Waits: []record.Wait{{Signal: "go", From: 1}}}
	}
	change := func(s record.Step, f func(*record.Step)) record.Step { f(&s); return s }
	for _, c := range []struct {
		name   string
		step   record.Step
		host   func(*fakeHost)
		starts []string
		due    record.Time
		needs  bool // a worker
		want   record.Step
	}{
		{"a step that has not begun starts", record.Step{}, free, []string{"a"}, 0, false, starts(1)},
		{"a step that was interrupted starts with the same number", queued, free, []string{"a"}, 0, false,
			change(starts(1), func(s *record.Step) { s.Again, s.Resumed, s.Interruptions = true, true, 1 })},
		{"a step that is being called goes on", starts(1), free, nil, 0, false, starts(1)},
		{"a retry that is not due waits", retrying(start + hour), free, nil, start + hour, false, retrying(start + hour)},
		{"a retry that is due starts with the next number", retrying(start), free, []string{"a"}, 0, false, starts(2)},
		{"a requeue that is not due waits", waiting(start + hour), free, nil, start + hour, false, waiting(start + hour)},
		{"a requeue that is due starts with the same number", waiting(start), free, []string{"a"}, 0, false,
			change(starts(1), func(s *record.Step) { s.Again, s.Requeues = true, 1 })},
		{"a wait for a signal lasts", awaiting(0), free, nil, 0, false, awaiting(0)},
		{"a wait for a signal lasts until its time is up", awaiting(start + 1), free, nil, start + 1, false, awaiting(start + 1)},
		{"a wait for a signal ends when its time is up", awaiting(start), free, []string{"a"}, 0, false, change(starts(1), func(s *record.Step) {
			s.Again, s.TimedOut, s.Waits = true, true, []record.Wait{{Signal: "go", From: 1, To: start, TimedOut: true}}
		})},
		{"a wait whose time is up ends although nothing can start", awaiting(start), noWorker, nil, 0, true, record.Step{
			State: plan.Queued, Attempt: 1, Again: true, TimedOut: true, Waits: []record.Wait{{Signal: "go", From: 1, To: start, TimedOut: true}},
		}},
		{"a blocked step stays blocked without its driver", blocked, noDriver, nil, 0, false, blocked},
		{"a blocked step starts with its driver", blocked, free, []string{"a"}, 0, false, starts(2)},
		{"a blocked step with its driver waits for a worker", blocked, noWorker, nil, 0, true, record.Step{State: plan.Queued, Attempt: 1}},
		{"a blocked step with its driver waits for a slot", blocked, noSlot, nil, 0, false, record.Step{State: plan.Queued, Attempt: 1}},
		{"a step without its driver is blocked", queued, noDriver, nil, 0, false,
			change(queued, func(s *record.Step) { s.State, s.Reason = plan.Blocked, blocked.Reason })},
		{"a retry that is due without its driver is blocked", retrying(start), noDriver, nil, 0, false,
			change(blocked, func(s *record.Step) { s.Due = start })},
		{"a step waits for a worker", queued, noWorker, nil, 0, true, queued},
		{"a retry that is due waits for a worker", retrying(start), noWorker, nil, 0, true, retrying(start)},
		{"a step waits for a slot", queued, noSlot, nil, 0, false, queued},
		{"a step waits for the return of an abandoned call", queued, abandoned, nil, 0, false, queued},
		{"a step does not start when the host is draining", queued, isDraining, nil, 0, false, queued},
		{"a step after a success starts", record.Step{State: plan.Succeeded}, free, []string{"b"}, 0, false, record.Step{State: plan.Succeeded}},
		{"a step after a skip starts", record.Step{State: plan.Skipped}, free, []string{"b"}, 0, false, record.Step{State: plan.Skipped}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "b")
			k := w.activeRun(listOf("a", "b"), []record.Step{c.step})
			c.host(w.host)
			r := w.drive(k, run.Input{})
			require.Equal(t, c.starts, r.starts)
			require.Equal(t, c.due, r.due)
			require.Equal(t, c.needs, r.needsWorker)
			require.Equal(t, c.want, w.recOf(k).Steps[0].Rec)
			require.False(t, r.over)
		})
	}
}

func TestStepStartsAgainAfterTheProcessDied(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	k := w.activeRun(listOf("a"), nil)
	w.drive(k, run.Input{})
	for crashes := 1; crashes <= w.limits.Interruptions; crashes++ {
		w.crash()
		require.Equal(t, []string{"a"}, w.drive(k, run.Input{}).starts)
		require.Equal(t, record.Step{
			State: plan.Running, Attempt: 1, Started: start, Resumed: true, Again: true, Interruptions: crashes, Crashes: crashes,
		}, w.recOf(k).Steps[0].Rec)
	}
	w.crash()
	r := w.drive(k, run.Input{})
	require.True(t, r.over)
	const reason = "interrupted 6 times by the death of the process, more than the limit of 5 (Limits.Interruptions)"
	is := w.recOf(k)
	require.Equal(t, record.Step{
		State: plan.Failed, Attempt: 1, Started: start, Ended: start, Interruptions: 6, Crashes: 6, Reason: reason,
		Failure: record.Failure{Class: fault.ClassError},
	}, is.Steps[0].Rec)
	require.Equal(t, plan.Failed, is.Rec.State)
	require.Equal(t, "step a (driver a): "+reason, is.Rec.Reason)
	attempts, err := w.ledger.Attempts(ctx, k.id)
	require.NoError(t, err)
	require.Equal(t, record.Attempt{Started: start, Ended: start, Error: reason, Kind: fault.KindInterrupt}, attempts["a"][0].Rec)
}

func TestInterruptionsByShutdownAreNotLimited(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	k := w.activeRun(listOf("a"), nil)
	w.drive(k, run.Input{})
	for range 3 * w.limits.Interruptions {
		require.Equal(t, []string{"a"}, w.answer(k, 0, cut).starts)
	}
	step := w.recOf(k).Steps[0].Rec
	require.Equal(t, 1, step.Attempt)
	require.Equal(t, 15, step.Interruptions)
	require.Zero(t, step.Crashes)
}

func TestOneFailedStepDoesNotKeepTheOthersFromStarting(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b", "f")
	p := finally(listOf("a", "b"), "f")
	p.Steps[0].ContinueOnError = true
	k := w.activeRun(p, []record.Step{{State: plan.Queued, Attempt: 1, Crashes: 9}})
	require.Equal(t, []string{"b"}, w.drive(k, run.Input{}).starts)
	require.Equal(t, plan.Failed, w.recOf(k).Steps[0].Rec.State)
}

// TestAnswerMovesRun gives each answer to the first of two steps before a cleanup, in a run that goes on or is to stop.
func TestAnswerMovesRun(t *testing.T) {
	const none, halt, cancel, timeout, supersede = plan.StopNone, plan.StopHalt, plan.StopCancel, plan.StopTimeout, plan.StopSupersede
	last := func(o *run.Outcome) { failed(o); o.Policy.MaxAttempts = 1 }
	after := func(o *run.Outcome) { failed(o); o.Failure.After = new(time.Duration) }
	for _, c := range []struct {
		name    string
		answer  func(*run.Outcome)
		stop    plan.Stop
		starts  string
		step    plan.State
		outcome plan.State
	}{
		{"done: the next step starts", done, none, "b", plan.Succeeded, plan.Unset},
		{"skipped: the next step starts", skipped, none, "b", plan.Skipped, plan.Unset},
		{"halted: the cleanup starts", halted, none, "f", plan.Succeeded, plan.Succeeded},
		{"requeued: the run waits", requeued, none, "", plan.Waiting, plan.Unset},
		{"refused: the run waits", refused, none, "", plan.Waiting, plan.Unset},
		{"awaits a signal: the run waits", awaitsGo, none, "", plan.Waiting, plan.Unset},
		{"failed: the run waits", failed, none, "", plan.Retrying, plan.Unset},
		{"failed with a delay: the run waits", after, none, "", plan.Retrying, plan.Unset},
		{"failed for the last time: the cleanup starts", last, none, "f", plan.Failed, plan.Failed},
		{"failed for good: the cleanup starts", failedForGood, none, "f", plan.Failed, plan.Failed},
		{"cut short: the step starts again", cut, none, "a", plan.Running, plan.Unset},

		{"done when another step halts the run", done, halt, "f", plan.Succeeded, plan.Succeeded},
		{"skipped when another step halts the run", skipped, halt, "f", plan.Skipped, plan.Succeeded},
		{"halted when another step halts the run", halted, halt, "f", plan.Succeeded, plan.Succeeded},
		{"requeued when another step halts the run", requeued, halt, "f", plan.Waiting, plan.Succeeded},
		{"refused when another step halts the run", refused, halt, "f", plan.Waiting, plan.Succeeded},
		{"awaits a signal when another step halts the run", awaitsGo, halt, "f", plan.Waiting, plan.Succeeded},
		{"failed when another step halts the run", failed, halt, "f", plan.Failed, plan.Failed},
		{"cut short when another step halts the run", cut, halt, "f", plan.Queued, plan.Succeeded},

		{"done when the run is canceled", done, cancel, "f", plan.Succeeded, plan.Canceled},
		{"skipped when the run is canceled", skipped, cancel, "f", plan.Skipped, plan.Canceled},
		{"halted when the run is canceled", halted, cancel, "f", plan.Succeeded, plan.Canceled},
		{"requeued when the run is canceled", requeued, cancel, "f", plan.Waiting, plan.Canceled},
		{"refused when the run is canceled", refused, cancel, "f", plan.Waiting, plan.Canceled},
		{"awaits a signal when the run is canceled", awaitsGo, cancel, "f", plan.Waiting, plan.Canceled},
		{"failed when the run is canceled", failed, cancel, "f", plan.Canceled, plan.Canceled},
		{"failed for good when the run is canceled", failedForGood, cancel, "f", plan.Canceled, plan.Canceled},
		{"cut short when the run is canceled", cut, cancel, "f", plan.Queued, plan.Canceled},

		{"done when the run is out of time", done, timeout, "f", plan.Succeeded, plan.Failed},
		{"halted when the run is out of time", halted, timeout, "f", plan.Succeeded, plan.Failed},
		{"requeued when the run is out of time", requeued, timeout, "f", plan.Waiting, plan.Failed},
		{"awaits a signal when the run is out of time", awaitsGo, timeout, "f", plan.Waiting, plan.Failed},
		{"failed when the run is out of time", failed, timeout, "f", plan.Failed, plan.Failed},
		{"failed with a delay when the run is out of time", after, timeout, "f", plan.Failed, plan.Failed},
		{"cut short when the run is out of time", cut, timeout, "f", plan.Queued, plan.Failed},

		{"done when the run is superseded", done, supersede, "f", plan.Succeeded, plan.Superseded},
		{"halted when the run is superseded", halted, supersede, "f", plan.Succeeded, plan.Superseded},
		{"requeued when the run is superseded", requeued, supersede, "f", plan.Waiting, plan.Superseded},
		{"awaits a signal when the run is superseded", awaitsGo, supersede, "f", plan.Waiting, plan.Superseded},
		{"failed when the run is superseded", failed, supersede, "f", plan.Canceled, plan.Superseded},
		{"cut short when the run is superseded", cut, supersede, "f", plan.Queued, plan.Superseded},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "b", "f")
			w.now++
			k := w.activeRun(finally(listOf("a", "b"), "f"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}},
				func(rec *record.Run, _ *record.Resource) { rec.Stop = c.stop })
			r := w.answer(k, 0, c.answer)
			is := w.recOf(k)
			require.Equal(t, c.step, is.Steps[0].Rec.State)
			require.Equal(t, c.outcome, is.Rec.Outcome)
			if c.starts == "" {
				require.Empty(t, r.starts)
				require.Zero(t, is.Steps[2].Rev)
			} else {
				require.Equal(t, []string{c.starts}, r.starts)
			}
			require.False(t, r.over)
		})
	}
}

// TestAnswerOfCleanupEndsRun gives each answer to the last step of Finally.
func TestAnswerOfCleanupEndsRun(t *testing.T) {
	last := func(o *run.Outcome) { failed(o); o.Policy.MaxAttempts = 1 }
	for _, c := range []struct {
		name     string
		outcome  plan.State // of the steps
		cutShort bool
		answer   func(*run.Outcome)
		step     plan.State
		over     bool
		end      plan.State
	}{
		{"a cleanup that is done leaves a success", plan.Succeeded, false, done, plan.Succeeded, true, plan.Succeeded},
		{"a cleanup that is skipped leaves a success", plan.Succeeded, false, skipped, plan.Skipped, true, plan.Succeeded},
		{"a cleanup that halts leaves a success", plan.Succeeded, false, halted, plan.Succeeded, true, plan.Succeeded},
		{"a cleanup that fails makes a failure of a success", plan.Succeeded, false, last, plan.Failed, true, plan.Failed},
		{"a cleanup that fails for good makes a failure of a success", plan.Succeeded, false, failedForGood, plan.Failed, true, plan.Failed},
		{"a cleanup is retried", plan.Succeeded, false, failed, plan.Retrying, false, plan.Running},
		{"a cleanup is called again", plan.Succeeded, false, requeued, plan.Waiting, false, plan.Running},
		{"a cleanup can wait for a signal", plan.Succeeded, false, awaitsGo, plan.Waiting, false, plan.Running},
		{"a cleanup can be refused", plan.Succeeded, false, refused, plan.Waiting, false, plan.Running},
		{"a cleanup that is interrupted starts again", plan.Succeeded, false, cut, plan.Running, false, plan.Running},
		{"a cleanup that is done leaves a failure", plan.Failed, false, done, plan.Succeeded, true, plan.Failed},
		{"a cleanup that fails leaves a failure", plan.Failed, false, last, plan.Failed, true, plan.Failed},
		{"a cleanup that fails leaves a cancellation", plan.Canceled, false, last, plan.Failed, true, plan.Canceled},
		{"a cleanup is retried after a cancellation", plan.Canceled, false, failed, plan.Retrying, false, plan.Running},
		{"a cleanup that was cut short and fails is not retried", plan.Failed, true, failed, plan.Canceled, true, plan.Failed},
		{"a cleanup that was cut short and asks for more ends", plan.Failed, true, requeued, plan.Waiting, true, plan.Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "f")
			k := w.activeRun(finally(listOf("a"), "f"), []record.Step{{State: plan.Succeeded}, {State: plan.Running, Attempt: 1, Started: start}},
				func(rec *record.Run, _ *record.Resource) { rec.Outcome, rec.CutShort = c.outcome, c.cutShort })
			r := w.answer(k, 1, c.answer)
			require.Equal(t, c.step, w.recOf(k).Steps[1].Rec.State)
			require.Equal(t, c.over, r.over)
			require.Equal(t, c.end, w.recOf(k).Rec.State)
		})
	}
}

func TestCleanupGoesOnAfterItsOwnFailures(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "f", "g")
	k := w.activeRun(finally(listOf("a"), "f", "g"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
	require.Equal(t, []string{"f"}, w.answer(k, 0, done).starts)
	require.Equal(t, []string{"g"}, w.answer(k, 1, failedForGood).starts)
	require.True(t, w.answer(k, 2, done).over)
	rec := w.recOf(k).Rec
	require.Equal(t, plan.Failed, rec.State)
	require.Equal(t, "step f (driver f): boom", rec.Reason)
	require.Equal(t, "f", rec.FailedStep)
}

// TestPlanDecidesWhatStartsTogether gives answers one after the other and looks at the steps that start after each.
func TestPlanDecidesWhatStartsTogether(t *testing.T) {
	type turn struct {
		step   int
		answer func(*run.Outcome)
		starts []string
	}
	diamond := listOf("a", "b", "c", "d")
	diamond.Steps[1].After, diamond.Steps[2].After, diamond.Steps[3].After = []string{"a"}, []string{"a"}, []string{"b", "c"}
	tolerant := listOf("a", "b")
	tolerant.Steps[0].ContinueOnError = true
	listeners := plan.Listeners([]string{"a", "b", "c"})
	for _, c := range []struct {
		name  string
		plan  *plan.Plan
		first []string
		turns []turn
		end   plan.State
	}{
		{"a list", listOf("a", "b"), []string{"a"}, []turn{{0, done, []string{"b"}}, {1, done, nil}}, plan.Succeeded},
		{"a list in which a step fails", finally(listOf("a", "b"), "f"), []string{"a"},
			[]turn{{0, failedForGood, []string{"f"}}, {2, done, nil}}, plan.Failed},
		{"a list in which a failure is tolerated", tolerant, []string{"a"}, []turn{{0, failedForGood, []string{"b"}}, {1, done, nil}}, plan.Succeeded},
		{"a list that is halted", listOf("a", "b"), []string{"a"}, []turn{{0, halted, nil}}, plan.Succeeded},
		{"a graph", diamond, []string{"a"},
			[]turn{{0, done, []string{"b", "c"}}, {2, done, nil}, {1, done, []string{"d"}}, {3, done, nil}}, plan.Succeeded},
		{"a graph in which a step fails beside another", diamond, []string{"a"},
			[]turn{{0, done, []string{"b", "c"}}, {1, failedForGood, nil}, {2, done, nil}}, plan.Failed},
		{"a graph that is halted beside another step", diamond, []string{"a"},
			[]turn{{0, done, []string{"b", "c"}}, {1, halted, nil}, {2, done, nil}}, plan.Succeeded},
		{"independent steps", listeners, []string{"a", "b", "c"}, []turn{{2, done, nil}, {0, done, nil}, {1, done, nil}}, plan.Succeeded},
		{"independent steps of which one fails", listeners, []string{"a", "b", "c"},
			[]turn{{0, failedForGood, nil}, {1, cut, []string{"b"}}, {1, done, nil}, {2, done, nil}}, plan.Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "b", "c", "d", "f")
			k := w.activeRun(c.plan, nil)
			require.Equal(t, c.first, w.drive(k, run.Input{}).starts)
			for i, turn := range c.turns {
				require.False(t, w.recOf(k).Rec.State.Final(), "before turn %d", i)
				require.Equal(t, turn.starts, w.answer(k, turn.step, turn.answer).starts, "turn %d", i)
			}
			require.Equal(t, c.end, w.recOf(k).Rec.State)
		})
	}
}

func TestAnswersThatComeTogetherAreOneCommit(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b", "c")
	k := w.activeRun(plan.Listeners([]string{"a", "b", "c"}), nil)
	w.drive(k, run.Input{})
	r := w.drive(k, run.Input{Outcomes: []*run.Outcome{w.outcome(k, 0, done), w.outcome(k, 1, failed), w.outcome(k, 2, doneWith("1"))}})
	require.Equal(t, []string{
		record.StepKey(k.id, "a"), record.StepKey(k.id, "b"), record.StepKey(k.id, "c"), record.AttemptKey(k.id, "b", 1), "?" + record.RunKey(k.id),
	}, r.ops)
	require.Equal(t, []run.Change{
		{Step: "a", Driver: "a", State: plan.Succeeded, Attempt: 1}, {Step: "b", Driver: "b", State: plan.Retrying, Attempt: 1, Reason: "boom"},
		{Step: "c", Driver: "c", State: plan.Succeeded, Attempt: 1},
	}, r.changes)
	require.Equal(t, start.Add(time.Second), r.due)
}

func TestOutcomeAndNextStartAreOneCommit(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b")
	k := w.activeRun(listOf("a", "b"), nil)
	require.Equal(t, []string{record.StepKey(k.id, "a"), "?" + record.RunKey(k.id)}, w.drive(k, run.Input{}).ops)
	require.Equal(t, []string{record.StepKey(k.id, "a"), record.StepKey(k.id, "b"), "?" + record.RunKey(k.id)}, w.answer(k, 0, done).ops)
	require.Equal(t, []string{record.StepKey(k.id, "b"), record.RunKey(k.id), record.ResourceKey(resource), "-" + record.ActiveKey(k.id)}, w.answer(k, 1, done).ops)
}

func TestFailedAttemptsAreKeptUpToTheLimit(t *testing.T) {
	w := newWorld(t)
	w.limits.Attempts = 2
	w.host.register("a")
	k := w.activeRun(listOf("a"), nil)
	for range 4 {
		w.now = w.now.Add(time.Hour)
		require.Equal(t, []string{"a"}, w.drive(k, run.Input{}).starts)
		w.answer(k, 0, func(o *run.Outcome) { failed(o); o.Policy.MaxAttempts = -1 })
	}
	attempts, err := w.ledger.Attempts(ctx, k.id)
	require.NoError(t, err)
	require.Len(t, attempts["a"], 2)
	require.Equal(t, 3, attempts["a"][0].Number)
	w.now = w.now.Add(time.Hour)
	w.drive(k, run.Input{})
	w.answer(k, 0, done)
	attempts, err = w.ledger.Attempts(ctx, k.id)
	require.NoError(t, err)
	require.Len(t, attempts["a"], 1, "the success is an attempt too")
}

func TestLinesAreWrittenWithTheNextCommit(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	k := w.activeRun(listOf("a"), nil)
	k.lines.pending, k.lines.kept["a"] = 2, 2
	r := w.drive(k, run.Input{})
	require.Equal(t, []string{record.StepKey(k.id, "a"), record.LogKey(k.id, 1), "?" + record.RunKey(k.id)}, r.ops)
	require.Equal(t, int64(2), k.lines.last)
	k.lines.pending = 1
	r = w.drive(k, run.Input{})
	require.Equal(t, []string{record.LogKey(k.id, 3), "?" + record.RunKey(k.id)}, r.ops, "lines alone are fenced too")
	w.answer(k, 0, done)
	require.Equal(t, 2, w.recOf(k).Steps[0].Rec.Lines)
}

func TestSignalGoesToOneStep(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b", "c")
	waits := record.Step{State: plan.Waiting, Attempt: 1, Again: true, Await: "go", Waits: []record.Wait{{Signal: "go", From: start}}}
	other := waits
	other.Await = "stop"
	k := w.activeRun(plan.Listeners([]string{"a", "b", "c"}), []record.Step{other, waits, waits})
	send := func(key, payload string) string {
		key = record.SignalsOf(k.id, "go") + key
		w.write(store.Put(key, []byte(payload)))
		return key
	}
	first := send("1", "1")
	r := w.drive(k, run.Input{})
	require.Equal(t, []string{"b"}, r.starts)
	require.Contains(t, r.ops, "-"+first)
	require.JSONEq(t, "1", string(w.recOf(k).Steps[1].Rec.Signal))
	w.answer(k, 1, awaitsGo)
	send("2", "2")
	send("3", "null")
	send("4", "4")
	require.Equal(t, []string{"b", "c"}, w.drive(k, run.Input{}).starts)
	require.JSONEq(t, "2", string(w.recOf(k).Steps[1].Rec.Signal))
	require.JSONEq(t, "null", string(w.recOf(k).Steps[2].Rec.Signal))
	require.False(t, w.recOf(k).Steps[2].Rec.TimedOut)
	require.Equal(t, []string{"b"}, w.answer(k, 1, awaitsGo).starts, "a signal that came before counts")
	require.JSONEq(t, "4", string(w.recOf(k).Steps[1].Rec.Signal))

	send("5", "no JSON")
	w.load(k)
	tr, err := run.Next(&k.state, w.input(k, run.Input{Outcomes: []*run.Outcome{w.outcome(k, 1, awaitsGo)}}), w.ledger.View(ctx), w.host, w.limits)
	require.ErrorIs(t, err, store.ErrCorrupt)
	tr.Recycle()
}

func TestStepThatIsOverTakesNoSignal(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "f")
	k := w.activeRun(finally(listOf("a"), "f"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
	w.answer(k, 0, func(o *run.Outcome) { o.Kind, o.Reason, o.Delay = run.Await, "go", time.Hour })
	require.Equal(t, []string{"f"}, w.drive(k, stops(cancelIt)).starts)
	r := w.answer(k, 1, awaitsGo)
	require.Zero(t, r.due, "the time of a wait that is over")
	require.Equal(t, plan.Waiting, w.recOf(k).State())
	w.now = w.now.Add(2 * time.Hour)
	require.Empty(t, w.drive(k, run.Input{}).starts)
	w.write(store.Put(record.SignalsOf(k.id, "go")+"1", []byte("1")))
	require.Equal(t, []string{"f"}, w.drive(k, run.Input{}).starts)
	require.JSONEq(t, "1", string(w.recOf(k).Steps[1].Rec.Signal))
	require.Nil(t, w.recOf(k).Steps[0].Rec.Signal)
}

// TestTheTimeOfFinallyStandsStillWhileItWaitsToBeCalled has a Finally step of a run with a timeout of a minute wait for an
// hour for something that is not of its own making, at each place where it can.
func TestTheTimeOfFinallyStandsStillWhileItWaitsToBeCalled(t *testing.T) {
	obstacles := map[string]func(h *fakeHost) (lift func()){
		"a slot":            func(h *fakeHost) func() { h.drivers["f"].slots = 0; return func() { h.drivers["f"].slots = many } },
		"a worker":          func(h *fakeHost) func() { h.workers = 0; return func() { h.workers = many } },
		"a driver":          func(h *fakeHost) func() { delete(h.drivers, "f"); return func() { h.register("f") } },
		"an abandoned call": func(h *fakeHost) func() { h.held = true; return func() { h.held = false } },
		"a start":           func(h *fakeHost) func() { h.draining = true; return func() { h.draining = false } },
	}
	for _, c := range []struct {
		name string
		// before brings the step to where it waits; the host does not let it start then. It returns the time that the
		// step has used.
		before func(w *world, k *heldRun) time.Duration
	}{
		{"before its first call", func(*world, *heldRun) time.Duration { return 0 }},
		{"for a retry that is due", func(w *world, k *heldRun) time.Duration {
			return w.used(k, func(o *run.Outcome) { failed(o); o.Policy = steady })
		}},
		{"for a requeue that is due", func(w *world, k *heldRun) time.Duration {
			return w.used(k, func(o *run.Outcome) { o.Kind, o.Delay = run.Requeue, time.Second })
		}},
		{"for capacity of the host", func(w *world, k *heldRun) time.Duration {
			w.used(k, func(o *run.Outcome) { o.Kind, o.Delay = run.Refused, time.Second })
			return 0
		}},
		{"after a signal", func(w *world, k *heldRun) time.Duration {
			used := w.used(k, awaitsGo)
			w.write(store.Put(record.SignalsOf(k.id, "go")+"1", []byte("1")))
			return used
		}},
		{"after a shutdown has interrupted it", func(w *world, k *heldRun) time.Duration {
			w.used(k, cut)
			return 0
		}},
	} {
		for name, obstruct := range obstacles {
			t.Run(c.name+", for "+name, func(t *testing.T) {
				w := newWorld(t)
				w.host.register("a", "f")
				p := finally(listOf("a"), "f")
				p.Timeout = document.Duration(time.Minute)
				k := w.activeRun(p, []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
				w.host.draining = true
				w.answer(k, 0, failedForGood)
				w.host.draining = false
				used := c.before(w, k)
				lift := obstruct(w.host)
				if step := w.recOf(k).Steps[1].Rec; step.Due > w.now {
					if !step.Refused {
						used += time.Duration(step.Due - w.now)
					}
					w.now = step.Due
				}
				require.Empty(t, w.drive(k, run.Input{}).starts)
				w.now = w.now.Add(time.Hour)
				require.Empty(t, w.drive(k, run.Input{}).starts)
				require.False(t, w.recOf(k).Rec.CutShort)
				lift()
				require.Equal(t, []string{"f"}, w.drive(k, run.Input{}).starts, "it is called, however long it has waited")
				require.Equal(t, w.now.Add(time.Minute-used), w.recOf(k).Rec.Deadline, "what is left of its time")
				w.now = w.recOf(k).Rec.Deadline
				require.False(t, w.drive(k, run.Input{}).over)
				require.True(t, w.recOf(k).Rec.CutShort)
				require.True(t, w.answer(k, 1, failed).over)
				require.Equal(t, "step a (driver a): boom; the cleanup took longer than 1m0s", w.recOf(k).Rec.Reason)
			})
		}
	}
}

// TestFinallyIsOutOfTimeWhileItWaitsForSomethingOfItsOwn lets the time of Finally pass during each wait that is of its own
// making.
func TestFinallyIsOutOfTimeWhileItWaitsForSomethingOfItsOwn(t *testing.T) {
	for name, answer := range map[string]func(*run.Outcome){
		"a retry":   func(o *run.Outcome) { failed(o); delay := time.Hour; o.Failure.After = &delay },
		"a requeue": func(o *run.Outcome) { o.Kind, o.Delay = run.Requeue, time.Hour },
		"a signal":  awaitsGo,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "f")
			p := finally(listOf("a"), "f")
			p.Timeout = document.Duration(time.Minute)
			k := w.activeRun(p, []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
			w.answer(k, 0, done)
			r := w.answer(k, 1, answer)
			require.Equal(t, start.Add(time.Minute), r.due)
			w.now = r.due
			require.True(t, w.drive(k, run.Input{}).over)
			require.Equal(t, plan.Failed, w.recOf(k).Rec.State)
			require.Equal(t, "the cleanup took longer than 1m0s", w.recOf(k).Rec.Reason)
		})
	}
}

// used lets step 1 start, work for ten seconds and answer, and returns the time.
func (w *world) used(k *heldRun, answer func(*run.Outcome)) time.Duration {
	const works = 10 * time.Second
	require.Equal(w, []string{"f"}, w.drive(k, run.Input{}).starts)
	w.now = w.now.Add(works)
	w.host.draining = true // it does not go on at once
	w.answer(k, 1, answer)
	w.host.draining = false
	return works
}

func TestSignalIsTakenUnderCondition(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	k := w.activeRun(listOf("a"), []record.Step{{State: plan.Waiting, Attempt: 1, Again: true, Await: "go"}})
	key := record.SignalsOf(k.id, "go") + "1"
	rev := w.write(store.Put(key, []byte("1")))
	tr := w.next(k, w.input(k, run.Input{}))
	i := slices.IndexFunc(tr.Ops(), func(op store.Op) bool { return op.Key() == key })
	require.Equal(t, store.Delete(key).If(rev), tr.Ops()[i], "one signal is not taken twice")
	w.host.Release()
	tr.Recycle()
}

func TestStepToldOfSignalIsToldAgain(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	k := w.activeRun(listOf("a"), []record.Step{{State: plan.Running, Attempt: 1, Started: start, Signal: []byte("1")}})
	for _, answer := range []func(*run.Outcome){cut, failed, requeued, refused} {
		w.answer(k, 0, answer)
		require.JSONEq(t, "1", string(w.recOf(k).Steps[0].Rec.Signal))
		w.now = w.now.Add(time.Hour)
		w.drive(k, run.Input{})
	}
	w.answer(k, 0, awaitsGo)
	require.Empty(t, w.recOf(k).Steps[0].Rec.Signal)
}

// stops returns an input with stop requests.
func stops(requests ...run.StopRequest) run.Input {
	var in run.Input
	for i := range requests {
		in.Stops = append(in.Stops, &requests[i])
	}
	return in
}

var (
	cancelIt  = run.StopRequest{Kind: plan.StopCancel, Reason: "enough", Cause: fault.Canceled}
	deleteIt  = run.StopRequest{Kind: plan.StopCancel, Reason: "the resource is to be deleted", Cause: fault.Canceled, Gently: true}
	replaceIt = run.StopRequest{Kind: plan.StopSupersede, Reason: "generation 2 came", Cause: fault.Superseded, Gently: true}
)

func TestStopRequestOfRun(t *testing.T) {
	for _, c := range []struct {
		name     string
		before   record.Run // its Stop, Outcome and CutShort
		requests []run.StopRequest
		stop     plan.Stop
		reason   string
		cutShort bool
		cause    error
	}{
		{"cancel", record.Run{}, []run.StopRequest{cancelIt}, plan.StopCancel, "enough", false, fault.Canceled},
		{"supersede", record.Run{}, []run.StopRequest{replaceIt}, plan.StopSupersede, "generation 2 came", false, fault.Superseded},
		{"cancel twice", record.Run{}, []run.StopRequest{cancelIt, {Kind: plan.StopCancel, Reason: "again"}}, plan.StopCancel, "enough", false, fault.Canceled},
		{"supersede what is canceled", record.Run{Stop: plan.StopCancel}, []run.StopRequest{replaceIt}, plan.StopCancel, "", false, nil},
		{"delete what is superseded", record.Run{Stop: plan.StopSupersede}, []run.StopRequest{deleteIt}, plan.StopSupersede, "", false, nil},
		{"cancel what is superseded", record.Run{Stop: plan.StopSupersede}, []run.StopRequest{cancelIt}, plan.StopCancel, "enough", false, fault.Canceled},
		{"cancel what halts", record.Run{Stop: plan.StopHalt}, []run.StopRequest{cancelIt}, plan.StopCancel, "enough", false, fault.Canceled},
		{"cancel what is out of time", record.Run{Stop: plan.StopTimeout}, []run.StopRequest{cancelIt}, plan.StopCancel, "enough", false, fault.Canceled},
		{"cancel the cleanup of a success", record.Run{Outcome: plan.Succeeded}, []run.StopRequest{cancelIt}, plan.StopCancel, "enough", true, fault.Canceled},
		{"cancel the cleanup of a failure", record.Run{Outcome: plan.Failed}, []run.StopRequest{cancelIt}, plan.StopNone, "", true, fault.Canceled},
		{"cancel a cleanup twice", record.Run{Outcome: plan.Succeeded, CutShort: true, Stop: plan.StopTimeout, StopReason: "slow"},
			[]run.StopRequest{cancelIt}, plan.StopTimeout, "slow", true, fault.Canceled},
		{"delete during the cleanup", record.Run{Outcome: plan.Succeeded}, []run.StopRequest{deleteIt}, plan.StopNone, "", false, nil},
		{"supersede during the cleanup", record.Run{Outcome: plan.Succeeded}, []run.StopRequest{replaceIt}, plan.StopNone, "", false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "f")
			steps := []record.Step{{State: plan.Running, Attempt: 1, Started: start}}
			if c.before.Outcome != plan.Unset {
				steps = []record.Step{{State: plan.Succeeded}, {State: plan.Running, Attempt: 1, Started: start}}
			}
			k := w.activeRun(finally(listOf("a"), "f"), steps, func(rec *record.Run, _ *record.Resource) {
				rec.Stop, rec.StopReason, rec.Outcome, rec.CutShort = c.before.Stop, c.before.StopReason, c.before.Outcome, c.before.CutShort
			})
			r := w.drive(k, stops(c.requests...))
			rec := w.recOf(k).Rec
			require.Equal(t, c.stop, rec.Stop)
			require.Equal(t, c.reason, rec.StopReason)
			require.Equal(t, c.cutShort, rec.CutShort)
			require.Equal(t, c.cause, r.stop)
			require.False(t, r.over, "a call is under way")
			require.Empty(t, r.starts)
		})
	}
}

func TestTimeoutEndsSteps(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b", "f")
	p := finally(listOf("a", "b"), "f")
	p.Timeout = document.Duration(time.Minute)
	k := w.activeRun(p, nil, func(rec *record.Run, _ *record.Resource) { rec.Deadline = start.Add(time.Minute) })
	require.Equal(t, start.Add(time.Minute), w.drive(k, run.Input{}).due)
	w.now = start.Add(time.Minute)
	require.Zero(t, w.drive(k, run.Input{}).due, "the deadline was acted upon")
	rec := w.recOf(k).Rec
	require.Equal(t, plan.StopTimeout, rec.Stop)
	require.Equal(t, "the run took longer than 1m0s", rec.StopReason)
	w.now++
	r := w.answer(k, 0, failed)
	require.Equal(t, []string{"f"}, r.starts, "the cleanup is called after a timeout")
	require.Equal(t, w.now.Add(time.Minute), r.due, "the cleanup has a time of its own")
	is := w.recOf(k)
	require.Equal(t, plan.Failed, is.Steps[0].Rec.State)
	require.Equal(t, plan.Failed, is.Rec.Outcome)
	require.Equal(t, "the run took longer than 1m0s", is.Rec.Reason)
	require.Equal(t, "a", is.Rec.FailedStep)
	require.True(t, w.answer(k, 2, done).over)
	require.Equal(t, plan.Failed, w.recOf(k).Rec.State)
}

func TestTimeoutComesTooLateForStepsThatAreDone(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	k := w.activeRun(listOf("a"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}},
		func(rec *record.Run, _ *record.Resource) { rec.Deadline = start.Add(time.Minute) })
	w.now = start.Add(time.Hour)
	require.True(t, w.answer(k, 0, done).over)
	require.Equal(t, plan.Succeeded, w.recOf(k).Rec.State)
	require.Equal(t, plan.StopNone, w.recOf(k).Rec.Stop)
}

func TestTimeoutCutsCleanupShort(t *testing.T) {
	for _, c := range []struct {
		name    string
		outcome plan.State
		stop    plan.Stop
		end     plan.State
		reason  string
	}{
		{"after a success", plan.Succeeded, plan.StopNone, plan.Failed, "the cleanup took longer than 1m0s"},
		{"after a failure", plan.Failed, plan.StopNone, plan.Failed, "boom; the cleanup took longer than 1m0s"},
		{"after a cancellation", plan.Canceled, plan.StopCancel, plan.Canceled, "boom; the cleanup took longer than 1m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "f", "g")
			p := finally(listOf("a"), "f", "g")
			p.Timeout = document.Duration(time.Minute)
			k := w.activeRun(p, []record.Step{{State: plan.Succeeded}, {State: plan.Running, Attempt: 1, Started: start}},
				func(rec *record.Run, _ *record.Resource) {
					rec.Outcome, rec.Reason, rec.Stop, rec.Deadline = c.outcome, "boom", c.stop, start.Add(time.Minute)
				})
			w.now = start.Add(time.Minute)
			require.False(t, w.drive(k, run.Input{}).over)
			require.True(t, w.recOf(k).Rec.CutShort)
			r := w.answer(k, 1, done)
			require.True(t, r.over)
			rec := w.recOf(k).Rec
			require.Equal(t, c.end, rec.State)
			require.Equal(t, c.reason, rec.Reason)
		})
	}
}

func TestPlannedStepsBecomeTheRuns(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*run.Outcome)
		starts []string
		state  plan.State
	}{
		{"planned", done, []string{"a"}, plan.Succeeded},
		{"not planned yet", failed, nil, plan.Retrying},
		{"not to be planned", failedForGood, []string{"f"}, plan.Failed},
		{"interrupted while planning", cut, []string{plan.PlannerStep}, plan.Running},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "b", "f", plan.PlannerName("p"))
			w.savePipeline("p", finally(&plan.Plan{}, "f"), func(rec *record.Pipeline) { rec.Planned = true })
			k := w.queuedRun("p", record.Created)
			r := w.drive(k, run.Input{})
			require.Equal(t, []string{plan.PlannerStep}, r.starts)
			require.Empty(t, w.recOf(k).Rec.Hash, "the run has a plan of its own")
			r = w.answer(k, 0, func(o *run.Outcome) {
				c.answer(o)
				if o.Kind == run.Done {
					whole := *k.state.Run.Plan
					whole.Steps = append(append([]plan.Step{}, whole.Steps...), listOf("a", "b").Steps...)
					o.Kind, o.Plan = run.Planned, &whole
				}
			})
			require.Equal(t, c.starts, r.starts)
			require.Equal(t, c.state, w.recOf(k).Steps[0].Rec.State)
		})
	}
}

func TestFinalizationPassesOverDriversThatCannot(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b")
	w.host.drivers["a"].finalizer = false
	k := w.activeRun(listOf("a", "b").Backwards(nil), nil)
	require.Equal(t, []string{"b"}, w.drive(k, run.Input{}).starts)
	r := w.answer(k, 0, done)
	require.True(t, r.over)
	require.Equal(t, record.Step{State: plan.Skipped, Ended: start, Reason: `driver "a" has nothing to finalize`}, w.recOf(k).Steps[1].Rec)
	require.Nil(t, w.head())
}

// Steps that wake up at once are woken in several transitions if one can only change so many steps.
func TestStepsThatWakeUpAtOnceAreDivided(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b", "c")
	w.limits.Changes = 2
	p := listOf("a", "b", "c")
	p.Independent = true
	waiting := record.Step{State: plan.Waiting, Attempt: 1, Again: true, Await: "go", Started: start, Due: w.now.Add(time.Minute)}
	k := w.activeRun(p, []record.Step{waiting, waiting, waiting})
	w.now = w.now.Add(time.Hour)
	var starts []string
	for _, more := range []bool{true, true, false} {
		r := w.drive(k, run.Input{})
		require.Equal(t, more, r.more)
		starts = append(starts, r.starts...)
	}
	require.Equal(t, []string{"a", "b", "c"}, starts)
}

// The end of a run is not in the commit of an outcome if this has as many changes as it can have.
func TestTheEndOfARunIsDivided(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	w.limits.Changes = 1
	k := w.activeRun(listOf("a"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
	r := w.answer(k, 0, done)
	require.False(t, r.over)
	require.True(t, r.more)
	require.Equal(t, []run.Change{{Step: "a", Driver: "a", State: plan.Succeeded, Attempt: 1}}, r.changes)
	w.crash()
	r = w.drive(k, run.Input{})
	require.True(t, r.over)
	require.Equal(t, []run.Change{{State: plan.Succeeded}}, r.changes)
}
