package conveyor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// rig is an engine under test, with the calls that a test expects to succeed. Make it inside the bubble.
type rig struct {
	*conveyor.Engine
	t     *testing.T
	store *tap
}

// newEngine makes a rig on a new memory store. It is shut down at the end of the test.
func newEngine(t *testing.T, opts conveyor.Options) *rig {
	t.Helper()
	return newEngineOn(t, memory.New(), opts)
}

func newEngineOn(t *testing.T, st store.Store, opts conveyor.Options) *rig {
	t.Helper()
	r := &rig{t: t, store: &tap{Store: st}}
	var err error
	r.Engine, err = conveyor.New(r.store, opts)
	require.NoError(t, err)
	t.Cleanup(r.stop)
	return r
}

// stop shuts the engine down and gives drivers that do not end up after a minute of the bubble's time.
func (r *rig) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(r.t, r.Shutdown(ctx))
}

// reborn is the next start of the program on the same records, after a shutdown.
func (r *rig) reborn(opts conveyor.Options) *rig {
	r.t.Helper()
	r.stop()
	return newEngineOn(r.t, r.store.Store, opts)
}

// crashed is the next start of the program after this one died: nothing that it still does reaches the store.
func (r *rig) crashed(opts conveyor.Options) *rig {
	r.t.Helper()
	r.store.cutOff()
	return newEngineOn(r.t, r.store.Store, opts)
}

func (r *rig) start() *rig {
	r.t.Helper()
	require.NoError(r.t, r.Start(r.t.Context()))
	return r
}

func (r *rig) driver(name string, d conveyor.Driver, opts ...conveyor.DriverOption) {
	r.t.Helper()
	require.NoError(r.t, r.Register(name, d, opts...))
}

// pipeline saves a pipeline "p" for resources of type "r" whose steps "1", "2", ... use these drivers.
func (r *rig) pipeline(drivers ...string) {
	r.t.Helper()
	r.save(pipelineOf(drivers...))
}

func (r *rig) save(p conveyor.PipelineSpec) {
	r.t.Helper()
	require.NoError(r.t, r.SavePipeline(r.t.Context(), p))
}

func (r *rig) apply(o conveyor.Resource) *conveyor.Run {
	r.t.Helper()
	run, err := r.Apply(r.t.Context(), o)
	require.NoError(r.t, err)
	return run
}

// ended waits for a run.
func (r *rig) ended(id string) *conveyor.Run {
	r.t.Helper()
	run, err := r.Wait(r.t.Context(), id)
	require.NoError(r.t, err)
	return run
}

// finish applies a resource and waits for its run.
func (r *rig) finish(o conveyor.Resource) *conveyor.Run {
	r.t.Helper()
	return r.ended(r.apply(o).ID)
}

func (r *rig) run(id string) *conveyor.Run {
	r.t.Helper()
	run, err := r.GetRun(context.Background(), id)
	require.NoError(r.t, err)
	return run
}

func (r *rig) resource(o conveyor.Resource) *conveyor.Object {
	r.t.Helper()
	found, err := r.Get(context.Background(), o.ResourceMeta().Key())
	require.NoError(r.t, err)
	return found
}

// runs lists all runs of a resource, the oldest first.
func (r *rig) runs(o conveyor.Resource) []*conveyor.Run {
	r.t.Helper()
	return drain(r.t, r.Runs(context.Background(), conveyor.RunFilter{Resource: o.ResourceMeta().Key()}))
}

func drain[T any](t *testing.T, seq iter.Seq2[T, error]) (all []T) {
	t.Helper()
	for v, err := range seq {
		require.NoError(t, err)
		all = append(all, v)
	}
	return all
}

func pipelineOf(drivers ...string) conveyor.PipelineSpec {
	p := conveyor.PipelineSpec{Name: "p", Resource: "r"}
	for _, d := range drivers {
		p.Steps = append(p.Steps, conveyor.Step{Driver: d})
	}
	return p
}

// object is a resource of type "r" along pipeline "p".
func object(name string, spec any) *conveyor.Object {
	o := &conveyor.Object{Meta: conveyor.Meta{Type: "r", Name: name, Pipeline: "p"}}
	if spec != nil {
		o.Spec = jsonOf(spec)
	}
	return o
}

// loose is a resource of a type without a pipeline.
func loose(kind, name string, spec any) *conveyor.Object {
	o := object(name, spec)
	o.Type, o.Pipeline = kind, ""
	return o
}

func jsonOf(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func statesOf(run *conveyor.Run) (states []string) {
	for _, s := range run.Steps {
		states = append(states, s.State.String())
	}
	return states
}

type driverFunc = func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error)

func driverOf(fn driverFunc) conveyor.Driver { return conveyor.DriverFunc(fn) }

// always answers every call alike.
func always(result conveyor.Result, err error) driverFunc {
	return func(context.Context, *conveyor.Request) (conveyor.Result, error) { return result, err }
}

// taking takes some time and then is done, or returns when its context ends.
func taking(d time.Duration) driverFunc {
	return func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
		select {
		case <-time.After(d):
			return conveyor.Done(), nil
		case <-ctx.Done():
			return conveyor.Result{}, context.Cause(ctx)
		}
	}
}

// inTurn gives the first answer to the first call, and the last one to all calls after it.
func inTurn(answers ...driverFunc) driverFunc {
	var mu sync.Mutex
	return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		mu.Lock()
		answer := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		mu.Unlock()
		return answer(ctx, req)
	}
}

