package conveyor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// ledger reads and writes records. It knows what they look like and decides nothing.
type ledger struct {
	store store.Store // opened and closed by the caller of New

	mu        sync.Mutex // guards what follows; held for a look-up
	plans     map[string]*plan
	pipelines map[string]pipelineState
}

// pipelineState is a pipeline's record as it was read last. The record is shared and never changed.
type pipelineState struct {
	rec *pipelineRecord
	rev store.Revision
}

func newLedger(st store.Store) *ledger {
	return &ledger{store: st, plans: map[string]*plan{}, pipelines: map[string]pipelineState{}}
}

// load reads and decodes one record. A record that is not there is a store.ErrNotFound and revision 0.
func load[T any](ctx context.Context, l *ledger, key string) (*T, store.Revision, error) {
	r, err := l.store.Get(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	into := new(T)
	if err := decode(r, into); err != nil {
		return nil, 0, err
	}
	return into, r.Revision, nil
}

// resource returns the record of a resource, and nil with revision 0 if there is none.
func (l *ledger) resource(ctx context.Context, k Key) (*resourceRecord, store.Revision, error) {
	head, rev, err := load[resourceRecord](ctx, l, resourceKey(k))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	return head, rev, err
}

func (l *ledger) revision(ctx context.Context, k Key, generation int64) (*revisionRecord, error) {
	r, _, err := load[revisionRecord](ctx, l, revisionKey(k, generation))
	if err != nil {
		return nil, fmt.Errorf("generation %d of resource %s: %w", generation, k, dangling(err))
	}
	return r, nil
}

// overtaken explains an error: a record that belongs to a resource, its newest run for one, was not found, since the
// resource's own record, read before, is another one by now, or gone. Then all of it is to be read again, and so if that
// cannot be told, for the reading will say why.
func (l *ledger) overtaken(ctx context.Context, k Key, rev store.Revision, err error) bool {
	if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, fault.NotFound) {
		return false
	}
	_, now, err := l.resource(ctx, k)
	return err != nil || now != rev
}

// pipeline returns the record of a pipeline, not to be changed; fault.NotFound if there is none. Every apply and every run
// reads it, so it is decoded once for each of its revisions.
func (l *ledger) pipeline(ctx context.Context, name string) (*pipelineRecord, store.Revision, error) {
	r, err := l.store.Get(ctx, pipelineKey(name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, fmt.Errorf("%w: pipeline %q", fault.NotFound, name)
	}
	if err != nil {
		return nil, 0, err
	}
	l.mu.Lock()
	known := l.pipelines[name]
	l.mu.Unlock()
	if known.rev == r.Revision {
		return known.rec, known.rev, nil
	}
	rec := &pipelineRecord{Rev: r.Revision}
	if err := decode(r, rec); err != nil {
		return nil, 0, err
	}
	l.mu.Lock()
	if len(l.pipelines) >= maxPlans {
		clear(l.pipelines)
	}
	l.pipelines[name] = pipelineState{rec, r.Revision}
	l.mu.Unlock()
	return rec, r.Revision, nil
}

// document returns the record of a definition of a pipeline.
func (l *ledger) document(ctx context.Context, name, hash string) (store.Record, error) {
	key := definitionKey(name, hash)
	r, err := l.store.Get(ctx, key)
	if err == nil && definitionHash(r.Value) != hash {
		err = damaged(key, errors.New("is not what its key says"))
	}
	if err != nil {
		return r, fmt.Errorf("definition of pipeline %s: %w", name, dangling(err))
	}
	return r, nil
}

// definition returns the plan of the steps that a definition of a pipeline lists.
func (l *ledger) definition(ctx context.Context, name, hash string) (*plan, error) {
	r, err := l.document(ctx, name, hash)
	if err != nil {
		return nil, err
	}
	p := new(plan)
	if err := json.Unmarshal(r.Value, p); err != nil {
		return nil, fmt.Errorf("definition of pipeline %s: %w", name, damaged(r.Key, errors.New(unfit(err))))
	}
	return p.ready(), nil
}

// dangling makes an ErrCorrupt of an error that says that a record was not found which another one refers to. Whoever
// may have been overtaken, or finds the other one gone too, still sees the store.ErrNotFound in it.
func dangling(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return err
}

// definitionHash is what a definition is kept under, so that its steps cannot be damaged unnoticed.
func definitionHash(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:16])
}

// maxPlans bounds the plans kept decoded. They are what the runs at work have in common, so that a thousand runs of
// one pipeline hold its steps once.
const maxPlans = 1024

