package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Permanent tells the errors of a store that another attempt cannot mend.
func Permanent(err error) bool {
	return errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrClosed)
}

// Ledger reads and writes records. It knows what they look like and decides nothing.
type Ledger struct {
	Store store.Store // opened and closed by the caller of New

	mu        sync.Mutex // guards what follows; held for a look-up
	plans     map[string]*plan.Plan
	pipelines map[string]pipelineState
}

// pipelineState is a pipeline's record as it was read last. The record is shared and never changed.
type pipelineState struct {
	Rec *record.Pipeline
	rev store.Revision
}

func New(st store.Store) *Ledger {
	return &Ledger{Store: st, plans: map[string]*plan.Plan{}, pipelines: map[string]pipelineState{}}
}

// Load reads and decodes one record. A record that is not there is a store.ErrNotFound and revision 0.
func Load[T any](ctx context.Context, l *Ledger, key string) (*T, store.Revision, error) {
	r, err := l.Store.Get(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	into := new(T)
	if err := record.Decode(r, into); err != nil {
		return nil, 0, err
	}
	return into, r.Revision, nil
}

// Resource returns the record of a resource, and nil with revision 0 if there is none.
func (l *Ledger) Resource(ctx context.Context, k record.Key) (*record.Resource, store.Revision, error) {
	head, rev, err := Load[record.Resource](ctx, l, record.ResourceKey(k))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	return head, rev, err
}

func (l *Ledger) Revision(ctx context.Context, k record.Key, generation int64) (*record.Revision, error) {
	r, _, err := Load[record.Revision](ctx, l, record.RevisionKey(k, generation))
	if err != nil {
		return nil, fmt.Errorf("generation %d of resource %s: %w", generation, k, dangling(err))
	}
	return r, nil
}

// Stale explains an error: a record that belongs to a resource, its newest run for one, was not found, since the
// resource's own record, read before, is another one by now, or gone. Then all of it is to be read again, and so if that
// cannot be told, for the reading will say why.
func (l *Ledger) Stale(ctx context.Context, k record.Key, rev store.Revision, err error) bool {
	if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, fault.NotFound) {
		return false
	}
	_, now, err := l.Resource(ctx, k)
	return err != nil || now != rev
}

// Pipeline returns the record of a pipeline, not to be changed; fault.NotFound if there is none. Every apply and every run
// reads it, so it is decoded once for each of its revisions.
func (l *Ledger) Pipeline(ctx context.Context, name string) (*record.Pipeline, store.Revision, error) {
	r, err := l.Store.Get(ctx, record.PipelineKey(name))
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
		return known.Rec, known.rev, nil
	}
	rec := &record.Pipeline{Rev: r.Revision}
	if err := record.Decode(r, rec); err != nil {
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

// Document returns the record of a definition of a pipeline.
func (l *Ledger) Document(ctx context.Context, name, hash string) (store.Record, error) {
	key := record.DefinitionKey(name, hash)
	r, err := l.Store.Get(ctx, key)
	if err == nil && DefinitionHash(r.Value) != hash {
		err = record.Damaged(key, errors.New("is not what its key says"))
	}
	if err != nil {
		return r, fmt.Errorf("definition of pipeline %s: %w", name, dangling(err))
	}
	return r, nil
}

// Definition returns the plan of the steps that a definition of a pipeline lists.
func (l *Ledger) Definition(ctx context.Context, name, hash string) (*plan.Plan, error) {
	r, err := l.Document(ctx, name, hash)
	if err != nil {
		return nil, err
	}
	p := new(plan.Plan)
	if err := json.Unmarshal(r.Value, p); err != nil {
		return nil, fmt.Errorf("definition of pipeline %s: %w", name, record.Damaged(r.Key, errors.New(record.Unfit(err))))
	}
	return p.Ready(), nil
}

// dangling makes an ErrCorrupt of an error that says that a record was not found which another one refers to. Whoever
// may have been overtaken, or finds the other one gone too, still sees the store.ErrNotFound in it.
func dangling(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return err
}

// DefinitionHash is what a definition is kept under, so that its steps cannot be damaged unnoticed.
func DefinitionHash(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:16])
}

// maxPlans bounds the plans kept decoded. They are what the runs at work have in common, so that a thousand runs of
// one pipeline hold its steps once.
const maxPlans = 1024

