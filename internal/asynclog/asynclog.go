// Package asynclog passes log lines to a slog handler and never waits for the handler. It must not know what is logged.
package asynclog

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/fair"
)

// Logger passes the engine's lines to the handler of the program's logger. The handler can be slow, block or panic.
// Therefore it is called by a goroutine of its own, which exists while there are lines, and never by a caller of Info,
// Warn or Error. A Logger is safe for concurrent use.
type Logger struct {
	handler slog.Handler // nil for silence

	mu      sync.Mutex // guards what follows; not held while the handler is called
	lines   fair.Queue[slog.Record]
	dropped int
	idle    chan struct{} // closed by the goroutine when no line is left; nil while there is no goroutine
	left    bool          // Finish no longer waits for the goroutine
}

// maxWaiting bounds the lines that wait for the handler. Further lines are dropped and counted.
const maxWaiting = 1_000

// Silent reports whether nothing is logged.
func (a *Logger) Silent() bool { return a.handler == nil }

// New returns a Logger that passes lines to the handler of to. A nil logger means silence.
func New(to *slog.Logger) *Logger {
	if to == nil {
		return new(Logger)
	}
	return &Logger{handler: to.Handler()}
}

// Info adds a line of level info. The arguments are those of [slog.Logger.Info].
func (a *Logger) Info(message string, args ...any) { a.add(slog.LevelInfo, message, args) }

// Warn adds a line of level warn. The arguments are those of [slog.Logger.Warn].
func (a *Logger) Warn(message string, args ...any) { a.add(slog.LevelWarn, message, args) }

// Error adds a line of level error. The arguments are those of [slog.Logger.Error].
func (a *Logger) Error(message string, args ...any) { a.add(slog.LevelError, message, args) }

// add adds a line, and starts the goroutine if there is none. If maxWaiting lines wait, it counts the line as dropped.
func (a *Logger) add(level slog.Level, message string, args []any) {
	if a.handler == nil {
		return
	}
	var caller [1]uintptr
	runtime.Callers(3, caller[:])
	line := slog.NewRecord(time.Now(), level, message, caller[0])
	line.Add(args...)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lines.Len() == maxWaiting {
		a.dropped++
		return
	}
	a.lines.Push(line)
	if a.idle == nil {
		a.idle = make(chan struct{})
		go a.drain()
	}
}

// drain passes lines to the handler until none is left.
func (a *Logger) drain() {
	over := false
	defer func() {
		if !over { // the handler called runtime.Goexit; another goroutine passes the remaining lines
			go a.drain()
		}
	}()
	for {
		line, ok := a.next()
		if !ok {
			over = true
			return
		}
		a.call(line)
	}
}

// next returns the next line for the handler. After the lines that wait, it returns a line with the number of the dropped
// ones. If no line is left, it marks the goroutine as ended and returns false.
func (a *Logger) next() (line slog.Record, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.lines.Len() > 0:
		line = a.lines.Pop()
	case a.dropped > 0:
		line = slog.NewRecord(time.Now(), slog.LevelWarn, "logger is too slow; lines are left out", 0)
		line.Add("lines", a.dropped)
		a.dropped = 0
	default:
		close(a.idle)
		a.idle = nil
		return line, false
	}
	return line, true
}

// call passes a line to the handler.
func (a *Logger) call(line slog.Record) {
	defer func() { _ = recover() }() // there is nowhere to report a panic of the handler
	if ctx := context.Background(); a.handler.Enabled(ctx, line.Level) {
		_ = a.handler.Handle(ctx, line)
	}
}

// Finish waits until no line is left or until has ended. If until ends first, the handler is given up: no later Finish
// waits for it.
func (a *Logger) Finish(until context.Context) {
	a.mu.Lock()
	idle, left := a.idle, a.left
	a.mu.Unlock()
	if idle == nil || left {
		return
	}
	select {
	case <-idle:
	case <-until.Done():
		a.mu.Lock()
		a.left = true
		a.mu.Unlock()
	}
}
