package conveyor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// explorer plays one seed.
type explorer struct {
	setup
	seed  int
	epoch time.Time
	disk  *memory.Store
	looks chan struct{} // whoever has changed something sends, the watcher receives; size 1: a nudge, not a queue

	mu            sync.Mutex // guards what follows; held for no time of the bubble
	lives         []*lifetime
	inStore       int            // calls of the store under way
	asked         map[string]int // of the store, by key
	runs          map[string]*runSeen
	open          []*runSeen // that have not ended
	plans         map[string]*planRecord
	hashes        map[string]string // of the definitions, by pipeline
	limits        map[string][]limitSeen
	policies      map[string]conveyor.ChangePolicy
	seenResources map[conveyor.Key]*resourceSeen
	strayed       map[conveyor.Key]bool // has had a call that was given up
	keys          map[string]stepOf
	keyOf         map[stepOf]string
	starts        []startSeen
	calm          bool // everything shall come to its end
	seen          map[string]int
	faults        []string
	trace         []note
}

// lifetime is one process: an engine, from its making to its shutdown or death. Guarded by explorer.mu.
type lifetime struct {
	number     int
	engine     *conveyor.Engine
	began      int64 // when Start had returned; 0 before
	closing    bool  // it shuts down
	over       bool  // nothing that it does reaches the records
	crashed    bool
	hasty      bool          // its shutdown had no time left, not even to tell
	gone       chan struct{} // closed when it is over, so that its drivers return
	active     []*visit      // calls under way
	registered map[string]int64
	events     []conveyor.Event
}

func newExplorer(seed int) *explorer {
	x := &explorer{
		setup: newSetup(seed), seed: seed, disk: memory.New(),
		asked: map[string]int{}, runs: map[string]*runSeen{}, plans: map[string]*planRecord{}, hashes: map[string]string{}, limits: map[string][]limitSeen{},
		policies: map[string]conveyor.ChangePolicy{}, seenResources: map[conveyor.Key]*resourceSeen{}, strayed: map[conveyor.Key]bool{},
		keys: map[string]stepOf{}, keyOf: map[stepOf]string{}, seen: map[string]int{},
	}
	for _, p := range x.pipelines {
		x.policies[p.Name] = p.OnChange
	}
	if x.storm {
		x.see(sawStorm)
	}
	return x
}

func (x *explorer) now() int64 { return time.Now().UnixNano() }

func (x *explorer) since(at int64) time.Duration { return time.Unix(0, at).Sub(x.epoch) }

func (x *explorer) lifeNumber() int { return len(x.lives) }

// look has the watcher look at what is settled.
func (x *explorer) look() {
	select {
	case x.looks <- struct{}{}:
	default:
	}
}

func (x *explorer) isCalm() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.calm
}

func (x *explorer) driverSetup(name string) *driverSetup {
	for _, d := range x.drivers {
		if d.name == name {
			return d
		}
	}
	return new(driverSetup)
}

// play is the whole seed.
func (x *explorer) play(t *testing.T) {
	x.epoch, x.looks = time.Now(), make(chan struct{}, 1) // of the bubble, so that to wait for it lets time pass
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		x.program(t.Context())
	}()
	x.watch(ended)
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.checkEnd()
}

// program is the program of the seed, from its first start to its last end.
func (x *explorer) program(ctx context.Context) {
	l := x.newLife()
	for _, p := range x.pipelines {
		x.must("save a pipeline", l.engine.SavePipeline(ctx, p))
	}
	d := x.dice.on("program")
	if d.oneIn(4) {
		x.act(ctx, "early", 0) // before Start
	}
	x.start(l)
	var clients sync.WaitGroup
	for c := range x.clients {
		clients.Go(func() {
			for n := range x.acts {
				time.Sleep(x.pause(fmt.Sprint("client", c), n))
				x.act(ctx, fmt.Sprint("client", c), n)
			}
		})
	}
	var dying sync.WaitGroup
	for n := range x.restarts {
		time.Sleep(x.pause("operator", n) + time.Duration(x.acts)*x.pace/4)
		x.restart(n, &dying)
	}
	clients.Wait()
	if d.oneIn(3) {
		time.Sleep(d.upTo(time.Minute)) // it is left to itself for some time
	}
	x.settleDown(ctx)
	last := x.life()
	x.close(last, time.Minute)
	dying.Wait()
}

func (x *explorer) pause(who string, n int) time.Duration {
	d := x.dice.on("pause").on(who).at(n)
	if d.oneIn(4) {
		return d.upTo(time.Microsecond)
	}
	return d.upTo(x.pace)
}

func (x *explorer) life() *lifetime {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.lives[len(x.lives)-1]
}

// must is for what cannot fail; the life that it was asked of may be over.
func (x *explorer) must(what string, err error) {
	if err == nil || errors.Is(err, conveyor.ErrClosed) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fault("%s: %v", what, err)
}

