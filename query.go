package conveyor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/member"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Get returns the current state of a resource, or [ErrNotFound]. The caller owns the object.
func (e *Engine) Get(ctx context.Context, k Key) (*Object, error) {
	if text.NameFault(k.Type) != "" || text.NameFault(k.Name) != "" {
		return nil, noResource(k)
	}
	o, err := readObject(ctx, e.ledger, k)
	if err == nil && o == nil {
		err = noResource(k)
	}
	return o, err
}

// noResource returns the error for a resource that does not exist.
func noResource(k Key) error {
	return fmt.Errorf("%w: resource %q", ErrNotFound, text.Truncate(k.String(), 2*text.MaxName))
}

// head returns the record of a resource, or ErrNotFound.
func (e *Engine) head(ctx context.Context, k Key) (*record.Resource, error) {
	if text.NameFault(k.Type) != "" || text.NameFault(k.Name) != "" {
		return nil, noResource(k)
	}
	head, _, err := e.ledger.Resource(ctx, record.Key(k))
	if err == nil && head == nil {
		err = noResource(k)
	}
	return head, err
}

// ResourceFilter selects resources. The zero value selects all of them.
type ResourceFilter struct {
	Type       string // only resources of this type; empty for all types
	NamePrefix string // only names with this prefix; needs Type
	After      string // only names greater than this one, to continue after a page; needs Type
	Limit      int    // maximum number of resources; 0 or less for no limit
}

// List returns the resources that f selects, in the order of type and name. It returns the current state of each
// resource, never an earlier generation. Each resource is read separately: the list is not a snapshot of one moment.
// If the store fails or ctx ends, the last element is the error of the store or the cause of ctx. The caller owns the
// objects.
func (e *Engine) List(ctx context.Context, f ResourceFilter) iter.Seq2[*Object, error] {
	q := store.Query{Prefix: record.ResourcePrefix, Limit: f.Limit}
	if f.Type != "" {
		q.Prefix += f.Type + "/"
		if f.After != "" {
			q.After = q.Prefix + f.After
		}
		q.Prefix += f.NamePrefix
	}
	return func(yield func(*Object, error) bool) {
		for r, err := range e.ledger.Store.List(ctx, q) {
			var o *Object
			if err == nil {
				if o, err = e.listed(ctx, r); o == nil && err == nil {
					continue // the resource was removed in the meantime
				}
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
	}
}

// listed returns the resource of a record that List has found. It returns nil if the resource no longer exists.
func (e *Engine) listed(ctx context.Context, r store.Record) (*Object, error) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(r.Key, record.ResourcePrefix), "/")
	var head record.Resource
	if err := record.Decode(r, &head); err != nil {
		return nil, err
	}
	k := Key{Type: kind, Name: name}
	revision, err := e.ledger.Revision(ctx, record.Key(k), head.Generation)
	if errors.Is(err, store.ErrNotFound) {
		return readObject(ctx, e.ledger, k) // reads again, because the resource may have changed since it was listed
	}
	if err != nil {
		return nil, err
	}
	return &Object{Meta: metaOf(k, &head), Spec: revision.Spec}, nil
}

