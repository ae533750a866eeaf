package rules_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

var update = flag.Bool("update", false, "rewrite testdata/transcripts instead of comparing with it")

// scenarios are the stories in testdata/transcripts, by the names of their files.
var scenarios = []struct {
	name string
	play func(*story)
}{
	{"retry_then_success", retryThenSuccess},
	{"failure_with_finally", failureWithFinally},
	{"supersede_in_a_step", supersedeInAStep},
	{"coalesced_changes", coalescedChanges},
	{"queued_changes", queuedChanges},
	{"drift_repaired_by_resync", driftRepairedByResync},
	{"approval_by_signal", approvalBySignal},
	{"tolerated_failure_in_a_graph", toleratedFailureInAGraph},
	{"crash_in_a_step", crashInAStep},
	{"delete_with_a_crash", deleteWithACrash},
	{"retry_from_the_failed_step", retryFromTheFailedStep},
}

func TestTranscripts(t *testing.T) {
	var files []string
	for _, c := range scenarios {
		file := filepath.Join("testdata", "transcripts", c.name+".txt")
		files = append(files, file)
		t.Run(c.name, func(t *testing.T) {
			var told string
			synctest.Test(t, func(t *testing.T) {
				s := newStory(t)
				c.play(s)
				told = s.text.String()
			})
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(told), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), told)
		})
	}
	found, err := filepath.Glob(filepath.Join("testdata", "transcripts", "*"))
	require.NoError(t, err)
	require.ElementsMatch(t, files, found, "every transcript is of a scenario")
}

// story plays a scenario and tells it: a sentence, and below it the events that followed, one per line.
type story struct {
	*rig.Engine
	t       *testing.T
	opts    conveyor.Options
	drivers map[string]conveyor.Driver

	began  time.Time
	events chan conveyor.Event // of the program that is running now, not told yet; size: more than a scenario has
	names  []string            // pairs for strings.NewReplacer: what differs from time to time, and what stands for it
	text   strings.Builder
}

func newStory(t *testing.T) *story {
	s := &story{
		t: t, drivers: map[string]conveyor.Driver{}, began: time.Now(),
		opts: conveyor.Options{Retry: conveyor.RetryPolicy{Jitter: -1}}, // delays as round as they read
	}
	s.Engine = rig.New(t, s.opts)
	return s
}

// opens gives the story its title, its introduction and its pipeline, each step of which has a driver of the same
// name.
func (s *story) opens(title, intro string, p conveyor.PipelineSpec) {
	s.t.Helper()
	for name, d := range s.drivers {
		s.Driver(name, d)
	}
	p.Name, p.Resource = "p", "r"
	s.Save(p)
	fmt.Fprintf(&s.text, "# %s\n#\n", title)
	s.comment(intro)
	s.comment("\nThe pipeline: " + inWords(p) + ".")
	s.line("time", "what", "step", "state", "attempt, reason")
	s.begin()
}

// begin starts the program, and watches it from before that on until it is shut down.
func (s *story) begin() {
	s.t.Helper()
	told, events := s.Watch(context.Background(), conveyor.WatchOptions{}), make(chan conveyor.Event, 1024)
	go func() {
		for e, err := range told {
			if err != nil {
				return // what is missing then is missing in the transcript too
			}
			events <- e
		}
	}()
	s.events = events
	s.MustStart()
}

// then tells a sentence, does what it says, and tells what happened.
func (s *story) then(sentence string, do func()) {
	s.t.Helper()
	s.text.WriteByte('\n')
	s.comment(sentence)
	do()
	s.tell()
}

// later tells what happens in the time that passes.
func (s *story) later(d time.Duration, sentence string) {
	s.t.Helper()
	s.then(sentence, func() { time.Sleep(d) })
}

// dies is the end of the program some time from now: what is not in the store by then is lost.
func (s *story) dies(in time.Duration, sentence string) {
	s.t.Helper()
	s.then(sentence, func() {
		time.Sleep(in)
		s.Engine = s.Crashed(s.opts)
	})
	for name, d := range s.drivers {
		s.Driver(name, d)
	}
}

// tell writes the events since it did last.
func (s *story) tell() {
	synctest.Wait()
	for len(s.events) > 0 {
		s.event(<-s.events)
	}
}

