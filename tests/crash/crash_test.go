package crash_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
)

// spread returns the places at which the store goes wrong, in order and without an end. By the full bounds these are all
// places, and else the first one and a spread of those after it, which differ with what is tried.
func spread(stride int, tried ...any) iter.Seq[int] {
	h := fnv.New32a()
	fmt.Fprint(h, tried...)
	return func(yield func(int) bool) {
		if !yield(1) {
			return
		}
		for n := 2 + int(h.Sum32()%uint32(stride)); yield(n); n += stride {
		}
	}
}

// TestEngineSurvivesAStopAtEveryCommit runs each workload again and again, and has the store go wrong at its first
// commit, at its second, and so on until a run completes without getting there; and the same for what it reads. What it
// ends with must always be what it ends with undisturbed, and the drivers must have been called as rule 8 says.
func TestEngineSurvivesAStopAtEveryCommit(t *testing.T) {
	stride := testenv.Some(t, 9, 1)
	var scenarios atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, d := range disks {
			for _, load := range workloads {
				t.Run(d.name+"/"+load.name, func(t *testing.T) {
					t.Parallel()
					want := undisturbed(t, load)
					for _, kind := range d.faults {
						tried := 0
						for n := range spread(stride, d.name, load.name, kind) {
							tried++
							if !endure(t, d, load, want, mishap{kind, n}) {
								break
							}
							require.Less(t, n, 500, "the workload does not come to an end")
						}
						if kind != failsHalfway {
							require.Greater(t, tried, 1, "the store has not gone wrong")
						}
						scenarios.Add(int64(tried))
					}
				})
			}
		}
	})
	testenv.Figure(t, "%d faults at the commits and reads of %d workloads", scenarios.Load(), len(workloads))
}

// TestEngineSurvivesAStopAtEveryCommitOfARecovery stops the engine at commit n and its successor at commit, or read, m,
// for every n and every m.
func TestEngineSurvivesAStopAtEveryCommitOfARecovery(t *testing.T) {
	stride := testenv.Some(t, 9, 1)
	var pairs atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, d := range disks {
			loads := workloads
			if d.name != "memory" || testenv.Race {
				loads = loads[:2] // it takes the time of a disk
			}
			for _, load := range loads {
				t.Run(d.name+"/"+load.name, func(t *testing.T) {
					t.Parallel()
					want := undisturbed(t, load)
					for _, first := range d.deaths {
						for _, second := range d.second {
							pairs.Add(recoveries(t, d, load, want, first, second, stride))
						}
					}
				})
			}
		}
	})
	testenv.Figure(t, "%d pairs of faults", pairs.Load())
}

// recoveries has the store go wrong in two ways, one in each of two lives, at all places or a spread of them, and returns
// at how many it has.
func recoveries(t *testing.T, d disk, load workload, want string, first, second faultKind, stride int) (pairs int64) {
	t.Helper()
	for n := range spread(stride, d.name, load.name, first, second) {
		before := pairs
		for m := range spread(stride, d.name, load.name, first, n, second) {
			if !endure(t, d, load, want, mishap{first, n}, mishap{second, m}) {
				break
			}
			pairs++
		}
		if pairs == before {
			break // the first place was not reached
		}
	}
	return pairs
}

// longestLife is more than any workload takes.
const longestLife = time.Hour

// world is what outlives the process: its records, its program, and those who saw what the drivers did.
type world struct {
	load    workload
	reopen  func() store.Store
	witness *witness
	next    int // of the operations: the first that was not acknowledged
	applied map[conveyor.Key]*conveyor.Object
	deleted map[conveyor.Key]string // the ids of what was deleted, and not applied since
	leaving map[conveyor.Key]bool   // the program has begun to delete it, and may not have heard an answer
}

