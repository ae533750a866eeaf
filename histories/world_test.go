package histories_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

const (
	kind    = "r" // of all resources
	clients = 7
	// hang is when a call is taken for one that never returns. None comes near it.
	hang = 5 * time.Minute
)

// tally counts what has happened in many histories.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (t *tally) count(what string) { t.add(what, 1) }

func (t *tally) add(what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int{}
	}
	t.n[what] += n
}

// world is what outlives the process in one history: its records, its clients, and all that they saw.
type world struct {
	shape
	plant plant
	real  bool                               // the clock is that of the machine
	disk  func() (st store.Store, err error) // closes the store, if it is open, and opens it
	mates int                                // engines in processes of their own, which do not die; the store is shared if there are any
	tally *tally
	keys  []string
	ticks atomic.Int64
	left  atomic.Int64 // operations

	log bytes.Buffer // of the engines; its handler writes one line at a time

	dice sync.Mutex
	rand *rand.Rand

	lives   []*life // owned by the keeper, until all has ended
	company []*life // those of the mates; not changed while clients make calls

	mu      sync.Mutex // guards what follows; held for a few lines
	now     *life      // nil while there is none
	born    chan struct{}
	ended   bool // there will be no other process
	calls   []*call
	faults  []string
	runs    map[string][]string       // that clients know, by resource
	known   map[string]int64          // versions that clients know, by resource
	ends    map[string]int64          // when the end of a run was seen first
	endings map[string]conveyor.State // what events said of the ends of runs
	idle    map[string]int64          // when a driver last returned from a call for a run
	final   map[string]*ran           // runs that were on record at the end
	said    map[generation]content
}

// shape is how a history is to be, drawn from its seed.
type shape struct {
	seed    uint64
	exact   bool // nothing is removed but by a delete
	opts    conveyor.Options
	deaths  int // at most
	flaky   bool
	restart bool // now and then it is shut down and started again

	failingReads, failingCommits, doubtfulCommits int // of a thousand
	dawdling                                      int // of a thousand
	impatient                                     int // of a thousand: calls whose context ends
}

func newWorld(seed uint64, operations int, t *tally) *world {
	w := &world{
		tally: t, rand: rand.New(rand.NewPCG(seed, 0)),
		runs: map[string][]string{}, known: map[string]int64{}, ends: map[string]int64{}, endings: map[string]conveyor.State{}, idle: map[string]int64{},
		said: map[generation]content{},
	}
	w.left.Store(int64(operations))
	w.shape = shape{
		seed: seed, exact: w.n(5) > 0, deaths: w.n(4), flaky: w.n(2) == 0, restart: w.n(3) == 0,
		dawdling: 50 * w.n(8), impatient: 30 * w.n(2),
		opts: conveyor.Options{
			Workers: 1 + w.n(6),
			Limits:  conveyor.Limits{WatchBuffer: []int{24, 64, 1024}[w.n(3)], Queue: []int{1, 2, 0}[w.n(3)]},
			Retry:   conveyor.RetryPolicy{MaxAttempts: 2, Initial: conveyor.Duration(2 * time.Millisecond), Max: conveyor.Duration(4 * time.Millisecond)},
		},
	}
	if w.flaky {
		w.failingReads, w.failingCommits, w.doubtfulCommits = w.n(8), w.n(20), w.n(60)
	}
	if !w.exact {
		w.opts.Retention = conveyor.Retention{Runs: 1 + w.n(3), Revisions: 1 + w.n(3)}
	}
	w.opts.Logger = slog.New(slog.NewTextHandler(&w.log, nil))
	for i := range 2 + w.n(3) {
		w.keys = append(w.keys, fmt.Sprint("x", i))
	}
	return w
}

func (w *world) n(n int) int {
	w.dice.Lock()
	defer w.dice.Unlock()
	return w.rand.IntN(n)
}

// odds is true so many times of a thousand.
func (w *world) odds(n int) bool { return n > 0 && w.n(1000) < n }

func (w *world) key() string { return w.keys[w.n(len(w.keys))] }

func (w *world) tick() int64 { return w.ticks.Add(1) }

// nap lets time pass, and others go first.
func (w *world) nap(d time.Duration) {
	if !w.real {
		time.Sleep(d)
		return
	}
	runtime.Gosched()
	if d > time.Millisecond {
		time.Sleep(d / 50)
	}
}

