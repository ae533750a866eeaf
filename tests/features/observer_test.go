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
)

// onlooker is an observer that keeps what it was told, after an action of its own.
type onlooker struct {
	act func(ctx context.Context, e conveyor.Event)

	mu     sync.Mutex
	events []conveyor.Event
}

func (w *onlooker) Observe(ctx context.Context, e conveyor.Event) {
	if w.act != nil {
		w.act(ctx, e)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *onlooker) all() []conveyor.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]conveyor.Event(nil), w.events...)
}

func TestObserverIsToldWhatWatchersAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(onlooker)
		e := rig.New(t, conveyor.Options{Observer: w}).MustStart()
		stream := e.Watch(t.Context(), conveyor.WatchOptions{})
		e.Driver("d", rig.DriverOf(rig.InTurn(rig.Always(conveyor.Done(), rig.ErrBoom), rig.Always(conveyor.Done(), nil))))
		e.Pipeline("d", "d")
		e.Finish(rig.Object("x", nil))
		e.Stop()
		var watched []conveyor.Event
		for event, err := range stream {
			if err == nil {
				watched = append(watched, event)
			}
		}
		require.Equal(t, watched, w.all(), "all of it, before Shutdown returns")
		require.NotEmpty(t, watched)
	})
}

func TestObserverThatIsSlowOrPanicsHoldsUpNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		act  func(ctx context.Context, e conveyor.Event)
		logs bool
	}{
		{"one that blocks", func(ctx context.Context, _ conveyor.Event) { <-ctx.Done() }, false},
		{"one that takes an hour", func(context.Context, conveyor.Event) { time.Sleep(time.Hour) }, false},
		{"one that panics", func(context.Context, conveyor.Event) { panic("ouch") }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out rig.Buffer
				e := rig.New(t, conveyor.Options{Observer: &onlooker{act: c.act}, Logger: slog.New(slog.NewTextHandler(&out, nil))}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
				e.Pipeline("d")
				began := time.Now()
				require.NoError(t, e.Finish(rig.Object("x", nil)).Err())
				require.Equal(t, time.Second, time.Since(began))
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				require.NoError(t, e.Shutdown(ctx))
				require.LessOrEqual(t, time.Since(began), 11*time.Second)
				time.Sleep(2 * time.Hour) // until it has returned
				require.Equal(t, c.logs, strings.Contains(out.String(), `msg="observer panicked" panic=string`))
			})
		})
	}
}

func TestObserverThatFallsBehindLearnsOfTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &onlooker{act: func(context.Context, conveyor.Event) { time.Sleep(time.Minute) }}
		e := rig.New(t, conveyor.Options{Observer: w, Limits: conveyor.Limits{WatchBuffer: 4}}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Pipeline("d", "d", "d")
		synctest.Wait()
		e.Finish(rig.Object("x", nil)) // far more than four events, while the first is looked at
		time.Sleep(time.Hour)
		events := w.all()
		require.Len(t, events, 6, "the first, the gap, and the four that are kept")
		require.Equal(t, conveyor.EventGap, events[1].Kind)
		require.Equal(t, conveyor.StateSucceeded, events[5].State)
	})
}

func TestObserverIsToldWhatIsRecordedDuringTheShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(onlooker)
		e := rig.New(t, conveyor.Options{Observer: w}).MustStart()
		stream := e.Watch(t.Context(), conveyor.WatchOptions{})
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.RequeueAfter(time.Hour), nil)))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("x", nil))
		synctest.Wait()
		e.Store.Refusing(func([]string) error {
			time.Sleep(time.Second) // the store is slow
			return nil
		})
		go func() { _ = e.Cancel(t.Context(), run.ID, "not needed") }()
		time.Sleep(time.Millisecond)
		e.Stop()
		require.Equal(t, conveyor.StateCanceled, e.MustGetRun(run.ID).State)
		all := w.all()
		require.Equal(t, conveyor.StateCanceled, all[len(all)-1].State)
		var last conveyor.Event
		for event, err := range stream {
			if err != nil {
				require.ErrorIs(t, err, conveyor.ErrClosed)
				break
			}
			last = event
		}
		require.Equal(t, conveyor.StateCanceled, last.State)
	})
}
