package conveyor

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/store"
)

// LogLine is one line that a driver wrote to [Request.Log].
type LogLine struct {
	// Seq is the number of the line in the run, counted from 1. Seq grows from line to line, and no two lines have the
	// same one, so that a reader can continue with [LogOptions].After, also after a crash. After a crash of the process
	// during a call, the numbers continue from the next multiple of 2^40.
	Seq     int64      `json:"seq"`
	Time    time.Time  `json:"time"`
	Step    string     `json:"step"`
	Attempt int        `json:"attempt"`
	Level   slog.Level `json:"level"`
	Message string     `json:"message"`
	// Attrs are the attributes of the line as a JSON object, with groups nested. Attrs is empty if there are none.
	Attrs json.RawMessage `json:"attrs,omitempty"`
	// Dropped is 0 for a line that a driver wrote. Otherwise the line stands in the place of lines of the same step and
	// Dropped is their number: they are not kept, because the step has logged more than [Limits].LogLines, or faster than
	// the store could write. Seq, Time and Attempt are those of the last of them. The lines before and after it are
	// complete.
	Dropped int64 `json:"dropped,omitempty"`
}

// String returns the line in readable form: the level, the message, and the attributes as JSON.
func (l LogLine) String() string {
	if len(l.Attrs) == 0 {
		return l.Level.String() + " " + l.Message
	}
	return l.Level.String() + " " + l.Message + " " + string(l.Attrs)
}

// LogOptions selects log lines. The zero value selects all lines that are kept of a run.
type LogOptions struct {
	// Step, if set, selects the lines of one step, by its id.
	Step string
	// After selects the lines whose Seq is greater than After.
	After int64
	// Follow continues with the lines that are logged later, until the run ends.
	Follow bool
}

// Logs returns the lines that the drivers of a run wrote to [Request].Log, in order. Without Follow, the sequence
// ends after the newest line. With Follow, it ends when the run has ended.
//
// A line is readable as soon as it is logged. It is written to the store together with the outcome of its step, and
// in any case within a second. A crash loses the lines that were not yet written.
//
// Of a step that has logged more than [Limits].LogLines, the first lines and the newest lines are kept, and one line
// between them says how many were dropped (see [LogLine].Dropped). A reader that has got a line which is dropped later
// does not notice. A reader that comes later, or is slow, gets the line that stands for it.
//
// A driver can follow the log of the run of another resource. If that run cannot end before the call of the driver returns, the
// sequence ends with an [ErrConflict], as [Engine.Wait] does.
//
// The sequence ends with an error as its last element if there is no such run ([ErrNotFound]), if the store fails, if
// ctx ends (the cause of ctx), or if the engine is shut down while the sequence follows the run ([ErrClosed]). A run whose
// end a sequence has waited for is not removed (see [Retention]) before the sequence has ended. If the run is removed
// while its log is read, the sequence ends with ErrNotFound.
func (e *Engine) Logs(ctx context.Context, runID string, o LogOptions) iter.Seq2[LogLine, error] {
	return func(yield func(LogLine, error) bool) {
		if err := e.followLog(ctx, runID, o, func(l record.LogLine) bool { return yield(LogLine(l), nil) }); err != nil {
			yield(LogLine{}, err)
		}
	}
}

// followLog yields the lines of a run that o selects, in order, until yield returns false.
func (e *Engine) followLog(ctx context.Context, run string, o LogOptions, yield func(record.LogLine) bool) error {
	s := e.sched
	t := s.followers.Follow(run)
	defer s.followers.Unfollow(run, t)
	var w *driverWait
	for last := o.After; ; {
		// The order of these reads matters, so that no line is missed. A line that is added after the call of News wakes
		// the select below. A run that has ended gets no more lines. Lines leave the memory only after they were written,
		// so a line that is not among the unwritten ones is found in the store.
		news := s.followers.News(t)
		rec, _, err := ledger.Load[record.Run](ctx, e.ledger, record.RunKey(run))
		if errors.Is(err, store.ErrNotFound) {
			return ledger.NoRun(run)
		}
		if err != nil {
			return err
		}
		unwritten := s.unwrittenLines(run)
		more := true
		pass := func(l record.LogLine) {
			if l.Seq <= last || !more {
				return
			}
			last = l.Seq
			if o.Step == "" || o.Step == l.Step {
				more = yield(l)
			}
		}
		if err := e.ledger.Log(ctx, run, last, pass); err != nil {
			return err
		}
		for _, l := range unwritten {
			pass(l)
		}
		if !more {
			return nil
		}
		if rec.State.Final() {
			return stillThere(ctx, e.ledger, run) // what Retention removes begins with the record of the run
		}
		if !o.Follow {
			return nil
		}
		if w == nil {
			if w, err = s.enterWait(ctx, run); err != nil {
				return err
			}
			defer w.leave()
		}
		select {
		case <-news:
		case <-s.fleet.nextLook():
		case <-w.again():
			if err := w.check(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return ErrClosed
		}
	}
}

// stillThere returns nil if the record of a run that has ended is there, so that everything that was read of the run was
// there, and an ErrNotFound otherwise.
func stillThere(ctx context.Context, l *ledger.Ledger, run string) error {
	_, err := l.Store.Get(ctx, record.RunKey(run))
	if errors.Is(err, store.ErrNotFound) {
		err = ledger.NoRun(run)
	}
	return err
}

// unwrittenLines returns the lines of a run that are in memory and may not be in the store.
func (s *scheduler) unwrittenLines(run string) []record.LogLine {
	t := s.pool.Find(run)
	if t == nil {
		return nil
	}
	r := t.Owner
	log := r.openLog()
	if log == nil {
		return nil
	}
	return log.Unwritten()
}

// openLog returns the log of a run that is in memory, and nil otherwise.
func (r *runner) openLog() *runlog.Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loaded == nil {
		return nil
	}
	return r.log
}

