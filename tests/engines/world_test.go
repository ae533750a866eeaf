package engines_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/invariant"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// lease is that of the engines of a world: as short as can be.
const lease = time.Second

// world is a shared store, the processes on it, and what their drivers have seen. After each commit, whoever makes it, every
// unfinished run must be where somebody looks at it.
type world struct {
	t    *testing.T
	disk *memory.Shared

	asker atomic.Pointer[process] // who asks something of each run that has not ended, if it comes to that

	mu     sync.Mutex // held for a commit and the look at the records after it
	faults []string
	calls  []*seen
	ended  map[string]bool // "run step": its outcome is on record
	alone  map[string]int  // "run step": how often it was called
	lines  []string        // what the processes have done, for a failure
}

// seen is a call of a driver.
type seen struct {
	of                  *process
	resource, run, step string
	began, ended        time.Time // ended is zero while the call is under way
}

func newWorld(t *testing.T) *world {
	return &world{t: t, disk: memory.NewShared(), ended: map[string]bool{}, alone: map[string]int{}}
}

// blame notes a fault. It is called with mu held.
func (w *world) blame(format string, args ...any) {
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// process is one of the processes: an engine, and its way to the store.
type process struct {
	disk store.Store // its handle
	*conveyor.Engine
	w    *world
	name string

	// strike is asked before each commit but those of heartbeats, with the number of the commit, counted from 1.
	strike func(p *process, n int) fault

	mu      sync.Mutex // guards what follows
	commits int
	dead    bool
	held    chan struct{} // closed when the calls of the store go on; nil if they are not held up
}

// fault is how a commit goes wrong.
type fault string

const (
	fine          fault = ""
	diesBefore    fault = "dies before the commit"
	diesAfter     fault = "dies after the commit"
	refused       fault = "cannot reach the store"
	unknownUndone fault = "does not know, and has not committed"
	unknownDone   fault = "does not know, and has committed"
	unknownLater  fault = "does not know, and commits a second later"
	pauses        fault = "stands still for three leases before the commit"
	cutOff        fault = "cannot reach the store for three leases"
	slow          fault = "the commit takes a fifth of a lease"
	answersLate   fault = "the answer comes after three leases"
	unknownAsked  fault = "does not know, has committed, and somebody asks something meanwhile"
)

// line is the way of a process to the store.
type line struct{ *process }

var (
	_ store.Watcher = line{}
	_ store.Limited = line{}
)

// pass waits while the calls are held up, and returns an error if the process is dead or cut off.
func (l line) pass() error {
	for {
		l.mu.Lock()
		held, dead := l.held, l.dead
		l.mu.Unlock()
		switch {
		case dead:
			return rig.ErrDied
		case held == nil:
			return nil
		}
		<-held
	}
}

func (l line) Get(ctx context.Context, key string) (store.Record, error) {
	if err := l.pass(); err != nil {
		return store.Record{}, err
	}
	return l.disk.Get(ctx, key)
}

func (l line) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		if err := l.pass(); err != nil {
			yield(store.Record{}, err)
			return
		}
		l.disk.List(ctx, q)(yield)
	}
}