// plan returns what a run has pinned.
func (l *ledger) plan(ctx context.Context, run string, rec *runRecord) (*plan, error) {
	if rec.Hash == "" {
		p, _, err := load[plan](ctx, l, planKey(run))
		if err != nil {
			return nil, fmt.Errorf("plan of run %s: %w", run, dangling(err))
		}
		return p.ready(), nil
	}
	key := definitionKey(rec.Pipeline, rec.Hash)
	l.mu.Lock()
	p := l.plans[key]
	l.mu.Unlock()
	if p != nil {
		return p, nil
	}
	if p, err := l.definition(ctx, rec.Pipeline, rec.Hash); err != nil {
		return nil, err
	} else {
		return l.keepPlan(key, p), nil
	}
}

func (l *ledger) keepPlan(key string, p *plan) *plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.plans) >= maxPlans {
		clear(l.plans)
	}
	l.plans[key] = p
	return p
}

// taken returns the record under the first key at which ops want none, if there is one.
func (l *ledger) taken(ctx context.Context, ops []store.Op) (store.Record, error) {
	for _, op := range ops {
		if !op.Writes() || !op.Conditional() || !op.Holds(0) {
			continue
		}
		r, err := l.store.Get(ctx, op.Key())
		if !errors.Is(err, store.ErrNotFound) {
			return r, err
		}
	}
	return store.Record{}, nil
}

// commit writes. An outcome that the store does not know is found out by reading back, if that can be done at once.
func (l *ledger) commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	rev, err := l.store.Commit(ctx, ops...)
	if errors.Is(err, store.ErrUnknown) {
		return l.findOut(ctx, ops, err)
	}
	return rev, err
}

// errNotCommitted is what an unknown outcome turned out to be.
var errNotCommitted = errors.New("conveyor: the commit did not happen")

// findOut tells whether a commit whose outcome is unknown has happened, by the first record that it puts under a
// condition: if it has, the record is this one, and the condition no longer holds. It returns the revision of the
// commit; errNotCommitted; a store.ErrConflict if somebody else wrote since; or unknown, if nothing tells, which is
// beyondRepair too if reading again cannot help.
//
// A record of a run or of one of its steps is changed by one goroutine at a time, and stays as it was put until that
// one knows. A resource's record may have been put, and written over since by another call: then the next one tells, if
// it is there: the generation that came with it.
//
// Where nothing is written under a condition, as with log lines alone, nothing tells, and the answer is errNotCommitted:
// the same writes once more change nothing.
func (l *ledger) findOut(ctx context.Context, ops []store.Op, unknown error) (store.Revision, error) {
	repeatable, writtenOver := true, false
	for _, op := range ops {
		repeatable = repeatable && !(op.Writes() && op.Conditional())
		if !op.Conditional() || op.Value() == nil {
			continue
		}
		r, err := l.store.Get(ctx, op.Key())
		switch {
		case errors.Is(err, store.ErrNotFound) && writtenOver:
			return 0, unknown // it never was, or was removed since
		case errors.Is(err, store.ErrNotFound) && op.Holds(0), err == nil && op.Holds(r.Revision):
			return 0, fmt.Errorf("%w: %w", errNotCommitted, withoutIdentity(unknown))
		case err == nil && string(r.Value) == string(op.Value()):
			return r.Revision, nil
		case err != nil && !errors.Is(err, store.ErrNotFound):
			if beyondRepair(err) {
				return 0, fmt.Errorf("%w (reading back: %w)", unknown, err)
			}
			return 0, unknown
		case strings.HasPrefix(op.Key(), resourcePrefix):
			writtenOver = true
			continue
		}
		return 0, fmt.Errorf("%w: record %s was written by somebody else", store.ErrConflict, op.Key())
	}
	if repeatable {
		return 0, fmt.Errorf("%w: %w", errNotCommitted, withoutIdentity(unknown))
	}
	return 0, unknown
}

// withoutIdentity keeps an error's text alone.
func withoutIdentity(err error) error { return errors.New(err.Error()) }

// runState is all that is recorded of a run, but for its failed attempts and its log.
type runState struct {
	id    string
	under string // the key of rec; see key
	rec   runRecord
	rev   store.Revision
	plan  *plan // nil until the run starts
	steps []stepState
}

// key is the key of the run's record.
func (r *runState) key() string {
	if r.under == "" {
		r.under = runKey(r.id)
	}
	return r.under
}

// stepState is a step's record; revision 0 stands for none yet.
type stepState struct {
	rec stepRecord
	rev store.Revision
	key string // of the record, once it was written
}

