package runlog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Source is the attempt whose driver writes the lines.
type Source interface {
	// Keep adds a line to the log of the run.
	Keep(record.LogLine)
	// Host returns the handler of the program's logger, which gets the lines too. It returns nil if there is none.
	Host() slog.Handler
}

// Handler is the slog.Handler of one attempt. It keeps each line in the log of the run and passes it on to the program's
// logger. Most attempts log nothing. A Handler therefore makes what it needs when the first line is logged.
type Handler struct {
	source  Source
	step    string
	attempt int
	limit   int                               // bytes kept of a line, counted as in a record
	with    []func(slog.Handler) slog.Handler // the calls of WithAttrs and WithGroup, to be repeated on host and json
	attrs   bool                              // WithAttrs was called

	onceJSON sync.Once
	json     slog.Handler // writes attributes into out
	mu       sync.Mutex   // guards out
	out      bytes.Buffer

	onceHost sync.Once
	host     slog.Handler // the program's logger, with attributes that name the attempt; nil if there is none
}

// Init prepares h for an attempt of a step. limit is the number of bytes that are kept of a line.
func (h *Handler) Init(source Source, step string, attempt, limit int) {
	h.source, h.step, h.attempt, h.limit = source, step, attempt, limit
}

// attrsGroup is the group of the attributes of a line. It separates them from the fields that the JSON handler adds. The
// group is nested three times. Attributes that can be read back there can be read back in a record too, where they are
// nested two levels deep. Package encoding/json reads a limited number of levels.
const attrsGroup = "a"

// prepareJSON makes the handler that renders attributes.
func (h *Handler) prepareJSON() {
	h.json = slog.NewJSONHandler(&h.out, &slog.HandlerOptions{Level: slog.Level(-1 << 31)}).WithGroup(attrsGroup).WithGroup(attrsGroup).WithGroup(attrsGroup)
	for _, with := range h.with {
		h.json = with(h.json)
	}
}

// prepareHost makes the handler that passes lines to the program's logger.
func (h *Handler) prepareHost() {
	host := h.source.Host()
	if host == nil {
		return
	}
	for _, with := range h.with {
		host = with(host)
	}
	h.host = host
}

// Enabled returns true for every level. The reader of the log can choose which levels to show, and the program's logger
// is asked separately.
func (h *Handler) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs returns a handler of the same attempt that adds attrs to each line.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return h.child(true, func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

// WithGroup returns a handler of the same attempt that puts the attributes of each line into a group.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.child(false, func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

// child returns a handler of the same attempt that also repeats the call with.
func (h *Handler) child(attrs bool, with func(slog.Handler) slog.Handler) slog.Handler {
	return &Handler{source: h.source, step: h.step, attempt: h.attempt, limit: h.limit, attrs: h.attrs || attrs, with: append(slices.Clip(h.with), with)}
}

// Handle keeps a line in the log of the run, and passes it to the program's logger.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	h.onceJSON.Do(h.prepareJSON)
	line := record.LogLine{Time: timeOf(r), Step: h.step, Attempt: h.attempt, Level: r.Level}
	line.Message = text.Truncate(r.Message, h.limit)
	if h.attrs || r.NumAttrs() > 0 {
		var whole bool
		line.Attrs, whole = h.attributes(ctx, r)
		if !whole || text.Size(line.Message)+len(line.Attrs) > h.limit {
			line.Attrs = nil
			line.Message = text.Truncate(line.Message, max(h.limit-len(attrsCut), 0)) + attrsCut
		}
	}
	h.source.Keep(line)
	return h.pass(ctx, r)
}

// timeOf returns the time of a record, as it is when it is read back from the store. If the record has none, or one that
// cannot be written as JSON, timeOf returns the present time.
func timeOf(r slog.Record) time.Time {
	t := r.Time
	if year := t.UTC().Year(); t.IsZero() || year < 0 || year > 9999 {
		t = clock.Now()
	}
	return t.Round(0).UTC()
}

// pass passes a line to the program's handler. A panic of this handler is returned as an error, because it must not
// fail the driver.
func (h *Handler) pass(ctx context.Context, r slog.Record) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("logger panicked: %s", text.Of(v))
		}
	}()
	h.onceHost.Do(h.prepareHost) // if prepareHost panics, the program's handler gets no line of this attempt
	if h.host == nil || !h.host.Enabled(ctx, r.Level) {
		return nil
	}
	return h.host.Handle(ctx, r)
}

// attrsCut marks a line whose attributes were cut.
const attrsCut = " … [attributes cut]"

// attributes returns the attributes of a record and of the handler as one JSON object, and nil if there are none. It
// returns false if they cannot be written.
func (h *Handler) attributes(ctx context.Context, r slog.Record) (attrs json.RawMessage, whole bool) {
	if !h.mu.TryLock() {
		// Another line is being rendered. It is possible that a value of the other line logs this line while the value
		// is rendered. Waiting for the lock would then be a deadlock.
		h = &Handler{with: h.with}
		h.prepareJSON()
		h.mu.Lock()
	}
	defer h.mu.Unlock()
	h.out.Reset()
	var line struct {
		A struct {
			A struct {
				A json.RawMessage `json:"a"`
			} `json:"a"`
		} `json:"a"`
	}
	if err := h.json.Handle(ctx, r); err != nil {
		return nil, false
	}
	if err := json.Unmarshal(h.out.Bytes(), &line); err != nil {
		return nil, false
	}
	return line.A.A.A, true
}