func newWorld(t *testing.T, d disk, load workload) *world {
	after := map[string][]string{} // of graphs; lists are ordered
	for _, p := range load.pipelines {
		steps := p.Spec().Steps
		graph := slices.ContainsFunc(steps, func(s conveyor.Step) bool { return s.After != nil })
		for i, s := range steps {
			after[s.ID] = append(after[s.ID], s.After...)
			for k := range i {
				if graph && s.After == nil {
					after[s.ID] = append(after[s.ID], steps[k].ID)
				}
			}
		}
	}
	return &world{
		load: load, reopen: d.insert(t),
		witness: &witness{
			ordered: load.ordered, after: after, forgets: load.forgets || load.opts.Retention != conveyor.Retention{},
			steps: map[place]*stepSeen{}, resources: map[string]conveyor.Key{}, keys: map[string]place{}, paused: map[string]bool{},
		},
		applied: map[conveyor.Key]*conveyor.Object{}, deleted: map[conveyor.Key]string{}, leaving: map[conveyor.Key]bool{},
	}
}

// undisturbed returns the state in which a workload ends when nothing goes wrong.
func undisturbed(t *testing.T, load workload) (state string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, disks[0], load)
		require.False(t, w.live(t, mishap{}))
		state = w.state(t)
	})
	return state
}

// endure lets a workload run into faults, one in each life, and then to its end. It reports whether the last fault was
// reached.
func endure(t *testing.T, d disk, load workload, want string, faults ...mishap) (reached bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Logf("with %v", faults)
			}
		}()
		w := newWorld(t, d, load)
		for i, f := range faults {
			struck := w.live(t, f)
			if i == len(faults)-1 {
				reached = struck
			}
			if !struck {
				break
			}
			time.Sleep(downtime)
		}
		w.live(t, mishap{})
		require.Equal(t, want, w.state(t))
	})
	return reached
}

// live is one life of the process. It reports whether the fault was reached.
func (w *world) live(t *testing.T, f mishap) (struck bool) {
	t.Helper()
	disk := w.reopen()
	w.compare(t, disk)
	timed, expire := context.WithTimeoutCause(context.Background(), longestLife, errors.New("it does not come to an end"))
	defer expire()
	life, die := context.WithCancelCause(timed)
	defer die(nil)
	st := &mortal{Store: disk, fault: f, die: func() { w.witness.close(); die(rig.ErrDied) }}
	var through store.Store = st
	if _, is := disk.(store.Watcher); is {
		through = shared{st}
	}
	opts := w.load.opts
	opts.Lease = time.Second // if the store is shared
	e, err := conveyor.New(through, opts)
	require.NoError(t, err)

	var watching sync.WaitGroup
	events := e.Watch(context.Background(), conveyor.WatchOptions{})
	watching.Go(func() {
		for event, err := range events {
			if err == nil {
				w.witness.acknowledged(event)
			}
		}
	})
	err = w.run(life, e, disk)
	require.NoError(t, timed.Err(), context.Cause(timed))
	if life.Err() == nil {
		require.NoError(t, err)
		// The store may go wrong now, too; a shutdown without an end would then wait for it for ever.
		if err := e.Shutdown(life); life.Err() == nil {
			require.NoError(t, err)
		}
	} else {
		// Nothing of what the dead engine still does reaches the store. This only has its goroutines end.
		expired, cancel := context.WithDeadline(context.Background(), time.Now())
		_ = e.Shutdown(expired)
		cancel()
	}
	watching.Wait()
	synctest.Wait()
	require.Empty(t, w.witness.faults(), "what the drivers saw")
	return st.struck
}

