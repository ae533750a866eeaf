package engines_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
)

// letters are the options of an engine that applies letters.
var letters = conveyor.Options{Letters: true}

// write writes a letter as a program does that has no engine, and returns its id.
func (f *fleet) write(ctx context.Context, r conveyor.Resource, opts conveyor.LetterOptions) string {
	f.Helper()
	id, put, err := conveyor.NewLetter(ctx, r, opts)
	require.NoError(f, err)
	_, err = f.disk.Commit(f.Context(), put)
	require.NoError(f, err)
	return id
}

// answered waits until a letter is answered.
func (f *fleet) answered(e *rig.Engine, id string) *conveyor.Letter {
	f.Helper()
	for range 200 {
		l, err := e.Letter(f.Context(), id)
		require.NoError(f, err)
		if !l.AnsweredAt.IsZero() {
			return l
		}
		time.Sleep(10 * time.Minute)
	}
	require.Fail(f, "the letter is not answered")
	return nil
}

func TestEngines15ALetterIsAppliedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		d := new(rig.Recorder)
		opts := letters
		opts.Carry = func(context.Context) map[string]string { return map[string]string{"of": "the engine"} }
		first, second := f.engine(opts, map[string]conveyor.Driver{"d": d}), f.engine(opts, nil)
		first.Pipeline("d")
		after(time.Minute)
		ids := map[string]string{}
		began := time.Now()
		for i := range 100 {
			name := fmt.Sprint("r", i)
			ctx := conveyor.As(t.Context(), "somebody")
			ids[name] = f.write(ctx, rig.Object(name, 1), conveyor.LetterOptions{Carried: map[string]string{"trace": name}})
		}
		after(time.Second)
		for name, id := range ids {
			l := f.answered(second, id)
			require.NoError(t, l.Err)
			run := first.Ended(l.Run)
			require.NoError(t, run.Err())
			require.Equal(t, "somebody", run.By)
			require.Equal(t, map[string]string{"trace": name}, run.Carried)
			require.Equal(t, name, run.Resource.Name)
			require.Equal(t, run.Resource, l.Resource)
			require.Equal(t, "somebody", l.By)
		}
		require.Less(t, time.Since(began), 5*time.Second, "it is told, and not only found")
		require.Len(t, d.All(), 100)
		rig.RequireAtRest(t, f.disk)
	})
}

func TestEngines15ALetterThatComesAgainDoesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		d := new(rig.Recorder)
		e := f.engine(letters, map[string]conveyor.Driver{"d": d})
		e.Pipeline("d")
		id := f.write(t.Context(), rig.Object("a", 1), conveyor.LetterOptions{ID: "once"})
		require.Equal(t, "once", id)
		before := f.answered(e, id)
		newer := e.Finish(rig.Object("a", 2))
		f.write(t.Context(), rig.Object("a", 1), conveyor.LetterOptions{ID: "once"})
		after(time.Hour)
		require.Equal(t, before, f.answered(e, id))
		now, err := e.Get(t.Context(), newer.Resource)
		require.NoError(t, err)
		require.Equal(t, newer.ID, now.Status.Run, "the newer spec is not turned back")
		require.Len(t, d.All(), 2)
	})
}

func TestEngines15TheOldestLetterOfAResourceGoesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		d := new(rig.Recorder)
		pure := rig.NewOn(t, f.disk.Join(), conveyor.Options{})
		p := rig.PipelineOf("d")
		p.OnChange = conveyor.Queue
		pure.Save(p)
		for i := range 20 {
			f.write(t.Context(), rig.Object("a", i), conveyor.LetterOptions{ID: fmt.Sprintf("z%02d", 20-i)}) // the ids go the other way
			time.Sleep(time.Second)
		}
		f.engine(letters, map[string]conveyor.Driver{"d": d})
		f.engine(letters, map[string]conveyor.Driver{"d": d})
		after(10 * time.Minute)
		require.Len(t, d.All(), 20)
		for i, c := range d.All() {
			require.JSONEq(t, string(rig.Object("a", i).Spec), c.Spec)
		}
	})
}

