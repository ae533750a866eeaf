package kill_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

var killSeed = flag.Uint64("kill.seed", 0, "the seed that each round of TestKilledAtRandomLosesNothingAcknowledged has; 0 for another each time")

const (
	killsPerRecord  = 50 // kills before everything has to come to rest, and the next records begin
	killsPerReading = 10 // kills before the records are held against what was acknowledged
	rioters         = 4  // concurrent clients of one child, each with resources of its own
)

// TestKilledAtRandomLosesNothingAcknowledged kills real processes on the file store, some hundred times: after any
// number of acknowledgements, while the store is opened, while runs are recovered, and from within a driver. The
// children do all that can be acknowledged, from several goroutines at once. What a child was told it tells this
// process, which keeps the account; the drivers write a journal beside the records.
//
// A round is named after its seed, and
//
//	go test -run 'TestKilledAtRandomLosesNothingAcknowledged/rounds/seed_SEED$' -kill.seed=SEED .
//
// plays the same program again. The timing of the kills cannot be played again, nor what the disk and the processors
// make of it.
func TestKilledAtRandomLosesNothingAcknowledged(t *testing.T) {
	testenv.NeedKill(t)
	t.Parallel()
	kills := testenv.Bound(t, "CONVEYOR_KILLS", testenv.Some(t, 60, 500), 30)
	var total tally
	seeds := rand.New(rand.NewPCG(rand.Uint64(), 0))
	t.Run("rounds", func(t *testing.T) {
		for left := kills; left > 0; left -= killsPerRecord {
			seed := seeds.Uint64()
			if *killSeed != 0 {
				seed = *killSeed
			}
			n := min(left, killsPerRecord)
			t.Run(fmt.Sprint("seed_", seed), func(t *testing.T) {
				t.Parallel()
				newRound(t, seed).play(n, &total)
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Log(total.String())
	acknowledged := func(what string) int { return total.counts["acknowledged: "+what] }
	testenv.Figure(t, "%d kills; %d applies, %d deletions, %d cancels and %d signals acknowledged, 0 lost; %d calls repeated",
		kills, acknowledged("apply"), acknowledged("delete"), acknowledged("cancel"), acknowledged("signal"),
		total.counts["called again after a kill"])
	// A round that acknowledges nothing would find nothing lost.
	if kills >= 200 && *killSeed == 0 {
		for _, what := range []string{"apply", "delete", "trigger", "cancel", "signal", "retry", "wait", "save"} {
			require.NotZero(t, total.counts["acknowledged: "+what], what)
		}
		for _, what := range killKinds {
			require.NotZero(t, total.counts["kills: "+what], what)
		}
		for _, what := range []string{"called again after a kill", "signals taken", "checkpoints restored"} {
			require.NotZero(t, total.counts[what], what)
		}
	}
}

// tally counts what happened in all rounds.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (t *tally) add(what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.counts[what] += n
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for _, what := range slices.Sorted(maps.Keys(t.counts)) {
		lines = append(lines, fmt.Sprintf("%s: %d", what, t.counts[what]))
	}
	return strings.Join(lines, "\n")
}

// riot is what a child of this test does.
type riot struct {
	Seed    uint64
	Suicide int64 // the call of a driver in which the child kills itself; 0 for none
}

// report is a line that a child says: that a client is about to do something, and what it was answered.
type report struct {
	What       string // try, ack or refused
	Client     int
	Op         string
	Key        conveyor.Key
	Spec       int64 // of an apply; the number of a signal or of a definition
	Generation int64
	Run        string
	Was        string // the run that a retry repeats
	State      conveyor.State
	Err        string
}

// riotKinds are the resources of a client by the pipeline that they go along, and riotPipelines what those are.
var riotKinds = []string{"line", "line", "ask", "graph", "queue", "replace", "cleanup", "fan", "loose"}

func riotPipelines(version int64) (pipelines []conveyor.Pipeline) {
	label := fmt.Sprint("v", version)
	of := func(name string, policy conveyor.ChangePolicy, steps ...string) conveyor.PipelineSpec {
		p := conveyor.PipelineSpec{Name: name, Resource: name, Version: label, OnChange: policy}
		for _, id := range steps {
			p.Steps = append(p.Steps, conveyor.Step{ID: id, Driver: "worker"})
		}
		return p
	}
	graph := of("graph", 0, "a", "b", "c", "d")
	graph.Steps[1].After, graph.Steps[2].After, graph.Steps[3].After = []string{"a"}, []string{"a"}, []string{"b", "c"}
	cleanup := of("cleanup", 0, "a", "save", "c")
	cleanup.Finally = []conveyor.Step{{ID: "f1", Driver: "worker"}, {ID: "f2", Driver: "worker"}}
	fan := of("fan", 0)
	return []conveyor.Pipeline{
		of("line", 0, "a", "save", "c", "d"), of("ask", 0, "a", "ask", "c"), graph, of("queue", conveyor.Queue, "a", "b"),
		of("replace", conveyor.Supersede, "a", "b", "c"), cleanup,
		rig.FanOut{PipelineSpec: fan, Calls: new(atomic.Int64), Func: func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			return []conveyor.Step{{ID: "a", Driver: "worker"}, {ID: "b", Driver: "worker"}}, nil
		}},
	}
}

// precedes lists, by kind, the steps that must be done before a step of a run that is no deletion begins.
func precedes(kind, step string) []string {
	switch kind {
	case "loose":
		return nil
	case "graph":
		return map[string][]string{"b": {"a"}, "c": {"a"}, "d": {"b", "c"}}[step]
	}
	order := map[string][]string{
		"line": {"a", "save", "c", "d"}, "ask": {"a", "ask", "c"}, "queue": {"a", "b"}, "replace": {"a", "b", "c"},
		"cleanup": {"a", "save", "c"}, "fan": {"a", "b"},
	}[kind]
	return order[:max(slices.Index(order, step), 0)]
}

// rioter makes the engine that the children and the last reading have.
func rioter(ctx context.Context, t testing.TB, st *file.Store, dir string, life int, suicide int64) *conveyor.Engine {
	t.Helper()
	e, err := conveyor.New(st, conveyor.Options{
		Workers: 8, Limits: conveyor.Limits{Interruptions: 1 << 20}, // no run shall fail because of the kills
		Retry: conveyor.RetryPolicy{MaxAttempts: 3, Initial: conveyor.Duration(time.Millisecond), Max: conveyor.Duration(4 * time.Millisecond)},
	})
	require.NoError(t, err)
	journal, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { _ = journal.Close() })
	w := &riotWorker{journal: journal, life: life, suicide: suicide}
	require.NoError(t, e.Register("worker", w))
	require.NoError(t, e.Register("ear1", w, conveyor.Listen("loose")))
	require.NoError(t, e.Register("ear2", w, conveyor.Listen("loose")))
	for _, p := range riotPipelines(0)[6:] {
		require.NoError(t, e.SavePipeline(ctx, p)) // the one that is planned is code and not on record
	}
	return e
}

// riotWorker is the driver of all steps. What it does depends on the idempotency key, so that it is the same after
// each kill.
type riotWorker struct {
	journal *os.File
	life    int
	suicide int64
	calls   atomic.Int64
}

// call is a line of the journal.
type riotEntry struct {
	Life       int
	What       string // begin, saved, restored, twice; or how it ended: done, fail, requeue, await, cut
	Key        string // of the resource
	Run, Step  string
	Attempt    int
	Resumed    bool
	Idem       string
	Generation int64
	Spec       string
	Undo       bool
	N          int64
}

func (w *riotWorker) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return w.call(ctx, req, false)
}

func (w *riotWorker) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return w.call(ctx, req, true)
}