func (s *story) event(e conveyor.Event) {
	what := e.Kind.String() + " " + e.Resource.Name
	if e.Run != "" {
		what = e.Kind.String() + " " + s.nameOf(e.Run)
	}
	state := ""
	if e.State != conveyor.StateUnset {
		state = e.State.String()
	}
	var rest []string
	if e.Attempt > 0 {
		rest = append(rest, fmt.Sprint("attempt ", e.Attempt))
	}
	if e.Reason != "" {
		rest = append(rest, strings.NewReplacer(s.names...).Replace(e.Reason))
	}
	s.line(e.Time.Sub(s.began).String(), what, e.Step, state, strings.Join(rest, ", "))
}

// nameOf calls runs #1, #2, ... in the order in which they are told of.
func (s *story) nameOf(run string) string {
	for i := 0; i < len(s.names); i += 2 {
		if s.names[i] == run {
			return s.names[i+1]
		}
	}
	name := fmt.Sprint("#", len(s.names)/2+1)
	s.names = append(s.names, run, name)
	return name
}

func (s *story) line(at, what, step, state, rest string) {
	line := fmt.Sprintf("%9s  %-13s %-9s %-11s %s", at, what, step, state, rest)
	s.text.WriteString(strings.TrimRight(line, " ") + "\n")
}

func (s *story) comment(text string) {
	for line := range strings.Lines(text) {
		s.text.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
	}
}

// inWords is a pipeline in a sentence.
func inWords(p conveyor.PipelineSpec) string {
	var steps []string
	graph := false
	for _, step := range p.Steps {
		text := step.ID
		if len(step.After) > 0 {
			graph = true
			text += " after " + strings.Join(step.After, " and ")
		}
		if step.ContinueOnError {
			text += " (may fail)"
		}
		steps = append(steps, text)
	}
	joint := ", then "
	if graph {
		joint = "; "
	}
	text := strings.Join(steps, joint)
	for _, step := range p.Finally {
		text += "; finally " + step.ID
	}
	if p.OnChange != 0 {
		text += "; on change " + p.OnChange.String()
	}
	return text
}

// steps makes a step of each name, with a driver of that name.
func steps(names ...string) (list []conveyor.Step) {
	for _, name := range names {
		list = append(list, conveyor.Step{ID: name, Driver: name})
	}
	return list
}

// failing takes some time and then fails; for good, if so wished by conveyor.Permanent.
func failing(d time.Duration, err error) rig.Func {
	return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if _, err := rig.Taking(d)(ctx, req); err != nil {
			return conveyor.Result{}, err
		}
		return conveyor.Result{}, err
	}
}

func retryThenSuccess(s *story) {
	away := errors.New("the registry is away")
	s.drivers["build"] = rig.DriverOf(rig.Taking(2 * time.Second))
	s.drivers["push"] = rig.DriverOf(rig.InTurn(failing(time.Second, away), failing(time.Second, away), rig.Taking(time.Second)))
	s.opens("Retry, then success", `A step fails twice for a reason that passes. The steps before it are not called again.`,
		conveyor.PipelineSpec{Steps: steps("build", "push")})
	var run *conveyor.Run
	s.then("Apply the resource. The resource, its run and the start of the first step are one commit.",
		func() { run = s.MustApply(rig.Object("web", 1)) })
	s.later(2*time.Second, "Build ends. Its outcome and the start of push are one commit.")
	s.later(time.Second, "The first attempt of push fails. The next one is due in a second; until then nothing is held.")
	s.later(time.Second, "It is due.")
	s.later(time.Second, "It fails too. The delay doubles.")
	s.later(2*time.Second, "The third attempt is the last one that the policy allows.")
	s.later(time.Second, "It succeeds, and the run ends in the same commit.")
	require.NoError(s.t, s.Ended(run.ID).Err())
}

func failureWithFinally(s *story) {
	s.drivers["reserve"] = rig.DriverOf(rig.Taking(time.Second))
	s.drivers["copy"] = rig.DriverOf(failing(time.Second, conveyor.Permanent(errors.New("no such bucket"))))
	s.drivers["switch"] = rig.DriverOf(rig.Taking(time.Second))
	s.drivers["release"] = rig.DriverOf(rig.InTurn(failing(time.Second, errors.New("the lock is busy")), rig.Taking(time.Second)))
	s.opens("Permanent failure, with Finally", `A step fails in a way that no retry can mend. What comes after it is skipped; what is in Finally is not.`,
		conveyor.PipelineSpec{Steps: steps("reserve", "copy", "switch"), Finally: steps("release")})
	var run *conveyor.Run
	s.then("Apply the resource.", func() { run = s.MustApply(rig.Object("photos", 1)) })
	s.later(time.Second, "Reserve ends, copy begins.")
	s.later(time.Second, "Copy answers with Permanent(err), so there is no second attempt. Switch will not be called; release begins.")
	s.later(time.Second, "Release fails at first; steps of Finally are retried like any other.")
	s.later(2*time.Second, "It succeeds at the second attempt. The run has failed all the same, because copy did, and switch was skipped.")
	require.Equal(s.t, []string{"succeeded", "failed", "skipped", "succeeded"}, rig.StatesOf(s.Ended(run.ID)))
}

