package conveyor

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/store"
)

// driver is a registered driver.
type driver struct {
	name  string
	impl  Driver
	opts  driverOptions
	calls *sched.Semaphore[record.Key, *runner] // bounds the calls of it that are under way
}

// registry holds the registered drivers.
type registry struct {
	mu    sync.RWMutex // guards names
	names map[string]*driver
}

// get returns the driver with a name, or nil.
func (r *registry) get(name string) *driver {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.names[name]
}

// add reports whether the name was free.
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

// listeners returns the names of the drivers that listen to a type, in order.
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

// listened returns the types that some driver listens to.
func (r *registry) listened() (types []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, d := range r.names {
		types = append(types, d.opts.listen...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// plan has the runs of a pipeline planned by p from here on.
func (r *registry) plan(pipeline string, p Planner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putLocked(&driver{name: plan.PlannerName(pipeline), impl: planner{p}, calls: sched.NewSemaphore[record.Key, *runner](0)})
}

// forgetPlanner lets go of the Planner of a pipeline that was deleted. The pool calls it with its lock held.
func (r *registry) forgetPlanner(pipeline string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.names, plan.PlannerName(pipeline))
}

// planner is the driver of that step. It is registered under a name that no driver of a program can have.
type planner struct{ Planner }

func (p planner) Reconcile(ctx context.Context, req *Request) (Result, error) {
	steps, err := p.Plan(ctx, req.Resource)
	if err != nil {
		return Result{}, err
	}
	return Result{kind: run.Planned, output: steps}, nil
}

// register adds a driver and wakes the runs that wait for it.
func (s *scheduler) register(name string, d Driver, opts driverOptions) error {
	if err := s.accepting(); err != nil {
		return err
	}
	known := &driver{name: name, impl: d, opts: opts, calls: sched.NewSemaphore[record.Key, *runner](opts.concurrency)}
	if !s.drivers.add(known) {
		return fmt.Errorf("%w: driver %q", ErrExists, name)
	}
	s.pool.Show(name, known.calls)
	s.pool.Unblock(name)
	return nil
}

// plansWith has the runs of a pipeline planned by p from here on; nil leaves it as it is.
func (s *scheduler) plansWith(pipeline string, p Planner) {
	if p != nil {
		s.drivers.plan(pipeline, p)
		s.pool.Unblock(plan.PlannerName(pipeline))
	}
}

// limitRuns changes how many runs of a pipeline may be at work, after its definition has changed.
func (s *scheduler) limitRuns(pipeline string, limit int, rev store.Revision, deleted bool) {
	s.pool.LimitRuns(pipeline, limit, int64(rev), deleted)
}

// driver returns the registered driver, or notes that the journey waits for it and returns nil.
func (s *scheduler) driver(name string, r *runner) *driver {
	d := s.drivers.get(name)
	if d == nil {
		s.pool.Block(&r.task, name)
		d = s.drivers.get(name) // it may have been registered in between, and not have found the journey waiting
	}
	return d
}
