package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Pipeline returns the record of a pipeline and its revision. If there is none, the error wraps [fault.NotFound]. The
// caller must not change the record. Every apply and every run reads it. Therefore it is decoded once for each of its
// revisions.
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
	if len(l.returned) <= maxReturned {
		l.returned[maphash.String(returnedSeed, record.DefinitionKey(name, rec.Hash))] = struct{}{}
	}
	l.mu.Unlock()
	return rec, r.Revision, nil
}

var returnedSeed = maphash.MakeSeed()

// maxReturned bounds the definitions that are noted as returned. If there are more, all definitions count as returned.
const maxReturned = 1024

// hasReturned reports whether Pipeline has returned a record with a definition, so that a caller can be about to use the
// definition although the pipeline has another one now. A change of a pipeline reads the pipeline before it writes it.
func (l *Ledger) hasReturned(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, returned := l.returned[maphash.String(returnedSeed, key)]
	return returned || len(l.returned) > maxReturned
}

// Document returns the record of a definition of a pipeline. If the record is missing or has another hash, the error wraps
// [store.ErrCorrupt].
func (l *Ledger) Document(ctx context.Context, name, hash string) (store.Record, error) {
	key := record.DefinitionKey(name, hash)
	r, err := l.Store.Get(ctx, key)
	if err == nil && DefinitionHash(r.Value) != hash {
		err = record.Damaged(key, errors.New("is not what its key says"))
	}
	if err != nil {
		return r, fmt.Errorf("definition of pipeline %s: %w", name, missingReference(err))
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
	if p.Rule > plan.PresentRule {
		return nil, fmt.Errorf("definition of pipeline %s: %w", name, record.Damaged(r.Key, errors.New(plan.UnknownRule)))
	}
	return p.Ready(), nil
}

// DefinitionHash returns the hash under which a definition is kept. [Ledger.Document] compares it with the content, so that
// damaged steps are noticed.
func DefinitionHash(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:16])
}

// Plan returns the plan that a run has pinned. A plan of a definition is shared; the caller must not change it.
func (l *Ledger) Plan(ctx context.Context, run string, rec *record.Run) (*plan.Plan, error) {
	if rec.Hash == "" {
		p, _, err := Load[plan.Plan](ctx, l, record.PlanKey(run))
		if err != nil {
			return nil, fmt.Errorf("plan of run %s: %w", run, missingReference(err))
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

// maxPlans bounds the decoded plans and the decoded pipelines that are kept. The active runs share the plans, so that a
// thousand runs of one pipeline hold its steps in memory once.
const maxPlans = 1024

// keepPlan keeps a decoded plan for later runs, and returns it.
func (l *Ledger) keepPlan(key string, p *plan.Plan) *plan.Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.plans) >= maxPlans {
		clear(l.plans)
	}
	l.plans[key] = p
	return p
}