// TestEngines15WhatBecomesOfALetter has letters that cannot be applied now, or never.
func TestEngines15WhatBecomesOfALetter(t *testing.T) {
	withMetadata := rig.Object("known", 1)
	withMetadata.Metadata = map[string]string{"a": "b"}
	for name, c := range map[string]struct {
		letter *conveyor.Object
		of     int64                             // the version that the letter names
		waits  bool                              // after an hour
		mend   func(t *testing.T, e *rig.Engine) // after an hour
		says   string                            // empty if it is applied
		is     error
	}{
		"a panic of Validate":            {letter: rig.Object("panics", 1), says: "Validate panicked: oh"},
		"a passing error of Validate":    {letter: rig.Object("later", 1), waits: true, says: "context deadline exceeded", is: context.DeadlineExceeded},
		"refused by Validate":            {letter: rig.Object("bad", 1), says: "bad is not to my taste"},
		"a version that is not so":       {letter: rig.Object("known", 2), of: 7, says: "version 7 was given", is: conveyor.ErrConflict},
		"a version of nothing":           {letter: rig.Object("new", 2), of: 7, says: "there is no such resource", is: conveyor.ErrConflict},
		"a version that is so":           {letter: rig.Object("known", 2), of: 1},
		"no change":                      {letter: rig.Object("known", 1)},
		"a change of the metadata":       {letter: withMetadata},
		"a pipeline that is never saved": {letter: rig.Along("q", "x"), waits: true, says: `pipeline "q"`, is: conveyor.ErrNotFound},
		"a pipeline that is saved later": {letter: rig.Along("q", "x"), waits: true, mend: func(_ *testing.T, e *rig.Engine) { e.Save(rig.Named("q", rig.PipelineOf("d"))) }},
		"a pipeline of another type":     {letter: rig.Along("other", "x"), says: `is for resources of type "another"`, is: conveyor.ErrInvalid},
		"a resource that is being deleted": {letter: rig.Along("p", "going"), waits: true, mend: func(t *testing.T, e *rig.Engine) {
			e.Driver("tidy", &rig.Undoer{Recorder: new(rig.Recorder), Undo: new(rig.Recorder)})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fleet) {
				opts := letters
				opts.Validate = func(_ context.Context, o *conveyor.Object) error {
					switch o.Name {
					case "bad":
						return errors.New("bad is not to my taste")
					case "later":
						return fmt.Errorf("the list: %w", context.DeadlineExceeded)
					case "panics":
						panic("oh")
					}
					return nil
				}
				e := f.engine(opts, map[string]conveyor.Driver{"d": new(rig.Recorder)})
				e.Pipeline("d")
				other := rig.Named("other", rig.PipelineOf("d"))
				other.Resource = "another"
				e.Save(other)
				known := e.Finish(rig.Object("known", 1))
				if c.letter.Name == "going" {
					gone := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"tidy": &rig.Undoer{Recorder: new(rig.Recorder), Undo: new(rig.Recorder)}})
					e.Save(rig.Named("tidied", rig.PipelineOf("tidy")))
					e.Finish(rig.Along("tidied", "going"))
					gone.Stop()
					_, err := e.Delete(t.Context(), c.letter.Key())
					require.NoError(t, err)
				}
				letter := c.letter.Clone()
				letter.Version = c.of
				id := f.write(t.Context(), letter, conveyor.LetterOptions{})
				after(time.Hour)
				l, err := e.Letter(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, c.waits, l.AnsweredAt.IsZero(), "%+v", l)
				if c.mend != nil {
					c.mend(t, e)
				}
				if l = f.answered(e, id); c.says == "" {
					require.NoError(t, l.Err)
					require.NoError(t, e.Ended(l.Run).Err())
					require.Equal(t, c.letter.Name == "known" && c.of == 0, l.Run == known.ID, "a run only if one is needed")
				} else {
					require.ErrorContains(t, l.Err, c.says)
					require.Empty(t, l.Run)
					if c.is != nil {
						require.ErrorIs(t, l.Err, c.is)
					}
				}
				n := 0
				for listed, err := range e.Letters(t.Context()) {
					require.NoError(t, err)
					require.Equal(t, l, listed)
					n++
				}
				require.Equal(t, 1, n)
				rig.RequireAtRest(t, f.disk)
			})
		})
	}
}