func supersedeInAStep(s *story) {
	s.drivers["build"] = rig.DriverOf(rig.Taking(time.Minute))
	s.drivers["push"] = rig.DriverOf(rig.Taking(time.Second))
	s.opens("Supersede in the middle of a step", `The pipeline does not finish what nobody wants any more: a change cancels the run that is at work.`,
		conveyor.PipelineSpec{Steps: steps("build", "push"), OnChange: conveyor.Supersede})
	s.then("Apply the first generation.", func() { s.MustApply(rig.Object("web", 1)) })
	var run *conveyor.Run
	s.then("Ten seconds later, in the middle of build, apply the second. Its run is queued, and the context of build ends with\nErrSuperseded. As soon as the driver has returned, the first run ends, and the next begins.",
		func() {
			time.Sleep(10 * time.Second)
			run = s.MustApply(rig.Object("web", 2))
		})
	s.later(time.Minute, "The second generation is built from the start,")
	s.later(time.Second, "and pushed.")
	run = s.Ended(run.ID)
	require.NoError(s.t, run.Err())
	require.Equal(s.t, int64(2), run.Generation)
}

func coalescedChanges(s *story) {
	s.drivers["build"] = rig.DriverOf(rig.Taking(time.Minute))
	s.drivers["push"] = rig.DriverOf(rig.Taking(time.Second))
	s.opens("Coalesced changes", `Changes that come during a run wait for its end. Then one run reconciles the newest of them, and only that.`,
		conveyor.PipelineSpec{Steps: steps("build", "push")})
	s.then("Apply the first generation.", func() { s.MustApply(rig.Object("web", 1)) })
	s.then("Ten seconds later apply the second. Its run is queued behind the one at work.", func() {
		time.Sleep(10 * time.Second)
		s.MustApply(rig.Object("web", 2))
	})
	var run *conveyor.Run
	s.then("The third and the fourth come. They are on record; the run that is queued will take up the newest.", func() {
		time.Sleep(10 * time.Second)
		s.MustApply(rig.Object("web", 3))
		time.Sleep(10 * time.Second)
		run = s.MustApply(rig.Object("web", 4))
	})
	s.then("Apply the fourth once more. Nothing has changed, so nothing happens.", func() { s.MustApply(rig.Object("web", 4)) })
	s.later(31*time.Second, "The first run ends, undisturbed, and the second one begins: with generation 4, never 2 or 3.")
	s.later(61*time.Second, "It ends.")
	require.Equal(s.t, int64(4), s.Ended(run.ID).Generation)
}

func queuedChanges(s *story) {
	s.drivers["migrate"] = rig.DriverOf(rig.Taking(time.Minute))
	s.opens("Queued changes", `Each generation matters, as when each is a migration: none may be left out, and none may overtake another.`,
		conveyor.PipelineSpec{Steps: steps("migrate"), OnChange: conveyor.Queue})
	s.then("Apply the first generation.", func() { s.MustApply(rig.Object("db", 1)) })
	var last *conveyor.Run
	s.then("Apply three more meanwhile. Each has a run of its own, queued behind the one before.", func() {
		for n := 2; n <= 4; n++ {
			time.Sleep(10 * time.Second)
			last = s.MustApply(rig.Object("db", n))
		}
	})
	s.later(31*time.Second, "The first run ends, and the second begins, with generation 2.")
	s.dies(10*time.Second, "The process dies. The line is on record.")
	s.then("It starts again: what was under way is called again, and the others wait on.", func() { s.begin() })
	s.later(181*time.Second, "They follow one another, in order.")
	require.Equal(s.t, int64(4), s.Ended(last.ID).Generation)
}

