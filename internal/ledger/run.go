package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// NoRun returns the error for a run that is not on record. It wraps [fault.NotFound].
func NoRun(id string) error { return fmt.Errorf("%w: run %s", fault.NotFound, text.Quote(id)) }

// Run returns what is recorded of a run, without its failed attempts and its log. If there is no run with this id, the
// error wraps [fault.NotFound].
func (l *Ledger) Run(ctx context.Context, id string) (*record.RunState, error) {
	rec, rev, err := Load[record.Run](ctx, l, record.RunKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, NoRun(id)
	}
	if err != nil {
		return nil, err
	}
	r := &record.RunState{ID: id, Rec: *rec, Rev: rev}
	if rec.Started == 0 {
		return r, nil
	}
	// The steps are read before the plan. One commit writes the steps that a Planner returns and the plan that contains them;
	// in the other order, a step could be read that an older plan does not contain.
	var steps []store.Record
	for found, err := range l.Store.List(ctx, store.Query{Prefix: record.StepsOf(id)}) {
		if err != nil {
			return nil, err
		}
		steps = append(steps, found)
	}
	if err := addSteps(ctx, l, r, steps); err != nil {
		return nil, err
	}
	return r, nil
}

// addSteps adds the plan of a run, and its steps, whose records were read.
func addSteps(ctx context.Context, l *Ledger, r *record.RunState, steps []store.Record) (err error) {
	if r.Plan, err = l.Plan(ctx, r.ID, &r.Rec); err != nil {
		if l.removed(ctx, r.ID, err) {
			return NoRun(r.ID)
		}
		return err
	}
	prefix := record.StepsOf(r.ID)
	r.Steps = make([]record.StepState, r.Plan.Len())
	for _, found := range steps {
		i := r.Plan.Index(strings.TrimPrefix(found.Key, prefix))
		if i < 0 {
			return fmt.Errorf("%w: record %q: the run has no such step", store.ErrCorrupt, found.Key)
		}
		if err := record.Decode(found, &r.Steps[i].Rec); err != nil {
			return err
		}
		r.Steps[i].Rev = found.Revision
	}
	return nil
}

// removed reports whether an error can be explained by the removal of a run: a record that belongs to the run was not
// found, and the record of the run has been removed meanwhile.
func (l *Ledger) removed(ctx context.Context, run string, err error) bool {
	if !errors.Is(err, store.ErrNotFound) {
		return false
	}
	_, err = l.Store.Get(ctx, record.RunKey(run))
	return errors.Is(err, store.ErrNotFound)
}

// Attempt is the record of a failed attempt, with the number of the attempt.
type Attempt struct {
	Number int
	Rec    record.Attempt
}

// Attempts returns the failed attempts that are kept of a run, by step id, the oldest first.
func (l *Ledger) Attempts(ctx context.Context, run string) (map[string][]Attempt, error) {
	attempts := map[string][]Attempt{}
	prefix := record.AttemptsOf(run)
	for found, err := range l.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		step, number, _ := strings.Cut(strings.TrimPrefix(found.Key, prefix), "/")
		n, ok := record.ParseNumber(number)
		if !ok {
			return nil, record.BadKey(found.Key)
		}
		kept := Attempt{Number: int(n)}
		if err := record.Decode(found, &kept.Rec); err != nil {
			return nil, err
		}
		attempts[step] = append(attempts[step], kept)
	}
	return attempts, nil
}

// SignalNames yields the names of the signals for a run that no step has taken, once for each signal. It ends at the first
// error of the store.
func (l *Ledger) SignalNames(ctx context.Context, run string) iter.Seq[string] {
	return func(yield func(string) bool) {
		prefix := record.SignalPrefix + run + "/"
		for r, err := range l.Store.List(ctx, store.Query{Prefix: prefix}) {
			if err != nil || !yield(record.SignalName(strings.TrimPrefix(r.Key, prefix))) {
				return
			}
		}
	}
}

// Signaled reports whether there is a signal for a run that no step has taken.
func (l *Ledger) Signaled(ctx context.Context, run string) (bool, error) {
	for _, err := range l.Store.List(ctx, store.Query{Prefix: record.SignalPrefix + run + "/", Limit: 1}) {
		return err == nil, err
	}
	return false, nil
}
