package conveyor

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/fair"
)

// announcer passes on what the engine has to say to the program's logger. A handler of it may be slow, block or panic, so
// it is called by a goroutine that is there while there is something to say, and by none that does the work.
type announcer struct {
	handler slog.Handler // nil for silence

	mu      sync.Mutex // guards what follows; not held while the handler is called
	lines   fair.Queue[slog.Record]
	dropped int
	idle    chan struct{} // closed when all is said, by the goroutine; nil while there is none
	left    bool          // finish has left it alone
}

// maxAnnounced bounds the lines that wait for a logger. More are counted.
const maxAnnounced = 1_000

func newAnnouncer(to *slog.Logger) *announcer {
	if to == nil {
		return new(announcer)
	}
	return &announcer{handler: to.Handler()}
}

func (a *announcer) Warn(message string, args ...any) { a.say(slog.LevelWarn, message, args) }

func (a *announcer) Error(message string, args ...any) { a.say(slog.LevelError, message, args) }

func (a *announcer) say(level slog.Level, message string, args []any) {
	if a.handler == nil {
		return
	}
	var caller [1]uintptr
	runtime.Callers(3, caller[:])
	line := slog.NewRecord(time.Now(), level, message, caller[0])
	line.Add(args...)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lines.Len() == maxAnnounced {
		a.dropped++
		return
	}
	a.lines.Push(line)
	if a.idle == nil {
		a.idle = make(chan struct{})
		go a.tell()
	}
}

// tell says what there is to say.
func (a *announcer) tell() {
	over := false
	defer func() {
		if !over { // the handler ended this goroutine, and is told the rest in another one
			go a.tell()
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

func (a *announcer) next() (line slog.Record, ok bool) {
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

func (a *announcer) call(line slog.Record) {
	defer func() { _ = recover() }() // there is nobody to tell
	if ctx := context.Background(); a.handler.Enabled(ctx, line.Level) {
		_ = a.handler.Handle(ctx, line)
	}
}

// finish waits until all is said, at most so long.
func (a *announcer) finish(until context.Context) {
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
