package asynclog

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// handler keeps the lines that it gets. Before that, it calls before.
type handler struct {
	slog.Handler
	before func(line int)

	mu    sync.Mutex // guards lines
	lines []slog.Record
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	h.lines = append(h.lines, r)
	n := len(h.lines)
	h.mu.Unlock()
	if h.before != nil {
		h.before(n)
	}
	return nil
}

// messages returns the messages of the lines.
func (h *handler) messages() (messages []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.lines {
		messages = append(messages, r.Message)
	}
	return messages
}

func numbered(from, to int) (lines []string) {
	for i := from; i <= to; i++ {
		lines = append(lines, fmt.Sprint(i))
	}
	return lines
}

func TestLinesComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &handler{}
		l := New(slog.New(h))
		for i := range 100 {
			l.Warn(fmt.Sprint(i+1), "n", i)
		}
		l.Error("101", "n", 100)
		l.Finish(t.Context())
		require.Equal(t, numbered(1, 101), h.messages())
		require.Equal(t, slog.LevelWarn, h.lines[0].Level)
		require.Equal(t, slog.LevelError, h.lines[100].Level)
		h.lines[100].Attrs(func(a slog.Attr) bool { require.Equal(t, slog.Int("n", 100), a); return true })
		frame, _ := runtime.CallersFrames([]uintptr{h.lines[100].PC}).Next()
		require.Contains(t, frame.Function, "TestLinesComeInOrder")
	})
}

func TestAHandlerThatBlocksHoldsUpNobodyAndLosesCountedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		h := &handler{before: func(int) { <-block }}
		l := New(slog.New(h))
		l.Warn("1")
		synctest.Wait() // the handler has the first line
		for _, message := range numbered(2, maxWaiting+8) {
			l.Warn(message)
		}
		require.Equal(t, []string{"1"}, h.messages())

		start := time.Now()
		until, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l.Finish(until)
		require.Equal(t, time.Minute, time.Since(start))
		l.Finish(t.Context())
		require.Equal(t, time.Minute, time.Since(start), "the handler was given up, and is waited for")

		close(block)
		synctest.Wait()
		require.Equal(t, append(numbered(1, maxWaiting+1), "logger is too slow; lines are left out"), h.messages())
		last := h.lines[maxWaiting+1]
		require.Equal(t, slog.LevelWarn, last.Level)
		last.Attrs(func(a slog.Attr) bool { require.Equal(t, slog.Int("lines", 7), a); return true })

		l.Warn("later")
		synctest.Wait()
		require.Len(t, h.messages(), maxWaiting+3, "nothing more was dropped")
	})
}

func TestFinishWaitsForASlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &handler{before: func(int) { time.Sleep(time.Second) }}
		l := New(slog.New(h))
		for _, message := range numbered(1, 5) {
			l.Warn(message)
		}
		start := time.Now()
		l.Finish(t.Context())
		require.Equal(t, 5*time.Second, time.Since(start))
		require.Equal(t, numbered(1, 5), h.messages())
		l.Finish(t.Context())
		require.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestLinesGoOnAfterAHandlerThat(t *testing.T) {
	for _, c := range []struct {
		name string
		does func()
	}{
		{"panics", func() { panic("boom") }},
		{"panics with nil", func() { panic(nil) }},
		{"calls Goexit", runtime.Goexit},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &handler{before: func(n int) {
					if n%2 == 1 {
						c.does()
					}
				}}
				l := New(slog.New(h))
				for _, message := range numbered(1, 10) {
					l.Warn(message)
				}
				l.Finish(t.Context())
				require.Equal(t, numbered(1, 10), h.messages())
			})
		})
	}
}

func TestNothingIsPassedOnToSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := New(nil)
		silent.Error("lost")
		silent.Finish(t.Context())

		h := &handler{}
		l := New(slog.New(disabled{h}))
		l.Warn("lost")
		l.Finish(t.Context())
		require.Empty(t, h.messages())
	})
}

// disabled is a handler that wants no line.
type disabled struct{ slog.Handler }

func (disabled) Enabled(context.Context, slog.Level) bool { return false }

func TestLinesOfManyCallersAllArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &handler{}
		l := New(slog.New(h))
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for _, message := range numbered(1, 200) {
					l.Warn(message)
				}
			})
		}
		callers.Wait()
		l.Finish(t.Context())
		require.Len(t, h.messages(), 800)
	})
}