func (w *riotWorker) call(ctx context.Context, req *conveyor.Request, undo bool) (conveyor.Result, error) {
	note := func(what string, n int64) {
		line := rig.JSON(riotEntry{
			Life: w.life, What: what, Key: req.Resource.Key().String(), Run: req.Run, Step: req.Step.ID, Attempt: req.Attempt,
			Resumed: req.Resumed, Idem: req.IdempotencyKey(), Generation: req.Resource.Generation, Spec: string(req.Resource.Spec),
			Undo: undo, N: n,
		})
		if _, err := w.journal.Write(append(line, '\n')); err != nil {
			panic(err)
		}
	}
	luck := luckOf(req.IdempotencyKey())
	die := func(place uint64) {
		if w.suicide > 0 && luck>>32%4 == place {
			killSelf()
		}
	}
	if w.calls.Add(1) != w.suicide {
		die = func(uint64) {}
	}
	die(0)
	note("begin", 0)
	die(1)
	end := func(what string, result conveyor.Result, err error) (conveyor.Result, error) {
		note(what, 0)
		die(2)
		die(3)
		return result, err
	}
	select {
	case <-time.After(time.Duration(luck%4) * 500 * time.Microsecond):
	case <-ctx.Done():
		return end("cut", conveyor.Done(), context.Cause(ctx))
	}
	if undo {
		return end("done", conveyor.Done(), nil)
	}
	switch req.Step.ID {
	case "ask":
		return w.ask(ctx, req, note, end)
	case "save":
		return w.save(ctx, req, note, end)
	}
	switch n := luck >> 8 % 32; {
	case n == 0:
		return end("fail", conveyor.Done(), conveyor.Permanent(rig.ErrBoom))
	case n == 1:
		return end("fail", conveyor.Done(), rig.ErrBoom)
	case n <= 6 && req.Attempt <= int(n%3):
		return end("fail", conveyor.Done(), rig.ErrBoom)
	case n == 7 && req.Attempt == 1:
		note("fail", 0)
		panic("at the disco")
	case n == 8 && req.Attempt == 1:
		note("fail", 0)
		runtime.Goexit()
	case n <= 12:
		var before bool
		if _, err := req.Restore(&before); err != nil || !before {
			if err := errors.Join(err, req.Checkpoint(ctx, true)); err != nil {
				return end("fail", conveyor.Done(), err)
			}
			return end("requeue", conveyor.RequeueAfter(2*time.Millisecond), nil)
		}
	case n == 13:
		return end("done", conveyor.Skip("not needed"), nil)
	}
	return end("done", conveyor.DoneWith(req.Step.ID), nil)
}