func TestEngines15AnEngineThatDoesNotApplyLettersLeavesThem(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		e := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"d": new(rig.Recorder)})
		e.Pipeline("d")
		id := f.write(t.Context(), rig.Object("a", 1), conveyor.LetterOptions{})
		after(time.Hour)
		l, err := e.Letter(t.Context(), id)
		require.NoError(t, err)
		require.Zero(t, l.AnsweredAt)
		f.engine(letters, nil)
		require.NoError(t, f.answered(e, id).Err)
		for _, unknown := range []string{"another", "no/name", ""} {
			_, err = e.Letter(t.Context(), unknown)
			require.ErrorIs(t, err, conveyor.ErrNotFound)
		}
	})
}

func TestEngines15ALetterThatCannotBeReadIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		e := f.engine(letters, map[string]conveyor.Driver{"d": new(rig.Recorder)})
		e.Pipeline("d")
		_, err := f.disk.Commit(t.Context(), store.Put("~let/damaged", []byte("{")))
		require.NoError(t, err)
		id := f.write(t.Context(), rig.Object("a", 1), conveyor.LetterOptions{})
		require.NoError(t, f.answered(e, id).Err)
		require.ErrorIs(t, f.answered(e, "damaged").Err, store.ErrCorrupt)
	})
}

// TestEngines15ALetterSurvivesADeathAtEachCommit has the commits of the engine that applies letters go wrong, each of them once in each
// way.
func TestEngines15ALetterSurvivesADeathAtEachCommit(t *testing.T) {
	for _, how := range []fault{diesBefore, diesAfter, unknownUndone, unknownDone, unknownLater, refused} {
		first, stride := places(t, 4, how)
		for n := first; ; n += stride {
			reached := false
			inWorld(t, func(t *testing.T, w *world) {
				drivers := map[string]rig.Func{"d": quick}
				other := w.begin("other", drivers)
				other.mustSave(rig.PipelineOf("d"))
				struck := w.start("struck", conveyor.Options{Letters: true}, drivers, func(_ *process, i int) fault {
					if i == n {
						reached = true
						return how
					}
					return fine
				})
				var ids []string
				for i, r := range []*conveyor.Object{rig.Object("x", 1), rig.Object("y", 1), rig.Object("x", 2)} {
					id, put, err := conveyor.NewLetter(t.Context(), r, conveyor.LetterOptions{ID: fmt.Sprint("letter", i)})
					require.NoError(t, err)
					_, err = w.disk.Commit(t.Context(), put)
					require.NoError(t, err)
					ids = append(ids, id)
					time.Sleep(10 * time.Millisecond)
				}
				time.Sleep(5 * lease)
				again := w.start("again", conveyor.Options{Letters: true}, drivers, nil)
				w.settle(func() {})
				time.Sleep(10 * lease)
				w.settle(func() {})
				for _, id := range ids {
					l, err := other.Letter(t.Context(), id)
					require.NoError(t, err)
					require.False(t, l.AnsweredAt.IsZero(), "%s at commit %d", how, n)
					require.NoError(t, l.Err)
					run, err := other.GetRun(t.Context(), l.Run)
					require.NoError(t, err)
					require.Equal(t, conveyor.StateSucceeded, run.State)
				}
				x, err := other.Get(t.Context(), rig.Object("x", 2).Key())
				require.NoError(t, err)
				require.JSONEq(t, string(rig.Object("x", 2).Spec), string(x.Spec), "%s at commit %d", how, n)
				require.LessOrEqual(t, x.Generation, int64(2), "each letter is applied once")
				for r := range w.disk.List(t.Context(), store.Query{Prefix: "~let/"}) {
					require.Fail(t, "a letter is left", r.Key)
				}
				require.NoError(t, again.stop())
				require.NoError(t, struck.stop())
			})
			if !reached {
				break
			}
			require.Less(t, n, 200)
		}
	}
}

