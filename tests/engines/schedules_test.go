package engines_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
)

// TestEnginesAnySchedule explores how several engines can come between each other. Each seed is a small world in a bubble of its own:
// two or three processes with different drivers on one shared store, which takes a random time before and after each call. Clients
// of all processes apply, cancel, delete, signal, retry, trigger and pause. Meanwhile processes are shut down, killed, cut off from
// the store, and frozen, and others take their places. The witnesses are in witness_test.go: they look at each commit and at each call
// of a driver. At last everything is mended, and every run must come to its end.
//
// A seed that fails prints the command that plays it again. The seed decides what the world does. It does not decide the ids of
// runs and of engines, from which follows who takes over what, and the order of goroutines that are awake at the same instant. So a
// failure may need several plays (-count=100).
func TestEnginesAnySchedule(t *testing.T) {
	if seed, ok := seedOfRun(); ok {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { playSchedule(t, seed) })
		return
	}
	n := testenv.Bound(t, "CONVEYOR_ENGINE_SCHEDULES", testenv.Some(t, 60, 3000), 60)
	var mu sync.Mutex
	all := sightings{}
	t.Run("all", func(t *testing.T) {
		const batch = 50
		for from := 0; from < n; from += batch {
			t.Run(fmt.Sprint("from ", from), func(t *testing.T) {
				t.Parallel()
				for seed := from; seed < min(from+batch, n) && !t.Failed(); seed++ {
					t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
						seen := playSchedule(t, seed)
						mu.Lock()
						defer mu.Unlock()
						for what, times := range seen {
							all[what] += times
						}
					})
				}
			})
		}
	})
	if t.Failed() || all[sawCall] == 0 { // -run asks for none of them
		return
	}
	for _, what := range slices.Sorted(maps.Keys(all)) {
		t.Logf("%8d %s", all[what], what)
	}
	testenv.Figure(t, "%d schedules of two and three engines: %d calls of drivers, %d claims, %d hand-overs, %d takeovers, %d processes killed, %d cut off or frozen; 0 faults",
		n, all[sawCall], all[sawClaim], all[sawRelease], all[sawTakeover], all[sawKill], all[sawCutOff]+all[sawFreeze])
	for _, what := range interesting {
		require.True(t, n < 120 || all[what] > 0, "in %d seeds there was none of: %s", n, what)
	}
}

// sightings counts what the seeds have come upon.
type sightings map[string]int

// The names of the things that are counted.
const (
	sawCall       = "calls of drivers"
	sawResumed    = "calls resumed"
	sawFinalize   = "calls of Finalize"
	sawLeaseLost  = "calls that lost their lease"
	sawOverlap    = "calls at once, of an engine that was away"
	sawClaim      = "claims"
	sawRelease    = "releases"
	sawTakeover   = "takeovers"
	sawMark       = "engines marked dead by another"
	sawLeave      = "engines marked dead by themselves"
	sawKill       = "processes killed"
	sawShutdown   = "processes shut down"
	sawCutOff     = "processes cut off"
	sawFreeze     = "processes frozen"
	sawOutage     = "times when the store was away for all"
	sawGap        = "changes that the watches have missed"
	sawStray      = "strays on record"
	sawPause      = "pauses"
	sawCancel     = "cancels"
	sawDelete     = "deletions"
	sawSignal     = "signals"
	sawEdit       = "pipelines saved"
	sawLate       = "drivers registered after the start"
	sawRetry      = "retries"
	sawTrigger    = "triggers"
	sawSupersede  = "runs superseded"
	sawCoalesced  = "changes taken up by a run in line"
	sawFault      = "commits that went wrong"
	sawWait       = "waits until a run has ended"
	sawCheckpoint = "checkpoints"
	sawListener   = "steps of listeners"
	sawAway       = "calls of clients refused for want of a lease"
)

// interesting is what must have happened in a few hundred seeds.
var interesting = []string{
	sawCall, sawResumed, sawFinalize, sawLeaseLost, sawClaim, sawRelease, sawTakeover, sawMark, sawLeave, sawKill, sawShutdown, sawCutOff,
	sawFreeze, sawOutage, sawGap, sawCoalesced, sawPause, sawCancel, sawDelete, sawSignal, sawEdit, sawLate, sawRetry, sawTrigger, sawSupersede, sawFault, sawWait, sawCheckpoint, sawListener,
}