// ask takes two signals. What it has taken is in its checkpoint, so that one that comes again is known.
func (w *riotWorker) ask(ctx context.Context, req *conveyor.Request, note func(string, int64),
	end func(string, conveyor.Result, error) (conveyor.Result, error)) (conveyor.Result, error) {
	var taken []int64
	if _, err := req.Restore(&taken); err != nil {
		return end("fail", conveyor.Done(), err)
	}
	var n int64
	got, err := req.Signal(&n)
	if err != nil {
		return end("fail", conveyor.Done(), err)
	}
	if got {
		if len(taken) > 0 && taken[len(taken)-1] == n && !req.Resumed {
			note("twice", n) // nothing has cut short the call that took it
			return end("fail", conveyor.Done(), conveyor.Permanent(rig.ErrBoom))
		}
		if len(taken) == 0 || taken[len(taken)-1] != n {
			taken = append(taken, n)
			if err := req.Checkpoint(ctx, taken); err != nil {
				return end("fail", conveyor.Done(), err)
			}
		}
	}
	if len(taken) < 2 {
		return end("await", conveyor.Await("go", 0), nil)
	}
	return end("done", conveyor.DoneWith(taken), nil)
}

// save saves its progress three times, and says what it has found and what was acknowledged.
func (w *riotWorker) save(ctx context.Context, req *conveyor.Request, note func(string, int64),
	end func(string, conveyor.Result, error) (conveyor.Result, error)) (conveyor.Result, error) {
	var n int64
	if _, err := req.Restore(&n); err != nil {
		return end("fail", conveyor.Done(), err)
	}
	note("restored", n)
	for n < 3 {
		if err := req.Checkpoint(ctx, n+1); err != nil {
			return end("fail", conveyor.Done(), err)
		}
		n++
		note("saved", n)
	}
	return end("done", conveyor.DoneWith(n), nil)
}

func luckOf(key string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, key)
	return rand.New(rand.NewPCG(h.Sum64(), 0)).Uint64()
}

func killSelf() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {} // the signal is on its way
}

// run is the main function of the child.
func (r *riot) run(t *testing.T, c child) {
	ctx := t.Context()
	fmt.Println(spoken, "opening")
	st, err := file.Open(ctx, filepath.Join(c.Dir, "records"), file.Options{Wait: true})
	require.NoError(t, err)
	e := rioter(ctx, t, st, c.Dir, c.Life, r.Suicide)
	fmt.Println(spoken, "recovering")
	require.NoError(t, e.Start(ctx))
	var clients sync.WaitGroup
	for i := range rioters {
		clients.Go(func() {
			client := &riotClient{
				e: e, n: i, rand: rand.New(rand.NewPCG(r.Seed, uint64(c.Life)<<8|uint64(i))),
				next: int64(c.Life)*1_000_000 + int64(i)*100_000,
			}
			for range 10_000 {
				client.act(ctx)
			}
		})
	}
	clients.Wait()
}

// riotClient does one thing after the other, and tells of each before and after.
type riotClient struct {
	e    *conveyor.Engine
	n    int
	rand *rand.Rand
	next int64 // the newest number that was used
}

func tell(r report) { fmt.Println(spoken, string(rig.JSON(r))) } // one write

