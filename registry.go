package conveyor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// driver is a registered driver.
type driver struct {
	name  string
	impl  Driver
	opts  driverOptions
	calls *sched.Semaphore[record.Key, *runner] // limits the concurrent calls of the driver, abandoned calls included
}

// registry holds the registered drivers.
type registry struct {
	pool *pool // of the runs that wait for drivers

	mu    sync.RWMutex // guards names
	names map[string]*driver
}

// get returns the driver with a name, or nil.
func (r *registry) get(name string) *driver {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.names[name]
}

// add adds a driver. It returns false, and adds nothing, if the name is taken.
func (r *registry) add(d *driver) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.names[d.name]; taken {
		return false
	}
	r.putLocked(d)
	return true
}

func (r *registry) putLocked(d *driver) {
	if r.names == nil {
		r.names = map[string]*driver{}
	}
	r.names[d.name] = d
}

// didYouMean returns a question that proposes a registered driver in the place of one that is not registered. It returns an
// empty text if the driver is registered, or if there is none with a similar name.
func (r *registry) didYouMean(name string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.names[name] != nil {
		return ""
	}
	return text.DidYouMean(name, slices.Sorted(maps.Keys(r.names)))
}

// listeners returns the names of the drivers that listen to a type, sorted.
func (r *registry) listeners(kind string) (names []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for name, d := range r.names {
		if slices.Contains(d.opts.listen, kind) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// all returns the names of the drivers, and of the drivers that plan the runs of pipelines, in order.
func (r *registry) all() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.names))
}