// logPatience is the longest time for which a driver waits for the store to write log lines.
const logPatience = time.Second

// Keep adds a line to the log of the run, unless the attempt has ended. If the store does not write the lines as fast as
// the driver logs them, Keep waits. It does not wait once the context of the attempt has ended, or while the store has not
// written any lines of the run for logPatience.
func (a *attempt) Keep(line record.LogLine) {
	r, s := a.runner, a.sched
	log := r.openLog()
	if log == nil {
		return
	}
	for force := false; ; {
		var wait <-chan struct{}
		full := false
		// The line is added with the lock of the call held. An outcome is recorded after the call has ended, together with
		// all lines of the call. A line that was added later would be lost, and its number would be given to another line.
		if !a.WhileRunning(func() { wait, full = log.Add(line, force) }) {
			return
		}
		s.flusher.add(log, full)
		if wait == nil {
			break
		}
		force = !a.waitForRoom(log, wait)
	}
	s.followers.Wake(r.ID)
}

// waitForRoom waits until lines were written. It returns false if the caller must wait no more.
func (a *attempt) waitForRoom(log *runlog.Log, written <-chan struct{}) bool {
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case <-written:
		return true
	case <-timer.C:
		log.GiveUp()
	case <-a.Context().Done():
	case <-a.sched.stopRetrying:
	}
	return false
}

// Host returns the handler of the engine's logger, with attributes that name the attempt. It returns nil if the engine
// has no logger.
func (a *attempt) Host() slog.Handler {
	to := a.sched.opts.Logger
	if to == nil {
		return nil
	}
	return to.Handler().WithAttrs([]slog.Attr{
		slog.String("resource", a.runner.Key.String()), slog.String("run", a.runner.ID),
		slog.String("step", a.step.ID), slog.String("driver", a.step.Driver), slog.Int("attempt", a.number),
	})
}

// logFlush is the longest time that a line stays in memory before it is written. A line is written earlier if an
// outcome of its run is recorded.
const logFlush = time.Second

// flusher arranges that log lines are written if no outcome of their run is recorded soon.
type flusher struct {
	sched *scheduler
	alarm alarm // rings when lines must be written

	mu   sync.Mutex              // guards logs
	logs map[*runlog.Log]*runner // logs with lines that are not written
}

func (f *flusher) init(s *scheduler) {
	f.sched, f.logs = s, map[*runlog.Log]*runner{}
	f.alarm.work, f.alarm.start = f.flush, s.background.Go
}

// add arranges that the lines of a log are written: at once if the log is full, and otherwise within logFlush.
func (f *flusher) add(log *runlog.Log, full bool) {
	f.mu.Lock()
	// The pool is asked with the lock held. If the run is dropped after this, drop calls forget for the log.
	t := f.sched.pool.Find(log.Run)
	if t != nil {
		f.logs[log] = t.Owner
	}
	f.mu.Unlock()
	switch {
	case t == nil:
	case full:
		f.alarm.set(time.Now())
	default:
		f.alarm.set(time.Now().Add(logFlush))
	}
}

// forget is the reverse of add.
func (f *flusher) forget(log *runlog.Log) {
	f.mu.Lock()
	delete(f.logs, log)
	f.mu.Unlock()
}

// flushers is the number of runs whose lines are written at the same time. A store can write them together.
const flushers = 32

// flush writes all lines that are not written.
func (f *flusher) flush() {
	f.mu.Lock()
	logs := slices.Collect(maps.Values(f.logs))
	clear(f.logs)
	f.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(flushers)
	for _, r := range logs {
		g.Go(func() error {
			f.sched.drive(r, message{}, false)
			return nil
		})
	}
	_ = g.Wait() // all return nil
}