// newLife makes an engine on the records. The drivers are registered that are not late, or were there before.
func (x *explorer) newLife() *lifetime {
	l := &lifetime{number: 1, gone: make(chan struct{}), registered: map[string]int64{}}
	engine, err := conveyor.New(&slowStore{Store: x.disk, x: x, life: l}, conveyor.Options{
		Workers: x.workers, Retry: x.retry, StepTimeout: x.timeout,
		Limits: conveyor.Limits{Interruptions: 100},
		Observer: conveyor.ObserverFunc(func(_ context.Context, e conveyor.Event) {
			x.mu.Lock()
			defer x.mu.Unlock()
			l.events = append(l.events, e)
		}),
	})
	x.must("make an engine", err)
	l.engine = engine
	var known map[string]int64
	x.mu.Lock()
	if n := len(x.lives); n > 0 {
		l.number, known = n+1, x.lives[n-1].registered
	}
	x.lives = append(x.lives, l)
	x.mu.Unlock()
	for _, d := range x.drivers {
		if !d.late || known[d.name] != 0 && l.number%2 == 0 {
			x.register(l, d)
		}
	}
	return l
}

func (x *explorer) register(l *lifetime, d *driverSetup) {
	var impl conveyor.Driver = &explorerDriver{x, l, d.name}
	if d.finalizes {
		impl = &explorerFinalizer{explorerDriver{x, l, d.name}}
	}
	err := l.engine.Register(d.name, impl, conveyor.Concurrency(d.concurrency), conveyor.Timeout(d.timeout), conveyor.Retry(d.retry), conveyor.Listen(d.listen...))
	if errors.Is(err, conveyor.ErrExists) {
		return
	}
	x.must("register", err)
	x.mu.Lock()
	defer x.mu.Unlock()
	l.registered[d.name] = x.now()
	x.note(note{life: l.number, what: "registered", whose: d.name})
	x.look()
}

func (x *explorer) start(l *lifetime) {
	x.must("start", l.engine.Start(context.Background()))
	x.mu.Lock()
	defer x.mu.Unlock()
	l.began = x.now()
	x.note(note{life: l.number, what: "started"})
	x.look()
}

// restart ends the process, in one way or the other, and starts it again.
func (x *explorer) restart(n int, dying *sync.WaitGroup) {
	d := x.dice.on("restart").at(n)
	l := x.life()
	if d.oneIn(2) {
		x.close(l, pick(&d, 0, d.upTo(time.Second), d.upTo(8*time.Second)))
	} else {
		x.mu.Lock()
		x.see(sawCrash)
		x.note(note{life: l.number, what: "crash"})
		l.crashed, l.closing, l.hasty = true, true, true
		x.end(l)
		x.mu.Unlock()
		dying.Go(func() { _ = x.shutdown(l, time.Minute) }) // its goroutines; nothing that they do reaches the records
	}
	time.Sleep(pick(&d, 1, d.upTo(time.Second), d.upTo(20*time.Second)))
	x.start(x.newLife())
}

// close shuts an engine down.
func (x *explorer) close(l *lifetime, patience time.Duration) {
	x.mu.Lock()
	x.see(sawShutdown)
	x.note(note{life: l.number, what: "shutdown", lastsText: "within", lasts: patience})
	l.closing = true
	x.mu.Unlock()
	began := time.Now()
	err := x.shutdown(l, patience)
	x.mu.Lock()
	defer x.mu.Unlock()
	l.hasty = err != nil || time.Since(began) >= patience
	x.note(note{life: l.number, what: "shut down"})
	x.end(l)
}

func (x *explorer) shutdown(l *lifetime, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return l.engine.Shutdown(ctx) // it may name calls that have not returned
}

// end makes a life be over; x.mu is held.
func (x *explorer) end(l *lifetime) {
	l.over = true
	for _, v := range l.active {
		v.dead = true
	}
	close(l.gone)
}

