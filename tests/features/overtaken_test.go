package features_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Here something comes between two things that a call does to the store.

// between is a store that does something right after a commit, or gives a commit for unknown that has happened.
type between struct {
	store.Store

	mu    sync.Mutex // guards what follows; not held while it is called
	after func() error
}

func (s *between) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	rev, err := s.Store.Commit(ctx, ops...)
	s.mu.Lock()
	after := s.after
	s.after = nil
	s.mu.Unlock()
	if err == nil && after != nil {
		err = after()
	}
	return rev, err
}

// next says what is done after the next commit, whose error is then this one.
func (s *between) next(after func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = after
}

// first calls fn after the next Get of a key with a prefix.
func first(p *rig.Probe, prefix string, fn func()) {
	p.After(func(key string) {
		if strings.HasPrefix(key, prefix) {
			p.After(nil)
			fn()
		}
	})
}

// TestARunThatBeginsWhileItIsReadIsReadAnew reads a queued run that begins between the reads of its record and of its
// resource's: it is not shown as queued with the generation that it was made for.
func TestARunThatBeginsWhileItIsReadIsReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &rig.Probe{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Pipeline("d")
		e.MustApply(rig.Object("x", 1))
		queued := e.MustApply(rig.Object("x", 2))
		e.MustApply(rig.Object("x", 3))
		first(st, "run/"+queued.ID, func() { time.Sleep(1500 * time.Millisecond) })
		run := e.MustGetRun(queued.ID)
		require.Equal(t, conveyor.StateRunning, run.State)
		require.EqualValues(t, 3, run.Generation)
	})
}

// TestRunsPassesOverARunThatIsRemovedMeanwhile removes an old run while they are listed.
func TestRunsPassesOverARunThatIsRemovedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &rig.Probe{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{Retention: conveyor.Retention{Runs: 2}}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), nil)))
		e.Pipeline("d")
		e.Finish(rig.Object("x", 1))
		e.Finish(rig.Object("x", 2))
		var ids []string
		for run, err := range e.Runs(t.Context(), conveyor.RunFilter{Resource: rig.Object("x", nil).Key()}) {
			require.NoError(t, err)
			ids = append(ids, run.ID)
			if len(ids) == 1 { // which is kept for one run more, the second of the list not
				e.Finish(rig.Object("x", 3))
				e.Finish(rig.Object("x", 4))
				synctest.Wait()
			}
		}
		require.Len(t, ids, 1)
	})
}

// TestACallThatHasStoredSomethingDoesNotFail has the caller leave right after the commit of what it has asked for. Its
// own answer must not need the store any more: an error says that nothing is stored.
func TestACallThatHasStoredSomethingDoesNotFail(t *testing.T) {
	labelled := func(spec int) *conveyor.Object {
		o := rig.Object("x", spec)
		o.Metadata = map[string]string{"a": "b"}
		return o
	}
	for _, tt := range []struct {
		name string
		call func(ctx context.Context, e *rig.Engine) (*conveyor.Run, error)
		own  bool // the call makes a run of its own
		want func(t *testing.T, now *conveyor.Object, run *conveyor.Run)
	}{
		{
			name: "metadata alone",
			call: func(ctx context.Context, e *rig.Engine) (*conveyor.Run, error) { return e.Apply(ctx, labelled(1)) },
			want: func(t *testing.T, now *conveyor.Object, run *conveyor.Run) {
				require.EqualValues(t, 1, run.Generation)
				require.Equal(t, "b", now.Metadata["a"])
			},
		},
		{
			name: "a change that a queued run takes up",
			call: func(ctx context.Context, e *rig.Engine) (*conveyor.Run, error) {
				return e.Apply(ctx, rig.Object("x", 2))
			},
			want: func(t *testing.T, now *conveyor.Object, run *conveyor.Run) {
				require.EqualValues(t, 2, run.Generation)
				require.Equal(t, conveyor.CauseUpdated, run.Cause)
				require.EqualValues(t, 2, now.Generation)
			},
		},
		{
			name: "a deletion", own: true,
			call: func(ctx context.Context, e *rig.Engine) (*conveyor.Run, error) {
				return e.Delete(ctx, rig.Object("x", 1).Key())
			},
			want: func(t *testing.T, now *conveyor.Object, run *conveyor.Run) {
				require.Equal(t, conveyor.CauseDeleted, run.Cause)
				require.NotNil(t, now.DeletedAt)
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := &between{Store: memory.New()}
			e := rig.NewOn(t, st, conveyor.Options{}) // not started, so that runs stay queued
			e.Pipeline("d")
			first := e.MustApply(rig.Object("x", 1))
			ctx, leave := context.WithCancel(t.Context())
			st.next(func() error { leave(); return nil })
			run, err := tt.call(ctx, e)
			require.NoError(t, err)
			require.Equal(t, !tt.own, first.ID == run.ID)
			require.Error(t, ctx.Err())
			tt.want(t, e.MustGet(rig.Object("x", 1)), run)
		})
	}
}