// Revisions returns the generations of a resource that are kept, the oldest first. Each has its spec, its pipeline
// and its metadata as they were when the generation was made. Their Status is empty. If there is no such resource,
// the only element is an [ErrNotFound].
func (e *Engine) Revisions(ctx context.Context, k Key) iter.Seq2[*Object, error] {
	return func(yield func(*Object, error) bool) {
		head, err := e.head(ctx, k)
		if err != nil {
			yield(nil, err)
			return
		}
		// An earlier incarnation of the name may have left revisions. They do not belong to this resource.
		q := store.Query{Prefix: record.RevisionsOf(record.Key(k))}
		if head.First > 1 {
			q.After = record.RevisionKey(record.Key(k), head.First-1)
		}
		for r, err := range e.ledger.Store.List(ctx, q) {
			var o *Object
			if err == nil {
				o, err = revisionObject(r, k, head)
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
	}
}

// revisionObject returns an earlier generation of a resource from the record of the generation.
func revisionObject(r store.Record, k Key, head *record.Resource) (*Object, error) {
	generation, ok := record.ParseNumber(strings.TrimPrefix(r.Key, record.RevisionsOf(record.Key(k))))
	if !ok {
		return nil, record.BadKey(r.Key)
	}
	var rec record.Revision
	if err := record.Decode(r, &rec); err != nil {
		return nil, err
	}
	o := &Object{Spec: rec.Spec, Meta: Meta{
		ID: head.ID, Name: k.Name, Type: k.Type, Pipeline: rec.Pipeline, Version: rec.Version,
		Generation: generation, CreatedAt: head.Created.Time(), UpdatedAt: rec.At.Time(), UpdatedBy: rec.By,
	}}
	o.Metadata, o.MetadataJSON = fromMetadata(rec.Metadata)
	return o, nil
}

// GetRun returns the current state of a run, or [ErrNotFound]. The caller owns the run.
func (e *Engine) GetRun(ctx context.Context, runID string) (*Run, error) {
	if text.NameFault(runID) != "" {
		return nil, ledger.NoRun(runID)
	}
	run, err := describeRun(ctx, e.ledger, runID)
	if err != nil {
		return nil, err
	}
	e.sched.describe(ctx, run)
	return run, nil
}

// RunFilter selects runs. The zero value selects all of them, the oldest first.
type RunFilter struct {
	Resource   Key     // only runs of this resource; zero for all resources
	Pipeline   string  // only runs along this pipeline; empty for all pipelines
	States     []State // only runs in one of these states; empty for all states
	Unfinished bool    // only runs that have not ended; the others are not read at all
	Newest     bool    // the newest run first
	After      string  // only runs that come after the run with this id, in the order of the list
	Limit      int     // maximum number of runs; 0 or less for no limit
}

func (f *RunFilter) wants(r *Run) bool {
	return (f.Resource == Key{} || f.Resource == r.Resource) &&
		(f.Pipeline == "" || f.Pipeline == r.Pipeline) &&
		(len(f.States) == 0 || slices.Contains(f.States, r.State)) &&
		(!f.Unfinished || !r.State.Final())
}

// Runs returns the runs that f selects, in the order of their ids, or of their numbers if f names a resource. Each run
// is read separately: the list is not a snapshot of one moment. If the store fails or ctx ends, the last element is the
// error of the store or the cause of ctx. The caller owns the runs.
func (e *Engine) Runs(ctx context.Context, f RunFilter) iter.Seq2[*Run, error] {
	q := store.Query{Prefix: record.RunPrefix, Reverse: f.Newest}
	switch {
	case f.Unfinished:
		q.Prefix = record.ActivePrefix
	case f.Resource != Key{}:
		return e.runsOf(ctx, f)
	}
	if f.After != "" {
		q.After = q.Prefix + f.After
	}
	return e.listRuns(ctx, f, q, func(key string) (string, error) { return key[len(q.Prefix):], nil })
}

// runsOf returns the runs of one resource that f selects.
func (e *Engine) runsOf(ctx context.Context, f RunFilter) iter.Seq2[*Run, error] {
	k := record.Key(f.Resource)
	q := store.Query{Prefix: record.RunsOf(k), Reverse: f.Newest}
	idOf := func(key string) (string, error) {
		_, id, err := record.ParseRunIndexKey(key)
		return id, err
	}
	if f.After == "" {
		return e.listRuns(ctx, f, q, idOf)
	}
	return func(yield func(*Run, error) bool) {
		after, _, err := ledger.Load[record.Run](ctx, e.ledger, record.RunKey(f.After))
		skip := idOf
		switch {
		case err == nil && after.Key() == k:
			q.After = record.RunIndexKey(k, after.Number, f.After)
		case err != nil && !errors.Is(err, store.ErrNotFound):
			yield(nil, err)
			return
		default: // the run was removed; only its id says where it was
			skip = func(key string) (string, error) {
				id, err := idOf(key)
				if f.Newest && id >= f.After || !f.Newest && id <= f.After {
					id = ""
				}
				return id, err
			}
		}
		e.listRuns(ctx, f, q, skip)(yield)
	}
}

// listRuns returns the runs that f selects among those that q lists. idOf returns the id of the run that a key lists, or
// an empty text if the run is to be left out.
func (e *Engine) listRuns(ctx context.Context, f RunFilter, q store.Query, idOf func(key string) (string, error)) iter.Seq2[*Run, error] {
	return func(yield func(*Run, error) bool) {
		n := 0
		for r, err := range e.ledger.Store.List(ctx, q) {
			id := ""
			if err == nil {
				id, err = idOf(r.Key)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if id == "" {
				continue
			}
			run, err := describeRun(ctx, e.ledger, id)
			if err == nil {
				e.sched.describe(ctx, run)
			}
			if errors.Is(err, ErrNotFound) || err == nil && !f.wants(run) {
				continue // the run was removed in the meantime (see [Retention]), or f does not select it
			}
			if !yield(run, err) || err != nil {
				return
			}
			if n++; n == f.Limit {
				return
			}
		}
	}
}

// Stats describes what an engine does at one moment.
type Stats struct {
	Unfinished int `json:"unfinished"` // runs that have not ended
	// Runs counts the unfinished runs by their state, as in [Run].State.
	Runs map[State]int `json:"runs,omitempty"`
	// Ended counts the runs that have ended since the engine was created, by their final state.
	Ended map[State]int64 `json:"ended,omitempty"`
	// What the unfinished runs wait for is counted in Ready, Due, Held and Blocked, in the Waiting of Slots, and in the
	// Waiting of Pipelines. A run that waits for several things is counted in each. [Run].WaitsFor tells it of one run.
	Ready int `json:"ready"` // unfinished runs that wait for a worker
	// OldestReady is the time since which the oldest of the Ready runs has been waiting for a worker. It is zero if
	// Ready is 0.
	OldestReady time.Time `json:"oldestReady,omitzero"`
	Due         int       `json:"due"`     // unfinished runs that wait for a time: a retry, a requeue, a deadline
	Workers     int       `json:"workers"` // as in Options
	Busy        int       `json:"busy"`    // workers that are working
	Stray       int       `json:"stray"`   // abandoned calls that have not returned; they hold no worker
	Held        int       `json:"held"`    // unfinished runs that wait for the return of an abandoned call of their resource
	// Blocked counts the runs that wait until something is corrected, by the reason that their step has. A run whose
	// steps wait for several things is counted once for each.
	Blocked map[string]int `json:"blocked,omitempty"`
	// Slots describes the use of each driver, by name.
	Slots map[string]DriverStats `json:"slots,omitempty"`
	// Pipelines describes each pipeline that has active runs or a limit for them, by name.
	Pipelines map[string]PipelineStats `json:"pipelines,omitempty"`
}

// DriverStats describes what one driver does.
type DriverStats struct {
	Busy    int `json:"busy"`            // running attempts
	Limit   int `json:"limit,omitempty"` // the limit that was passed to Concurrency; 0 for none
	Waiting int `json:"waiting"`         // runs that wait for a slot
}

// PipelineStats describes the runs of one pipeline.
type PipelineStats struct {
	AtWork  int `json:"atWork"`          // runs that have begun and not ended
	Limit   int `json:"limit,omitempty"` // MaxRuns, as it was when the pipeline was saved or its last run began; 0 for none
	Waiting int `json:"waiting"`         // runs that wait because of the limit
}

// describe completes a run that was read from the store by what holds it up in this engine.
func (s *scheduler) describe(ctx context.Context, r *Run) {
	if r.State.Final() {
		return
	}
	if s.fleet != nil {
		s.fleet.claimer().describe(ctx, r)
	}
	w := s.pool.WaitsFor(r.ID)
	if w.Held {
		r.WaitsFor = append(r.WaitsFor, "the return of an abandoned call")
	}
	if w.Room != "" {
		r.WaitsFor = append(r.WaitsFor, fmt.Sprintf("room in pipeline %q", w.Room))
	}
	for _, driver := range w.Drivers {
		r.WaitsFor = append(r.WaitsFor, fmt.Sprintf("a slot of driver %q", driver))
	}
	if w.Worker {
		r.WaitsFor = append(r.WaitsFor, "a worker")
	}
	for _, name := range w.Blocked {
		if why, paused := s.pauses.text(name); paused && r.State == StateQueued { // of a run that has begun, it is on record
			r.State, r.Reason = StateBlocked, why
		}
	}
}

// Stats returns what the engine does at the moment. It reads nothing from the store. It is therefore cheap, and it
// returns an error only if ctx has ended.
func (e *Engine) Stats(ctx context.Context) (Stats, error) {
	if ctx.Err() != nil {
		return Stats{}, context.Cause(ctx)
	}
	return e.sched.stats(), nil
}

// stats converts what the pool counts.
func (s *scheduler) stats() Stats {
	now := s.pool.Stats()
	st := Stats{
		Unfinished: now.Tasks, Ready: now.Ready, OldestReady: record.Time(now.Oldest).Time(), Due: now.Due,
		Workers: now.Workers, Busy: now.Busy, Stray: now.Abandoned, Held: now.Held,
		Runs: map[State]int{}, Ended: map[State]int64{}, Blocked: map[string]int{},
		Slots: map[string]DriverStats{}, Pipelines: map[string]PipelineStats{},
	}
	for state := range State(plan.NumStates) {
		if n := now.States[state]; n > 0 {
			st.Runs[state] = n
		}
		if n := now.Ended[state]; n > 0 {
			st.Ended[state] = n
		}
	}
	for name, n := range now.Blocked {
		why, paused := s.pauses.text(name)
		if !paused {
			why = run.Missing(name)
		}
		st.Blocked[why] += n
	}
	for name, of := range now.Drivers {
		st.Slots[name] = DriverStats{Busy: of.InUse, Limit: of.Limit, Waiting: of.Waiting}
	}
	for name, of := range now.Runs {
		st.Pipelines[name] = PipelineStats{AtWork: of.InUse, Limit: of.Limit, Waiting: of.Waiting}
	}
	return st
}

// EngineInfo describes one of several engines on a shared store.
type EngineInfo struct {
	ID      string        `json:"id"`             // made at Start, and never used again
	Name    string        `json:"name,omitempty"` // Options.Name
	Self    bool          `json:"self,omitempty"` // it is this engine
	Started time.Time     `json:"started"`        // by its own clock
	Lease   time.Duration `json:"lease"`          // Options.Lease
	// Dead is when the engine was marked dead, and By is the ID of the engine that has marked it: its own if it was shut down. Dead
	// is zero while the engine is live. An engine that is marked dead is listed until its runs are taken over.
	Dead time.Time `json:"dead,omitzero"`
	By   string    `json:"by,omitempty"`
	// Heartbeat is the time of its newest heartbeat by its own clock, and Ahead is by how much its clock was ahead of the clock of this
	// engine when this engine saw that heartbeat. A heartbeat is seen up to a third of a lease late, and Ahead is too small by as
	// much. Ahead is 0 for this engine and for an engine whose heartbeat it has not seen come.
	Heartbeat time.Time     `json:"heartbeat"`
	Ahead     time.Duration `json:"ahead,omitempty"`
	// OtherOptions reports that the options that give runs a meaning (Retry, StepTimeout, Limits, Retention) differ from those of
	// this engine. What a run does then depends on which engine works on it.
	OtherOptions bool     `json:"otherOptions,omitempty"`
	Drivers      []string `json:"drivers,omitempty"` // that are registered, in order
	Planned      []string `json:"planned,omitempty"` // the pipelines that it has a Planner for, in order
	Runs         int      `json:"runs"`              // unfinished runs that it holds
	Busy         int      `json:"busy"`              // workers that are working
	Free         int      `json:"free"`              // workers that are free
}

// Engines returns the engines that are on record in a shared store, in the order in which they were started. What it says of the work
// of an engine is as old as its newest heartbeat, which comes every sixth of its lease. Engines can be called before Start. On a store
// that is not shared there are none. It returns the cause of ctx, or an error of the store.
func (e *Engine) Engines(ctx context.Context) ([]EngineInfo, error) {
	f := e.sched.fleet
	if f == nil {
		return nil, nil
	}
	peers, err := member.List(ctx, e.ledger)
	if err != nil {
		return nil, fmt.Errorf("engines: %w", err)
	}
	infos, meaning := make([]EngineInfo, 0, len(peers)), e.opts.meaning()
	for _, p := range peers {
		h := &p.Heartbeat
		var ahead time.Duration
		if v, ok := f.clocks.Load(p.ID); ok && v.(seenBeat).came {
			ahead = v.(seenBeat).ahead
		}
		infos = append(infos, EngineInfo{
			ID: p.ID, Name: p.Engine.Name, Self: p.ID == f.member().ID, Started: p.Engine.Started.Time(), Lease: p.Engine.Lease,
			Dead: p.Engine.Dead.Time(), By: p.Engine.By, Heartbeat: h.Clock.Time(), Ahead: ahead,
			OtherOptions: p.Engine.Options != meaning, Drivers: h.Drivers, Planned: h.Planned, Runs: h.Owned, Busy: h.Busy, Free: h.Free,
		})
	}
	slices.SortStableFunc(infos, func(a, b EngineInfo) int { return a.Started.Compare(b.Started) })
	return infos, nil
}

// Listener is a driver that listens to a type of resource (see [Listen]).
type Listener struct {
	Type   string `json:"type"`
	Driver string `json:"driver"`
	// Engines are the IDs of the engines that have the driver, in order. It is empty on a store that is not shared.
	Engines []string `json:"engines,omitempty"`
}

// Listeners returns the drivers that listen to types of resources, in the order of types and drivers. On a shared store, a driver
// that has once listened is on record until [Engine.Forget] is called, whether a process with it runs or not. On any other store it
// returns the drivers that are registered. Listeners returns the cause of ctx, or an error of the store.
func (e *Engine) Listeners(ctx context.Context) (all []Listener, err error) {
	f := e.sched.fleet
	if f == nil {
		for _, kind := range e.sched.drivers.listened() {
			for _, driver := range e.sched.drivers.listeners(kind) {
				all = append(all, Listener{Type: kind, Driver: driver})
			}
		}
		return all, nil
	}
	peers, err := member.List(ctx, e.ledger)
	if err != nil {
		return nil, fmt.Errorf("listeners: %w", err)
	}
	for r, err := range e.ledger.Store.List(ctx, store.Query{Prefix: record.ListenerPrefix}) {
		if err != nil {
			return nil, fmt.Errorf("listeners: %w", err)
		}
		kind, driver, _ := strings.Cut(strings.TrimPrefix(r.Key, record.ListenerPrefix), "/")
		all = append(all, Listener{Type: kind, Driver: driver, Engines: enginesWith(driver, peers)})
	}
	return all, nil
}

// enginesWith returns the engines that are live and have a driver.
func enginesWith(driver string, peers []member.Peer) (ids []string) {
	for _, p := range peers {
		if p.Engine.Dead == 0 && slices.Contains(p.Heartbeat.Drivers, driver) {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// describe says of a run that goes on nowhere, because no engine that is live has the driver of its next step, that it is blocked.
func (c claimer) describe(ctx context.Context, r *Run) {
	if c.others.Load() == nil {
		return // nothing is known of other engines
	}
	nowhere := func(driver string) bool { return c.sched.drivers.get(driver) == nil && !c.hasElsewhere(driver) }
	if len(r.Steps) == 0 {
		first, step, err := c.firstDrivers(ctx, r.Pipeline)
		if r.Pipeline == "" {
			if first, err = c.listeners(ctx, r.Resource.Type); len(first) > 0 {
				step = first[0]
			}
		}
		if err == nil && len(first) > 0 && !slices.ContainsFunc(first, func(d string) bool { return !nowhere(d) }) {
			r.State, r.Reason = StateBlocked, fmt.Sprintf("step %s: %s%s", step, missing(r, first[0]), c.sched.drivers.didYouMean(first[0]))
		}
		return
	}
	var first *StepRun // that is missing its driver
	for i := range r.Steps {
		switch s := &r.Steps[i]; {
		case s.State.Final():
		case s.State == StateRunning, s.State == StateRetrying, s.State == StateWaiting, s.State == StateBlocked:
			return
		case first == nil && nowhere(s.Driver):
			first = s
		}
	}
	if first != nil {
		first.State, first.Reason = StateBlocked, missing(r, first.Driver)
		r.State, r.Reason = first.State, fmt.Sprintf("step %s: %s", first.ID, first.Reason)
	}
}

// missing returns what must be registered, or forgotten, before a run can go on.
func missing(r *Run, driver string) string {
	why := run.Missing(driver)
	if r.Pipeline == "" && r.Cause != CauseDeleted {
		why += "; Engine.Forget takes a listener off the record that does not come back"
	}
	return why
}
