package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

// EnqueueOptions are what [Enqueue] can be told besides the resource. The zero value works.
type EnqueueOptions struct {
	// Schema is that of the store: [Options].Schema. Empty means "conveyor".
	Schema string
	// NoNotify leaves out the NOTIFY that has an engine look at once. An engine then finds the letter within a third of its lease, or of
	// [Options].Poll if that is shorter.
	NoNotify bool
	// Letter is what [conveyor.NewLetter] can be told.
	Letter conveyor.LetterOptions
}

// Enqueue writes a letter in a transaction of the caller's (see [conveyor.NewLetter]): when the transaction commits, and only then, an engine
// with [conveyor.Options].Letters applies the resource. It returns the id of the letter, for [conveyor.Engine.Letter].
//
// The letter is one row with a key of its own. It takes no lock that others wait for, however long the transaction stays open, and the
// transaction can be at any isolation level. A letter with the ID of one that waits already is left out without an error. A transaction
// that writes a letter with the ID of one that another open transaction writes waits for that one.
//
// The actor of ctx (see [conveyor.As]) is that of the run. Enqueue returns what NewLetter returns, or the error of the transaction, which must then
// be rolled back. The role of the transaction needs the right to insert into the table "transient".
func Enqueue(ctx context.Context, tx pgx.Tx, r conveyor.Resource, opts EnqueueOptions) (id string, err error) {
	return enqueue(ctx, r, opts, func(statement string, args ...any) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
}

// EnqueueSQL is [Enqueue] for a transaction of database/sql, with any driver for PostgreSQL that takes $1 for a parameter and []byte for
// bytea.
func EnqueueSQL(ctx context.Context, tx *sql.Tx, r conveyor.Resource, opts EnqueueOptions) (id string, err error) {
	return enqueue(ctx, r, opts, func(statement string, args ...any) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
}

// enqueuedRevision is the revision of each letter that Enqueue has written. A letter is written once, so that any revision will do.
const enqueuedRevision = 1

func enqueue(ctx context.Context, r conveyor.Resource, opts EnqueueOptions, exec func(statement string, args ...any) error) (id string, err error) {
	o, err := Options{Schema: opts.Schema}.withDefaults()
	if err != nil {
		return "", err
	}
	id, put, err := conveyor.NewLetter(ctx, r, opts.Letter)
	if err != nil {
		return "", err
	}
	table := pgx.Identifier{o.Schema, "transient"}.Sanitize()
	err = exec("insert into "+table+" (key, value, rev) values ($1, $2, $3) on conflict do nothing", []byte(put.Key()), put.Value(), int64(enqueuedRevision))
	if err == nil && !opts.NoNotify {
		err = exec("select pg_catalog.pg_notify($1, '')", channelOf(o.Schema))
	}
	if err != nil {
		return "", fmt.Errorf("postgres: write letter %s: %w", id, err)
	}
	return id, nil
}

// letterPrefix is the prefix of the keys of letters.
const letterPrefix = "~let/"

// enqueued yields the letters that Enqueue has written, which have no row in the log, to a Watch that wants to know of letters. told has those
// that it was told before.
func (s *Store) enqueued(ctx context.Context, prefix string, at int64, told map[string]bool, yield func(store.Change, error) bool) (goOn bool) {
	if !strings.HasPrefix(prefix, letterPrefix) {
		return true
	}
	there := map[string]bool{}
	for r, err := range s.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnknown) {
				yield(store.Change{}, err)
				return false
			}
			return true // the next look finds them
		}
		if r.Revision != enqueuedRevision {
			continue
		}
		if there[r.Key] = true; !told[r.Key] && !yield(store.Change{Key: r.Key, Revision: store.Revision(max(at, enqueuedRevision))}, nil) {
			return false
		}
	}
	clear(told)
	for key := range there {
		told[key] = true
	}
	return true
}