// run is the program.
func (w *world) run(ctx context.Context, e *conveyor.Engine, disk store.Store) error {
	register := func(name string, opts ...conveyor.DriverOption) error {
		var d conveyor.Driver = rig.DriverOf(w.witness.around(w.load.steps, nil))
		if w.load.undo != nil {
			d = undoing{d, w.witness.around(nil, w.load.undo)}
		}
		return e.Register(name, d, opts...)
	}
	for _, name := range w.load.drivers {
		if err := register(name); err != nil {
			return err
		}
	}
	for name, types := range w.load.listeners {
		if err := register(name, conveyor.Listen(types...)); err != nil {
			return err
		}
	}
	save := func(ctx context.Context, _ *world, e *conveyor.Engine) error {
		for _, p := range w.load.pipelines {
			if err := e.SavePipeline(ctx, p); err != nil {
				return err
			}
		}
		return nil
	}
	start := func(ctx context.Context, _ *world, e *conveyor.Engine) error { return e.Start(ctx) }
	if err := w.insist(ctx, e, save); err != nil {
		return err
	}
	for i := 0; i <= len(w.load.program); i++ {
		if i == w.load.early {
			if err := w.insist(ctx, e, start); err != nil {
				return err
			}
			if err := w.insist(ctx, e, takeover(disk)); err != nil {
				return err
			}
		}
		if i < w.next || i == len(w.load.program) {
			continue
		}
		if err := w.insist(ctx, e, w.load.program[i]); err != nil {
			return err
		}
		w.next = i + 1
	}
	for _, name := range slices.Sorted(maps.Keys(w.load.late)) {
		if err := register(name, conveyor.Listen(w.load.late[name]...)); err != nil {
			return err
		}
		if err := w.insist(ctx, e, pause(time.Second)); err != nil { // runs are made, after a failure too
			return err
		}
	}
	if err := w.insist(ctx, e, settle); err != nil || w.load.opts.Retention == (conveyor.Retention{}) {
		return err
	}
	return w.insist(ctx, e, linger(disk))
}

// linger waits until runs that have ended can be removed, which takes two leases on a shared store.
func linger(disk store.Store) operation {
	return func(ctx context.Context, w *world, e *conveyor.Engine) error {
		if _, shared := disk.(store.Watcher); !shared {
			return nil
		}
		return pause(3*time.Second)(ctx, w, e)
	}
}

