package ledger

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

var app = record.Key{Type: "build", Name: "app"}

// book is a ledger on a store of its own, and what tests write to it.
type book struct {
	*Ledger
	t   *testing.T
	old int // the number of runs of a history that have no number
}

func newBook(t *testing.T) *book {
	t.Helper()
	st := memory.New()
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return &book{Ledger: New(st), t: t}
}

// put writes records, given as a key and a record in turn, in one commit.
func (b *book) put(pairs ...any) store.Revision {
	b.t.Helper()
	var ops []store.Op
	for i := 0; i < len(pairs); i += 2 {
		value, raw := pairs[i+1].([]byte)
		if !raw {
			value = record.Encode(pairs[i+1])
		}
		ops = append(ops, store.Put(pairs[i].(string), value))
	}
	rev, err := b.Store.Commit(b.t.Context(), ops...)
	require.NoError(b.t, err)
	return rev
}

func (b *book) remove(keys ...string) {
	b.t.Helper()
	var ops []store.Op
	for _, key := range keys {
		ops = append(ops, store.Delete(key))
	}
	_, err := b.Store.Commit(b.t.Context(), ops...)
	require.NoError(b.t, err)
}

func (b *book) keys() (keys []string) {
	b.t.Helper()
	for r, err := range b.Store.List(b.t.Context(), store.Query{}) {
		require.NoError(b.t, err)
		keys = append(keys, r.Key)
	}
	return keys
}

// head returns a resource at a generation.
func head(generation int64) *record.Resource {
	return &record.Resource{ID: "x", Version: generation, Generation: generation, First: 1, Status: record.Status{Run: "r1"}}
}

func ended(end record.Time) *record.Run {
	return &record.Run{
		Type: app.Type, Name: app.Name, ResourceID: "x", Cause: record.Updated, State: plan.Succeeded,
		Generation: 1, Started: 1, Ended: end,
	}
}

// broken is a store whose reads fail.
type broken struct {
	store.Store
	err error
}

func (b broken) Get(context.Context, string) (store.Record, error) { return store.Record{}, b.err }

func TestResourceAndRevision(t *testing.T) {
	b := newBook(t)
	got, rev, err := b.Resource(t.Context(), app)
	require.NoError(t, err)
	require.Nil(t, got)
	require.Zero(t, rev)
	_, err = b.Revision(t.Context(), app, 1)
	require.ErrorIs(t, err, store.ErrCorrupt, "another record refers to it")
	require.ErrorIs(t, err, store.ErrNotFound)

	written := b.put(record.ResourceKey(app), head(1), record.RevisionKey(app, 1), &record.Revision{Version: 1, Spec: []byte(`{}`)})
	got, rev, err = b.Resource(t.Context(), app)
	require.NoError(t, err)
	require.Equal(t, head(1), got)
	require.Equal(t, written, rev)
	revision, err := b.Revision(t.Context(), app, 1)
	require.NoError(t, err)
	require.JSONEq(t, `{}`, string(revision.Spec))

	b.put(record.ResourceKey(app), []byte(`{}`))
	_, _, err = b.Resource(t.Context(), app)
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.ErrorContains(t, err, record.ResourceKey(app))
}

func TestStale(t *testing.T) {
	missing := fmt.Errorf("%w: %w", store.ErrCorrupt, store.ErrNotFound)
	for _, c := range []struct {
		name string
		err  error
		then func(*book) // after the resource was read
		want bool
	}{
		{"the resource is as it was", missing, func(*book) {}, false},
		{"the resource has changed", missing, func(b *book) { b.put(record.ResourceKey(app), head(2)) }, true},
		{"the resource is gone", missing, func(b *book) { b.remove(record.ResourceKey(app)) }, true},
		{"the resource has come back", fault.NotFound, func(b *book) { b.remove(record.ResourceKey(app)); b.put(record.ResourceKey(app), head(1)) }, true},
		{"the resource is damaged", missing, func(b *book) { b.put(record.ResourceKey(app), []byte(`1`)) }, true},
		{"the store fails", missing, func(b *book) { b.Store = broken{b.Store, errors.New("boom")} }, true},
		{"another error, and the resource has changed", store.ErrCorrupt, func(b *book) { b.put(record.ResourceKey(app), head(2)) }, false},
		{"no error", nil, func(b *book) { b.put(record.ResourceKey(app), head(2)) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBook(t)
			rev := b.put(record.ResourceKey(app), head(1))
			c.then(b)
			require.Equal(t, c.want, b.Stale(t.Context(), app, rev, c.err))
		})
	}
	require.False(t, newBook(t).Stale(t.Context(), app, 0, missing), "there was no resource, and there is none")
}

