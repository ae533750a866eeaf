package features_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

func TestEightCreatesOfOneNameAtOnceMakeOneResource(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{}).MustStart()
			e.Driver("d", new(rig.Recorder))
			e.Pipeline("d")
			var wg sync.WaitGroup
			var created, exists atomic.Int32
			for i := range 8 {
				wg.Go(func() {
					_, err := e.Create(t.Context(), rig.Object("a", i))
					switch {
					case err == nil:
						created.Add(1)
					case errors.Is(err, conveyor.ErrExists):
						exists.Add(1)
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, 1, created.Load())
			require.EqualValues(t, 7, exists.Load())
			synctest.Wait()
			require.Len(t, e.RunsOf(rig.Object("a", nil)), 1)
			require.EqualValues(t, 1, e.MustGet(rig.Object("a", nil)).Generation)
		})
	}
}

func TestFiftyConcurrentUpdatesLoseNone(t *testing.T) {
	for _, c := range []struct {
		name    string
		version int64 // given with each update
		stored  int   // updates that are stored; the others are conflicts
	}{
		{"without a version", 0, 50},
		{"all on one version", 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				d := rig.Recording(rig.Taking(time.Millisecond))
				e.Driver("d", d)
				e.Pipeline("d", "d")
				e.MustApply(rig.Object("a", "first"))
				var wg sync.WaitGroup
				var mu sync.Mutex
				var conflicts int
				versions := map[int64]string{}
				for i := range 50 {
					wg.Go(func() {
						o := rig.Object("a", fmt.Sprint("update ", i))
						o.Version = c.version
						_, err := e.Apply(t.Context(), o)
						mu.Lock()
						defer mu.Unlock()
						if errors.Is(err, conveyor.ErrConflict) {
							conflicts++
							return
						}
						if err == nil {
							versions[o.Version] = string(o.Spec)
						}
					})
				}
				wg.Wait()
				require.Len(t, versions, c.stored, "each has a version of its own")
				require.Equal(t, 50-c.stored, conflicts)
				o := e.MustGet(rig.Object("a", nil))
				require.EqualValues(t, 1+c.stored, o.Version)
				require.Equal(t, versions[o.Version], string(o.Spec))
				revisions := rig.Drain(t, e.Revisions(t.Context(), o.Key()))
				require.Len(t, revisions, 1+c.stored)
				for _, r := range revisions[1:] {
					require.Equal(t, versions[r.Version], string(r.Spec))
				}
				time.Sleep(time.Minute)
				o = e.MustGet(o)
				require.Equal(t, o.Generation, o.Status.ObservedGeneration)
				require.Equal(t, string(o.Spec), d.Last().Spec)
			})
		})
	}
}

func TestApplyFillsTheMeta(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Pipeline("d")
		first := time.Now().UTC()
		o := rig.Object("a", 1)
		o.ID, o.Generation, o.CreatedAt, o.Status.Message = "mine", 77, time.Unix(1, 0), "mine" // the engine's alone
		run := e.MustApply(o)
		require.NotEqual(t, "mine", o.ID)
		require.Equal(t, conveyor.Meta{
			ID: o.ID, Name: "a", Type: "r", Pipeline: "p", Version: 1, Generation: 1, CreatedAt: first, UpdatedAt: first,
			Status: conveyor.Status{Phase: conveyor.StateRunning, Run: run.ID},
		}, o.Meta)
		require.Equal(t, o, e.MustGet(o))
		e.Ended(run.ID)

		time.Sleep(time.Hour)
		id := o.ID
		o.Spec, o.Version = rig.JSON(2), 0
		run = e.MustApply(o)
		require.Equal(t, conveyor.Meta{
			ID: id, Name: "a", Type: "r", Pipeline: "p", Version: 2, Generation: 2, CreatedAt: first, UpdatedAt: time.Now().UTC(),
			Status: conveyor.Status{Phase: conveyor.StateRunning, ObservedGeneration: 1, Run: run.ID},
		}, o.Meta)
		require.Equal(t, conveyor.CauseUpdated, run.Cause)
	})
}

func TestApplyOfAStaleVersionIsAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		o := rig.Object("a", 1)
		o.Version = 3
		_, err := e.Apply(t.Context(), o)
		require.ErrorIs(t, err, conveyor.ErrConflict, "of a resource that is not there")
		o.Version = 0
		e.Finish(o)
		reader := e.MustGet(o)
		o.Spec = rig.JSON(2)
		e.Finish(o)
		require.EqualValues(t, 2, o.Version)

		reader.Spec = rig.JSON(3)
		before, kept := rig.Dump(t, e.Store), *reader
		for range 2 {
			_, err = e.Apply(t.Context(), reader)
			require.ErrorIs(t, err, conveyor.ErrConflict)
			require.ErrorContains(t, err, "version 1 was given, and 2 is the current one")
		}
		require.Equal(t, kept, *reader, "it is unchanged")
		require.Equal(t, before, rig.Dump(t, e.Store))

		fresh := e.MustGet(o)
		fresh.Spec = rig.JSON(3)
		e.Finish(fresh)
		require.EqualValues(t, 3, fresh.Version, "progress made nothing stale")
		_, err = e.Apply(t.Context(), fresh)
		require.NoError(t, err, "what Apply filled in can be applied again")
	})
}

func TestAChangeOfMetadataAloneIsStoredWithoutARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := new(rig.Recorder)
		e.Driver("d", d)
		e.Pipeline("d")
		o := rig.Object("a", 1)
		run := e.Finish(o)
		o.Metadata = map[string]string{"owner": "me"}
		o.Version = 0
		require.Equal(t, run.ID, e.MustApply(o).ID)
		synctest.Wait()
		found := e.MustGet(o)
		require.Equal(t, map[string]string{"owner": "me"}, found.Metadata)
		require.EqualValues(t, 2, found.Version)
		require.EqualValues(t, 1, found.Generation)
		require.Len(t, d.All(), 1)
		require.Len(t, rig.Drain(t, e.Revisions(t.Context(), o.Key())), 1)
		o.Metadata = nil
		e.MustApply(o)
		require.Empty(t, e.MustGet(o).Metadata, "what is left empty becomes empty")
	})
}

func TestTriggerRunsAnUnchangedResourceAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.Taking(time.Second))
		e.Driver("d", d)
		e.Pipeline("d")
		o := rig.Object("a", 1)
		first := e.Finish(o)
		version := e.MustGet(o).Version

		again, err := e.Trigger(t.Context(), o.Key())
		require.NoError(t, err)
		require.NotEqual(t, first.ID, again.ID)
		require.Equal(t, conveyor.CauseTriggered, again.Cause)
		require.EqualValues(t, 1, again.Generation)
		behind, err := e.Trigger(t.Context(), o.Key())
		require.NoError(t, err)
		require.Equal(t, conveyor.StateQueued, behind.State)
		same, err := e.Trigger(t.Context(), o.Key())
		require.NoError(t, err)
		require.Equal(t, behind.ID, same.ID, "one that is queued already stands for it")
		require.NoError(t, e.Ended(behind.ID).Err())
		require.Len(t, d.All(), 3)
		require.Equal(t, version, e.MustGet(o).Version)
		require.Len(t, rig.Drain(t, e.Revisions(t.Context(), o.Key())), 1)

		_, err = e.Trigger(t.Context(), conveyor.Key{Type: "r", Name: "nobody"})
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		require.NoError(t, e.DeletePipeline(t.Context(), "p"))
		_, err = e.Trigger(t.Context(), o.Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)
	})
}

func TestRevisionsTellEachGenerationAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder), conveyor.Listen("r"))
		e.Pipeline("d")
		for i := 1; i <= 20; i++ {
			o := rig.Object("a", i)
			o.Metadata = map[string]string{"n": fmt.Sprint(i)}
			e.MustApply(o)
			e.MustApply(rig.Object("ab", i)) // whose name begins alike
			time.Sleep(time.Second)
		}
		last := rig.Object("a", 20)
		last.Pipeline = ""
		e.MustApply(last)
		var told []string
		for _, o := range rig.Drain(t, e.Revisions(t.Context(), last.Key())) {
			told = append(told, fmt.Sprint(o.Name, o.Generation, " ", o.Version, " ", string(o.Spec), " ", o.Metadata["n"], " ", o.Pipeline, o.Status.Phase))
		}
		require.Len(t, told, 21)
		require.Equal(t, "a1 1 1 1 punset", told[0])
		require.Equal(t, "a20 20 20 20 punset", told[19])
		require.Equal(t, "a21 21 20  unset", told[20])
	})
}

func TestListTellsResourcesAndNeverRevisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		for _, kind := range []string{"r", "rr", "a.b", "a"} {
			for i := range 12 {
				for generation := range 3 {
					e.MustApply(rig.Loose(kind, fmt.Sprintf("n%02d", i), generation))
				}
			}
		}
		names := func(f conveyor.ResourceFilter) string {
			var all []string
			for _, o := range rig.Drain(t, e.List(t.Context(), f)) {
				require.Equal(t, "2", string(o.Spec))
				require.EqualValues(t, 3, o.Generation)
				all = append(all, o.Type+"/"+o.Name)
			}
			return strings.Join(all, " ")
		}
		require.Len(t, strings.Fields(names(conveyor.ResourceFilter{})), 48)
		for _, c := range []struct {
			name   string
			filter conveyor.ResourceFilter
			want   string
		}{
			{"a type", conveyor.ResourceFilter{Type: "r"}, "r/n00 r/n01 r/n02 r/n03 r/n04 r/n05 r/n06 r/n07 r/n08 r/n09 r/n10 r/n11"},
			{"a type that begins alike", conveyor.ResourceFilter{Type: "a", Limit: 1}, "a/n00"},
			{"a type without any", conveyor.ResourceFilter{Type: "n"}, ""},
			{"a prefix", conveyor.ResourceFilter{Type: "r", NamePrefix: "n1"}, "r/n10 r/n11"},
			{"a prefix of none", conveyor.ResourceFilter{Type: "r", NamePrefix: "x"}, ""},
			{"the first page", conveyor.ResourceFilter{Type: "r", Limit: 5}, "r/n00 r/n01 r/n02 r/n03 r/n04"},
			{"a later page", conveyor.ResourceFilter{Type: "r", After: "n04", Limit: 5}, "r/n05 r/n06 r/n07 r/n08 r/n09"},
			{"the last page", conveyor.ResourceFilter{Type: "r", After: "n09", Limit: 5}, "r/n10 r/n11"},
			{"after the last", conveyor.ResourceFilter{Type: "r", After: "n11"}, ""},
			{"after a name that is not there", conveyor.ResourceFilter{Type: "r", After: "n095"}, "r/n10 r/n11"},
			{"a prefix after a name", conveyor.ResourceFilter{Type: "r", NamePrefix: "n1", After: "n10"}, "r/n11"},
			{"a prefix after a name before it", conveyor.ResourceFilter{Type: "r", NamePrefix: "n1", After: "n0"}, "r/n10 r/n11"},
		} {
			require.Equal(t, c.want, names(c.filter), c.name)
		}
		for range e.List(t.Context(), conveyor.ResourceFilter{}) {
			break
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for o, err := range e.List(ended, conveyor.ResourceFilter{}) {
			require.Nil(t, o)
			require.ErrorIs(t, err, context.Canceled)
		}
	})
}

func TestRunsAreFilteredAndPaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Resource.Name == "bad" {
				return conveyor.Done(), conveyor.Permanent(rig.ErrBoom)
			}
			return rig.Taking(time.Second)(ctx, req)
		}))
		e.Driver("slow", rig.DriverOf(rig.Always(conveyor.RequeueAfter(time.Hour), nil)))
		e.Pipeline("d")
		e.PipelineNamed("q", "slow")
		var all []string
		for i := range 5 {
			for _, name := range []string{"a", "b", "bad"} {
				all = append(all, e.Finish(rig.Object(name, i)).ID)
			}
		}
		waiting := rig.Object("w", 1)
		waiting.Pipeline = "q"
		all = append(all, e.MustApply(waiting).ID)
		synctest.Wait()
		waiting.Spec = rig.JSON(2)
		all = append(all, e.MustApply(waiting).ID)

		ids := func(f conveyor.RunFilter) (ids []int) {
			for _, run := range rig.Drain(t, e.Runs(t.Context(), f)) {
				for i, id := range all {
					if run.ID == id {
						ids = append(ids, i)
					}
				}
			}
			return ids
		}
		key := func(name string) conveyor.Key { return conveyor.Key{Type: "r", Name: name} }
		for _, c := range []struct {
			name   string
			filter conveyor.RunFilter
			want   []int
		}{
			{"all", conveyor.RunFilter{}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
			{"newest first", conveyor.RunFilter{Newest: true, Limit: 3}, []int{16, 15, 14}},
			{"of a resource", conveyor.RunFilter{Resource: key("b")}, []int{1, 4, 7, 10, 13}},
			{"of a resource that begins like others", conveyor.RunFilter{Resource: key("ba")}, nil},
			{"of a resource, the newest", conveyor.RunFilter{Resource: key("b"), Newest: true, Limit: 2}, []int{13, 10}},
			{"of a resource, next page", conveyor.RunFilter{Resource: key("b"), Newest: true, Limit: 2, After: all[10]}, []int{7, 4}},
			{"after one", conveyor.RunFilter{After: all[13]}, []int{14, 15, 16}},
			{"of a pipeline", conveyor.RunFilter{Pipeline: "q"}, []int{15, 16}},
			{"in a state", conveyor.RunFilter{States: []conveyor.State{conveyor.StateFailed}}, []int{2, 5, 8, 11, 14}},
			{"in a state, limited", conveyor.RunFilter{States: []conveyor.State{conveyor.StateFailed}, Limit: 2}, []int{2, 5}},
			{"in one of two states", conveyor.RunFilter{States: []conveyor.State{conveyor.StateWaiting, conveyor.StateQueued}}, []int{15, 16}},
			{"unfinished", conveyor.RunFilter{Unfinished: true}, []int{15, 16}},
			{"unfinished of a resource", conveyor.RunFilter{Unfinished: true, Resource: key("a")}, nil},
			{"unfinished, next page", conveyor.RunFilter{Unfinished: true, After: all[15], Limit: 1}, []int{16}},
			{"of a resource and a pipeline", conveyor.RunFilter{Resource: key("w"), Pipeline: "p"}, nil},
		} {
			require.Equal(t, c.want, ids(c.filter), c.name)
		}
	})
}