// dawdle is a nap that the store takes, or does not. Some are so long that a resource can come and go meanwhile.
func (w *world) dawdle() {
	switch {
	case !w.odds(w.dawdling):
	case w.odds(20):
		w.nap(time.Duration(w.n(30)) * time.Millisecond)
	default:
		w.nap(time.Duration(w.n(300)) * time.Microsecond)
	}
}

func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// hasEnded takes down what an event says of the end of a run.
func (w *world) hasEnded(run string, state conveyor.State) {
	at := w.tick()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endings[run] = state
	if w.ends[run] == 0 {
		w.ends[run] = at
	}
}

// life is one life of the process.
type life struct {
	n      int
	engine *conveyor.Engine
	store  *shaky
	ctx    context.Context // ends when the process dies
	died   atomic.Int64    // when it did; from then on nothing reaches the records
	found  map[string]*seen
	before map[string]bool // runs that were there when it began
	all    *stream
	closed int64 // when its end began

	join  sync.WaitGroup // of watchers
	calls sync.WaitGroup // under way; added to with world.mu held, and only while this is the life

	mu      sync.Mutex
	streams []*stream
}

// play lets the history happen. It returns when everything has come to rest.
func (w *world) play() {
	w.born = make(chan struct{}) // in the bubble
	for range w.mates {
		if err := w.accompany(); err != nil {
			w.fault("a mate does not start: %v", err)
		}
	}
	defer func() {
		for _, l := range w.company {
			w.shutdown(l)
		}
	}()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { w.client(i) })
	}
	over := make(chan struct{})
	go func() {
		all.Wait()
		close(over)
	}()
	w.keep(over)
}

// keep keeps a process alive until the clients are through, and then until nothing is left to do.
func (w *world) keep(over <-chan struct{}) {
	for {
		l, err := w.begin()
		if err != nil {
			w.fault("the process does not start: %v", err)
			w.giveUp()
			<-over
			return
		}
		if l == nil {
			continue // died while it started
		}
		var restart <-chan time.Time
		if w.restart {
			restart = time.After(time.Duration(5+w.n(60)) * time.Millisecond)
		}
		select {
		case <-l.ctx.Done():
			w.finish(l)
			w.nap(time.Duration(2+w.n(20)) * time.Millisecond)
			continue
		case <-restart:
			w.shutdown(l)
			continue
		case <-over:
		}
		l.store.appease()
		for _, mate := range w.company {
			mate.store.appease()
		}
		if l.ctx.Err() != nil {
			w.finish(l)
			if l, err = w.begin(); err != nil {
				w.fault("the process does not start: %v", err)
				return
			}
		}
		w.settle(l)
		w.shutdown(l)
		return
	}
}

// begin starts the process. It returns nil if that dies at once.
func (w *world) begin() (*life, error) {
	time.Sleep(2 * time.Millisecond) // so that the ids of the new life are greater
	disk, err := w.disk()
	if err != nil {
		return nil, err
	}
	l := &life{n: len(w.lives), found: map[string]*seen{}, before: map[string]bool{}}
	ctx, die := context.WithCancelCause(context.Background())
	l.ctx = ctx
	l.store = &shaky{Store: disk, w: w, after: w.n(2) == 0}
	l.store.bury = func() {
		l.died.Store(w.tick())
		die(errDied)
	}
	if l.engine, err = conveyor.New(w.through(l.store), w.opts); err != nil {
		return nil, err
	}
	if err := w.look(l, disk); err != nil && w.plant == soundly {
		return nil, err // what is planted may have done more than harm to a record
	}
	if w.mates == 0 { // of the runs of others, states are folded together
		w.watchAll(l)
	}
	w.lives = append(w.lives, l)
	if w.deaths > 0 && w.left.Load() > 0 {
		w.deaths--
		l.store.mu.Lock()
		l.store.left = 1 + w.n(150)
		l.store.mu.Unlock()
	}
	if w.left.Load() <= 0 {
		l.store.appease()
	}
	if err := w.setUp(l); err != nil {
		died := l.ctx.Err() != nil
		die(err)
		w.finish(l)
		if died {
			return nil, nil
		}
		return nil, err
	}
	w.mu.Lock()
	w.now = l
	close(w.born)
	w.born = make(chan struct{})
	w.mu.Unlock()
	return l, nil
}

