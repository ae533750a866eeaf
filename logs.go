package conveyor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// LogOptions selects log lines. The zero value selects all lines that are kept of a run.
type LogOptions struct {
	// Step, if set, selects the lines of one step, by its id.
	Step string
	// After selects the lines whose Seq is greater than After.
	After int64
	// Follow continues with the lines that are logged later, until the run ends.
	Follow bool
}

// logFlush is how long a line may wait in memory before it is written, when no outcome is recorded sooner.
const logFlush = time.Second

// logChunk bounds the bytes of lines that go into one record.
const logChunk = 1 << 20

// runLog collects the lines of one run until they are written. Lines are written along with a step's outcome, in its
// commit, and once a second besides.
type runLog struct {
	run string

	mu      sync.Mutex       // guards what follows; held for a copy
	seq     int64            // of the newest line
	pending []record.LogLine // not known to be written, in order of Seq
	size    int              // about the bytes of pending
	kept    map[string]int   // lines kept by step
}

// add keeps a line; it reports whether there was room and whether it is time to write.
func (l *runLog) add(line record.LogLine, limit int) (kept, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := l.kept[line.Step]; {
	case n > limit:
		return false, false
	case n == limit:
		line.Level, line.Attrs = slog.LevelWarn, nil
		line.Message = fmt.Sprintf("log: more than the limit of %d lines; later ones are not kept", limit)
	}
	l.kept[line.Step]++
	l.seq++
	line.Seq = l.seq
	l.pending = append(l.pending, line)
	l.size += len(line.Message) + len(line.Attrs) + 128
	return true, l.size >= logChunk
}

// Ops returns writes for the pending lines, and the Seq of the last of them.
func (l *runLog) Ops() (ops []store.Op, last int64) {
	l.mu.Lock()
	lines := slices.Clone(l.pending)
	l.mu.Unlock()
	for len(lines) > 0 {
		n, size := 0, 0
		for n < len(lines) && (n == 0 || size < logChunk) {
			size += len(lines[n].Message) + len(lines[n].Attrs) + 128
			n++
		}
		ops = append(ops, store.Put(record.LogKey(l.run, lines[0].Seq), record.Encode(lines[:n])))
		last, lines = lines[n-1].Seq, lines[n:]
	}
	return ops, last
}

// written drops the lines up to a Seq from memory.
func (l *runLog) written(last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.pending) && l.pending[n].Seq <= last {
		l.size -= len(l.pending[n].Message) + len(l.pending[n].Attrs) + 128
		n++
	}
	l.pending = slices.Delete(l.pending, 0, n)
}

func (l *runLog) unwritten() []record.LogLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.pending)
}

// Kept returns how many lines of a step are kept.
func (l *runLog) Kept(step string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept[step]
}

// logHandler is the slog.Handler of one attempt. Most attempts log nothing, so what it needs is made with the first
// line.
type logHandler struct {
	attempt *attempt
	sched   *scheduler
	with    []func(slog.Handler) slog.Handler // WithAttrs and WithGroup calls, to be repeated on host and json
	attrs   bool                              // some of those were WithAttrs

	onceJSON sync.Once
	json     slog.Handler // writes attributes into out
	mu       sync.Mutex   // guards out
	out      bytes.Buffer

	onceHost sync.Once
	host     slog.Handler // the engine's logger, with the attempt's place added; nil for silence
}

// attrsGroup holds a line's own attributes apart from what the JSON handler adds.
const attrsGroup = "a"

func (h *logHandler) prepareJSON() {
	h.json = slog.NewJSONHandler(&h.out, &slog.HandlerOptions{Level: slog.Level(-1 << 31)}).WithGroup(attrsGroup)
	for _, with := range h.with {
		h.json = with(h.json)
	}
}

func (h *logHandler) prepareHost() {
	to, a := h.sched.opts.Logger, h.attempt
	if to == nil {
		return
	}
	host := to.Handler().WithAttrs([]slog.Attr{
		slog.String("resource", a.journey.Key.String()), slog.String("run", a.journey.ID),
		slog.String("step", a.step.ID), slog.String("driver", a.step.Driver), slog.Int("attempt", a.number),
	})
	for _, with := range h.with {
		host = with(host)
	}
	h.host = host
}

// Enabled keeps every level: what is shown can be chosen by whoever reads the log, and the engine's logger chooses
// for itself.
func (h *logHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return h.child(true, func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.child(false, func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

func (h *logHandler) child(attrs bool, with func(slog.Handler) slog.Handler) slog.Handler {
	return &logHandler{attempt: h.attempt, sched: h.sched, attrs: h.attrs || attrs, with: append(slices.Clip(h.with), with)}
}

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	h.onceJSON.Do(h.prepareJSON)
	line := record.LogLine{Time: r.Time, Step: h.attempt.step.ID, Attempt: h.attempt.number, Level: r.Level}
	if line.Time.IsZero() {
		line.Time = time.Now()
	}
	line.Time = line.Time.Round(0).UTC() // as it will be when it is read back
	limit := h.sched.opts.Limits.LogLine
	line.Message = text.Truncate(r.Message, limit)
	if h.attrs || r.NumAttrs() > 0 {
		line.Attrs = h.attributes(ctx, r)
		if len(line.Message)+len(line.Attrs) > limit {
			line.Attrs = nil
			line.Message = text.Truncate(line.Message, max(limit-len(attrsCut), 0)) + attrsCut
		}
	}
	h.sched.keepLine(h.attempt, line)
	return h.pass(ctx, r)
}

// pass gives a line to the program's handler, whose panic is not the driver's.
func (h *logHandler) pass(ctx context.Context, r slog.Record) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("logger panicked: %s", text.Of(v))
		}
	}()
	h.onceHost.Do(h.prepareHost) // after a panic the handler gets nothing of this attempt
	if h.host == nil || !h.host.Enabled(ctx, r.Level) {
		return nil
	}
	return h.host.Handle(ctx, r)
}