// seedOfRun returns the seed that -run asks for by name.
func seedOfRun() (seed int, ok bool) {
	found := regexp.MustCompile(`TestEnginesAnySchedule\$?/\^?seed=(\d+)`).FindStringSubmatch(flag.Lookup("test.run").Value.String())
	if found == nil {
		return 0, false
	}
	seed, err := strconv.Atoi(found[1])
	return seed, err == nil
}

// playSchedule plays one seed in a bubble, and returns what it has come upon.
func playSchedule(t *testing.T, seed int) sightings {
	again := fmt.Sprintf("to play seed %d again: go test ./tests/engines -run 'TestEnginesAnySchedule/seed=%d$'", seed, seed)
	stuck := time.AfterFunc(2*time.Minute, func() { // of the real clock: nothing inside takes a second
		fmt.Fprintln(os.Stderr, "it does not come to an end;", again)
	})
	defer stuck.Stop()
	var s *schedule
	defer func() {
		if v := recover(); v != nil { // goroutines that wait for each other, as the bubble has found out
			t.Errorf("the bubble: %v; %s", v, again)
		}
		if t.Failed() {
			t.Log(again)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		s = newSchedule(t, seed)
		s.play()
	})
	return s.seen
}

// pureName is the name of the process whose engine is never started.
const pureName = "pure"

// schedule is the world of one seed.
type schedule struct {
	*world
	seed      int
	slow      time.Duration // the most that the store takes before or after a call
	deaf      bool          // some drivers ignore their contexts
	faulty    bool          // some commits go wrong
	pauses    bool          // the line is stopped at times
	lost      bool          // some changes are forgotten before the watches have told them
	moves     bool          // resources change their pipelines; all pipelines have the same way with changes
	hurried   bool          // some drivers are registered some time after the start
	drivers   map[string][]int
	pipelines []conveyor.PipelineSpec
	resources []conveyor.Key
	along     map[conveyor.Key]string // their pipelines
	pure      *process                // its engine is never started

	lives sync.Mutex // guards what follows; held for no time of the bubble
	procs []*process
	born  []int          // how many processes there were in each place
	dying sync.WaitGroup // for what is left of processes, and for what they do later

	// The fields that follow are guarded by world.mu.
	seen   sightings
	asked  map[string]int // of the store, by process and kind of record
	times  map[string]int // calls of drivers, by resource and step
	visits []*visit
	tokens map[string]int64
	away   map[*process][]absence
	beats  map[string]time.Time // the newest heartbeats of engines
	anew   map[string]time.Time // when engines have renewed their leases after a gap
	listen map[string]time.Time // since when drivers listen, by the keys of their records
	atWork map[string]string    // the pipelines of the runs that have begun and not ended
	acked  []ack
	calm   bool // everything shall come to its end
}

// ack is an Apply that has returned without an error.
type ack struct {
	key        conveyor.Key
	id, run    string
	generation int64
	queue      bool
}

// absence is a time during which the store is out of reach for a process.
type absence struct {
	from, until time.Time
	frozen      bool // its drivers stand still too
}

// on returns the dice for a question. Each question has dice of its own, so that the answer does not depend on the order of the
// questions.
func (s *schedule) on(question ...any) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, question...)
	return rand.New(rand.NewPCG(uint64(s.seed), h.Sum64()))
}

func oneIn(d *rand.Rand, n int) bool { return d.IntN(n) == 0 }

// upTo is a time to the nanosecond, so that two of them are hardly ever the same.
func upTo(d *rand.Rand, most time.Duration) time.Duration {
	return 1 + time.Duration(d.Int64N(int64(most)))
}

func pick[T any](d *rand.Rand, from ...T) T { return from[d.IntN(len(from))] }