// takeover waits until the runs of the engines of earlier lives are taken over, if there are any on record.
func takeover(disk store.Store) operation {
	return func(ctx context.Context, _ *world, _ *conveyor.Engine) error {
		for {
			engines := 0
			for range disk.List(context.Background(), store.Query{Prefix: "eng/"}) {
				engines++
			}
			if engines <= 1 || ctx.Err() != nil {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// insist makes a call until it succeeds or the process is dead; a store goes wrong once.
func (w *world) insist(ctx context.Context, e *conveyor.Engine, op operation) error {
	err := op(ctx, w, e)
	if err != nil && ctx.Err() == nil {
		err = op(ctx, w, e)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx) // who is dead has heard no answer
	}
	return err
}

// compare holds what is on record against what was acknowledged and what the drivers saw, and has the witness expect
// what follows from the records.
func (w *world) compare(t *testing.T, disk store.Store) {
	t.Helper()
	e, err := conveyor.New(disk, conveyor.Options{}) // never started
	require.NoError(t, err)
	for k, want := range w.applied {
		got, err := e.Get(t.Context(), k)
		if w.leaving[k] && errors.Is(err, conveyor.ErrNotFound) {
			continue
		}
		require.NoError(t, err, "an acknowledged resource is lost")
		require.GreaterOrEqual(t, got.Generation, want.Generation, "an acknowledged change of %s is lost", k)
		if got.Generation == want.Generation {
			require.Equal(t, string(want.Spec), string(got.Spec))
		}
	}
	for k, id := range w.deleted {
		got, err := e.Get(t.Context(), k)
		if !errors.Is(err, conveyor.ErrNotFound) {
			require.NoError(t, err)
			if got.ID != id {
				continue // it is back, and nobody has heard of that
			}
			require.NotNil(t, got.DeletedAt, "an acknowledged deletion of %s is lost", k)
		}
	}
	w.witness.expect(rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{})))
	require.Empty(t, w.witness.faults(), "what is on record")
}

// state renders what is recorded when all is done, without what differs from time to time. It fails if something is
// left over.
func (w *world) state(t *testing.T) string {
	t.Helper()
	if len(w.load.epilogue) > 0 {
		w.load.program, w.next = w.load.epilogue, 0
		time.Sleep(downtime)
		w.live(t, mishap{})
	}
	disk := w.reopen()
	w.compare(t, disk)
	rig.RequireAtRest(t, disk)
	requireNoRemains(t, disk)
	e, err := conveyor.New(disk, conveyor.Options{})
	require.NoError(t, err)
	var lines []string
	for _, o := range rig.Drain(t, e.List(t.Context(), conveyor.ResourceFilter{})) {
		require.NotContains(t, w.deleted, o.Key(), "%s was deleted, and is there", o.Key())
		require.Equal(t, o.Generation, o.Status.ObservedGeneration, "the last generation of %s was not reconciled", o.Key())
		lines = append(lines, fmt.Sprintf("resource %s: version %d, generation %d, pipeline %q, spec %s, metadata %v %s, %s %q",
			o.Key(), o.Version, o.Generation, o.Pipeline, o.Spec, o.Metadata, o.MetadataJSON, o.Status.Phase, o.Status.Message))
		for _, rev := range rig.Drain(t, e.Revisions(t.Context(), o.Key())) {
			lines = append(lines, fmt.Sprintf("  generation %d: spec %s, metadata %v %s", rev.Generation, rev.Spec, rev.Metadata, rev.MetadataJSON))
		}
	}
	// Those of one resource in the order in which they were made, of deleted ones too.
	runs := rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{}))
	slices.SortStableFunc(runs, func(a, b *conveyor.Run) int { return strings.Compare(a.Resource.String(), b.Resource.String()) })
	for _, run := range runs {
		line := fmt.Sprintf("run of %s, generation %d, %s: %s %q", run.Resource, run.Generation, run.Cause, run.State, run.Reason)
		if len(w.load.late) > 0 && run.State == conveyor.StateSkipped && line == lines[len(lines)-1] {
			continue // a run that waited for a worker when the process died begins in the next one before its listener comes
		}
		lines = append(lines, line)
		if field := (*conveyor.FieldError)(nil); errors.As(run.Err(), &field) {
			lines = append(lines, fmt.Sprintf("    because of %s: %s", field.Field, field.Problem))
		}
		for _, sentinel := range []error{conveyor.ErrInvalid, conveyor.ErrConflict, conveyor.ErrTimeout, store.ErrUnknown} {
			if errors.Is(run.Err(), sentinel) {
				lines = append(lines, "    because of: "+sentinel.Error())
			}
		}
		for _, s := range run.Steps {
			if s.ID == w.load.vague {
				s.Reason, s.Attempts, s.Requeues = "", nil, 0
			}
			lines = append(lines, fmt.Sprintf("    step %s: %s %q, attempt %d, requeues %d, output %s",
				s.ID, s.State, s.Reason, s.Attempt, s.Requeues, s.Output))
			for _, a := range s.Attempts {
				lines = append(lines, fmt.Sprintf("      attempt %d: %q", a.Number, a.Error))
			}
		}
	}
	return strings.Join(lines, "\n")
}

// requireNoRemains fails if there is a record of a run, or of a step of one, that is no longer on record itself.
func requireNoRemains(t require.TestingT, disk store.Store) {
	for r, err := range disk.List(context.Background(), store.Query{}) {
		require.NoError(t, err)
		parts := strings.Split(r.Key, "/")
		var run string
		switch parts[0] {
		case "act", "pln", "stp", "att", "ckp", "sig", "log":
			run = parts[1]
		case "rix":
			run = parts[len(parts)-1]
		default:
			continue
		}
		_, err := disk.Get(context.Background(), "run/"+run)
		require.NoError(t, err, "%s is left of a run that is not there", r.Key)
	}
}