func (c *riotClient) act(ctx context.Context) {
	i := c.rand.IntN(len(riotKinds))
	kind := riotKinds[i]
	o := &conveyor.Object{Meta: conveyor.Meta{Type: kind, Name: fmt.Sprintf("c%d-%d", c.n, i), Pipeline: kind}}
	if kind == "loose" {
		o.Pipeline = ""
	}
	op := []string{"apply", "apply", "apply", "apply", "wait", "wait", "trigger", "cancel", "signal", "signal", "retry", "delete", "save"}[c.rand.IntN(13)]
	if kind == "ask" && c.rand.IntN(3) == 0 {
		op = "signal"
	}
	r := report{What: "try", Client: c.n, Op: op, Key: o.Key()}
	c.next++
	r.Spec = c.next
	if op == "cancel" || op == "signal" || op == "wait" || op == "retry" {
		found, err := c.e.Get(ctx, o.Key())
		if err != nil || found.Status.Run == "" || op != "wait" && found.DeletedAt != nil || (op == "retry") != found.Status.Phase.Final() && op != "wait" {
			return // nothing to do it with
		}
		r.Run = found.Status.Run
	}
	if op == "save" && c.n != 0 {
		return // definitions have one author
	}
	tell(r)
	var run *conveyor.Run
	var err error
	switch op {
	case "apply":
		o.Spec = rig.JSON(r.Spec)
		if run, err = c.e.Apply(ctx, o); err == nil {
			r.Generation = o.Generation
		}
	case "trigger":
		run, err = c.e.Trigger(ctx, o.Key())
	case "delete":
		run, err = c.e.Delete(ctx, o.Key())
	case "retry":
		r.Was = r.Run
		run, err = c.e.Retry(ctx, r.Run, conveyor.RetryFrom{})
	case "cancel":
		err = c.e.Cancel(ctx, r.Run, "changed my mind")
	case "signal":
		err = c.e.Signal(ctx, r.Run, "go", r.Spec)
	case "wait":
		limited, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		run, err = c.e.Wait(limited, r.Run)
		cancel()
	case "save":
		for _, p := range riotPipelines(r.Spec)[:1] {
			err = c.e.SavePipeline(ctx, p)
		}
	}
	r.What = "ack"
	if run != nil {
		r.Run, r.State = run.ID, run.State
	}
	if err != nil {
		r.What, r.Err = "refused", err.Error()
		for name, sentinel := range map[string]error{
			"conflict": conveyor.ErrConflict, "not found": conveyor.ErrNotFound, "deadline": context.DeadlineExceeded,
		} {
			if errors.Is(err, sentinel) {
				r.Err = name
			}
		}
	}
	tell(r)
}

// situation is what a resource may be like.
type situation struct {
	there      bool
	deleting   bool
	generation int64 // the last one that the name had, gone or not
	spec       int64
}

// run that was acknowledged.
type runAcked struct {
	key      conveyor.Key
	canceled bool
	ended    conveyor.State
	was      string // the run that it repeats
	quiet    int    // the life in which it was acknowledged that no step of it starts any more; 0 for none so far
}

// round is a number of lives of one program on the same records, and the account of what they were told.
type round struct {
	t    *testing.T
	dir  string
	seed uint64
	rand *rand.Rand

	open    map[int]report // what each client is about to do
	may     map[conveyor.Key][]situation
	runs    map[string]*runAcked
	signals map[string][]int64        // by run, acknowledged
	doubted map[string]map[int64]bool // by run, signals that may have been sent
	saved   []int64                   // versions that the definition may have
	tally   *tally
	lives   int
}

func newRound(t *testing.T, seed uint64) *round {
	return &round{
		t: t, dir: t.TempDir(), seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), open: map[int]report{},
		may: map[conveyor.Key][]situation{}, runs: map[string]*runAcked{}, signals: map[string][]int64{},
		doubted: map[string]map[int64]bool{}, saved: []int64{0},
	}
}

func (r *round) play(kills int, total *tally) {
	r.tally = total
	r.begin()
	for r.lives < kills {
		r.live()
		if r.lives%killsPerReading == 0 && r.lives < kills {
			r.read(false)
		}
	}
	r.read(true)
}

// begin saves the pipelines, before anybody is killed.
func (r *round) begin() {
	st, err := file.Open(r.t.Context(), filepath.Join(r.dir, "records"), file.Options{})
	require.NoError(r.t, err)
	e, err := conveyor.New(st, conveyor.Options{})
	require.NoError(r.t, err)
	for _, p := range riotPipelines(0) {
		require.NoError(r.t, e.SavePipeline(r.t.Context(), p))
	}
	require.NoError(r.t, e.Shutdown(r.t.Context()))
	require.NoError(r.t, st.Close())
}

var killKinds = []string{"after an acknowledgement", "in the middle of the recovery", "at any time after the start", "from within a driver"}