func newSchedule(t *testing.T, seed int) *schedule {
	s := &schedule{
		world: newWorld(t), seed: seed, drivers: map[string][]int{}, along: map[conveyor.Key]string{}, seen: sightings{},
		asked: map[string]int{}, times: map[string]int{}, tokens: map[string]int64{}, away: map[*process][]absence{}, atWork: map[string]string{}, beats: map[string]time.Time{}, anew: map[string]time.Time{}, listen: map[string]time.Time{},
	}
	d := s.on("setup")
	places := 2 + d.IntN(2)
	s.procs, s.born = make([]*process, places), make([]int, places)
	s.slow = pick(d, 0, time.Millisecond, 10*time.Millisecond, 40*time.Millisecond, 200*time.Millisecond)
	s.deaf, s.faulty, s.pauses, s.lost, s.moves, s.hurried = oneIn(d, 4), oneIn(d, 3), oneIn(d, 4), oneIn(d, 4), oneIn(d, 3), oneIn(d, 4)
	names := []string{"d0", "d1", "d2"}
	for _, name := range names {
		s.drivers[name] = s.somePlaces(d, places)
	}
	for i := range 1 + d.IntN(2) {
		s.pipelines = append(s.pipelines, newPipeline(d, fmt.Sprint("p", i), names))
		if s.moves {
			s.pipelines[i].OnChange = s.pipelines[0].OnChange
		}
	}
	for i := range 1 + d.IntN(3) {
		k := conveyor.Key{Type: "r", Name: fmt.Sprint("x", i)}
		s.along[k] = s.pipelines[d.IntN(len(s.pipelines))].Name
		if oneIn(d, 6) {
			k.Type = "loose"
			s.along[k] = ""
			s.drivers["listens to loose"] = s.somePlaces(d, places)
			s.drivers["also listens to loose"] = s.somePlaces(d, places)
		}
		s.resources = append(s.resources, k)
	}
	return s
}

// somePlaces chooses the places whose processes have a driver, one at least.
func (s *schedule) somePlaces(d *rand.Rand, places int) (some []int) {
	some = append(some, d.IntN(places))
	for i := range places {
		if i != some[0] && oneIn(d, 2) {
			some = append(some, i)
		}
	}
	return some
}

func newPipeline(d *rand.Rand, name string, drivers []string) conveyor.PipelineSpec {
	p := conveyor.PipelineSpec{Name: name, Resource: "r", OnChange: conveyor.ChangePolicy(d.IntN(4)), MaxRuns: pick(d, 0, 0, 1, 2)}
	if oneIn(d, 6) {
		p.Timeout = conveyor.Duration(2*time.Second + upTo(d, 20*time.Second))
	}
	if oneIn(d, 6) {
		p.Resync = conveyor.Duration(2*time.Second + upTo(d, 10*time.Second))
	}
	steps := 1 + d.IntN(4)
	graph := oneIn(d, 4)
	for i := range steps {
		step := conveyor.Step{Driver: pick(d, drivers...), ContinueOnError: oneIn(d, 8)}
		if graph && i > 0 && oneIn(d, 2) {
			step.After = conveyor.AtOnce()
			for before := range i {
				if oneIn(d, 2) {
					step.After = append(step.After, fmt.Sprint(before+1))
				}
			}
		}
		p.Steps = append(p.Steps, step)
	}
	if oneIn(d, 4) {
		p.Finally = []conveyor.Step{{Driver: pick(d, drivers...)}}
	}
	return p
}

// launch starts a process in a place.
func (s *schedule) launch(place int) {
	s.lives.Lock()
	s.born[place]++
	name := fmt.Sprintf("%c%d", 'a'+place, s.born[place])
	s.lives.Unlock()
	p := s.process(name, place)
	s.lives.Lock()
	s.procs[place] = p
	s.lives.Unlock()
	for p.Start(context.Background()) != nil && !p.isDead() {
		time.Sleep(lease / 10)
	}
}

// process makes a process with the drivers of a place.
func (s *schedule) process(name string, place int) *process {
	p := &process{w: s.world, name: name, strike: s.strike}
	p.disk = witness{s.disk.Join(), s, p}
	d := s.on("options", name)
	e, err := conveyor.New(late{line{p}, s}, conveyor.Options{
		Lease: lease, Name: name, Workers: 1 + s.on("workers").IntN(4), Limits: conveyor.Limits{Interruptions: 1000},
		Retry: conveyor.RetryPolicy{Initial: conveyor.Duration(upTo(d, time.Second)), Max: conveyor.Duration(2 * time.Second)},
	})
	require.NoError(s.t, err)
	p.Engine = e
	for driver, places := range s.drivers {
		switch late := s.on("late", name, driver); {
		case !slices.Contains(places, place):
		case s.hurried && oneIn(late, 3):
			s.dying.Go(func() {
				time.Sleep(upTo(late, 3*lease))
				s.saw(sawLate)
				s.register(p, driver)
			})
		default:
			s.register(p, driver)
		}
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			p.kill()
			_ = p.stop()
		}
	})
	return p
}