// accompany starts a process that lives until the history has ended.
func (w *world) accompany() error {
	disk, err := w.disk()
	if err != nil {
		return err
	}
	l := &life{n: -1 - len(w.company), ctx: context.Background(), store: &shaky{Store: disk, w: w, bury: func() {}}}
	if l.engine, err = conveyor.New(w.through(l.store), w.opts); err == nil {
		err = w.setUp(l)
	}
	w.company = append(w.company, l)
	return err
}

// through returns the way of an engine to its store.
func (w *world) through(s *shaky) store.Store {
	if w.mates > 0 {
		return shakyShared{s}
	}
	return s
}

// look takes down what is on record when a life begins.
func (w *world) look(l *life, disk store.Store) error {
	e, err := conveyor.New(disk, w.opts) // never started
	if err != nil {
		return err
	}
	for _, key := range w.keys {
		switch o, err := e.Get(context.Background(), conveyor.Key{Type: kind, Name: key}); {
		case err == nil:
			l.found[key] = seenIn(&o.Meta, o.Spec)
		case !errors.Is(err, conveyor.ErrNotFound):
			return err
		}
	}
	for run, err := range e.Runs(context.Background(), conveyor.RunFilter{}) {
		if err != nil {
			return err
		}
		l.before[run.ID] = true
	}
	return nil
}

var pipelines = []conveyor.PipelineSpec{
	{Name: "co", Resource: kind, Steps: []conveyor.Step{{Driver: "d"}, {Driver: "f"}}},
	{Name: "su", Resource: kind, Steps: []conveyor.Step{{Driver: "d"}}, OnChange: conveyor.Supersede},
	{Name: "qu", Resource: kind, Steps: []conveyor.Step{{Driver: "f"}}, OnChange: conveyor.Queue},
	{Name: "fi", Resource: kind, Steps: []conveyor.Step{{Driver: "d"}}, Finally: []conveyor.Step{{Driver: "d"}}},
}

// insist makes a call until it succeeds or the process is dead.
func (l *life) insist(w *world, do func() error) error {
	for failures := 0; ; failures++ {
		err := do()
		if err == nil || l.ctx.Err() != nil || failures == 100 {
			return err
		}
		w.nap(time.Millisecond)
	}
}

func (w *world) setUp(l *life) error {
	for _, p := range pipelines {
		if err := l.insist(w, func() error { return l.engine.SavePipeline(l.ctx, p) }); err != nil {
			return fmt.Errorf("save: %w", err)
		}
	}
	for name, d := range map[string]conveyor.Driver{"d": conveyor.DriverFunc(w.driver(l)), "f": finalizer{w.driver(l), w}} {
		opts := []conveyor.DriverOption{conveyor.Listen(kind)}
		if err := l.engine.Register(name, d, opts...); err != nil {
			return err
		}
	}
	if err := l.insist(w, func() error { return l.engine.Start(l.ctx) }); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return l.ctx.Err()
}

// driver is called for every step.
func (w *world) driver(l *life) conveyor.DriverFunc {
	return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		w.told("a driver was told", req.Resource)
		result, err := w.work(ctx)
		at := w.tick()
		w.mu.Lock()
		defer w.mu.Unlock()
		if died := l.died.Load(); died == 0 || at < died {
			w.idle[req.Run] = max(w.idle[req.Run], at)
		}
		return result, err
	}
}

func (w *world) work(ctx context.Context) (conveyor.Result, error) {
	if d := w.n(8); d > 2 {
		wait := time.Duration(d) * time.Millisecond
		if w.real {
			wait /= 50
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return conveyor.Result{}, context.Cause(ctx)
		}
	}
	switch w.n(20) {
	case 0, 1:
		return conveyor.Result{}, errors.New("that did not work")
	case 2:
		return conveyor.RequeueAfter(time.Duration(w.n(4)) * time.Millisecond), nil
	}
	return conveyor.Done(), nil
}

type finalizer struct {
	conveyor.DriverFunc
	w *world
}

func (f finalizer) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return f.DriverFunc(ctx, req)
}

