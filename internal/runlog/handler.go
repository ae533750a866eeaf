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

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Source is the attempt whose driver writes the lines.
type Source interface {
	// Keep adds a line to the log of the run.
	Keep(record.LogLine)
	// Host returns the handler of the program's logger, which is to get the lines too, or nil for none.
	Host() slog.Handler
}

// Handler is the slog.Handler of one attempt. Most attempts log nothing, so what it needs is made with the first
// line.
type Handler struct {
	source  Source
	step    string
	attempt int
	limit   int                               // bytes kept of a line
	with    []func(slog.Handler) slog.Handler // WithAttrs and WithGroup calls, to be repeated on host and json
	attrs   bool                              // some of those were WithAttrs

	onceJSON sync.Once
	json     slog.Handler // writes attributes into out
	mu       sync.Mutex   // guards out
	out      bytes.Buffer

	onceHost sync.Once
	host     slog.Handler // the engine's logger, with the attempt's place added; nil for silence
}

// Init makes the handler that of an attempt of a step.
func (h *Handler) Init(source Source, step string, attempt, limit int) {
	h.source, h.step, h.attempt, h.limit = source, step, attempt, limit
}

// attrsGroup holds a line's own attributes apart from what the JSON handler adds.
const attrsGroup = "a"

func (h *Handler) prepareJSON() {
	h.json = slog.NewJSONHandler(&h.out, &slog.HandlerOptions{Level: slog.Level(-1 << 31)}).WithGroup(attrsGroup)
	for _, with := range h.with {
		h.json = with(h.json)
	}
}

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

// Enabled keeps every level: what is shown can be chosen by whoever reads the log, and the engine's logger chooses
// for itself.
func (h *Handler) Enabled(context.Context, slog.Level) bool { return true }

func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return h.child(true, func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.child(false, func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

func (h *Handler) child(attrs bool, with func(slog.Handler) slog.Handler) slog.Handler {
	return &Handler{source: h.source, step: h.step, attempt: h.attempt, limit: h.limit, attrs: h.attrs || attrs, with: append(slices.Clip(h.with), with)}
}

func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	h.onceJSON.Do(h.prepareJSON)
	line := record.LogLine{Time: r.Time, Step: h.step, Attempt: h.attempt, Level: r.Level}
	if line.Time.IsZero() {
		line.Time = time.Now()
	}
	line.Time = line.Time.Round(0).UTC() // as it will be when it is read back
	line.Message = text.Truncate(r.Message, h.limit)
	if h.attrs || r.NumAttrs() > 0 {
		line.Attrs = h.attributes(ctx, r)
		if len(line.Message)+len(line.Attrs) > h.limit {
			line.Attrs = nil
			line.Message = text.Truncate(line.Message, max(h.limit-len(attrsCut), 0)) + attrsCut
		}
	}
	h.source.Keep(line)
	return h.pass(ctx, r)
}

// pass gives a line to the program's handler, whose panic is not the driver's.
func (h *Handler) pass(ctx context.Context, r slog.Record) (err error) {
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
func (h *Handler) attributes(ctx context.Context, r slog.Record) json.RawMessage {
	if !h.mu.TryLock() {
		// Another line is being rendered, and it may be a value of that very line that logs this one. To wait would
		// be to wait for ever.
		h = &Handler{with: h.with}
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
