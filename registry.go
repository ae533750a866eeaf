package conveyor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/internal/text"
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