// listened returns the types to which at least one driver listens, sorted.
func (r *registry) listened() (types []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, d := range r.names {
		types = append(types, d.opts.listen...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// plan makes p the Planner of a pipeline.
func (r *registry) plan(pipeline string, p Planner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putLocked(&driver{name: plan.PlannerName(pipeline), impl: planner{p}, calls: sched.NewSemaphore[record.Key, *runner](0)})
}

// forgetPlanner removes the Planner of a pipeline that was deleted. The pool calls it with the pool's lock held.
func (r *registry) forgetPlanner(pipeline string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.names, plan.PlannerName(pipeline))
}

// planner makes a Planner the driver of the step in which it is called (see [PlanStep]). The driver has a name that no
// driver of a program can have.
type planner struct{ Planner }

// Reconcile returns the steps that Plan returns as the output of the step.
func (p planner) Reconcile(ctx context.Context, req *Request) (Result, error) {
	steps, err := p.Plan(ctx, req.Resource)
	if err != nil {
		return Result{}, err
	}
	return Result{kind: run.Planned, output: &plannedSteps{steps}}, nil
}

// register adds a driver and wakes the runs that wait for it.
func (r *registry) register(name string, d Driver, opts driverOptions) error {
	known := &driver{name: name, impl: d, opts: opts, calls: sched.NewSemaphore[record.Key, *runner](opts.concurrency)}
	if !r.add(known) {
		return fmt.Errorf("%w: driver %q", ErrExists, name)
	}
	r.pool.Show(name, known.calls)
	r.pool.Unblock(name)
	return nil
}

// registerPlanner has the later runs of a pipeline planned by p. It does nothing if p is nil.
func (r *registry) registerPlanner(pipeline string, p Planner) {
	if p != nil {
		r.plan(pipeline, p)
		r.pool.Unblock(plan.PlannerName(pipeline))
	}
}

// driver returns the registered driver with a name. If there is none, it returns nil, and the run gets its turn when the
// driver is registered.
func (r *registry) driver(name string, of *runner) *driver {
	d := r.get(name)
	if d == nil {
		r.pool.Block(&of.task, name)
		d = r.get(name) // the driver may have been registered in between, and Unblock may not have found the run
	}
	return d
}

// Forget takes a driver that does not come back off the record of those that listen to types of resources, on a shared store: later
// runs do not wait for it. Without types, it is forgotten for all types. A run that has begun still waits for it, and can be canceled.
//
// Forget returns [ErrNotFound] if no such listener is on record, which is so on any store that is not shared, [ErrConflict] while a
// live engine has the driver, an [ErrInvalid] for an invalid name, [ErrClosed] after Shutdown, the cause of ctx, or an error of the store.
func (e *Engine) Forget(ctx context.Context, driver string, types ...string) error {
	if err := e.sched.accepting(); err != nil {
		return err
	}
	var f fault.Fields
	f.Name("driver", driver)
	for _, kind := range types {
		f.Name("type", kind)
	}
	if err := fieldErrors(f.List()); err != nil {
		return err
	}
	all, err := e.Listeners(ctx)
	if err != nil {
		return err
	}
	var ops []store.Op
	for _, l := range all {
		if l.Driver != driver || len(types) > 0 && !slices.Contains(types, l.Type) {
			continue
		}
		if len(l.Engines) > 0 || e.sched.drivers.get(driver) != nil {
			return fmt.Errorf("%w: driver %q listens in engine %s; shut it down first", ErrConflict, driver, strings.Join(l.Engines, ", "))
		}
		ops = append(ops, store.Delete(record.ListenerKey(l.Type, driver)))
	}
	if len(ops) == 0 || e.sched.fleet == nil {
		return fmt.Errorf("%w: listener %q", ErrNotFound, driver)
	}
	if err := commitInParts(ctx, e.ledger, ops); err != nil {
		return fmt.Errorf("forget driver %q: %w", driver, err)
	}
	return nil
}

// commitInParts writes ops that need not be written together. A crash in between leaves the rest unwritten.
func commitInParts(ctx context.Context, l *ledger.Ledger, ops []store.Op) error {
	for part := range slices.Chunk(ops, max(l.Batch, 1)) {
		if _, err := l.Commit(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// listen puts the drivers that listen to a type on record, so that an engine that is down is waited for and not forgotten.
func (c claimer) listen(ctx context.Context, drivers ...string) error {
	var ops []store.Op
	for _, name := range drivers {
		if d := c.sched.drivers.get(name); d != nil {
			for _, kind := range d.opts.listen {
				ops = append(ops, store.Put(record.ListenerKey(kind, name), nil))
			}
		}
	}
	return commitInParts(ctx, c.sched.ledger, ops)
}

// registered puts a driver on record that begins to listen after the start, and has the runs looked at that wait for it. What Start
// puts on record is not there before. If the store fails, it is tried again in the background. then is called when the driver is
// on record: a run that another engine skips before is found then.
func (c claimer) registered(driver string, then func()) {
	s := c.sched
	if s.pool.Phase() != sched.Running {
		return
	}
	if c.listen(s.base, driver) == nil {
		then()
	} else {
		s.background.goBefore(sched.Draining, func() {
			s.upkeep.retryStore("put the listener "+driver+" on record", func() error { return c.listen(c.ctx, driver) })
			then()
		})
	}
	c.wakeMember()
	c.look()
}

// registerRest puts the drivers on record that were registered while the engine was being started.
func (c claimer) registerRest() {
	c.sched.background.goBefore(sched.Draining, func() {
		c.sched.upkeep.retryStore("put the listeners on record", func() error { return c.listen(c.ctx, c.sched.drivers.all()...) })
		c.sched.upkeep.reconcileUnlistened(c.sched.drivers.listened()...)
	})
}

// listeners returns the names of the drivers that listen to a type, sorted. On a shared store they are those of all engines.
func (s *scheduler) listeners(ctx context.Context, kind string) ([]string, error) {
	if s.fleet != nil {
		return s.fleet.claimer().listeners(ctx, kind)
	}
	return s.drivers.listeners(kind), nil
}

// listeners returns the drivers that listen to a type, of whatever engine.
func (c claimer) listeners(ctx context.Context, kind string) (drivers []string, err error) {
	prefix := record.ListenersOf(kind)
	for r, err := range c.sched.ledger.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		drivers = append(drivers, r.Key[len(prefix):])
	}
	return drivers, nil
}
