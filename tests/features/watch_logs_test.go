package features_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// watcher collects events until the sequence ends.
type watcher struct {
	wg     sync.WaitGroup
	events []conveyor.Event
	err    error
}

// watch begins where the stream is now.
func watch(ctx context.Context, r *rig.Engine, o conveyor.WatchOptions) *watcher {
	w := new(watcher)
	events := r.Watch(ctx, o)
	w.wg.Go(func() {
		for event, err := range events {
			if err != nil {
				w.err = err
				return
			}
			w.events = append(w.events, event)
		}
	})
	return w
}

func (w *watcher) told() (told []string) {
	for _, e := range w.events {
		text := fmt.Sprint(e.Kind, " ", cmp.Or(e.Resource.Name, e.Pipeline))
		if e.Step != "" {
			text += fmt.Sprint(" step ", e.Step, "/", e.Attempt)
		}
		if e.State != conveyor.StateUnset {
			text += " " + e.State.String()
		}
		told = append(told, text)
	}
	return told
}

func TestWatchTellsWhatHappenedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("a", rig.DriverOf(rig.InTurn(rig.Taking(time.Second), rig.Always(conveyor.Done(), rig.ErrBoom), rig.Always(conveyor.RequeueAfter(time.Second), nil), rig.Always(conveyor.Done(), nil))))
		w := watch(t.Context(), e, conveyor.WatchOptions{})
		e.Pipeline("a", "a", "late")
		run := e.MustApply(rig.Object("x", 1))
		queued := e.MustApply(rig.Object("x", 2))
		require.NoError(t, e.Cancel(t.Context(), queued.ID, "no"))
		time.Sleep(time.Minute)
		e.Driver("late", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom))))
		e.Ended(run.ID)
		require.NoError(t, e.DeletePipeline(t.Context(), "p"))
		e.Stop()
		w.wg.Wait()
		require.ErrorIs(t, w.err, conveyor.ErrClosed)
		require.Equal(t, []string{
			"pipeline p",
			"resource x", "run x running", "step x step 1/1 running",
			"resource x", "run x queued", "run x canceled",
			"step x step 1/1 succeeded", "step x step 2/1 running",
			"step x step 2/1 retrying", "step x step 2/2 running", "step x step 2/2 waiting", "step x step 2/2 running",
			"step x step 2/2 succeeded", "step x step 3/0 blocked",
			"step x step 3/1 running", "step x step 3/1 failed", "run x failed",
			"pipeline p",
		}, w.told())
		seen := map[conveyor.Cursor]bool{}
		for i, event := range w.events {
			seen[event.Cursor] = true
			require.False(t, event.Time.Before(w.events[max(i-1, 0)].Time))
		}
		require.Len(t, seen, len(w.events))
	})
}

func TestWatchSelectsByResourceAndByRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Pipeline("d", "d")
		ofA := watch(t.Context(), e, conveyor.WatchOptions{Resource: conveyor.Key{Type: "r", Name: "a"}})
		ofNone := watch(t.Context(), e, conveyor.WatchOptions{Resource: conveyor.Key{Type: "r", Name: "c"}})
		a, b := e.MustApply(rig.Object("a", 1)), e.MustApply(rig.Object("b", 1))
		ofB := watch(t.Context(), e, conveyor.WatchOptions{Run: b.ID})
		both := watch(t.Context(), e, conveyor.WatchOptions{Run: b.ID, Resource: a.Resource})
		e.Ended(a.ID)
		e.Finish(rig.Object("a", 2))
		e.Finish(rig.Object("b", 2))
		e.Stop()
		for _, w := range []*watcher{ofA, ofNone, ofB, both} {
			w.wg.Wait()
			require.ErrorIs(t, w.err, conveyor.ErrClosed)
		}
		once := []string{"resource a", "run a running", "step a step 1/1 running", "step a step 1/1 succeeded", "step a step 2/1 running", "step a step 2/1 succeeded", "run a succeeded"}
		require.Equal(t, append(once, once...), ofA.told())
		require.Equal(t, []string{"step b step 1/1 succeeded", "step b step 2/1 running", "step b step 2/1 succeeded", "run b succeeded"}, ofB.told())
		require.Empty(t, ofNone.events)
		require.Empty(t, both.events)
	})
}

func TestWatchGoesOnAfterACursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		all := watch(t.Context(), e, conveyor.WatchOptions{})
		e.Pipeline("d", "d", "d")
		e.Finish(rig.Object("a", 1))
		synctest.Wait()
		var rest []*watcher
		for _, event := range append([]conveyor.Event(nil), all.events...) {
			rest = append(rest, watch(t.Context(), e, conveyor.WatchOptions{Since: event.Cursor}))
		}
		e.Finish(rig.Object("a", 2))
		e.Stop()
		all.wg.Wait()
		for i, w := range rest {
			w.wg.Wait()
			require.Equal(t, all.events[i+1:], w.events)
		}
		other := rig.New(t, conveyor.Options{})
		w := watch(t.Context(), other, conveyor.WatchOptions{Since: all.events[0].Cursor})
		w.wg.Wait()
		require.ErrorIs(t, w.err, conveyor.ErrGap, "a cursor means nothing to another engine")
	})
}

func TestWatchTakesItsPlaceWhenItIsCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		events := e.Watch(t.Context(), conveyor.WatchOptions{})
		e.Pipeline("d")
		for event, err := range events {
			require.NoError(t, err)
			require.Equal(t, "p", event.Pipeline)
			break
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		w := watch(ctx, e, conveyor.WatchOptions{})
		synctest.Wait()
		cancel(rig.ErrBoom)
		w.wg.Wait()
		require.ErrorIs(t, w.err, rig.ErrBoom)
	})
}

func TestWatchNeverLeavesEventsOutSilently(t *testing.T) {
	for _, c := range []struct {
		behind int
		got    int
		err    error
	}{
		{7, 7, conveyor.ErrClosed},
		{8, 8, conveyor.ErrClosed},
		{9, 0, conveyor.ErrGap},
		{100, 0, conveyor.ErrGap},
	} {
		t.Run(fmt.Sprint(c.behind, " events behind"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{WatchBuffer: 8}})
				slow := e.Watch(t.Context(), conveyor.WatchOptions{})
				quick := watch(t.Context(), e, conveyor.WatchOptions{})
				for i := range c.behind {
					e.PipelineNamed(fmt.Sprint("p", i), "d")
					synctest.Wait()
				}
				e.Stop()
				quick.wg.Wait()
				require.Len(t, quick.events, c.behind, "one that keeps up misses nothing")
				n := 0
				for event, err := range slow {
					if err != nil {
						require.ErrorIs(t, err, c.err)
						continue
					}
					require.Equal(t, fmt.Sprint("p", n), event.Pipeline)
					n++
				}
				require.Equal(t, c.got, n)
			})
		})
	}
}

func messages(lines []conveyor.LogLine) (texts []string) {
	for _, l := range lines {
		texts = append(texts, l.Message)
	}
	return texts
}

func TestLogsTwentyLinesWithinAMillisecondComeBackInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where no time passes between two lines
		e := rig.New(t, conveyor.Options{}).MustStart()
		var want []string
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 20 {
				line := fmt.Sprintf("%s line %d", req.Step.ID, i)
				want = append(want, line)
				req.Log.Log(ctx, slog.Level(i-10), line)
			}
			return conveyor.Done(), nil
		}))
		e.Pipeline("d", "d")
		run := e.Finish(rig.Object("a", 1))
		lines := e.AllLogs(run.ID, conveyor.LogOptions{})
		require.Equal(t, want, messages(lines))
		for i, l := range lines {
			require.EqualValues(t, i+1, l.Seq)
			require.Equal(t, slog.Level(i%20-10), l.Level)
			require.True(t, l.Time.Equal(lines[0].Time))
			require.Equal(t, 1, l.Attempt)
		}
		require.Equal(t, want[20:], messages(e.AllLogs(run.ID, conveyor.LogOptions{Step: "2"})))
		require.Equal(t, want[25:], messages(e.AllLogs(run.ID, conveyor.LogOptions{After: 25})))
		require.Equal(t, want[20:], messages(e.AllLogs(run.ID, conveyor.LogOptions{After: 5, Step: "2", Follow: true})))
		require.Empty(t, e.AllLogs(run.ID, conveyor.LogOptions{After: 40}))
		require.Empty(t, e.AllLogs(run.ID, conveyor.LogOptions{Step: "3"}))
	})
}

