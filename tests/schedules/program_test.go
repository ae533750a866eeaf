package schedules_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
)

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
	x.pausesOutlive()
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
	x.resumeAll(ctx, l)
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