// register registers a driver with a process, unless that has ended.
func (s *schedule) register(p *process, driver string) {
	var listen []conveyor.DriverOption
	if strings.HasSuffix(driver, "listens to loose") {
		listen = append(listen, conveyor.Listen("loose"))
	}
	err := p.Register(strings.ReplaceAll(driver, " ", "-"), acting{s, p}, listen...)
	if err != nil && !p.isDead() && !errors.Is(err, conveyor.ErrClosed) {
		s.accuse("%s does not register %s: %v", p.name, driver, err)
	}
}

// strike is how a commit of a process goes wrong.
func (s *schedule) strike(p *process, n int) fault {
	d := s.on("strike", p.name, n)
	if !s.faulty || !oneIn(d, 12) || s.isCalm() {
		return fine
	}
	s.saw(sawFault)
	all := []fault{refused, unknownUndone, unknownDone, unknownLater, slow, pauses, cutOff, answersLate, diesBefore, diesAfter}
	if p.name == pureName {
		all = all[:5] // nobody takes its place
	}
	return pick(d, all...)
}

func (s *schedule) isCalm() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calm
}

func (s *schedule) saw(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[what]++
}

// say adds a line to what is told of a failure.
func (s *schedule) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, time.Now().Format("05.000")+" "+fmt.Sprintf(format, args...))
}

// play is the whole seed.
func (s *schedule) play() {
	d := s.on("play")
	for place := range s.procs {
		s.launch(place)
	}
	s.pure = s.process(pureName, -1)
	time.Sleep(upTo(d, 2*lease))
	for _, p := range s.pipelines {
		s.insist(func() {}, func() error { return s.any(d).SavePipeline(context.Background(), p) })
	}
	var clients, operator sync.WaitGroup
	ended := make(chan struct{})
	for c := range 1 + d.IntN(3) {
		clients.Go(func() { s.client(c) })
	}
	operator.Go(func() { s.operate(ended) })
	clients.Wait()
	if oneIn(d, 3) {
		time.Sleep(upTo(d, 20*lease)) // it is left to itself for some time
	}
	close(ended)
	operator.Wait()
	s.comeToRest(d)
}

// any returns one of the processes.
func (s *schedule) any(d *rand.Rand) *process {
	s.lives.Lock()
	defer s.lives.Unlock()
	if oneIn(d, 8) {
		return s.pure
	}
	return pick(d, s.procs...)
}

// client does some of the things that a program does.
func (s *schedule) client(c int) {
	d := s.on("client", c)
	pace := pick(d, 50*time.Millisecond, time.Second, 3*time.Second)
	for n := range 3 + d.IntN(8) {
		time.Sleep(upTo(d, pace))
		s.act(s.on("act", c, n), fmt.Sprint("client ", c))
	}
}