// Plan returns what a run has pinned.
func (l *Ledger) Plan(ctx context.Context, run string, rec *record.Run) (*plan.Plan, error) {
	if rec.Hash == "" {
		p, _, err := Load[plan.Plan](ctx, l, record.PlanKey(run))
		if err != nil {
			return nil, fmt.Errorf("plan of run %s: %w", run, dangling(err))
		}
		return p.Ready(), nil
	}
	key := record.DefinitionKey(rec.Pipeline, rec.Hash)
	l.mu.Lock()
	p := l.plans[key]
	l.mu.Unlock()
	if p != nil {
		return p, nil
	}
	if p, err := l.Definition(ctx, rec.Pipeline, rec.Hash); err != nil {
		return nil, err
	} else {
		return l.keepPlan(key, p), nil
	}
}

func (l *Ledger) keepPlan(key string, p *plan.Plan) *plan.Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.plans) >= maxPlans {
		clear(l.plans)
	}
	l.plans[key] = p
	return p
}

// Taken returns the record under the first key at which ops want none, if there is one.
func (l *Ledger) Taken(ctx context.Context, ops []store.Op) (store.Record, error) {
	for _, op := range ops {
		if !op.Writes() || !op.Conditional() || !op.Holds(0) {
			continue
		}
		r, err := l.Store.Get(ctx, op.Key())
		if !errors.Is(err, store.ErrNotFound) {
			return r, err
		}
	}
	return store.Record{}, nil
}

// Commit writes. An outcome that the store does not know is found out by reading back, if that can be done at once.
func (l *Ledger) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	rev, err := l.Store.Commit(ctx, ops...)
	if errors.Is(err, store.ErrUnknown) {
		return l.FindOut(ctx, ops, err)
	}
	return rev, err
}

// ErrNotCommitted is what an unknown outcome turned out to be.
var ErrNotCommitted = errors.New("conveyor: the commit did not happen")

// FindOut tells whether a commit whose outcome is unknown has happened, by the first record that it puts under a
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
func (l *Ledger) FindOut(ctx context.Context, ops []store.Op, unknown error) (store.Revision, error) {
	repeatable, writtenOver := true, false
	for _, op := range ops {
		repeatable = repeatable && !(op.Writes() && op.Conditional())
		if !op.Conditional() || op.Value() == nil {
			continue
		}
		r, err := l.Store.Get(ctx, op.Key())
		switch {
		case errors.Is(err, store.ErrNotFound) && writtenOver:
			return 0, unknown // it never was, or was removed since
		case errors.Is(err, store.ErrNotFound) && op.Holds(0), err == nil && op.Holds(r.Revision):
			return 0, fmt.Errorf("%w: %w", ErrNotCommitted, TextOnly(unknown))
		case err == nil && string(r.Value) == string(op.Value()):
			return r.Revision, nil
		case err != nil && !errors.Is(err, store.ErrNotFound):
			if Permanent(err) {
				return 0, fmt.Errorf("%w (reading back: %w)", unknown, err)
			}
			return 0, unknown
		case strings.HasPrefix(op.Key(), record.ResourcePrefix):
			writtenOver = true
			continue
		}
		return 0, fmt.Errorf("%w: record %s was written by somebody else", store.ErrConflict, op.Key())
	}
	if repeatable {
		return 0, fmt.Errorf("%w: %w", ErrNotCommitted, TextOnly(unknown))
	}
	return 0, unknown
}

// TextOnly keeps an error's text alone.
func TextOnly(err error) error { return errors.New(err.Error()) }

// Run reads what is recorded of a run; fault.NotFound if there is nothing.
func (l *Ledger) Run(ctx context.Context, id string) (*record.RunState, error) {
	rec, rev, err := Load[record.Run](ctx, l, record.RunKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: run %q", fault.NotFound, text.Truncate(id, text.MaxName))
	}
	if err != nil {
		return nil, err
	}
	r := &record.RunState{ID: id, Rec: *rec, Rev: rev}
	if rec.Started == 0 {
		return r, nil
	}
	// The steps before the plan: those that a Planner returns come with their plan, and must be found in it.
	prefix := record.StepsOf(id)
	var steps []store.Record
	for found, err := range l.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		steps = append(steps, found)
	}
	if r.Plan, err = l.Plan(ctx, id, rec); err != nil {
		if l.removed(ctx, id, err) {
			return nil, fmt.Errorf("%w: run %q", fault.NotFound, text.Truncate(id, text.MaxName))
		}
		return nil, err
	}
	r.Steps = make([]record.StepState, r.Plan.Len())
	for _, found := range steps {
		i := r.Plan.Index(strings.TrimPrefix(found.Key, prefix))
		if i < 0 {
			return nil, fmt.Errorf("%w: record %s: the run has no such step", store.ErrCorrupt, found.Key)
		}
		if err := record.Decode(found, &r.Steps[i].Rec); err != nil {
			return nil, err
		}
		r.Steps[i].Rev = found.Revision
	}
	return r, nil
}

