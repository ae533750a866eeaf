package conveyor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Signal sends a signal to a run, for the step that awaits it (see [Await]). When Signal returns nil, the signal is
// recorded. It is kept until a step awaits it or the run ends. It is delivered to one step, once. Of several signals
// with the same name, the oldest is delivered first. The payload is encoded as JSON; nil is sent as null.
//
// Signal returns [ErrNotFound] if there is no such run, [ErrConflict] if the run has ended, and [ErrClosed] after
// Shutdown. It returns an [ErrInvalid] or [ErrTooLarge] if the name is invalid, if the payload cannot be encoded, or
// if its JSON is larger than [Limits].Output. It can return an error of the store. After a [store.ErrUnknown] the
// signal may be recorded, or even delivered. After any other error it is not recorded.
func (e *Engine) Signal(ctx context.Context, runID, name string, payload any) error {
	if err := e.sched.accepting(); err != nil {
		return err
	}
	if problem := text.NameFault(name); problem != "" {
		return invalid("signal", "%s", problem)
	}
	origin, err := e.origin(ctx)
	if err != nil {
		return err
	}
	data, err := document.Marshal(payload)
	if err != nil {
		return fmt.Errorf("%w: payload of type %T: %w", ErrInvalid, payload, foreign(err))
	}
	if len(data) > e.opts.Limits.Output {
		return tooLarge("payload", len(data), e.opts.Limits.Output, "bytes", "Limits.Output")
	}
	if err := fieldErrors(document.Check("payload", data, e.opts.Limits.document(), 0)); err != nil {
		return err
	}
	if text.NameFault(runID) != "" {
		return ledger.NoRun(runID)
	}
	if err := e.recordSignal(ctx, runID, name, &record.Signal{Payload: data, Origin: origin}); err != nil {
		return fmt.Errorf("run %s: signal %s: %w", text.Quote(runID), name, err)
	}
	return nil
}

// recordSignal records a signal for a run, and gives the run its turn.
func (e *Engine) recordSignal(ctx context.Context, runID, name string, signal *record.Signal) error {
	if err := e.checkFormat(ctx); err != nil { // an older program would take the record for the payload
		return err
	}
	if err := e.followIDs(ctx, record.SignalsOf(runID, name), record.SignalID); err != nil { // the oldest signal is delivered first
		return err
	}
	put := store.Put(record.SignalKey(runID, name, e.ids.Next(clock.Now())), record.Encode(signal)).IfAbsent()
	for {
		rec, rev, err := ledger.Load[record.Run](ctx, e.ledger, record.RunKey(runID))
		switch {
		case errors.Is(err, store.ErrNotFound):
			return ErrNotFound
		case err != nil:
			return err
		case rec.State.Final():
			return fmt.Errorf("%w: the run is %s", ErrConflict, rec.State)
		}
		_, err = e.ledger.Commit(ctx, []store.Op{put, store.Check(record.RunKey(runID), rev)})
		switch {
		case errors.Is(err, store.ErrConflict):
			continue // the run started or ended in the meantime
		case errors.Is(err, ledger.ErrNotCommitted):
			// The signal was not found in the store. But a step may have taken the signal before the store was read.
			return fmt.Errorf("%w: %w", store.ErrUnknown, ledger.TextOnly(err))
		case err != nil:
			return err
		}
		r := e.sched.take(runID, rec.Key(), record.Lane(rec.Pipeline, rec.Key()))
		r.noteLeftovers()
		e.sched.enqueue(r)
		e.logUnawaited(ctx, runID, name)
		// If the run has ended in the meantime, it may have ended without noticing the signal.
		if rec, _, err := ledger.Load[record.Run](ctx, e.ledger, record.RunKey(runID)); err == nil && rec.State.Final() {
			_ = e.ledger.RemoveAll(ctx, ledger.Leftovers(runID)...) // if this fails, Retention removes the signal
		}
		return nil
	}
}

// logUnawaited says in the log that a signal was sent to a run that waits for other signals, and not for this one. It may be
// misspelt.
func (e *Engine) logUnawaited(ctx context.Context, runID, name string) {
	if e.sched.log.Silent() {
		return
	}
	of, err := e.ledger.Run(ctx, runID)
	if err != nil {
		return
	}
	awaited := of.Awaited()
	if len(awaited) > 0 && !slices.Contains(awaited, name) {
		e.sched.log.Warn("signal is kept, and the run awaits another one", "run", runID, "resource", of.Rec.Key().String(), "signal", name,
			"awaited", strings.Join(awaited, ", "))
	}
}