var errBoom = errors.New("boom")

// call is what a recorder saw of one call.
type call struct {
	Resource   string
	Generation int64
	Spec       string
	Run, Step  string
	Cause      conveyor.Cause
	Attempt    int
	Resumed    bool
	Key        string
	Began      time.Time
	Ended      time.Time // zero while under way
}

// recorder is a driver that keeps what it was called with. The zero value is done at once.
type recorder struct {
	answer driverFunc // nil for always done

	mu    sync.Mutex
	calls []call
}

func recording(answer driverFunc) *recorder { return &recorder{answer: answer} }

func (r *recorder) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	r.mu.Lock()
	n := len(r.calls)
	r.calls = append(r.calls, call{
		Resource: req.Resource.Name, Generation: req.Resource.Generation, Spec: string(req.Resource.Spec),
		Run: req.Run, Step: req.Step.ID, Cause: req.Cause, Attempt: req.Attempt, Resumed: req.Resumed,
		Key: req.IdempotencyKey(), Began: time.Now(),
	})
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls[n].Ended = time.Now()
	}()
	if r.answer == nil {
		return conveyor.Done(), nil
	}
	return r.answer(ctx, req)
}

func (r *recorder) all() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]call(nil), r.calls...)
}

func (r *recorder) last() call {
	all := r.all()
	return all[len(all)-1]
}

// steps lists the calls as "step" or "step/attempt" where that is not the first, with a "+" where it was resumed.
func (r *recorder) steps() (steps []string) {
	for _, c := range r.all() {
		s := c.Step
		if c.Attempt > 1 {
			s += fmt.Sprintf("/%d", c.Attempt)
		}
		if c.Resumed {
			s += "+"
		}
		steps = append(steps, s)
	}
	return steps
}

// gauge knows how many calls are under way at once, and how many were at most, by a name.
type gauge struct {
	mu        sync.Mutex
	now, most map[string]int
}

func (g *gauge) around(name func(*conveyor.Request) string, fn driverFunc) driverFunc {
	return func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		n := name(req)
		g.add(n, 1)
		defer g.add(n, -1)
		return fn(ctx, req)
	}
}

func (g *gauge) add(name string, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now == nil {
		g.now, g.most = map[string]int{}, map[string]int{}
	}
	g.now[name] += n
	g.most[name] = max(g.most[name], g.now[name])
}

func (g *gauge) peak(name string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most[name]
}

func byResource(req *conveyor.Request) string { return req.Resource.Name }
func byNothing(*conveyor.Request) string      { return "" }

// tap stands between an engine and its store. It keeps what was committed, and can refuse commits, or go dead as if
// the process had ended.
type tap struct {
	store.Store

	mu      sync.Mutex
	commits [][]string                // keys of each successful commit that wrote something
	refuse  func(keys []string) error // asked before each commit; may be nil
	dead    bool
}

func (s *tap) Get(ctx context.Context, key string) (store.Record, error) {
	if s.isDead() {
		return store.Record{}, store.ErrClosed
	}
	return s.Store.Get(ctx, key)
}

func (s *tap) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		if s.isDead() {
			yield(store.Record{}, store.ErrClosed)
			return
		}
		s.Store.List(ctx, q)(yield)
	}
}

func (s *tap) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	var keys []string
	for _, op := range ops {
		if op.Writes() {
			keys = append(keys, op.Key())
		}
	}
	s.mu.Lock()
	dead, refuse := s.dead, s.refuse
	s.mu.Unlock()
	if dead {
		return 0, store.ErrClosed
	}
	if refuse != nil {
		if err := refuse(keys); err != nil {
			return 0, err
		}
	}
	rev, err := s.Store.Commit(ctx, ops...)
	if err == nil && len(keys) > 0 {
		s.mu.Lock()
		s.commits = append(s.commits, keys)
		s.mu.Unlock()
	}
	return rev, err
}

func (s *tap) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

func (s *tap) cutOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
}

func (s *tap) refusing(fn func(keys []string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = fn
}

// commitsOf counts the commits that wrote something of a run.
func (s *tap) commitsOf(run string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, keys := range s.commits {
		for _, key := range keys {
			if strings.Contains(key, run) {
				n++
				break
			}
		}
	}
	return n
}

// dump is all that a store holds.
func dump(t *testing.T, st store.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for r, err := range st.List(context.Background(), store.Query{}) {
		require.NoError(t, err)
		all[r.Key] = fmt.Sprintf("%d %s", r.Revision, r.Value)
	}
	return all
}

// probe is a store that does something at each Get, before or after it, to come between two reads of somebody's.
type probe struct {
	store.Store

	mu            sync.Mutex // guards what follows; not held while they are called
	before, after func(key string)
}

func (p *probe) Get(ctx context.Context, key string) (store.Record, error) {
	p.mu.Lock()
	before := p.before
	p.mu.Unlock()
	if before != nil {
		before(key)
	}
	r, err := p.Store.Get(ctx, key)
	p.mu.Lock()
	after := p.after
	p.mu.Unlock()
	if after != nil {
		after(key)
	}
	return r, err
}

// on sets what is done after a Get; nil for nothing.
func (p *probe) on(after func(key string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = after
}

// once calls fn for the first key with a prefix.
func once(prefix string, fn func()) func(key string) {
	var done sync.Once
	return func(key string) {
		if strings.HasPrefix(key, prefix) {
			done.Do(fn)
		}
	}
}