func TestLogsOfManyAtOnceHaveEachLineOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		for i := range 5 {
			e.Driver(fmt.Sprint("d", i), rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				var wg sync.WaitGroup
				for k := range 4 {
					wg.Go(func() {
						for n := range 30 {
							req.Log.Info(fmt.Sprint(i, " ", k, " ", n))
							time.Sleep(300 * time.Millisecond)
						}
					})
				}
				wg.Wait()
				return conveyor.Done(), nil
			}), conveyor.Listen("k"))
		}
		run := e.MustApply(rig.Loose("k", "a", 1))
		followed := e.AllLogs(run.ID, conveyor.LogOptions{Follow: true})
		require.Len(t, followed, 5*4*30)
		require.Equal(t, followed, e.AllLogs(run.ID, conveyor.LogOptions{}))
		next := map[string]int{}
		for i, l := range followed {
			require.EqualValues(t, i+1, l.Seq)
			var d, k, n int
			_, err := fmt.Sscan(l.Message, &d, &k, &n)
			require.NoError(t, err)
			by := fmt.Sprint(d, k)
			require.Equal(t, next[by], n)
			next[by]++
		}
	})
}

func TestLogsFollowEndsWhenTheRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 3 {
				req.Log.Info(fmt.Sprint(req.Step.ID, " ", i))
				time.Sleep(700 * time.Millisecond)
			}
			req.Log.Info(req.Step.ID + " last words")
			return conveyor.Done(), nil
		}))
		e.Pipeline("d", "d")
		began := time.Now()
		run := e.MustApply(rig.Object("a", 1))
		var got []string
		for line, err := range e.Logs(t.Context(), run.ID, conveyor.LogOptions{Follow: true}) {
			require.NoError(t, err)
			require.Equal(t, line.Time, time.Now().UTC(), "a line is there as soon as it is logged")
			got = append(got, line.Message)
		}
		require.Equal(t, []string{"1 0", "1 1", "1 2", "1 last words", "2 0", "2 1", "2 2", "2 last words"}, got)
		require.Equal(t, 2*2100*time.Millisecond, time.Since(began))
		require.Len(t, e.AllLogs(run.ID, conveyor.LogOptions{Follow: true}), 8, "of a run that has ended")
	})
}

func TestLogsFollowEndsWithTheContextAndWithTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		follow := func(ctx context.Context) (err error) {
			for _, err = range e.Logs(ctx, run.ID, conveyor.LogOptions{Follow: true}) {
			}
			return err
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, rig.ErrBoom)
		defer cancel()
		require.ErrorIs(t, follow(ctx), rig.ErrBoom)
		var wg sync.WaitGroup
		wg.Go(func() { require.ErrorIs(t, follow(t.Context()), conveyor.ErrClosed) })
		synctest.Wait()
		e.Stop()
		wg.Wait()
	})
}