// removed explains an error: a record that belongs to a run was not found, since the run was removed while it was read.
func (l *Ledger) removed(ctx context.Context, run string, err error) bool {
	if !errors.Is(err, store.ErrNotFound) {
		return false
	}
	_, err = l.Store.Get(ctx, record.RunKey(run))
	return errors.Is(err, store.ErrNotFound)
}

// Attempt is a failed attempt that is kept.
type Attempt struct {
	Number int
	Rec    record.Attempt
}

// Attempts reads the failed attempts that are kept of a run, by step id, the oldest first.
func (l *Ledger) Attempts(ctx context.Context, run string) (map[string][]Attempt, error) {
	attempts := map[string][]Attempt{}
	prefix := record.AttemptsOf(run)
	for found, err := range l.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		step, number, _ := strings.Cut(strings.TrimPrefix(found.Key, prefix), "/")
		n, err := strconv.ParseInt(number, 16, 0)
		if err != nil {
			return nil, fmt.Errorf("%w: key %s", store.ErrCorrupt, found.Key)
		}
		kept := Attempt{Number: int(n)}
		if err := record.Decode(found, &kept.Rec); err != nil {
			return nil, err
		}
		attempts[step] = append(attempts[step], kept)
	}
	return attempts, nil
}

// Signaled reports whether there is a signal for a run that nobody has taken.
func (l *Ledger) Signaled(ctx context.Context, run string) (bool, error) {
	for _, err := range l.Store.List(ctx, store.Query{Prefix: record.SignalPrefix + run + "/", Limit: 1}) {
		return err == nil, err
	}
	return false, nil
}