// told checks that everybody is told the same of a generation.
func (w *world) told(who string, o *conveyor.Object) {
	k, said := generation{o.ID, o.Generation}, content{string(o.Spec), o.Pipeline}
	w.mu.Lock()
	first, known := w.said[k]
	w.said[k] = said
	w.mu.Unlock()
	if known && first != said {
		w.fault("%s of %s that it is %+v, and somebody else that it is %+v", who, k, said, first)
	}
}

type (
	generation struct {
		id     string
		number int64
	}
	content struct{ spec, pipeline string }
)

func (g generation) String() string {
	return fmt.Sprintf("generation %d of resource %s", g.number, g.id)
}

// finish is the end of a process that has died: none of its goroutines is left, and nobody can tell what they did.
func (w *world) finish(l *life) {
	w.leave(l)
	expired, cancel := context.WithDeadline(context.Background(), time.Now())
	_ = l.engine.Shutdown(expired)
	cancel()
	l.calls.Wait()
	l.join.Wait()
	w.tally.count("process: died")
}

// shutdown ends a process as it should be.
func (w *world) shutdown(l *life) {
	w.leave(l)
	ctx, cancel := context.WithTimeout(l.ctx, hang) // it may die even now
	defer cancel()
	switch err := l.engine.Shutdown(ctx); {
	case err == nil || l.ctx.Err() != nil:
	case strings.Contains(err.Error(), "not recorded: ") && !strings.Contains(err.Error(), "still running"):
		w.tally.count("process: shut down, and the store failed at the last moment")
	default:
		w.fault("shutdown: %v", err)
	}
	l.calls.Wait()
	l.join.Wait()
	w.tally.count("process: shut down")
}

// leave has no more calls begin in a life.
func (w *world) leave(l *life) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.closed = w.tick()
	if w.now == l {
		w.now = nil
	}
}

// enter waits for a living process. It returns nil if there will be none.
func (w *world) enter() *life {
	for {
		w.mu.Lock()
		l, born, ended := w.now, w.born, w.ended
		if l != nil {
			l.calls.Add(1)
		}
		w.mu.Unlock()
		if l != nil || ended {
			return l
		}
		<-born
	}
}

// giveUp tells the clients that there will be no other process.
func (w *world) giveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	close(w.born)
}

// settle waits until nothing is left to do, reads all resources once more, and takes down how each run has ended.
func (w *world) settle(l *life) {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	for more := true; more; {
		more = false
		for run, err := range l.engine.Runs(ctx, conveyor.RunFilter{Unfinished: true}) {
			if err == nil {
				more = true
				_, err = l.engine.Wait(ctx, run.ID)
			}
			if err != nil && !errors.Is(err, conveyor.ErrNotFound) {
				w.fault("runs do not end: %v", err)
				more = false
				break
			}
		}
	}
	for _, key := range w.keys {
		w.perform(l, &call{Client: clients, What: get, Key: key})
		w.perform(l, &call{Client: clients, What: get, Key: key})
	}
	at := w.tick()
	w.final = map[string]*ran{}
	for run, err := range l.engine.Runs(context.Background(), conveyor.RunFilter{}) {
		if err != nil {
			w.fault("runs: %v", err)
			break
		}
		if !run.State.Final() {
			w.fault("run %s is %s at the end", run.ID, run.State)
			continue
		}
		w.final[run.ID] = ranIn(run)
		w.mu.Lock()
		if w.ends[run.ID] == 0 {
			w.ends[run.ID] = at
		}
		w.runs[run.Resource.Name] = append(w.runs[run.Resource.Name], run.ID)
		w.mu.Unlock()
	}
	w.requireRest()
}

// requireRest checks that the newest generation of each resource was reconciled.
func (w *world) requireRest() {
	for _, key := range w.keys {
		var last *seen
		for _, c := range w.calls {
			if c.Client == clients && c.Key == key {
				last = c.Got
			}
		}
		if last == nil {
			continue
		}
		if run := w.final[last.Run]; run == nil || run.State != last.Phase {
			w.fault("at the end %s is %s, and its newest run %+v", key, last.Phase, run)
		}
		if last.Observed != last.Generation {
			w.fault("at the end generation %d of %s is observed, and %d is the newest", last.Observed, key, last.Generation)
		}
	}
}