func (l line) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for c, err := range l.disk.(store.Watcher).Watch(ctx, prefix, after) {
			if err := l.pass(); err != nil {
				yield(store.Change{}, err)
				return
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// Close implements [store.Store].
func (l line) Close() error { return nil }

func (l line) Limits() store.Limits { return store.LimitsOf(l.disk) }

func (l line) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := l.pass(); err != nil {
		return 0, err
	}
	strikes := fine
	if len(ops) > 0 && !strings.HasPrefix(ops[0].Key(), "~hbt/") {
		l.mu.Lock()
		l.commits++
		n := l.commits
		l.mu.Unlock()
		if l.strike != nil {
			strikes = l.strike(l.process, n)
		}
	}
	switch strikes {
	case diesBefore:
		l.kill()
		return 0, rig.ErrDied
	case refused:
		return 0, fmt.Errorf("%w: try again", store.ErrUnavailable)
	case unknownUndone:
		return 0, fmt.Errorf("%w: no", store.ErrUnknown)
	case unknownLater:
		ops = cloned(ops)
		go func() {
			time.Sleep(time.Second)
			_, _ = l.commit(context.Background(), ops...)
		}()
		return 0, fmt.Errorf("%w: later", store.ErrUnknown)
	case slow:
		time.Sleep(lease / 5)
	case pauses, cutOff:
		l.hold(3 * lease)
		if err := l.pass(); err != nil {
			return 0, err
		}
		if strikes == cutOff {
			return 0, fmt.Errorf("%w: the network was away", store.ErrUnavailable)
		}
	}
	rev, err := l.commit(ctx, ops...)
	switch {
	case strikes == diesAfter:
		l.kill()
		return 0, rig.ErrDied
	case strikes == answersLate:
		l.hold(3 * lease)
		if err := l.pass(); err != nil {
			return 0, err
		}
	case strikes == unknownAsked && err == nil:
		l.w.ask()
		return 0, fmt.Errorf("%w: yes", store.ErrUnknown)
	case strikes == unknownDone && err == nil:
		return 0, fmt.Errorf("%w: yes", store.ErrUnknown)
	}
	return rev, err
}

// cloned returns ops that keep their values when the caller has written over them.
func cloned(ops []store.Op) (all []store.Op) {
	for _, op := range ops {
		all = append(all, rebuilt(op, op.Key(), slices.Clone(op.Value())))
	}
	return all
}

// rebuilt is an op with another key and another value.
func rebuilt(op store.Op, key string, value []byte) store.Op {
	rev, conditional := op.Condition()
	other := store.Put(key, value)
	switch {
	case !op.Writes():
		return store.Check(key, rev)
	case op.Removes():
		other = store.Delete(key)
	}
	if conditional {
		other = other.If(rev)
	}
	return other
}

// commit commits, and looks at all records afterwards.
func (l line) commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	rev, err := l.disk.Commit(ctx, ops...)
	if err != nil || len(ops) == 0 || strings.HasPrefix(ops[0].Key(), "~hbt/") {
		return rev, err
	}
	var keys []string
	for _, op := range ops {
		if op.Writes() {
			keys = append(keys, op.Key())
		}
	}
	w.lines = append(w.lines, fmt.Sprintf("%s %s %v", time.Now().Format("05.000"), l.name, keys))
	if broken := invariant.Broken(w.records()); len(broken) > 0 && len(w.faults) == 0 {
		w.blame("the invariant is broken by %s with %v: %v", l.name, keys, broken)
	}
	return rev, err
}

// records returns all records. Nothing is committed meanwhile.
func (w *world) records() map[string]store.Record {
	all := map[string]store.Record{}
	for r, err := range w.disk.List(context.Background(), store.Query{}) {
		if err == nil {
			all[r.Key] = r
		}
	}
	return all
}

// hold holds up the calls of the store for some time. The goroutines of the process go on until they call it.
func (p *process) hold(d time.Duration) {
	goOn := make(chan struct{})
	p.mu.Lock()
	p.held = goOn
	p.mu.Unlock()
	go func() {
		time.Sleep(d)
		p.mu.Lock()
		p.held = nil
		p.mu.Unlock()
		close(goOn)
	}()
}

// kill ends the process: nothing that it still does reaches the store, and its calls of drivers are over.
func (p *process) kill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, c := range p.w.calls {
		if c.of == p && c.ended.IsZero() {
			c.ended = time.Now()
		}
	}
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// start starts another process, with drivers.
func (w *world) start(name string, opts conveyor.Options, drivers map[string]rig.Func, strike func(p *process, n int) fault) *process {
	p := &process{disk: w.disk.Join(), w: w, name: name, strike: strike}
	opts.Lease, opts.Name = lease, name
	e, err := conveyor.New(line{p}, opts)
	require.NoError(w.t, err)
	p.Engine = e
	for id, answer := range drivers {
		var listen []conveyor.DriverOption
		if kind, is := strings.CutPrefix(id, "listens to "); is {
			listen = append(listen, conveyor.Listen(kind))
		}
		require.NoError(w.t, e.Register(strings.ReplaceAll(id, " ", "-"), rig.DriverOf(w.around(p, answer)), listen...))
	}
	w.t.Cleanup(func() {
		if w.t.Failed() {
			p.kill()
			_ = p.stop()
		}
	})
	for e.Start(w.t.Context()) != nil && !p.isDead() {
		time.Sleep(lease / 10)
	}
	return p
}