// live starts a child, and kills it.
func (r *round) live() {
	kind := []int{0, 0, 0, 0, 0, 1, 1, 2, 3, 3}[r.rand.IntN(10)]
	r.lives++
	c := child{Dir: r.dir, Life: r.lives, Riot: &riot{Seed: r.seed}}
	patience, delay := 0, time.Duration(0)
	switch kind {
	case 0:
		patience = 1 + r.rand.IntN(100)
	case 1:
		delay = time.Duration(r.rand.IntN(2000)) * time.Microsecond
	case 2:
		delay = time.Duration(r.rand.IntN(25_000)) * time.Microsecond
	case 3:
		c.Riot.Suicide = 1 + int64(r.rand.IntN(30))
		patience = 1000
	}
	r.tally.add("kills: "+killKinds[kind], 1)
	p := startChild(r.t, c)
	if kind != 2 {
		alive := r.hearUntil(p, "recovering")
		for i := 0; alive && i < patience; i++ {
			alive = r.hear(p)
		}
	}
	time.Sleep(delay) // not for anything to happen, but for the kill to strike anywhere
	for _, said := range p.finish(r.t) {
		r.take(said)
	}
	for _, left := range r.open {
		r.doubt(left)
	}
	clear(r.open)
}

func (r *round) hear(p *process) (alive bool) {
	said, err := p.read()
	if err == nil {
		r.take(said)
	}
	return err == nil
}

func (r *round) hearUntil(p *process, what string) (alive bool) {
	for {
		said, err := p.read()
		if err != nil || said == what {
			return err == nil
		}
		r.take(said)
	}
}

// finish is kill for a child that may have ended itself.
func (p *process) finish(t *testing.T) (rest []string) {
	t.Helper()
	if err := p.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		require.NoError(t, err)
	}
	for {
		said, err := p.read()
		if err != nil {
			break
		}
		rest = append(rest, said)
	}
	require.ErrorContains(t, p.cmd.Wait(), "killed", "the child ended by itself: %q", p.said)
	return rest
}

// take enters into the account what a child says.
func (r *round) take(said string) {
	if !strings.HasPrefix(said, "{") {
		return
	}
	var a report
	require.NoError(r.t, json.Unmarshal([]byte(said), &a), said)
	if a.What == "try" {
		r.open[a.Client] = a
		return
	}
	tried := r.open[a.Client]
	delete(r.open, a.Client)
	require.Equal(r.t, tried.Op, a.Op)
	if a.What == "refused" {
		r.refused(a)
		return
	}
	r.tally.add("acknowledged: "+a.Op, 1)
	r.acknowledged(a)
}

func (r *round) situations(k conveyor.Key) []situation {
	if r.may[k] == nil {
		return []situation{{}}
	}
	return r.may[k]
}

// after lists what becomes of the situations in which something can be done, when it is done.
func after(all []situation, op string, spec int64) (next []situation) {
	for _, s := range all {
		switch {
		case op == "apply" && !s.deleting:
			next = append(next, situation{there: true, generation: s.generation + 1, spec: spec})
		case op == "apply": // the deletion was over by then
			next = append(next, situation{there: true, generation: s.generation + 1, spec: spec})
		case op == "delete" && s.there:
			s.deleting = true
			next = append(next, s)
		}
	}
	return next
}

// keepIf keeps the situations that agree with what was seen. There must be one.
func (r *round) keepIf(k conveyor.Key, all []situation, what string, agrees func(situation) bool) {
	r.t.Helper()
	var left []situation
	for _, s := range all {
		if agrees(s) && !slices.Contains(left, s) {
			left = append(left, s)
		}
	}
	require.NotEmpty(r.t, left, "%s: %s, and it may be %+v", k, what, all)
	r.may[k] = left
}

func (r *round) acknowledged(a report) {
	t := r.t
	switch a.Op {
	case "apply":
		r.keepIf(a.Key, after(r.situations(a.Key), "apply", a.Spec), fmt.Sprintf("generation %d was acknowledged", a.Generation),
			func(s situation) bool { return s.generation == a.Generation })
	case "delete":
		r.keepIf(a.Key, after(r.situations(a.Key), "delete", 0), "its deletion was acknowledged", func(situation) bool { return true })
	case "save":
		r.saved = []int64{a.Spec}
	case "signal":
		r.signals[a.Run] = append(r.signals[a.Run], a.Spec)
	}
	if a.Op == "save" {
		return
	}
	run := r.runs[a.Run]
	if run == nil {
		run = &runAcked{key: a.Key}
		r.runs[a.Run] = run
	}
	require.Equal(t, run.key, a.Key)
	switch a.Op {
	case "cancel":
		run.canceled = true
		if run.quiet == 0 {
			run.quiet = r.lives
		}
	case "retry":
		run.was = a.Was
	}
	if a.State.Final() {
		require.True(t, run.ended == 0 || run.ended == a.State, "run %s was %s, and is %s", a.Run, run.ended, a.State)
		run.ended = a.State
		if run.quiet == 0 {
			run.quiet = r.lives
		}
	}
}