// act does one of the things that a program does. Most can be refused at the wrong moment.
func (s *schedule) act(d *rand.Rand, who string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, k := s.any(d), pick(d, s.resources...)
	var err error
	name, did := "", ""
	switch what := d.IntN(100); {
	case what < 45:
		name, err = "apply", s.apply(ctx, d, p, k)
	case what < 50:
		name, did = "trigger", sawTrigger
		_, err = p.Trigger(ctx, k)
	case what < 62:
		name, did, err = "cancel", sawCancel, s.cancel(ctx, p, s.recent(d, k))
	case what < 66:
		name, did = "delete", sawDelete
		_, err = p.Delete(ctx, k)
	case what < 78:
		name, did = "signal", sawSignal
		err = p.Signal(ctx, s.recent(d, k), "go", who)
	case what < 84:
		name, did, err = "retry", sawRetry, s.retry(ctx, d, p, s.recent(d, k))
	case what < 88:
		name, did = "save", sawEdit
		spec := pick(d, s.pipelines...)
		spec.Description = who // another definition, with the same steps
		err = p.SavePipeline(ctx, spec)
	case what < 94 && s.pauses:
		name, did = "pause", sawPause
		target := pick(d, conveyor.Target{All: true}, conveyor.Target{Driver: "d0"}, conveyor.Target{Pipeline: "p0"}, conveyor.Target{Resource: k})
		if oneIn(d, 2) {
			err = p.Pause(ctx, target, "stop")
		} else {
			err = p.Resume(ctx, target)
		}
	default:
		name, did = "wait", sawWait
		within, over := context.WithTimeout(ctx, upTo(d, 20*lease))
		defer over()
		var run *conveyor.Run
		if run, err = p.Wait(within, s.recent(d, k)); err == nil && !run.State.Final() {
			s.accuse("Wait of %s returns a run that is %s", p.name, run.State)
		}
	}
	s.say("%s has %s %s %s: %v", who, p.name, name, k.Name, err)
	switch {
	case err == nil && did != "":
		s.saw(did)
	case errors.Is(err, store.ErrUnavailable):
		s.saw(sawAway)
	case errors.Is(err, context.DeadlineExceeded) && name != "wait" && !p.isDead():
		s.accuse("%s in %s has not returned in a minute", name, p.name)
	}
}

// accuse notes a fault.
func (s *schedule) accuse(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blame(format, args...)
}

func (s *schedule) apply(ctx context.Context, d *rand.Rand, p *process, k conveyor.Key) error {
	o := &conveyor.Object{Meta: conveyor.Meta{Type: k.Type, Name: k.Name, Pipeline: s.along[k]}, Spec: rig.JSON(d.IntN(4))}
	if s.moves && o.Pipeline != "" {
		o.Pipeline = pick(d, s.pipelines...).Name
	}
	run, err := p.Apply(ctx, o)
	if err != nil {
		return err
	}
	queue := slices.ContainsFunc(s.pipelines, func(p conveyor.PipelineSpec) bool { return p.Name == o.Pipeline && p.OnChange == conveyor.Queue })
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.acked, func(a ack) bool { return a.run == run.ID && a.generation < o.Generation }) {
		s.seen[sawCoalesced]++
	}
	s.acked = append(s.acked, ack{k, o.ID, run.ID, o.Generation, queue})
	return nil
}