// stop ends a process that has come to rest, or the goroutines of one that is dead.
func (p *process) stop() error {
	deadline := time.Now()
	if !p.isDead() {
		deadline = deadline.Add(time.Minute)
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	err := p.Shutdown(ctx)
	if p.isDead() {
		return nil
	}
	return err
}

// around is a driver that is seen. A resource must have one call at a time, no step is called that is finished, and a step is called
// only after those before it.
func (w *world) around(p *process, answer rig.Func) rig.Func {
	return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		c := &seen{of: p, resource: req.Resource.Name, run: req.Run, step: req.Step.ID, began: time.Now()}
		w.mu.Lock()
		if p.isDead() {
			w.mu.Unlock()
			return conveyor.Result{}, rig.ErrDied
		}
		for _, other := range w.calls {
			if other.resource == c.resource && other.ended.IsZero() && !(other.run == c.run && req.Resource.Type == "loose") {
				w.blame("%s calls step %s of run %s while %s works on step %s of run %s", p.name, c.step, c.run, other.of.name, other.step, other.run)
			}
		}
		if w.stepOver(req.Run, req.Step.ID) {
			w.blame("%s calls step %s of run %s, which is finished", p.name, c.step, c.run)
		}
		w.calls = append(w.calls, c)
		w.mu.Unlock()
		result, err := answer(ctx, req)
		w.mu.Lock()
		defer w.mu.Unlock()
		if c.ended.IsZero() {
			c.ended = time.Now()
		}
		return result, err
	}
}

// stepOver reports whether a step is on record as finished.
func (w *world) stepOver(run, step string) bool {
	r, err := w.disk.Get(context.Background(), "stp/"+run+"/"+step)
	return err == nil && (strings.Contains(string(r.Value), `"state":"succeeded"`) || strings.Contains(string(r.Value), `"state":"skipped"`))
}

// check fails the test if somebody has blamed somebody.
func (w *world) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) > 0 {
		require.Fail(w.t, "faults", "%s\n%s", strings.Join(w.faults, "\n"), strings.Join(w.lines, "\n"))
	}
}

// insist makes a call until it succeeds, or meets what a call before has done whose answer was lost. It calls revive before.
func (w *world) insist(revive func(), call func() error) {
	w.t.Helper()
	var err error
	for range 200 {
		revive()
		if err = call(); err == nil || errors.Is(err, conveyor.ErrConflict) || errors.Is(err, conveyor.ErrNotFound) {
			return
		}
		time.Sleep(lease / 10)
	}
	require.NoError(w.t, err)
}

// ask has somebody ask something of each run that has not ended.
func (w *world) ask() {
	if p := w.asker.Load(); p != nil {
		for r := range w.disk.List(context.Background(), store.Query{Prefix: "~act/"}) {
			_ = p.Signal(context.Background(), strings.TrimPrefix(r.Key, "~act/"), "another", 1)
		}
	}
}

// settle waits until every run has ended. It calls revive again and again.
func (w *world) settle(revive func()) {
	w.t.Helper()
	for range 600 {
		revive()
		left := slices.Collect(func(yield func(string) bool) {
			for r := range w.disk.List(context.Background(), store.Query{Prefix: "~act/"}) {
				if !yield(r.Key) {
					return
				}
			}
		})
		if len(left) == 0 {
			synctest.Wait()
			return
		}
		time.Sleep(lease / 10)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, r := range w.records() {
		w.lines = append(w.lines, key+" "+string(r.Value))
	}
	require.Fail(w.t, "runs do not end", "%s", strings.Join(w.lines, "\n"))
}