// act does one of the things that a program does. Most can be refused, at the wrong moment, which is fine.
func (x *explorer) act(ctx context.Context, who string, n int) {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	d := x.dice.on("act").on(who).at(n)
	k := x.resources[d.n(len(x.resources))]
	l := x.life()
	what := d.n(100)
	if x.storm && what < 90 {
		what = 0
		if d.oneIn(2) {
			k = x.resources[0] // the quiet one
		}
	}
	var err error
	name := ""
	switch {
	case what < 45:
		name, err = "apply", x.apply(ctx, l, k, d.n(4))
	case what < 52:
		name = "trigger"
		_, err = l.engine.Trigger(ctx, k)
	case what < 64:
		name, err = "cancel", x.cancel(ctx, l, x.recent(k, d.n(4)))
	case what < 68:
		name = "delete"
		_, err = l.engine.Delete(ctx, k)
	case what < 80:
		if r := x.recent(k, 0); r != nil {
			name, err = "signal", l.engine.Signal(ctx, r.id, "go", n)
		}
	case what < 88:
		if r := x.recent(k, d.n(3)); r != nil {
			name = "retry"
			from := conveyor.RetryFrom{Newest: d.oneIn(2), Start: d.oneIn(4)}
			_, err = l.engine.Retry(ctx, r.id, from)
		}
	case what < 94:
		name, err = "edit", x.edit(ctx, l, &d)
	default:
		x.registerLate(l)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if name != "" {
		more := "nil"
		if err != nil {
			more = err.Error()
		}
		x.note(note{life: l.number, what: name, whose: k.Name, more: "by " + who + ": " + more})
	}
	if errors.Is(err, context.DeadlineExceeded) && !l.over {
		x.fault("%s by %s has not returned in an hour", name, who)
	}
	x.look()
}

func (x *explorer) apply(ctx context.Context, l *lifetime, k conveyor.Key, spec int) error {
	o := &conveyor.Object{Meta: conveyor.Meta{Type: k.Type, Name: k.Name, Pipeline: x.along[k]}, Spec: jsonOf(spec)}
	before := int64(0)
	x.mu.Lock()
	before = x.resource(k).head.Generation
	x.mu.Unlock()
	run, err := l.engine.Apply(ctx, o)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if l.over {
		return nil
	}
	res := x.resource(k)
	if old, known := res.specs[o.Generation]; known && old != string(o.Spec) {
		x.fault("generation %d of %s is acknowledged for spec %s and for %s", o.Generation, k.Name, old, o.Spec)
	}
	res.specs[o.Generation] = string(o.Spec)
	queue := x.policies[x.along[k]] == conveyor.Queue
	res.acked = append(res.acked, ack{o.ID, o.Generation, queue})
	switch r := x.runs[run.ID]; {
	case r == nil:
		x.fault("apply of %s answered run %s, which is not on record", k.Name, run.ID)
	case o.Generation == before:
		x.see(sawUnchanged)
	case r.over == 0 && r.rec.State == conveyor.StateQueued && queue:
		x.see(sawQueued)
	case r.over == 0 && r.rec.State == conveyor.StateQueued && r.rec.Generation < o.Generation:
		x.see(sawCoalesced)
	}
	return nil
}

func (x *explorer) cancel(ctx context.Context, l *lifetime, r *runSeen) error {
	if r == nil {
		return nil
	}
	x.mu.Lock()
	for _, b := range r.steps {
		if r.over == 0 && (b.rec.State == conveyor.StateRetrying || b.rec.State == conveyor.StateWaiting) {
			x.see(sawCancelOfWait)
		}
	}
	x.mu.Unlock()
	err := l.engine.Cancel(ctx, r.id, "not needed")
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.canceled == 0 {
		r.canceled = x.now()
	}
	if r.rec.Stop != "cancel" && !r.rec.CutShort && r.rec.Outcome == conveyor.StateUnset && r.over == 0 {
		x.fault("run %s: Cancel has returned, and it is not on record", r.alias)
	}
	return nil
}

// recent returns one of the last runs of a resource.
func (x *explorer) recent(k conveyor.Key, back int) *runSeen {
	x.mu.Lock()
	defer x.mu.Unlock()
	runs := x.resource(k).runs
	if len(runs) == 0 {
		return nil
	}
	return runs[max(0, len(runs)-1-back)]
}

// edit saves a pipeline with other steps, another limit or other policies. Its way with changes stays.
func (x *explorer) edit(ctx context.Context, l *lifetime, d *dice) error {
	i := d.n(len(x.pipelines))
	name := x.pipelines[i].Name
	p := x.pipeline(d, name)
	p.OnChange = x.policies[name]
	if x.storm {
		return nil
	}
	err := l.engine.SavePipeline(ctx, p)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err == nil && !l.over {
		x.see(sawEdit)
	}
	return err
}

// registerLate registers the next of the drivers that come late.
func (x *explorer) registerLate(l *lifetime) {
	for _, d := range x.drivers {
		x.mu.Lock()
		there := l.registered[d.name] != 0
		x.mu.Unlock()
		if !there {
			x.register(l, d)
			return
		}
	}
}

// settleDown lets everything come to its end: the drivers are there and have no more wishes, the signals come, nothing
// is run again by itself.
func (x *explorer) settleDown(ctx context.Context) {
	l := x.life()
	x.mu.Lock()
	x.calm = true
	x.note(note{what: "calm"})
	x.mu.Unlock()
	for range x.drivers {
		x.registerLate(l)
	}
	for _, p := range x.pipelines {
		p.Resync = 0
		x.must("save a pipeline", l.engine.SavePipeline(ctx, p))
	}
	for n := range 60 {
		x.look()
		time.Sleep(time.Second << min(n, 12))
		x.mu.Lock()
		left := slices.Clone(x.open)
		x.mu.Unlock()
		if len(left) == 0 && n > 3 {
			return
		}
		for _, r := range left {
			x.mu.Lock()
			waits := slices.ContainsFunc(r.steps, func(b *stepBook) bool { return b.rec.Await != "" })
			x.mu.Unlock()
			if waits {
				_ = l.engine.Signal(ctx, r.id, "go", n) // it may have come to its end
			}
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.open {
		x.fault("lost: run %s has not come to its end: %s", r.alias, r.rec.State)
	}
}
