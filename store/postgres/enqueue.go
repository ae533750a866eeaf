package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

// EnqueueOptions are what [Enqueue] can be told besides the resource. The zero value works.
type EnqueueOptions struct {
	// Schema is that of the store: [Options].Schema. Empty means "conveyor".
	Schema string
	// NoNotify leaves out the NOTIFY that has an engine look at once. An engine then finds the letter within a third of its lease, or of
	// [Options].Poll if that is shorter. A transaction that is to be prepared (PREPARE TRANSACTION) needs it.
	NoNotify bool
	// Letter is what [conveyor.NewLetter] can be told.
	Letter conveyor.LetterOptions
}

// Enqueue writes a letter in a transaction of the caller's (see [conveyor.NewLetter]): when the transaction commits, and only then, an engine
// with [conveyor.Options].Letters applies the resource. It returns the id of the letter, for [conveyor.Engine.Letter].
//
// The letter is one row with a key of its own. It takes no lock that others wait for, however long the transaction stays open, and the
// transaction can be at any isolation level. A letter with the ID of one that waits already is left out without an error; at repeatable
// read and serializable, the server refuses it with a serialization failure (40001) if the other one was committed since the transaction
// began. Whoever writes a letter with the ID of one that another open transaction has written waits for that transaction, so an ID must
// not be given to two transactions that are open at the same time.
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

// letters are those that a Watch has told, among the letters that have no row in the log.
type letters struct {
	told  map[string]bool
	asked time.Time // when they were looked for
}

// betweenLetters is how long a Watch waits at least before it looks for letters again, however often it is woken.
const betweenLetters = 50 * time.Millisecond

// enqueued yields the letters that Enqueue has written, which have no row in the log, to a Watch that wants to know of letters. The letters
// that it has told before are left out.
func (s *Store) enqueued(ctx context.Context, prefix string, at int64, known *letters, yield func(store.Change, error) bool) (goOn bool) {
	if !strings.HasPrefix(prefix, letterPrefix) {
		return true
	}
	if left := betweenLetters - time.Since(known.asked); left > 0 {
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return true
		case <-s.gate.Closing.Done():
			return true
		}
	}
	known.asked = time.Now()
	there, err := s.enqueuedKeys(ctx, prefix)
	if err != nil {
		return true // the next look finds them, or the next page of the log has the error
	}
	told := make(map[string]bool, len(there))
	for _, key := range there {
		if told[key] = true; !known.told[key] && !yield(store.Change{Key: key, Revision: store.Revision(max(at, enqueuedRevision))}, nil) {
			return false
		}
	}
	known.told = told
	return true
}

// enqueuedKeys returns the keys of the letters under a prefix that Enqueue has written.
func (s *Store) enqueuedKeys(ctx context.Context, prefix string) (keys []string, err error) {
	end := []byte(prefix + "\xff") // ids have no such byte
	err = s.rowsUntilClosed(ctx, s.lettersSQL, []any{[]byte(prefix), end, int64(enqueuedRevision)}, func(row pgx.Rows) error {
		var key []byte
		err := row.Scan(&key)
		keys = append(keys, string(key))
		return err
	})
	return keys, err
}