func TestNothingIsStoredAfterARefusedApply(t *testing.T) {
	errMine := errors.New("not in my house")
	for _, c := range []struct {
		name  string
		apply func(e *rig.Engine) error
		is    error
		says  string
	}{
		{"an unknown pipeline", func(e *rig.Engine) error {
			o := rig.Object("a", 2)
			o.Pipeline = "nowhere"
			_, err := e.Apply(context.Background(), o)
			return err
		}, conveyor.ErrNotFound, `pipeline "nowhere"`},
		{"a pipeline for another type", func(e *rig.Engine) error {
			o := rig.Object("b", 2)
			o.Type = "other"
			_, err := e.Apply(context.Background(), o)
			return err
		}, conveyor.ErrInvalid, `"p" is for resources of type "r", not "other"`},
		{"an unknown field", func(e *rig.Engine) error {
			_, err := e.Apply(context.Background(), &withExtra{Meta: rig.Object("b", nil).Meta})
			return err
		}, conveyor.ErrInvalid, "extra"},
		{"a spec over the limit", func(e *rig.Engine) error {
			_, err := e.Apply(context.Background(), rig.Object("a", strings.Repeat("x", 1<<20)))
			return err
		}, conveyor.ErrTooLarge, "1048576"},
		{"a stale version", func(e *rig.Engine) error {
			o := rig.Object("a", 2)
			o.Version = 9
			_, err := e.Apply(context.Background(), o)
			return err
		}, conveyor.ErrConflict, "version 9"},
		{"a create of what exists", func(e *rig.Engine) error {
			_, err := e.Create(context.Background(), rig.Object("a", 2))
			return err
		}, conveyor.ErrExists, "r/a"},
		{"a resource that the program refuses", func(e *rig.Engine) error {
			_, err := e.Apply(context.Background(), rig.Object("forbidden", 2))
			return err
		}, errMine, "r/forbidden"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Validate: func(_ context.Context, o *conveyor.Object) error {
					if o.Name == "forbidden" {
						return errMine
					}
					copy(o.Spec, "!!!!!!!!") // it is a copy
					return nil
				}}).MustStart()
				d := new(rig.Recorder)
				e.Driver("d", d)
				e.Pipeline("d")
				e.Finish(rig.Object("a", 1))
				before := rig.Dump(t, e.Store)
				err := c.apply(e)
				require.ErrorIs(t, err, c.is)
				require.ErrorContains(t, err, c.says)
				synctest.Wait()
				require.Equal(t, before, rig.Dump(t, e.Store))
				require.Len(t, d.All(), 1)
				require.Equal(t, "1", d.Last().Spec)
			})
		})
	}
}

type withExtra struct {
	conveyor.Meta
	Spec  int `json:"spec"`
	Extra int `json:"extra"`
}

func TestResourcesOfTheProgramsOwnType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type build struct {
			conveyor.Meta
			Spec struct{ Repository, Image string } `json:"spec"`
		}
		e := rig.New(t, conveyor.Options{}).MustStart()
		var saw build
		e.Driver("d", conveyor.For(func(_ context.Context, _ *conveyor.Request, b *build) (conveyor.Result, error) {
			saw = *b
			return conveyor.Done(), nil
		}))
		e.Pipeline("d")
		b := &build{Meta: rig.Object("a", nil).Meta}
		b.Spec.Repository = "git"
		require.NoError(t, e.Finish(b).Err())
		require.Equal(t, b.Spec, saw.Spec)
		require.Equal(t, b.Key(), saw.Key())
		require.EqualValues(t, 1, b.Version)

		read := new(build)
		require.NoError(t, e.MustGet(b).Decode(read))
		require.Equal(t, b.Spec, read.Spec)
		require.Equal(t, conveyor.StateSucceeded, read.Status.Phase)

		run := e.Finish(rig.Object("broken", 7))
		require.ErrorIs(t, run.Err(), conveyor.ErrInvalid, "what does not fit its type fails for good")
		require.Equal(t, 1, run.Steps[0].Attempt)
	})
}