func driftRepairedByResync(s *story) {
	s.drivers["firewall"] = rig.DriverOf(rig.Taking(time.Second))
	s.opens("Drift, repaired by resync", `What was set up may change behind the engine's back. An hour after each success the pipeline looks again.`,
		conveyor.PipelineSpec{Steps: steps("firewall"), Resync: conveyor.Duration(time.Hour)})
	s.then("Apply the rules.", func() {
		s.MustApply(rig.Object("rules", 1))
		time.Sleep(time.Second)
	})
	s.later(time.Hour+time.Second, "An hour later a run begins by itself, of the same generation.")
	s.then("Half an hour later they are changed. That puts the next look off, to an hour after this run.", func() {
		time.Sleep(30 * time.Minute)
		s.MustApply(rig.Object("rules", 2))
		time.Sleep(time.Second)
	})
	s.dies(time.Minute, "The process dies.")
	s.then("It starts again two hours later. The look is overdue, and is made at once.", func() {
		time.Sleep(2 * time.Hour)
		s.begin()
		time.Sleep(time.Second)
	})
}

func approvalBySignal(s *story) {
	s.drivers["build"] = rig.DriverOf(rig.Taking(time.Minute))
	s.drivers["approve"] = rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var who string
		switch approved, err := req.Signal(&who); {
		case errors.Is(err, conveyor.ErrTimeout):
			return conveyor.Result{}, conveyor.Permanent(errors.New("nobody approved"))
		case err != nil:
			return conveyor.Result{}, err
		case !approved:
			return conveyor.Await("approval", 24*time.Hour), nil
		}
		return conveyor.Done(), nil
	})
	s.drivers["deploy"] = rig.DriverOf(rig.Taking(time.Second))
	s.opens("Approval by signal", `A step asks for approval with Await("approval", 24h), and parks: it holds no goroutine and no worker.`,
		conveyor.PipelineSpec{Steps: steps("build", "approve", "deploy")})
	approve := func(run *conveyor.Run) { require.NoError(s.t, s.Signal(s.t.Context(), run.ID, "approval", "ada")) }

	var late, early, never *conveyor.Run
	s.then("Apply the first version.", func() { late = s.MustApply(rig.Object("shop", 1)) })
	s.later(time.Minute, "It is built. Approve is called, finds no signal, and waits for one.")
	s.then("Three hours later Ada approves. The step is called again, still in its first attempt, and is done.", func() {
		time.Sleep(3 * time.Hour)
		approve(late)
	})
	s.later(time.Second, "It is deployed.")

	s.then("Apply the second version. Ada approves it while it is still being built; the signal is kept.", func() {
		early = s.MustApply(rig.Object("shop", 2))
		time.Sleep(time.Second)
		approve(early)
	})
	s.later(59*time.Second, "When approve comes to wait for the signal, it is there already: the step is called again at once.")
	s.later(time.Second, "It is deployed.")

	s.then("Apply the third version.", func() { never = s.MustApply(rig.Object("shop", 3)) })
	s.later(time.Minute, "It is built, and approve waits.")
	s.later(24*time.Hour, "Nobody approves in 24 hours. The step is called again, learns that, and fails.")
	require.NoError(s.t, s.Ended(late.ID).Err())
	require.NoError(s.t, s.Ended(early.ID).Err())
	require.Equal(s.t, conveyor.StateFailed, s.Ended(never.ID).State)
}

func toleratedFailureInAGraph(s *story) {
	s.drivers["fetch"] = rig.DriverOf(rig.Taking(time.Second))
	s.drivers["lint"] = rig.DriverOf(failing(time.Second, conveyor.Permanent(errors.New("two lines are too long"))))
	s.drivers["test"] = rig.DriverOf(rig.Taking(3 * time.Second))
	s.drivers["scan"] = rig.DriverOf(rig.Taking(2 * time.Second))
	s.drivers["package"] = rig.DriverOf(rig.Taking(time.Second))
	p := conveyor.PipelineSpec{Steps: steps("fetch", "lint", "test", "scan", "package")}
	for i := 1; i <= 3; i++ {
		p.Steps[i].After = []string{"fetch"}
	}
	p.Steps[1].ContinueOnError = true
	p.Steps[4].After = []string{"lint", "test", "scan"}
	s.opens("Graph with a tolerated failure", `Three checks run side by side. The one that may fail does, and stops nobody.`, p)
	var run *conveyor.Run
	s.then("Apply the resource. Only fetch comes after nothing.", func() { run = s.MustApply(rig.Object("v7", 1)) })
	s.later(time.Second, "Fetch ends, and the three that come after it begin at once.")
	s.later(time.Second, "Lint fails. It has ContinueOnError, so the run goes on.")
	s.later(time.Second, "Scan ends. Package has to wait for test.")
	s.later(time.Second, "Test ends. All three have an outcome, so package begins.")
	s.later(time.Second, "The run succeeds; the failure of lint stays on record.")
	run = s.Ended(run.ID)
	require.NoError(s.t, run.Err())
	require.Equal(s.t, conveyor.StateFailed, run.Step("lint").State)
}