func TestEngines15AnAnswerGoesWithItsRun(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		opts := letters
		opts.Retention = conveyor.Retention{Runs: 1, Age: 24 * time.Hour}
		e := f.engine(opts, map[string]conveyor.Driver{"d": new(rig.Recorder)})
		e.Pipeline("d")
		id := f.write(t.Context(), rig.Object("a", 1), conveyor.LetterOptions{})
		f.answered(e, id)
		late := rig.Object("a", 1)
		late.Version = 9
		no := f.write(t.Context(), late, conveyor.LetterOptions{})
		require.ErrorIs(t, f.answered(e, no).Err, conveyor.ErrConflict)
		e.Finish(rig.Object("a", 2))
		_, err := e.Letter(t.Context(), no)
		require.NoError(t, err)
		time.Sleep(49 * time.Hour)
		_, err = e.Prune(t.Context(), conveyor.PruneOptions{})
		require.NoError(t, err)
		for _, gone := range []string{id, no} {
			_, err = e.Letter(t.Context(), gone)
			require.ErrorIs(t, err, conveyor.ErrNotFound)
		}
	})
}

func TestEngines15ALetterHasLimits(t *testing.T) {
	long := make([]byte, 300)
	for name, c := range map[string]struct {
		r    conveyor.Resource
		o    conveyor.LetterOptions
		by   string
		says string
	}{
		"no resource":  {says: "resource is nil"},
		"no name":      {r: rig.Object("", 1), says: "name"},
		"an id":        {r: rig.Object("a", 1), o: conveyor.LetterOptions{ID: "a/b"}, says: "ID"},
		"a long id":    {r: rig.Object("a", 1), o: conveyor.LetterOptions{ID: string(long)}, says: "ID"},
		"what it has":  {r: rig.Object("a", 1), o: conveyor.LetterOptions{Carried: map[string]string{"\xff": ""}}, says: "Carried"},
		"much":         {r: rig.Object("a", 1), o: conveyor.LetterOptions{Carried: map[string]string{"a": string(make([]byte, 1<<20))}}, says: "Carried"},
		"an actor":     {r: rig.Object("a", 1), by: "conveyor", says: "actor"},
		"a limit":      {r: rig.Object("a", 1), o: conveyor.LetterOptions{Limits: conveyor.Limits{Document: -1}}, says: "Limits.Document"},
		"a large spec": {r: rig.Object("a", string(make([]byte, 1000))), o: conveyor.LetterOptions{Limits: conveyor.Limits{Spec: 100}}, says: "Limits.Spec"},
		"a pipeline":   {r: rig.Along("a/b", "a"), says: "pipeline"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := conveyor.NewLetter(conveyor.As(t.Context(), c.by), c.r, c.o)
			require.ErrorContains(t, err, c.says)
			require.True(t, errors.Is(err, conveyor.ErrInvalid) || errors.Is(err, conveyor.ErrTooLarge), err)
		})
	}
}

// TestEngines16WhatComesAndGoesHasOneFirstLetter looks at the keys of all that engines write while runs of many kinds come and go.
func TestEngines16WhatComesAndGoesHasOneFirstLetter(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		opts := letters
		opts.Workers = 1
		e := f.engine(opts, map[string]conveyor.Driver{"ask": rig.Recording(rig.Always(conveyor.Await("go", 0), nil)), "d": rig.Recording(rig.Taking(time.Hour))})
		p := rig.PipelineOf("d")
		p.OnChange, p.MaxRuns, p.Resync = conveyor.Queue, 1, conveyor.Duration(time.Hour)
		e.Save(p)
		e.Save(rig.Named("q", rig.PipelineOf("ask")))
		asked := e.MustApply(rig.Along("q", "asked"))
		after(time.Second)
		require.NoError(t, e.Signal(t.Context(), asked.ID, "other", 1))
		for i := range 3 {
			e.MustApply(rig.Object("a", i))
			e.MustApply(rig.Object(fmt.Sprint("b", i), i))
		}
		f.write(t.Context(), rig.Along("later", "c"), conveyor.LetterOptions{})
		seen := map[string]bool{}
		for range 40 {
			for r, err := range f.disk.List(t.Context(), store.Query{}) {
				require.NoError(t, err)
				kind, _, _ := strings.Cut(r.Key, "/")
				seen[kind] = true
			}
			after(20 * time.Minute)
		}
		require.Subset(t, slices.Collect(maps.Keys(seen)), []string{"~act", "~rdy", "~own", "~que", "~rsy", "~sig", "~slt", "~let", "~hbt", "run", "stp", "res", "rev", "pip", "eng"})
		for kind := range seen {
			require.NotContains(t, []string{"act", "rdy", "own", "ask", "que", "rsy", "sig", "slt", "let", "hbt"}, kind)
		}
	})
}