// TestAnUnknownCommitIsFoundThoughItWasWrittenOver has somebody else apply something between a commit that has happened,
// but is not known to have, and the look that finds that out. It is neither done a second time nor refused.
func TestAnUnknownCommitIsFoundThoughItWasWrittenOver(t *testing.T) {
	labelled := func(o *conveyor.Object, label string) *conveyor.Object {
		o.Metadata = map[string]string{"label": label}
		return o
	}
	versioned := func(o *conveyor.Object, version int64) *conveyor.Object {
		o.Version = version
		return o
	}
	for _, tt := range []struct {
		name       string
		call       func(e *rig.Engine) error
		want       error
		generation int64
		version    int64
	}{
		{
			name:       "of a creation",
			call:       func(e *rig.Engine) error { _, err := e.Create(t.Context(), rig.Object("y", 1)); return err },
			generation: 2, version: 2,
		},
		{
			name: "of a change",
			call: func(e *rig.Engine) error {
				_, err := e.Apply(t.Context(), versioned(rig.Object("x", 1), 1))
				return err
			},
			generation: 3, version: 3,
		},
		{
			name: "of metadata, of which nothing is left",
			call: func(e *rig.Engine) error {
				_, err := e.Apply(t.Context(), versioned(labelled(rig.Object("x", 0), "a"), 1))
				return err
			},
			want:       store.ErrUnknown,
			generation: 2, version: 3,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := &between{Store: memory.New()}
			e := rig.NewOn(t, st, conveyor.Options{})
			e.Pipeline("d")
			e.MustApply(rig.Object("x", 0))
			name := "x"
			if strings.Contains(tt.name, "creation") {
				name = "y"
			}
			st.next(func() error {
				e.MustApply(rig.Object(name, "of somebody else"))
				return store.ErrUnknown
			})
			require.ErrorIs(t, tt.call(e), tt.want)
			now := e.MustGet(rig.Object(name, nil))
			require.Equal(t, tt.generation, now.Generation)
			require.Equal(t, tt.version, now.Version)
			require.JSONEq(t, `"of somebody else"`, string(now.Spec))
		})
	}
}

// TestACommitOfSomebodyElseIsNotTakenForOnesOwn has two calls want the same change of the same version at the same time.
// The outcome of one commit is unknown, and it has not happened: what is on record is the other's.
func TestACommitOfSomebodyElseIsNotTakenForOnesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		e.Pipeline("d")
		e.MustApply(rig.Object("x", 0))
		wanted := func() *conveyor.Object {
			o := rig.Object("x", 1)
			o.Version = 1
			return o
		}
		e.Store.Refusing(func([]string) error {
			e.Store.Refusing(nil)
			e.MustApply(wanted())
			return store.ErrUnknown
		})
		_, err := e.Apply(t.Context(), wanted())
		require.ErrorIs(t, err, conveyor.ErrConflict)
	})
}

// TestGenerationsGoOnFromAResourceThatCameAndWent has a resource come and go while another call is about to create it.
func TestGenerationsGoOnFromAResourceThatCameAndWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &rig.Probe{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), nil)))
		e.Pipeline("d")
		var other *conveyor.Object
		first(st, "tmb/r/x", func() {
			other = rig.Object("x", 1)
			e.Finish(other)
			run, err := e.Delete(t.Context(), other.Key())
			require.NoError(t, err)
			require.NoError(t, e.Ended(run.ID).Err())
		})
		o := rig.Object("x", 1)
		e.Finish(o)
		require.EqualValues(t, 1, other.Generation)
		require.EqualValues(t, 2, o.Generation)
		require.Greater(t, o.ID, other.ID)
	})
}