func crashInAStep(s *story) {
	test := rig.Recording(rig.Taking(time.Minute))
	s.drivers["build"] = rig.DriverOf(rig.Taking(time.Minute))
	s.drivers["test"] = test
	s.opens("Crash in a step", `The program dies in the middle of a step. What was finished is not done again; what was under way is called again.`,
		conveyor.PipelineSpec{Steps: steps("build", "test")})
	var run *conveyor.Run
	s.then("Apply the resource.", func() { run = s.MustApply(rig.Object("web", 1)) })
	s.later(time.Minute, "Build ends, test begins.")
	s.dies(30*time.Second, "Half a minute later the program dies.")
	s.then("It is started again an hour later. Test is called again in the same attempt, with the same idempotency key\nand Resumed set.", func() {
		time.Sleep(time.Hour)
		s.begin()
	})
	s.later(time.Minute, "It succeeds, and the run ends. Build was called once.")
	require.NoError(s.t, s.Ended(run.ID).Err())
	require.Equal(s.t, []string{"test", "test+"}, test.Steps())
}

func deleteWithACrash(s *story) {
	undo := rig.Recording(rig.Taking(time.Minute))
	for _, name := range []string{"network", "database", "app"} {
		s.drivers[name] = rig.Undoing(rig.Recording(rig.Taking(time.Second)), undo)
	}
	s.opens("Deletion with finalizers, and a crash in between", `Every driver is a Finalizer: Finalize takes away what Reconcile has put there.`,
		conveyor.PipelineSpec{Steps: steps("network", "database", "app")})
	s.then("Apply the resource, and wait until all its layers are there.", func() { s.Finish(rig.Object("staging", 1)) })
	var run *conveyor.Run
	s.then("Delete it. The deletion is a run like any other, but goes through the steps in reverse order.", func() {
		var err error
		run, err = s.Delete(s.t.Context(), rig.Object("staging", nil).Key())
		require.NoError(s.t, err)
	})
	s.later(time.Minute, "The app is gone; the database is next.")
	s.dies(30*time.Second, "Half a minute later, while the database is being finalized, the program dies.")
	s.then("It is started again. The app is not finalized again; the database is, in the same attempt, with Resumed set.", func() { s.begin() })
	s.later(time.Minute, "The database is gone; the network is next.")
	s.later(time.Minute, "The last commit ends the run and removes the resource.")
	require.NoError(s.t, s.Ended(run.ID).Err())
	require.Equal(s.t, []string{"app", "database", "database+", "network"}, undo.Steps())
	s.then("The name is free. Who applies it again gets a new resource, whose generations go on from the old one's.", func() {
		again := rig.Object("staging", 2)
		require.NoError(s.t, s.Finish(again).Err())
		require.Equal(s.t, int64(2), again.Generation)
	})
}

func retryFromTheFailedStep(s *story) {
	full := conveyor.Permanent(errors.New("the registry is full"))
	s.drivers["build"] = rig.DriverOf(rig.Taking(time.Hour))
	s.drivers["push"] = rig.DriverOf(rig.InTurn(failing(time.Second, full), rig.Taking(time.Second)))
	s.drivers["announce"] = rig.DriverOf(rig.Taking(time.Second))
	s.opens("Retry from the failed step", `A run has failed. Somebody mends what was wrong, and has the run repeated from where it failed.`,
		conveyor.PipelineSpec{Steps: steps("build", "push", "announce")})
	var first, second *conveyor.Run
	s.then("Apply the resource. An hour is needed to build it.", func() { first = s.MustApply(rig.Object("web", 1)) })
	s.later(time.Hour, "Build ends.")
	s.later(time.Second, "Push fails for good, so the run fails, and announce is not called.")
	s.then("Ten minutes later there is room, and Engine.Retry repeats the run. Build is done already; push comes first.", func() {
		time.Sleep(10 * time.Minute)
		var err error
		second, err = s.Retry(s.t.Context(), first.ID, conveyor.RetryFrom{})
		require.NoError(s.t, err)
	})
	s.later(time.Second, "Push succeeds,")
	s.later(time.Second, "and announce with it. The first run stays failed, as history.")
	second = s.Ended(second.ID)
	require.NoError(s.t, second.Err())
	require.Equal(s.t, first.ID, second.Of)
}