// refused enters what a refusal tells. It has changed nothing.
func (r *round) refused(a report) {
	gone := func(s situation) bool { return !s.there || s.deleting }
	switch {
	case a.Op == "apply" && a.Err == "conflict":
		r.keepIf(a.Key, r.situations(a.Key), "it is being deleted", func(s situation) bool { return s.deleting })
	case (a.Op == "delete" || a.Op == "trigger") && a.Err == "not found":
		r.keepIf(a.Key, r.situations(a.Key), "it is not there", gone)
		all := r.may[a.Key]
		for i := range all {
			all[i] = situation{generation: all[i].generation}
		}
	case a.Op == "trigger" && a.Err == "conflict":
		r.keepIf(a.Key, r.situations(a.Key), "it is being deleted", func(s situation) bool { return s.there && s.deleting })
	case a.Op == "wait" && a.Err == "deadline":
	case (a.Op == "cancel" || a.Op == "signal") && a.Err == "conflict": // it had ended
	case a.Op == "retry" && (a.Err == "conflict" || a.Err == "not found"):
	default:
		require.Fail(r.t, "a call was refused", "%+v", a)
	}
}

// doubt enters what may have happened, and may not.
func (r *round) doubt(a report) {
	switch a.Op {
	case "apply", "delete":
		all := r.situations(a.Key)
		r.may[a.Key] = append(slices.Clone(all), after(all, a.Op, a.Spec)...)
	case "save":
		r.saved = append(r.saved, a.Spec)
	case "signal":
		if r.doubted[a.Run] == nil {
			r.doubted[a.Run] = map[int64]bool{}
		}
		r.doubted[a.Run][a.Spec] = true
	}
}

// read opens the records in this process and holds them against the account. The last time everything is brought to
// rest before.
func (r *round) read(last bool) {
	t := r.t
	ctx := t.Context()
	path := filepath.Join(r.dir, "records")
	require.NoError(t, file.Check(ctx, path, file.Options{Wait: true}))
	st, err := file.Open(ctx, path, file.Options{Wait: true})
	require.NoError(t, err)
	closed := false
	defer func() {
		if !closed {
			_ = st.Close()
		}
	}()
	e := rioter(ctx, t, st, r.dir, r.lives+1, 0)
	r.compare(e)
	if last {
		r.bringToRest(e)
		r.compare(e)
	}
	require.NoError(t, e.Shutdown(ctx))
	if last {
		r.compareAtRest(st)
	}
	require.NoError(t, st.Close())
	closed = true
	if last {
		require.NoError(t, file.Check(ctx, path, file.Options{}))
	}
}

// compare holds what is on record against what was acknowledged.
func (r *round) compare(e *conveyor.Engine) {
	t := r.t
	ctx := t.Context()
	for k, all := range r.may {
		o, err := e.Get(ctx, k)
		if errors.Is(err, conveyor.ErrNotFound) {
			r.keepIf(k, all, "it is not on record", func(s situation) bool { return !s.there || s.deleting })
			continue
		}
		require.NoError(t, err)
		r.keepIf(k, all, fmt.Sprintf("on record is generation %d with spec %s, deleted at %v", o.Generation, o.Spec, o.DeletedAt), func(s situation) bool {
			return s.there && s.generation == o.Generation && fmt.Sprint(s.spec) == string(o.Spec) && s.deleting == (o.DeletedAt != nil)
		})
	}
	for id, acked := range r.runs {
		run, err := e.GetRun(ctx, id)
		require.NoError(t, err, "an acknowledged run is lost")
		require.Equal(t, acked.key, run.Resource)
		require.True(t, acked.ended == 0 || run.State == acked.ended, "run %s was %s, and is %s", id, acked.ended, run.State)
		if acked.canceled && run.State.Final() {
			// What was over before the cleanup is not changed by a cancel during it.
			require.True(t, run.State == conveyor.StateCanceled || acked.key.Type == "cleanup" && run.State == conveyor.StateFailed,
				"run %s was canceled, and is %s", id, run.State)
		}
		if acked.was != "" && run.Of != "" {
			require.Equal(t, acked.was, run.Of)
		}
	}
	p, err := e.GetPipeline(ctx, "line")
	require.NoError(t, err)
	require.Contains(t, r.saved, versionOf(p), "the definition is not the one that was saved last")
}

func versionOf(p conveyor.PipelineSpec) (n int64) {
	_, _ = fmt.Sscanf(p.Version, "v%d", &n)
	return n
}