func TestPipelinesAreSavedListedAndDeleted(t *testing.T) {
	e := rig.New(t, conveyor.Options{})
	p := rig.PipelineOf("d", "d")
	p.Description, p.Version, p.Metadata = "text", "v1", map[string]string{"a": "b"}
	p.Retry = &conveyor.RetryPolicy{MaxAttempts: 4}
	p.Steps[1] = conveyor.Step{ID: "second", Name: "The second", Driver: "e", With: []byte(`{"x":1}`), Timeout: conveyor.Duration(time.Second)}
	e.Save(p)
	before := rig.Dump(t, e.Store)
	e.Save(p)
	require.Equal(t, before, rig.Dump(t, e.Store), "saving what is saved changes nothing")
	found, err := e.GetPipeline(t.Context(), "p")
	require.NoError(t, err)
	p.Steps[0].ID = "1"
	require.Equal(t, p, found)
	e.PipelineNamed("q", "d")
	e.PipelineNamed("o", "d")
	var names []string
	for _, p := range rig.Drain(t, e.Pipelines(t.Context())) {
		names = append(names, p.Name)
	}
	require.Equal(t, []string{"o", "p", "q"}, names)
	require.NoError(t, e.DeletePipeline(t.Context(), "p"))
	require.ErrorIs(t, e.DeletePipeline(t.Context(), "p"), conveyor.ErrNotFound)
	_, err = e.GetPipeline(t.Context(), "p")
	require.ErrorIs(t, err, conveyor.ErrNotFound)
	_, err = e.Apply(t.Context(), rig.Object("a", 1))
	require.ErrorIs(t, err, conveyor.ErrNotFound)
	e.Save(p)
	e.MustApply(rig.Object("a", 1))
}

func TestWaitAnswersWhenTheRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Minute)))
		e.Pipeline("d")
		began := time.Now()
		run := e.MustApply(rig.Object("a", 1))
		short, cancel := context.WithTimeoutCause(t.Context(), time.Second, rig.ErrBoom)
		defer cancel()
		_, err := e.Wait(short, run.ID)
		require.ErrorIs(t, err, rig.ErrBoom)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				ended, err := e.Wait(t.Context(), run.ID)
				require.NoError(t, err)
				require.Equal(t, conveyor.StateSucceeded, ended.State)
				require.Equal(t, began.Add(time.Minute), time.Now())
				ended.Steps[0].Driver = "changed" // it is the caller's own
			})
		}
		wg.Wait()
		require.Equal(t, e.MustGetRun(run.ID), e.Ended(run.ID))
		require.Equal(t, "d", e.MustGetRun(run.ID).Steps[0].Driver)
		_, err = e.Wait(t.Context(), "nobody")
		require.ErrorIs(t, err, conveyor.ErrNotFound)
	})
}

func TestAResourceThatIsDeletedWhileItIsReadIsNotFound(t *testing.T) {
	key := rig.Object("x", nil).Key()
	for _, c := range []struct {
		name string
		read func(e *conveyor.Engine) error
		is   error
	}{
		{"get", func(e *conveyor.Engine) error {
			_, err := e.Get(t.Context(), key)
			return err
		}, conveyor.ErrNotFound},
		{"list", func(e *conveyor.Engine) error {
			for o, err := range e.List(t.Context(), conveyor.ResourceFilter{}) {
				return fmt.Errorf("listed %v: %w", o, err)
			}
			return nil
		}, nil},
		{"trigger", func(e *conveyor.Engine) error {
			_, err := e.Trigger(t.Context(), key)
			return err
		}, conveyor.ErrNotFound},
		{"delete", func(e *conveyor.Engine) error {
			_, err := e.Delete(t.Context(), key)
			return err
		}, conveyor.ErrNotFound},
		{"apply", func(e *conveyor.Engine) error {
			run, err := e.Apply(t.Context(), rig.Object("x", 1))
			if err == nil && run.Generation != 2 {
				err = fmt.Errorf("generation %d", run.Generation)
			}
			return err
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", new(rig.Recorder))
				e.Pipeline("d")
				e.Finish(rig.Object("x", 1))
				b := &rig.Probe{Store: e.Store}
				b.Before(rig.Once("rev/", func() {
					run, err := e.Delete(t.Context(), key)
					require.NoError(t, err)
					require.NoError(t, e.Ended(run.ID).Err())
				}))
				other, err := conveyor.New(b, conveyor.Options{})
				require.NoError(t, err)
				require.ErrorIs(t, c.read(other), c.is)
			})
		})
	}
}