func TestTarget(t *testing.T) {
	b := newBook(t)
	b.put(record.RevisionKey(app, 1), &record.Revision{Version: 1, At: 10, Metadata: record.Metadata{"a": []byte(`"old"`)}, Spec: []byte(`1`)},
		record.RevisionKey(app, 2), &record.Revision{Version: 2, At: 20, Metadata: record.Metadata{"a": []byte(`"new"`)}, Spec: []byte(`2`)})
	h := head(2)
	h.Version, h.Updated, h.Metadata = 7, 70, record.Metadata{"a": []byte(`"newest"`)}
	got, err := b.Target(t.Context(), app, h)
	require.NoError(t, err)
	require.Equal(t, &record.Target{Generation: 2, Version: 7, Updated: 70, Metadata: h.Metadata, Spec: []byte(`2`)}, got)
	h.FixedGeneration = 1
	got, err = b.Target(t.Context(), app, h)
	require.NoError(t, err)
	require.Equal(t, &record.Target{Generation: 1, Version: 1, Updated: 10, Metadata: record.Metadata{"a": []byte(`"old"`)}, Spec: []byte(`1`)}, got)
}

func TestPendingRuns(t *testing.T) {
	b := newBook(t)
	_, _, err := b.NextPending(t.Context(), app)
	require.ErrorIs(t, err, store.ErrCorrupt)
	b.put(record.PendingKey(app, 10), &record.Pending{Run: "late", Generation: 3, Cause: record.Updated},
		record.PendingKey(app, 9), &record.Pending{Run: "early", Generation: 2, Cause: record.Updated})
	next, key, err := b.NextPending(t.Context(), app)
	require.NoError(t, err)
	require.Equal(t, "early", next.Run)
	require.Equal(t, record.PendingKey(app, 9), key)
	for place, want := range map[int64]bool{0: false, 8: false, 9: true} {
		run := ended(0)
		run.Position = place
		is, err := b.IsPending(t.Context(), "early", run)
		require.NoError(t, err)
		require.Equal(t, want, is, "place %d", place)
		is, err = b.IsPending(t.Context(), "other", run)
		require.NoError(t, err)
		require.False(t, is, "the place of another run")
	}
}

func TestRun(t *testing.T) {
	b := newBook(t)
	_, err := b.Run(t.Context(), "r1")
	require.ErrorIs(t, err, fault.NotFound)
	require.NotErrorIs(t, err, store.ErrNotFound)

	run := ended(2)
	run.State, run.Started, run.Generation = plan.Queued, 0, 0
	b.put(record.RunKey("r1"), run)
	state, err := b.Run(t.Context(), "r1")
	require.NoError(t, err)
	require.Nil(t, state.Plan, "a run that has not begun has no plan")

	run = ended(2)
	b.put(record.RunKey("r1"), run)
	_, err = b.Run(t.Context(), "r1")
	require.ErrorIs(t, err, store.ErrCorrupt, "its plan is missing")

	p := &plan.Plan{Steps: []plan.Step{{ID: "a", Driver: "d"}, {ID: "b", Driver: "d"}}}
	rev := b.put(record.PlanKey("r1"), p, record.StepKey("r1", "b"), &record.Step{State: plan.Succeeded, Attempt: 1})
	state, err = b.Run(t.Context(), "r1")
	require.NoError(t, err)
	require.Len(t, state.Steps, 2)
	require.Zero(t, state.Steps[0].Rev)
	require.Equal(t, rev, state.Steps[1].Rev)
	require.Equal(t, plan.Succeeded, state.Steps[1].Rec.State)

	b.put(record.StepKey("r1", "c"), &record.Step{State: plan.Succeeded, Attempt: 1})
	_, err = b.Run(t.Context(), "r1")
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.ErrorContains(t, err, "has no such step")
}