// bringToRest starts the engine once more and sends the signals that are still waited for.
func (r *round) bringToRest(e *conveyor.Engine) {
	t := r.t
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // so that a run that never ends has a name
	defer cancel()
	require.NoError(t, e.Start(ctx))
	number := int64(r.lives+1) * 1_000_000
	for {
		unfinished := rig.Drain(t, e.Runs(ctx, conveyor.RunFilter{Unfinished: true}))
		if len(unfinished) == 0 {
			return
		}
		for _, run := range unfinished {
			if run.Resource.Type == "ask" && run.Cause != conveyor.CauseDeleted {
				for range 2 {
					number++
					switch err := e.Signal(ctx, run.ID, "go", number); {
					case err == nil:
						r.signals[run.ID] = append(r.signals[run.ID], number)
					default:
						require.True(t, errors.Is(err, conveyor.ErrConflict) || errors.Is(err, conveyor.ErrNotFound), "%v", err)
					}
				}
			}
			_, err := e.Wait(ctx, run.ID)
			require.NoError(t, err, "run %s of %s does not come to an end", run.ID, run.Resource)
		}
	}
}

// compareAtRest goes through the records and the journal when nothing more is under way.
func (r *round) compareAtRest(st store.Store) {
	t := r.t
	ctx := t.Context()
	rig.RequireAtRest(t, st)
	for _, prefix := range []string{"que/", "act/", "rsy/"} {
		for rec, err := range st.List(ctx, store.Query{Prefix: prefix}) {
			require.NoError(t, err)
			require.Fail(t, "something is left over", rec.Key)
		}
	}
	e, err := conveyor.New(st, conveyor.Options{})
	require.NoError(t, err)
	runs := map[string]*conveyor.Run{}
	for _, run := range rig.Drain(t, e.Runs(ctx, conveyor.RunFilter{})) {
		runs[run.ID] = run
		require.True(t, run.State.Final(), "run %s is %s", run.ID, run.State)
	}
	for _, o := range rig.Drain(t, e.List(ctx, conveyor.ResourceFilter{})) {
		require.Nil(t, o.DeletedAt, o.Key())
		require.Equal(t, o.Generation, o.Status.ObservedGeneration, "the last generation of %s was not reconciled", o.Key())
	}
	r.checkSignals(runs, st)
	r.checkJournal(runs)
	r.tally.add("runs", len(runs))
}

// checkSignals finds each signal that was acknowledged: taken by the step, once and in order, or sent after those that
// were, and gone with the end of the run. A kill between the two may leave one behind.
func (r *round) checkSignals(runs map[string]*conveyor.Run, st store.Store) {
	t := r.t
	kept := map[string][]int64{}
	for rec, err := range st.List(t.Context(), store.Query{Prefix: "sig/"}) {
		require.NoError(t, err)
		parts := strings.Split(rec.Key, "/")
		var n int64
		require.NoError(t, json.Unmarshal(rec.Value, &n))
		kept[parts[1]] = append(kept[parts[1]], n)
	}
	for id, run := range runs {
		step := run.Step("ask")
		if step == nil || len(step.Output) == 0 || run.Of != "" {
			continue
		}
		var taken []int64
		require.NoError(t, json.Unmarshal(step.Output, &taken))
		require.Len(t, taken, 2)
		r.tally.add("signals taken", len(taken))
		require.Less(t, taken[0], taken[1], "signals of run %s came twice or out of order", id)
		for _, n := range taken {
			require.True(t, slices.Contains(r.signals[id], n) || r.doubted[id][n], "run %s got signal %d, which nobody has sent", id, n)
			require.NotContains(t, kept[id], n, "signal %d of run %s was taken, and is still there", n, id)
		}
		for _, n := range r.signals[id] {
			if !slices.Contains(taken, n) {
				require.Greater(t, n, taken[1], "run %s has passed over signal %d", id, n)
			}
		}
	}
}

// station is a step of a run, as the journal tells of it.
type station struct{ run, step string }