const attrsCut = " … [attributes cut]"

// attributes renders the attributes of a record, and of the handler, as one JSON object.
func (h *logHandler) attributes(ctx context.Context, r slog.Record) json.RawMessage {
	if !h.mu.TryLock() {
		// Another line is being rendered, and it may be a value of that very line that logs this one. To wait would
		// be to wait for ever.
		h = &logHandler{attempt: h.attempt, sched: h.sched, with: h.with}
		h.prepareJSON()
		h.mu.Lock()
	}
	defer h.mu.Unlock()
	h.out.Reset()
	var whole struct {
		A json.RawMessage `json:"a"`
	}
	if err := h.json.Handle(ctx, r); err != nil {
		return nil
	}
	if err := json.Unmarshal(h.out.Bytes(), &whole); err != nil {
		return nil
	}
	return whole.A
}

// keepLine adds a line to the log of the attempt's run, unless the attempt is over.
func (s *scheduler) keepLine(a *attempt, line record.LogLine) {
	j := a.journey
	j.mu.Lock()
	log, over := j.log, a.returned || a.abandoned
	j.mu.Unlock()
	if over || log == nil {
		return
	}
	kept, full := log.add(line, s.opts.Limits.LogLines)
	if !kept {
		return
	}
	s.tails.wake(j.ID)
	s.flusher.want(log, full)
}

// flusher has the lines of logs written that are not written along with an outcome.
type flusher struct {
	sched *scheduler
	alarm alarm // rings when lines are to be written

	mu   sync.Mutex           // guards logs
	logs map[*runLog]*journey // with lines that are not written
}

func (f *flusher) init(s *scheduler) {
	f.sched, f.logs = s, map[*runLog]*journey{}
	f.alarm.work, f.alarm.start = f.flush, s.beside
}

// want has the lines of a log written: at once if it is full, or else within logFlush.
func (f *flusher) want(log *runLog, full bool) {
	f.mu.Lock()
	// With the lock held: a run that is dropped after this forgets its log.
	t := f.sched.pool.Find(log.run)
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

// forget takes back what want has said.
func (f *flusher) forget(log *runLog) {
	f.mu.Lock()
	delete(f.logs, log)
	f.mu.Unlock()
}

// flush writes all waiting lines, one run after the other.
func (f *flusher) flush() {
	f.mu.Lock()
	logs := slices.Collect(maps.Values(f.logs))
	clear(f.logs)
	f.mu.Unlock()
	for _, j := range logs {
		f.sched.drive(j, message{}, false)
	}
}

// unwrittenLines returns the lines of a run that are in memory alone.
func (s *scheduler) unwrittenLines(run string) []record.LogLine {
	t := s.pool.Find(run)
	if t == nil {
		return nil
	}
	j := t.Owner
	j.mu.Lock()
	log := j.log
	j.mu.Unlock()
	if log == nil {
		return nil
	}
	return log.unwritten()
}

// tails wakes those who follow the log of a run.
type tails struct {
	mu   sync.Mutex // guards what follows
	runs map[string]*tail
}

type tail struct {
	followers int
	changed   chan struct{} // closed when there is something new, by the waker, who makes the next one
}

func (t *tails) follow(run string) *tail {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.runs == nil {
		t.runs = map[string]*tail{}
	}
	f := t.runs[run]
	if f == nil {
		f = &tail{changed: make(chan struct{})}
		t.runs[run] = f
	}
	f.followers++
	return f
}

func (t *tails) unfollow(run string, f *tail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.followers--; f.followers == 0 {
		delete(t.runs, run)
	}
}

func (t *tails) news(f *tail) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f.changed
}

func (t *tails) wake(run string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.runs[run]; f != nil {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// Logs returns the lines that the drivers of a run wrote to [Request].Log, in order. Without Follow, the sequence
// ends after the newest line. With Follow, it ends when the run has ended.
//
// A line is readable as soon as it is logged. It is written to the store together with the outcome of its step, and
// in any case within a second. A crash loses the lines that were not yet written. The sequence ends with an error as
// its last element if there is no such run ([ErrNotFound]), if the store fails, if ctx ends (the cause of ctx), or if
// the engine is shut down while the sequence follows the run ([ErrClosed]).
func (e *Engine) Logs(ctx context.Context, runID string, o LogOptions) iter.Seq2[LogLine, error] {
	return func(yield func(LogLine, error) bool) {
		if err := e.followLog(ctx, runID, o, func(l record.LogLine) bool { return yield(LogLine(l), nil) }); err != nil {
			yield(LogLine{}, err)
		}
	}
}

func (e *Engine) followLog(ctx context.Context, run string, o LogOptions, yield func(record.LogLine) bool) error {
	s := e.sched
	t := s.tails.follow(run)
	defer s.tails.unfollow(run, t)
	for last := o.After; ; {
		// In this order, so that nothing slips through: what comes after news was taken wakes us, a run that has
		// ended gets no more lines, and lines leave the memory only after they are in the store.
		news := s.tails.news(t)
		rec, _, err := ledger.Load[record.Run](ctx, e.ledger, record.RunKey(run))
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: run %q", ErrNotFound, text.Truncate(run, text.MaxName))
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
		if !more || !o.Follow || rec.State.Final() {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return ErrClosed
		}
	}
}