func TestAttemptsAndSignals(t *testing.T) {
	b := newBook(t)
	signaled, err := b.Signaled(t.Context(), "r1")
	require.NoError(t, err)
	require.False(t, signaled)
	b.put(record.AttemptKey("r1", "a", 11), &record.Attempt{Error: "eleven"}, record.AttemptKey("r1", "a", 2), &record.Attempt{Error: "two"},
		record.AttemptKey("r1", "b", 1), &record.Attempt{Error: "one"}, record.AttemptKey("r2", "a", 1), &record.Attempt{},
		record.SignalsOf("r1", "go")+"1", []byte(`1`))
	attempts, err := b.Attempts(t.Context(), "r1")
	require.NoError(t, err)
	require.Equal(t, map[string][]Attempt{
		"a": {{2, record.Attempt{Error: "two"}}, {11, record.Attempt{Error: "eleven"}}}, "b": {{1, record.Attempt{Error: "one"}}},
	}, attempts)
	signaled, err = b.Signaled(t.Context(), "r1")
	require.NoError(t, err)
	require.True(t, signaled)
	b.put(record.AttemptsOf("r1")+"a/first", &record.Attempt{})
	_, err = b.Attempts(t.Context(), "r1")
	require.ErrorIs(t, err, store.ErrCorrupt)
}