// run reads what is recorded of a run; fault.NotFound if there is nothing.
func (l *ledger) run(ctx context.Context, id string) (*runState, error) {
	rec, rev, err := load[runRecord](ctx, l, runKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: run %q", fault.NotFound, text.Truncate(id, text.MaxName))
	}
	if err != nil {
		return nil, err
	}
	r := &runState{id: id, rec: *rec, rev: rev}
	if rec.Started == 0 {
		return r, nil
	}
	// The steps before the plan: those that a Planner returns come with their plan, and must be found in it.
	prefix := stepsOf(id)
	var steps []store.Record
	for found, err := range l.store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		steps = append(steps, found)
	}
	if r.plan, err = l.plan(ctx, id, rec); err != nil {
		if l.gone(ctx, id, err) {
			return nil, fmt.Errorf("%w: run %q", fault.NotFound, text.Truncate(id, text.MaxName))
		}
		return nil, err
	}
	r.steps = make([]stepState, r.plan.len())
	for _, found := range steps {
		i := r.plan.index(strings.TrimPrefix(found.Key, prefix))
		if i < 0 {
			return nil, fmt.Errorf("%w: record %s: the run has no such step", store.ErrCorrupt, found.Key)
		}
		if err := decode(found, &r.steps[i].rec); err != nil {
			return nil, err
		}
		r.steps[i].rev = found.Revision
	}
	return r, nil
}

// gone explains an error: a record that belongs to a run was not found, since the run was removed while it was read.
func (l *ledger) gone(ctx context.Context, run string, err error) bool {
	if !errors.Is(err, store.ErrNotFound) {
		return false
	}
	_, err = l.store.Get(ctx, runKey(run))
	return errors.Is(err, store.ErrNotFound)
}

// keptAttempt is a failed attempt that is kept.
type keptAttempt struct {
	number int
	rec    attemptRecord
}

// attempts reads the failed attempts that are kept of a run, by step id, the oldest first.
func (l *ledger) attempts(ctx context.Context, run string) (map[string][]keptAttempt, error) {
	attempts := map[string][]keptAttempt{}
	prefix := attemptsOf(run)
	for found, err := range l.store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		step, number, _ := strings.Cut(strings.TrimPrefix(found.Key, prefix), "/")
		n, err := strconv.ParseInt(number, 16, 0)
		if err != nil {
			return nil, fmt.Errorf("%w: key %s", store.ErrCorrupt, found.Key)
		}
		kept := keptAttempt{number: int(n)}
		if err := decode(found, &kept.rec); err != nil {
			return nil, err
		}
		attempts[step] = append(attempts[step], kept)
	}
	return attempts, nil
}

// signaled reports whether there is a signal for a run that nobody has taken.
func (l *ledger) signaled(ctx context.Context, run string) (bool, error) {
	for _, err := range l.store.List(ctx, store.Query{Prefix: signalPrefix + run + "/", Limit: 1}) {
		return err == nil, err
	}
	return false, nil
}

// state is the same for a run as it is recorded.
func (r *runState) state() State {
	if r.rec.State == StateRunning {
		if i := liveliest(len(r.steps), func(i int) State { return r.steps[i].rec.State }); i >= 0 {
			return r.steps[i].rec.State
		}
	}
	return r.rec.State
}

// isBlockedBy says that a step waits for a driver that is not registered.
func (r *runState) isBlockedBy(driver string) bool {
	first := 0
	if r.rec.Outcome != StateUnset {
		first = len(r.plan.Steps) // what is left is Finally
	}
	for i := first; i < len(r.steps); i++ {
		if r.steps[i].rec.State == StateBlocked && r.plan.step(i).Driver == driver {
			return true
		}
	}
	return false
}

// liveliest returns the first step of those that do most, or -1 if none does anything.
func liveliest(n int, state func(i int) State) int {
	best := -1
	for i := range n {
		if s := state(i); s >= StateRunning && s <= StateBlocked && (best < 0 || s < state(best)) {
			best = i
		}
	}
	return best
}

// sleepsUntil returns when a run that nobody works on goes on by itself; 0 if it can go on at once.
func (r *runState) sleepsUntil() instant {
	if r.plan == nil {
		return 0
	}
	states := make([]State, len(r.steps))
	for i := range r.steps {
		if states[i] = r.steps[i].rec.State; states[i] == StateRunning {
			return 0 // cut short
		}
	}
	if start, over := r.plan.next(states, r.rec.Stop != stopNone, r.rec.CutShort); over || len(start) > 0 {
		return 0
	}
	return r.nextDue()
}

// awaits says that a step waits for a signal.
func (r *runState) awaits() bool {
	return slices.ContainsFunc(r.steps, func(s stepState) bool { return s.rec.State == StateWaiting && s.rec.Await != "" })
}

// nextDue is the earliest time at which something is to happen to the run by itself; 0 for never.
func (r *runState) nextDue() instant {
	due := r.rec.Deadline
	for i := range r.steps {
		s := &r.steps[i].rec
		if (s.State == StateRetrying || s.State == StateWaiting) && s.Due != 0 && (due == 0 || s.Due < due) {
			due = s.Due
		}
	}
	return due
}