// IsPending says that a queued run waits behind another one that does.
func (l *Ledger) IsPending(ctx context.Context, rec *record.Run) (bool, error) {
	if rec.Place == 0 {
		return false, nil
	}
	_, err := l.Store.Get(ctx, record.PendingKey(rec.Key(), rec.Place))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// NextPending returns the run that comes after the pending one, and the key of its record.
func (l *Ledger) NextPending(ctx context.Context, k record.Key) (*record.Pending, string, error) {
	for r, err := range l.Store.List(ctx, store.Query{Prefix: record.PendingOf(k), Limit: 1}) {
		if err != nil {
			return nil, "", err
		}
		next := new(record.Pending)
		return next, r.Key, record.Decode(r, next)
	}
	return nil, "", fmt.Errorf("%w: resource %s has a run in line that is not on record", store.ErrCorrupt, k)
}

// Target returns what the pending run of a resource stands for.
func (l *Ledger) Target(ctx context.Context, k record.Key, head *record.Resource) (*record.Target, error) {
	generation := head.Generation
	if head.Keeps != 0 {
		generation = head.Keeps
	}
	revision, err := l.Revision(ctx, k, generation)
	if err != nil {
		return nil, err
	}
	if generation == head.Generation {
		return head.Newest(revision.Spec), nil // with the metadata as they are now
	}
	return &record.Target{
		Generation: generation, Pipeline: revision.Pipeline, Metadata: revision.Metadata, Version: revision.Version,
		Updated: revision.At, Spec: revision.Spec,
	}, nil
}

// Log reads the lines written after a Seq. The record that holds the line after it may begin before it.
func (l *Ledger) Log(ctx context.Context, run string, after int64, pass func(record.LogLine)) error {
	from := ""
	before := store.Query{Prefix: record.LogsOf(run), After: record.LogKey(run, after+2), Reverse: true, Limit: 1}
	for r, err := range l.Store.List(ctx, before) {
		if err != nil {
			return err
		}
		if err := passLines(r, pass); err != nil {
			return err
		}
		from = r.Key
	}
	for r, err := range l.Store.List(ctx, store.Query{Prefix: record.LogsOf(run), After: from}) {
		if err != nil {
			return err
		}
		if err := passLines(r, pass); err != nil {
			return err
		}
	}
	return nil
}

func passLines(r store.Record, pass func(record.LogLine)) error {
	var lines []record.LogLine
	if err := record.Decode(r, &lines); err != nil {
		return err
	}
	for _, line := range lines {
		pass(line)
	}
	return nil
}

// LastLine returns the Seq of the newest line written of a run; 0 for none.
func (l *Ledger) LastLine(ctx context.Context, run string) (last int64, err error) {
	for r, err := range l.Store.List(ctx, store.Query{Prefix: record.LogsOf(run), Reverse: true, Limit: 1}) {
		if err != nil {
			return 0, err
		}
		if err := passLines(r, func(line record.LogLine) { last = line.Seq }); err != nil {
			return 0, err
		}
	}
	return last, nil
}

// Prune removes what of a resource's past is not to be kept.
func (l *Ledger) Prune(ctx context.Context, k record.Key, keep Keep, now time.Time) error {
	head, _, err := l.Resource(ctx, k)
	if err != nil {
		return err
	}
	needed := map[int64]bool{} // generations, by unfinished runs
	ended := 0
	repeated := map[string]bool{} // by unfinished runs, which are newer and come first
	newest := store.Query{Prefix: record.RunsOf(k), Reverse: true}
	for r, err := range l.Store.List(ctx, newest) {
		if err != nil {
			return err
		}
		id := r.Key[len(newest.Prefix):]
		rec, rev, err := Load[record.Run](ctx, l, record.RunKey(id))
		if errors.Is(err, store.ErrNotFound) {
			// The process died while it removed this one.
			if err := l.removeRest(ctx, k, id); err != nil {
				return fmt.Errorf("run %s: %w", id, err)
			}
			continue
		}
		if err != nil {
			return err
		}
		if !rec.State.Final() {
			needed[rec.Generation] = true
			repeated[rec.Of] = true
			continue
		}
		ended++
		tooMany := keep.Runs > 0 && ended > keep.Runs
		tooOld := keep.Age > 0 && rec.Ended.Time().Before(now.Add(-keep.Age))
		if (tooMany || tooOld) && (head == nil || head.Status.Run != id) && !repeated[id] {
			if err := l.removeRun(ctx, k, id, rev); err != nil {
				return fmt.Errorf("run %s: %w", id, err)
			}
		}
	}
	if head == nil || keep.Revisions == 0 {
		return nil
	}
	needed[head.Keeps] = true
	return l.removeRevisions(ctx, k, head.Generation-int64(keep.Revisions), needed)
}

// removeRun takes an ended run off the record.
func (l *Ledger) removeRun(ctx context.Context, k record.Key, id string, rev store.Revision) error {
	if _, err := l.Commit(ctx, []store.Op{store.Delete(record.RunKey(id)).If(rev), store.Delete(record.PlanKey(id))}); err != nil {
		return err
	}
	return l.removeRest(ctx, k, id)
}

// removeRest removes what is left of a run without a record. The index by which it is found goes last, so that after a
// crash in between the rest is found, and removed, when the resource is looked through again.
func (l *Ledger) removeRest(ctx context.Context, k record.Key, id string) error {
	if err := l.RemoveAll(ctx, append(Leftovers(id), record.StepsOf(id), record.AttemptsOf(id), record.LogsOf(id))...); err != nil {
		return err
	}
	_, err := l.Commit(ctx, []store.Op{store.Delete(record.RunsOf(k) + id)})
	return err
}

// RemoveAll removes every record under some prefixes.
func (l *Ledger) RemoveAll(ctx context.Context, prefixes ...string) error {
	for len(prefixes) > 0 {
		var ops []store.Op
		for r, err := range l.Store.List(ctx, store.Query{Prefix: prefixes[0], Limit: RemoveBatch}) {
			if err != nil {
				return err
			}
			ops = append(ops, store.Delete(r.Key))
		}
		if len(ops) > 0 {
			if _, err := l.Commit(ctx, ops); err != nil {
				return err
			}
		}
		if len(ops) < RemoveBatch {
			prefixes = prefixes[1:]
		}
	}
	return nil
}

// removeRevisions removes the generations up to the last one to go, but for those that are needed. Those that a run takes
// up meanwhile are newer.
func (l *Ledger) removeRevisions(ctx context.Context, k record.Key, last int64, needed map[int64]bool) error {
	var ops []store.Op
	remove := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, err := l.Commit(ctx, ops)
		ops = ops[:0]
		return err
	}
	prefix := record.RevisionsOf(k)
	for r, err := range l.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return err
		}
		if r.Key > record.RevisionKey(k, last) {
			break
		}
		generation, err := strconv.ParseInt(r.Key[len(prefix):], 16, 64)
		if err != nil {
			return fmt.Errorf("%w: key %s", store.ErrCorrupt, r.Key)
		}
		if needed[generation] {
			continue
		}
		if ops = append(ops, store.Delete(r.Key)); len(ops) == RemoveBatch {
			if err := remove(); err != nil {
				return err
			}
		}
	}
	return remove()
}