func TestLogsKeepAttributesAndGroups(t *testing.T) {
	for _, c := range []struct {
		name string
		log  func(l *slog.Logger)
		want string
	}{
		{"none", func(l *slog.Logger) { l.Info("m") }, ``},
		{"some", func(l *slog.Logger) { l.Info("m", "a", 1, "b", "x") }, `{"a":1,"b":"x"}`},
		{"of the logger", func(l *slog.Logger) { l.With("w", true).Info("m", "a", 1) }, `{"w":true,"a":1}`},
		{"of the logger alone", func(l *slog.Logger) { l.With("w", true).Info("m") }, `{"w":true}`},
		{"a group", func(l *slog.Logger) { l.Info("m", slog.Group("g", "a", 1)) }, `{"g":{"a":1}}`},
		{"groups of the logger", func(l *slog.Logger) { l.With("x", 0).WithGroup("g").With("y", 1).WithGroup("h").Info("m", "z", 2) }, `{"x":0,"g":{"y":1,"h":{"z":2}}}`},
		{"a group without any", func(l *slog.Logger) { l.WithGroup("g").Info("m") }, ``},
		{"an error and a duration", func(l *slog.Logger) { l.Info("m", "err", rig.ErrBoom, "d", time.Second) }, `{"err":"boom","d":1000000000}`},
		{"names that the line has itself", func(l *slog.Logger) { l.Info("m", "msg", 1, "time", 2, "level", 3) }, `{"msg":1,"time":2,"level":3}`},
		{"a value that cannot be written", func(l *slog.Logger) { l.Info("m", "c", make(chan int), "a", 1) }, `{"c":"!ERROR:json: unsupported type: chan int","a":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out rig.Buffer
				e := rig.New(t, conveyor.Options{Logger: slog.New(slog.NewTextHandler(&out, nil))}).MustStart()
				e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					c.log(req.Log)
					return conveyor.Done(), nil
				}))
				e.Pipeline("d")
				run := e.Finish(rig.Object("a", 1))
				lines := e.AllLogs(run.ID, conveyor.LogOptions{})
				require.Len(t, lines, 1)
				require.Equal(t, "m", lines[0].Message)
				require.Equal(t, c.want, string(lines[0].Attrs))
				for _, part := range []string{"msg=m", "resource=r/a", "run=" + run.ID, "step=1", "driver=d", "attempt=1"} {
					require.Contains(t, out.String(), part)
				}
			})
		})
	}
}

func TestLogsSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		speak := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info(fmt.Sprint("step ", req.Step.ID, " attempt ", req.Attempt, " resumed ", req.Resumed))
			if req.Attempt == 1 {
				return conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom)
			}
			return conveyor.Done(), nil
		}
		e.Driver("d", rig.DriverOf(speak))
		e.Pipeline("d", "d")
		run := e.MustApply(rig.Object("a", 1))
		time.Sleep(90 * time.Minute) // into the wait of the second step
		e = e.Reborn(conveyor.Options{})
		e.Driver("d", rig.DriverOf(speak))
		e.MustStart()
		e.Ended(run.ID)
		e = e.Reborn(conveyor.Options{})
		lines := e.AllLogs(run.ID, conveyor.LogOptions{})
		require.Equal(t, []string{
			"step 1 attempt 1 resumed false", "step 1 attempt 2 resumed false",
			"step 2 attempt 1 resumed false", "step 2 attempt 2 resumed false",
		}, messages(lines))
		for i := range lines[1:] {
			require.Greater(t, lines[i+1].Seq, lines[i].Seq)
		}
	})
}

func TestLogsOfACrashedAttemptAreKeptButForItsLastSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := 0; ctx.Err() == nil; i++ {
				req.Log.Info(fmt.Sprint("line ", i))
				time.Sleep(100 * time.Millisecond)
			}
			return conveyor.Done(), context.Cause(ctx)
		}))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		time.Sleep(10*time.Second + 50*time.Millisecond)
		e = e.Crashed(conveyor.Options{})
		kept := e.AllLogs(run.ID, conveyor.LogOptions{})
		require.GreaterOrEqual(t, len(kept), 90)
		for i, l := range kept {
			require.Equal(t, fmt.Sprint("line ", i), l.Message)
		}
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("back again")
			return conveyor.Done(), nil
		}))
		e.MustStart()
		e.Ended(run.ID)
		lines := e.AllLogs(run.ID, conveyor.LogOptions{})
		require.Equal(t, append(messages(kept), "back again"), messages(lines))
		require.Greater(t, lines[len(lines)-1].Seq, lines[len(lines)-2].Seq)
	})
}

func TestLogsAfterTheEndOfAnAttemptAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out rig.Buffer
		e := rig.New(t, conveyor.Options{Logger: slog.New(slog.NewTextHandler(&out, nil))}).MustStart()
		var late *slog.Logger
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			late = req.Log
			return conveyor.Done(), nil
		}))
		e.Driver("slow", rig.DriverOf(rig.Taking(time.Minute)))
		e.Pipeline("d", "slow")
		run := e.MustApply(rig.Object("a", 1))
		time.Sleep(time.Second)
		synctest.Wait()
		late.Info("after the step")
		e.Ended(run.ID)
		late.Info("after the run")
		e.Stop()
		late.Info("after the engine")
		require.Empty(t, e.AllLogs(run.ID, conveyor.LogOptions{}))
		require.Equal(t, 3, strings.Count(out.String(), "msg=\"after the "))
	})
}

func TestLogsOfAStoreThatFailsWaitUntilItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 100 {
				req.Log.Info(fmt.Sprint(i))
				time.Sleep(100 * time.Millisecond)
			}
			return conveyor.Done(), nil
		}))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		began := time.Now()
		e.Store.Refusing(func([]string) error {
			if time.Since(began) < time.Minute {
				return errors.New("disk on fire")
			}
			return nil
		})
		require.Len(t, e.AllLogs(run.ID, conveyor.LogOptions{Follow: true}), 100)
		require.NoError(t, e.Ended(run.ID).Err())
		require.Len(t, e.AllLogs(run.ID, conveyor.LogOptions{}), 100)
	})
}