// checkJournal goes through the calls of the drivers.
func (r *round) checkJournal(runs map[string]*conveyor.Run) {
	t := r.t
	data, err := os.ReadFile(filepath.Join(r.dir, "journal"))
	require.NoError(t, err)
	calls := map[station]riotEntry{} // the newest line of each
	begun := map[station]int{}
	saved := map[station]int64{}
	done := map[station]bool{}
	over := map[station]bool{} // its outcome was recorded, since something came after it
	keys := map[string]station{}
	newest := map[string]string{} // by resource, the run that was called last
	former := map[string]bool{}   // runs after which another one of their resource was called
	for line := range completeLines(string(data)) {
		var e riotEntry
		require.NoError(t, json.Unmarshal([]byte(line), &e), line)
		at := station{e.Run, e.Step}
		was, known := calls[at]
		calls[at] = e
		run := runs[e.Run]
		require.NotNil(t, run, "run %s was at work, and is not on record", e.Run)
		kind, _, _ := strings.Cut(e.Key, "/")
		switch e.What {
		case "begin":
			begun[at]++
			require.False(t, over[at], "step %s of run %s was called again though it was finished", e.Step, e.Run)
			if known {
				r.checkAgain(was, e)
			} else {
				require.Equal(t, 1, e.Attempt, "a kill used an attempt: the first call is %+v", e)
				other, taken := keys[e.Idem]
				require.False(t, taken, "%+v has the key of %+v", e, other)
				keys[e.Idem] = at
			}
			require.Equal(t, run.Generation, e.Generation, "%+v", e)
			if acked := r.runs[e.Run]; acked != nil && acked.quiet > 0 && !strings.HasPrefix(e.Step, "f") {
				require.LessOrEqual(t, e.Life, acked.quiet, "step %s of run %s began though its end was acknowledged: %+v", e.Step, e.Run, e)
			}
			if last := newest[e.Key]; last != e.Run {
				require.False(t, former[e.Run], "two runs of %s were at work: %s and %s", e.Key, last, e.Run)
				former[last] = true
				newest[e.Key] = e.Run
			}
			if e.Undo {
				continue
			}
			for _, earlier := range precedes(kind, e.Step) {
				require.True(t, doneIn(runs, done, e.Run, earlier), "step %s of run %s began before step %s was done", e.Step, e.Run, earlier)
				over[station{e.Run, earlier}] = true
			}
		case "twice":
			require.Fail(t, "a signal was delivered twice", "%+v", e)
		case "restored":
			require.GreaterOrEqual(t, e.N, saved[at], "a checkpoint of step %s of run %s is lost", e.Step, e.Run)
			r.tally.add("checkpoints restored", int(min(e.N, 1)))
		case "saved":
			saved[at] = e.N
		case "done":
			done[at] = true
		}
	}
	again := 0
	for at, n := range begun {
		last := calls[at]
		step := runs[at.run].Step(at.step)
		require.NotNil(t, step, "%+v", last)
		begunInVain := last.What == "fail" && step.Attempt == last.Attempt+1 && step.State != conveyor.StateSucceeded && step.State != conveyor.StateFailed
		require.True(t, step.Attempt == last.Attempt || begunInVain, "a kill used an attempt: the last call was %+v, on record is %d", last, step.Attempt)
		again += n - 1
	}
	r.tally.add("steps called", len(begun))
	r.tally.add("called again", again)
	for id, run := range runs {
		r.checkRun(id, run, calls)
	}
}

// checkAgain checks a call of a step that was called before.
func (r *round) checkAgain(was, e riotEntry) {
	t := r.t
	require.Equal(t, was.Idem, e.Idem, "another key")
	require.Equal(t, was.Generation, e.Generation)
	require.Equal(t, was.Spec, e.Spec)
	killed := e.Life > was.Life
	if killed && e.Resumed {
		r.tally.add("called again after a kill", 1)
	}
	switch {
	case e.Resumed:
		// The outcome of the call before, whatever it was, is not on record;
		require.True(t, killed, "resumed without a kill: %+v after %+v", e, was)
		if was.What != "fail" || e.Attempt != was.Attempt+1 { // or the next attempt is, and did not get as far as the driver
			require.Equal(t, was.Attempt, e.Attempt, "a kill used an attempt: %+v after %+v", e, was)
		}
	case was.What == "fail":
		require.Equal(t, was.Attempt+1, e.Attempt, "%+v after %+v", e, was)
	case was.What == "requeue", was.What == "await":
		require.Equal(t, was.Attempt, e.Attempt, "%+v after %+v", e, was)
	default:
		require.Fail(t, "called again for no reason", "%+v after %+v", e, was)
	}
}

// doneIn says that a step was done in a run, or in one that it repeats.
func doneIn(runs map[string]*conveyor.Run, done map[station]bool, id, step string) bool {
	for run := runs[id]; run != nil; run = runs[run.Of] {
		if done[station{run.ID, step}] {
			return true
		}
	}
	return false
}

// checkRun holds how a run has ended against how its drivers have.
func (r *round) checkRun(id string, run *conveyor.Run, calls map[station]riotEntry) {
	t := r.t
	for _, step := range run.Steps {
		last := calls[station{id, step.ID}]
		switch step.State {
		case conveyor.StateSucceeded:
			if step.ID != conveyor.PlanStep && run.Of == "" {
				require.Equal(t, "done", last.What, "step %s of run %s", step.ID, id)
			}
		case conveyor.StateFailed:
			require.Equal(t, "fail", last.What, "step %s of run %s", step.ID, id)
		}
	}
	if run.State == conveyor.StateFailed && run.Cause != conveyor.CauseDeleted {
		require.NotEmpty(t, run.Reason)
		require.NotContains(t, run.Reason, "interrupted", "a run failed because of the kills")
	}
}