func TestDefinitionsOfAnyRule(t *testing.T) {
	b := newBook(t)
	for _, c := range []struct {
		name   string
		doc    string
		before [][]int // nil for what cannot be read
	}{
		{"unmarked", `{"steps":[{"id":"1"},{"id":"2","after":["1"]},{"id":"3"}]}`, [][]int{nil, {0}, nil}},
		{"of the present rule", `{"rule":1,"steps":[{"id":"1"},{"id":"2","after":["1"]},{"id":"3"}]}`, [][]int{nil, {0}, {0, 1}}},
		{"of a rule to come", `{"rule":2,"steps":[{"id":"1"}]}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			hash := DefinitionHash([]byte(c.doc))
			b.put(record.DefinitionKey("ci", hash), []byte(c.doc))
			p, err := b.Definition(t.Context(), "ci", hash)
			if c.before == nil {
				require.ErrorIs(t, err, store.ErrCorrupt)
				require.ErrorContains(t, err, plan.UnknownRule)
				return
			}
			require.NoError(t, err)
			for i, want := range c.before {
				require.Equal(t, want, p.Before(i))
			}
		})
	}
}

func TestPipelinesAndDefinitions(t *testing.T) {
	b := newBook(t)
	_, _, err := b.Pipeline(t.Context(), "ci")
	require.ErrorIs(t, err, fault.NotFound)
	doc := []byte(`{"steps":[{"id":"1","driver":"d"}]}`)
	hash := DefinitionHash(doc)
	rev := b.put(record.PipelineKey("ci"), &record.Pipeline{Hash: hash, Resource: "build"}, record.DefinitionKey("ci", hash), doc)
	first, got, err := b.Pipeline(t.Context(), "ci")
	require.NoError(t, err)
	require.Equal(t, rev, got)
	require.Equal(t, rev, first.Rev)
	again, _, err := b.Pipeline(t.Context(), "ci")
	require.NoError(t, err)
	require.Same(t, first, again, "it is decoded once")
	b.put(record.PipelineKey("ci"), &record.Pipeline{Hash: hash, Resource: "image"})
	changed, _, err := b.Pipeline(t.Context(), "ci")
	require.NoError(t, err)
	require.Equal(t, "image", changed.Resource)

	run := &record.Run{Pipeline: "ci", Hash: hash}
	p, err := b.Plan(t.Context(), "r1", run)
	require.NoError(t, err)
	require.Equal(t, 1, p.Len())
	shared, err := b.Plan(t.Context(), "r2", run)
	require.NoError(t, err)
	require.Same(t, p, shared)

	other := DefinitionHash([]byte(`{}`))
	b.put(record.DefinitionKey("ci", other), doc)
	_, err = b.Definition(t.Context(), "ci", other)
	require.ErrorIs(t, err, store.ErrCorrupt, "another document is kept under the hash")
	_, err = b.Definition(t.Context(), "ci", DefinitionHash(nil))
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestThePlansThatAreKeptAreBounded(t *testing.T) {
	l := New(nil)
	for i := range 3 * maxPlans {
		l.keepPlan(fmt.Sprint(i), new(plan.Plan))
		require.LessOrEqual(t, len(l.plans), maxPlans)
	}
}

// TestRunsAreReadByPages compares runs that are read together with the same runs that are read one by one.
func TestRunsAreReadByPages(t *testing.T) {
	b := newBook(t)
	p := new(plan.Plan)
	for i := range 4 {
		p.Steps = append(p.Steps, plan.Step{ID: fmt.Sprint(i + 1), Driver: "d"})
	}
	var all []string
	for i := range 1200 {
		id := fmt.Sprintf("run%05d", i)
		all = append(all, id)
		run := &record.Run{Type: "r", Name: "x", ResourceID: "x", Cause: record.Created, State: plan.Running, Generation: 1, Created: 1, Started: 1}
		if i%5 == 0 {
			run.State, run.Started = plan.Queued, 0
		} else {
			b.put(record.PlanKey(id), p)
			for n := range i % 4 {
				b.put(record.StepKey(id, fmt.Sprint(n+1)), &record.Step{State: plan.Succeeded, Attempt: i + 1})
			}
		}
		if i%7 == 0 {
			b.put(record.SignalKey(id, "go", "1"), &record.Signal{})
		}
		b.put(record.RunKey(id), run)
	}
	b.put(record.StepKey(all[11], "nonsense"), &record.Step{})
	b.remove(record.PlanKey(all[12]), record.RunKey(all[13]), record.RunKey(all[14]), record.PlanKey(all[14]))
	for name, wants := range map[string]func(i int, id string) bool{
		"all": func(int, string) bool { return true }, "none": func(int, string) bool { return false }, "one": func(i int, _ string) bool { return i == 600 },
		"every tenth": func(i int, _ string) bool { return i%10 == 7 }, "few": func(i int, _ string) bool { return i%211 == 11 },
		"the first and the last": func(i int, _ string) bool { return i == 0 || i == 1199 }, "a part": func(i int, _ string) bool { return i > 3 && i < 800 },
	} {
		ids := []string{}
		for i, id := range all {
			if wants(i, id) {
				ids = append(ids, id)
			}
		}
		if name != "all" {
			ids = append(ids, "run99999")
		}
		found, err := Runs(t.Context(), b.Ledger, ids)
		require.NoError(t, err)
		require.Len(t, found, len(ids))
		signaled, err := SignaledOf(t.Context(), b.Ledger, ids)
		require.NoError(t, err)
		for i, id := range ids {
			want, err := b.Run(t.Context(), id)
			require.Equal(t, want, found[i].Run, "%s: %s", name, id)
			if err != nil {
				require.EqualError(t, found[i].Err, err.Error(), "%s: %s", name, id)
			}
			is, err := b.Signaled(t.Context(), id)
			require.NoError(t, err)
			require.Equal(t, is, signaled[id], "%s: %s", name, id)
		}
	}
}
