package ledger

import (
	"context"
	"errors"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Log passes the log lines of a run to pass, in order. It begins with the record that contains the line after+1. Such a
// record can begin with earlier lines, so that the caller must skip the lines up to after.
func (l *Ledger) Log(ctx context.Context, run string, after int64, pass func(record.LogLine)) error {
	from := ""
	before := store.Query{Prefix: record.LogsOf(run), After: record.LogKey(run, after+2), Reverse: true, Limit: 1}
	for r, err := range l.Store.List(ctx, before) {
		if err != nil {
			return err
		}
		if err := passLines(r, pass); err != nil {
			return err
		}
		from = r.Key
	}
	for r, err := range l.Store.List(ctx, store.Query{Prefix: record.LogsOf(run), After: from}) {
		if err != nil {
			return err
		}
		if err := passLines(r, pass); err != nil {
			return err
		}
	}
	return nil
}

// passLines passes the lines of one record to pass.
func passLines(r store.Record, pass func(record.LogLine)) error {
	var lines []record.LogLine
	if err := record.Decode(r, &lines); err != nil {
		return err
	}
	for _, line := range lines {
		pass(line)
	}
	return nil
}

// LogRecords passes each record of the log lines of a run with its key, in order. It leaves out the records that are
// damaged.
func (v View) LogRecords(run string, pass func(key string, lines []record.LogLine)) error {
	for r, err := range v.l.Store.List(v.ctx, store.Query{Prefix: record.LogsOf(run)}) {
		if err != nil {
			return err
		}
		var lines []record.LogLine
		if record.Decode(r, &lines) == nil {
			pass(r.Key, lines)
		}
	}
	return nil
}

// LogRecord returns the log lines of one record, and none if the record is damaged or missing. A run goes on without the
// lines of its log.
func (v View) LogRecord(key string) ([]record.LogLine, error) {
	lines, _, err := Load[[]record.LogLine](v.ctx, v.l, key)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrCorrupt):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return *lines, nil
}

// LastLine returns the Seq of the newest recorded log line of a run, or 0 if there is none.
func (l *Ledger) LastLine(ctx context.Context, run string) (last int64, err error) {
	for r, err := range l.Store.List(ctx, store.Query{Prefix: record.LogsOf(run), Reverse: true, Limit: 1}) {
		if err != nil {
			return 0, err
		}
		if err := passLines(r, func(line record.LogLine) { last = line.Seq }); err != nil {
			return 0, err
		}
	}
	return last, nil
}

// Progressed reports whether a step has written a checkpoint or a log line after a revision of the store.
func (l *Ledger) Progressed(ctx context.Context, run, step string, since store.Revision) (bool, error) {
	switch r, err := l.Store.Get(ctx, record.CheckpointKey(run, step)); {
	case err == nil && r.Revision > since:
		return true, nil
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return false, err
	}
	for r, err := range l.Store.List(ctx, store.Query{Prefix: record.LogsOf(run), Reverse: true}) {
		if err != nil || r.Revision <= since {
			return false, err
		}
		progressed := false
		if err := passLines(r, func(line record.LogLine) { progressed = progressed || line.Step == step }); err != nil || progressed {
			return progressed, err
		}
	}
	return false, nil
}