// TestARunThatLeavesTheLineDoesNotStrandTheOneBeforeIt cancels the last run in line when the first one has read that it
// is there, and looks for it.
func TestARunThatLeavesTheLineDoesNotStrandTheOneBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &rig.Probe{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		e.MustApply(rig.Object("x", 1))
		second, third := e.MustApply(rig.Object("x", 2)), e.MustApply(rig.Object("x", 3))
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		first(st, "res/r/x", func() { // of the end of the first run, or of the beginning of the second
			first(st, "res/r/x", func() { require.NoError(t, e.Cancel(t.Context(), third.ID, "not needed")) })
		})
		require.NoError(t, e.Ended(second.ID).Err())
		require.Equal(t, conveyor.StateCanceled, e.MustGetRun(third.ID).State)
	})
}

// TestNothingIsWatchedAfterTheEnd shuts down under a call that has stored something. Who watches after that is told what
// those were told who watched before: that it is over.
func TestNothingIsWatchedAfterTheEnd(t *testing.T) {
	st := &between{Store: memory.New()}
	e := rig.NewOn(t, st, conveyor.Options{})
	e.Pipeline("d")
	watched := e.Watch(t.Context(), conveyor.WatchOptions{})
	requireOver := func() {
		for event, err := range watched {
			require.ErrorIs(t, err, conveyor.ErrClosed, "%+v", event)
		}
	}
	st.next(func() error {
		e.Stop()
		requireOver()
		return nil
	})
	e.MustApply(rig.Object("x", 1))
	requireOver()
}

// TestACancelIsAnsweredThoughTheEngineIsShutDown cancels a run that is just being made, and shuts down before its maker
// gets around to it.
func TestACancelIsAnsweredThoughTheEngineIsShutDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &between{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{})
		e.Pipeline("d")
		answer := make(chan error, 1)
		st.next(func() error {
			made := e.RunsOf(rig.Object("x", nil))
			go func() { answer <- e.Cancel(context.Background(), made[0].ID, "not needed") }()
			synctest.Wait()
			e.Stop()
			return nil
		})
		e.MustApply(rig.Object("x", 1))
		require.ErrorIs(t, <-answer, conveyor.ErrClosed)
	})
}

// refusing is a store that is asked before each Get whether it fails.
type refusing struct {
	store.Store
	get func(key string) error // set before it is used
}

func (s *refusing) Get(ctx context.Context, key string) (store.Record, error) {
	if err := s.get(key); err != nil {
		return store.Record{}, err
	}
	return s.Store.Get(ctx, key)
}

// TestWhatCannotBeReadIsNotSaidToBeGone has a resource change while it is read, and the store fail just then.
func TestWhatCannotBeReadIsNotSaidToBeGone(t *testing.T) {
	st := &refusing{Store: memory.New()}
	var asked []string
	st.get = func(key string) error {
		kind, _, _ := strings.Cut(key, "/")
		asked = append(asked, kind)
		switch len(asked) {
		case 2: // the generation that the first one named
			return store.ErrNotFound
		case 3, 4: // is it still the first one, and what else
			return rig.ErrBoom
		}
		return nil
	}
	seed, err := conveyor.New(st.Store, conveyor.Options{})
	require.NoError(t, err)
	require.NoError(t, seed.SavePipeline(t.Context(), rig.PipelineOf("d")))
	_, err = seed.Apply(t.Context(), rig.Object("x", 1))
	require.NoError(t, err)
	e := rig.NewOn(t, st, conveyor.Options{})
	_, err = e.Get(t.Context(), rig.Object("x", 1).Key())
	require.ErrorIs(t, err, rig.ErrBoom)
	require.NotErrorIs(t, err, store.ErrNotFound)
	require.Equal(t, []string{"res", "rev", "res", "res"}, asked)
}

// TestARunThatSomebodyElseHasTakenIsLeftAlone has another program change a run, and take its resource away, while a step
// of it is under way. There is nothing to decide anew, so that it must not be tried for ever.
func TestARunThatSomebodyElseHasTakenIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log rig.Buffer
		e := rig.New(t, conveyor.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Pipeline("d", "d")
		run := e.MustApply(rig.Object("x", 1))
		r, err := e.Store.Get(t.Context(), "run/"+run.ID)
		require.NoError(t, err)
		_, err = e.Store.Store.Commit(t.Context(), store.Put(r.Key, r.Value), store.Delete("res/r/x"))
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		e.Stop()
		require.Contains(t, log.String(), "run was changed by somebody else")
	})
}