func (s *schedule) cancel(ctx context.Context, p *process, run string) error {
	if err := p.Cancel(ctx, run, "not needed"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec, err := s.run(run); err == nil && !rec.State.Final() && rec.Stop == "" && !rec.CutShort && rec.Outcome == 0 {
		s.blame("Cancel of run %s in %s has returned, and it is not on record", run, p.name)
	}
	return nil
}

// retry repeats a run when it has ended. It is canceled before as often as not.
func (s *schedule) retry(ctx context.Context, d *rand.Rand, p *process, run string) error {
	if oneIn(d, 2) {
		_ = s.cancel(ctx, p, run)
	}
	within, cancel := context.WithTimeout(ctx, 2*lease)
	defer cancel()
	_, _ = p.Wait(within, run)
	_, err := p.Retry(ctx, run, conveyor.RetryFrom{Newest: oneIn(d, 2), Start: oneIn(d, 4)})
	return err
}

// recent returns one of the last runs of a resource, and an id of none if there is no run.
func (s *schedule) recent(d *rand.Rand, k conveyor.Key) string {
	back := d.IntN(3)
	runs := []string{"none"}
	for r := range s.disk.List(context.Background(), store.Query{Prefix: fmt.Sprintf("rix/%s/%s/", k.Type, k.Name)}) {
		runs = append(runs, r.Key[strings.LastIndexByte(r.Key, '/')+1:])
	}
	return runs[max(0, len(runs)-1-back)]
}

// operate shuts processes down, kills them, cuts them off and freezes them. Until the clients have ended it replaces those that die at a
// commit: a call of theirs does not return before they are buried.
func (s *schedule) operate(ended <-chan struct{}) {
	d := s.on("operator")
	pace := pick(d, lease, 3*lease, 10*lease)
	for n := range 2 + d.IntN(5) {
		select {
		case <-ended:
			return
		case <-time.After(upTo(d, pace)):
		}
		d := s.on("operation", n)
		place := d.IntN(len(s.procs))
		s.lives.Lock()
		p := s.procs[place]
		s.lives.Unlock()
		switch what := d.IntN(10); {
		case p.isDead(): // at a commit
			s.saw(sawKill)
			s.replace(place)
		case s.lost && oneIn(d, 3):
			s.saw(sawGap)
			s.disk.Forget()
		case what < 3:
			s.saw(sawKill)
			s.say("%s is killed", p.name)
			p.kill()
			time.Sleep(pick(d, 1, upTo(d, lease), upTo(d, 4*lease)))
			s.replace(place)
		case what < 5:
			s.shutDown(p, pick(d, 0, upTo(d, lease), upTo(d, 8*lease)))
			time.Sleep(pick(d, 1, upTo(d, lease), upTo(d, 4*lease)))
			s.replace(place)
		case what < 6:
			s.saw(sawOutage)
			away := upTo(d, 3*lease)
			s.lives.Lock()
			all := append(slices.Clone(s.procs), s.pure)
			s.lives.Unlock()
			for _, p := range all {
				s.isolate(p, away, false)
			}
		case what < 8:
			s.saw(sawCutOff)
			s.isolate(p, pick(d, upTo(d, lease), lease/2+upTo(d, lease), upTo(d, 4*lease)), false)
		default:
			s.saw(sawFreeze)
			s.isolate(p, upTo(d, 4*lease), true)
		}
	}
	for {
		select {
		case <-ended:
			return
		case <-time.After(lease):
		}
		for place, p := range s.procs {
			if p.isDead() {
				s.saw(sawKill)
				s.replace(place)
			}
		}
	}
}

// replace starts a process in the place of one that is dead.
func (s *schedule) replace(place int) {
	s.dying.Go(s.procs[place].bury)
	s.launch(place)
}

// bury waits for the goroutines of a process that is dead. Nothing that they do reaches the store.
func (p *process) bury() {
	for range 2 {
		time.Sleep(5 * lease) // no call of the store is held up for longer
		ctx, cancel := context.WithTimeout(context.Background(), lease)
		_ = p.Shutdown(ctx)
		cancel()
	}
}

// shutDown ends a process in good order. When Shutdown returns, the process ends, whatever its drivers do.
func (s *schedule) shutDown(p *process, patience time.Duration) {
	s.saw(sawShutdown)
	s.say("%s is shut down within %s", p.name, patience)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := p.Shutdown(ctx)
	s.say("%s is shut down: %v", p.name, err)
	p.kill()
}

// isolate keeps the store out of reach of a process for some time. The drivers of a process that is frozen stand still too.
func (s *schedule) isolate(p *process, d time.Duration, frozen bool) {
	s.mu.Lock()
	now := time.Now()
	if of := s.away[p]; len(of) > 0 && !of[len(of)-1].until.Before(now) {
		s.mu.Unlock()
		return // it is away
	}
	s.away[p] = append(s.away[p], absence{now, now.Add(d), frozen})
	s.mu.Unlock()
	s.say("%s is away for %s, frozen %v", p.name, d, frozen)
	p.hold(d)
}

// comeToRest mends everything, waits until all runs have ended, and looks at what has come of them.
func (s *schedule) comeToRest(d *rand.Rand) {
	s.mu.Lock()
	s.calm = true
	s.mu.Unlock()
	s.say("calm")
	time.Sleep(5 * lease) // nobody is away for longer
	for place, p := range s.procs {
		if p.isDead() {
			s.replace(place)
		}
	}
	ctx := context.Background()
	for _, p := range s.pipelines {
		p.Resync = 0
		s.insist(func() {}, func() error { return s.any(d).SavePipeline(ctx, p) })
	}
	for _, p := range rig.Drain(s.t, s.pure.Pauses(ctx)) {
		s.insist(func() {}, func() error { return s.any(d).Resume(ctx, p.Target) })
	}
	s.settle(s.signalAll)
	s.check()
	s.requireReconciled()

	runs := map[conveyor.Key]*conveyor.Run{} // of the last specs, which are applied when all is well
	for _, k := range s.resources {
		o := &conveyor.Object{Meta: conveyor.Meta{Type: k.Type, Name: k.Name, Pipeline: s.along[k]}, Spec: rig.JSON("last")}
		run, err := s.any(d).Apply(ctx, o)
		if errors.Is(err, conveyor.ErrConflict) { // its deletion has failed
			gone, err := s.any(d).Delete(ctx, k)
			require.NoError(s.t, err)
			require.NoError(s.t, untilEnded(s.t, s.any(d).Engine, gone.ID, time.Minute).Err())
			run, err = s.any(d).Apply(ctx, o)
			require.NoError(s.t, err)
		} else {
			require.NoError(s.t, err)
		}
		runs[k] = run
	}
	for k, run := range runs {
		ended := untilEnded(s.t, s.any(d).Engine, run.ID, time.Minute)
		o, err := s.any(d).Get(ctx, k)
		require.NoError(s.t, err)
		if ended.Err() != nil || o.Status.Phase != conveyor.StateSucceeded || o.Status.ObservedGeneration != o.Generation || ended.Generation != o.Generation {
			s.accuse("when all is well, run %s of generation %d of %s ends with %v, and %+v is known of generation %d", run.ID, ended.Generation, k, ended.Err(), o.Status, o.Generation)
		}
	}
	s.check()
	s.settle(func() {})
	for _, p := range append(s.procs, s.pure) {
		require.NoError(s.t, p.stop())
	}
	s.dying.Wait()
	time.Sleep(2 * time.Second) // a commit can be on its way
	s.check()
	rig.RequireAtRest(s.t, s.disk)
	for key := range s.records() {
		require.NotRegexp(s.t, "^(own|ask|rdy|slt|act)/", key, "left when all is done")
	}
}

// signalAll sends a signal to each run that has not ended, for the steps that wait for one.
func (s *schedule) signalAll() {
	for r := range s.disk.List(context.Background(), store.Query{Prefix: "~act/"}) {
		run := strings.TrimPrefix(r.Key, "~act/")
		if s.awaits(run) {
			_ = s.pure.Signal(context.Background(), run, "go", "at last")
		}
	}
}

// awaits reports whether a step of a run waits for a signal.
func (s *schedule) awaits(run string) bool {
	for r := range s.disk.List(context.Background(), store.Query{Prefix: "stp/" + run + "/"}) {
		if strings.Contains(string(r.Value), `"await":"go"`) {
			return true
		}
	}
	return false
}

// requireReconciled makes sure that what Apply has acknowledged was reconciled: the last generation by a run that has begun with it
// or with a newer one, and where changes queue, every generation by one of its own. A run that was canceled in the line counts with
// what it stood for.
func (s *schedule) requireReconciled() {
	runs := rig.Drain(s.t, s.pure.Runs(context.Background(), conveyor.RunFilter{}))
	for _, run := range runs {
		require.True(s.t, run.State.Final(), run.ID)
	}
	for _, run := range runs {
		planned := run.Cause != conveyor.CauseDeleted && run.Cause != conveyor.CauseRetried // those have steps of earlier runs
		if run.Resource.Type == "loose" && !run.StartedAt.IsZero() && planned {
			s.requireListeners(run)
		}
	}
	for _, a := range s.acked {
		ok := slices.ContainsFunc(runs, func(r *conveyor.Run) bool {
			stands := !r.StartedAt.IsZero() || r.State == conveyor.StateCanceled || r.State == conveyor.StateSkipped
			return r.ResourceID == a.id && stands && (r.Generation == a.generation || !a.queue && r.Generation > a.generation)
		})
		if !ok && slices.ContainsFunc(runs, func(r *conveyor.Run) bool { return r.ResourceID == a.id }) {
			s.accuse("generation %d of %s was acknowledged, and no run has taken it up", a.generation, a.key)
		}
	}
	s.check()
}

// requireListeners makes sure that a run has a step for each driver that has listened for some time when the run began, also for
// those whose processes were down.
func (s *schedule) requireListeners(run *conveyor.Run) {
	for key, since := range s.listen {
		driver := key[strings.LastIndexByte(key, '/')+1:]
		isOf := func(step conveyor.StepRun) bool { return step.Driver == driver }
		switch {
		case run.StartedAt.Sub(since) < 5*lease: // it may have been planned before
		case slices.ContainsFunc(run.Steps, isOf):
			s.saw(sawListener)
		default:
			s.accuse("run %s of %s has no step for %s", run.ID, run.Resource, driver)
		}
	}
}
