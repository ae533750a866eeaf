package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/again"
)

// SQLSTATE codes. Those that begin with CV are raised by the functions of schema.sql.
const (
	codeLate  = "CV001"
	codeLevel = "CV002" // the transaction is not at read committed
	codeNewer = "CV003"

	codeReadOnly       = "25006" // the transaction is read-only: the server is a standby, or has such a default
	codeNoStatement    = "26000" // somebody has removed a prepared statement
	codeStaleStatement = "0A000" // or what it names has changed
)

// code returns the SQLSTATE of an error of the server, or an empty text.
func code(err error) string {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return answer.Code
	}
	return ""
}

// refused reports whether the server has answered a statement with an error and has gone on. Nothing of the transaction was
// written then. An error that ends the connection says nothing of a commit that was under way.
func refused(err error) bool {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (answer.SeverityUnlocalized == "ERROR" || answer.SeverityUnlocalized == "" && answer.Severity == "ERROR")
}

// passing reports whether an error can be over when the same is tried again later.
func passing(err error) bool {
	if errors.Is(err, puddle.ErrClosedPool) || errors.Is(err, ErrVersion) || errors.Is(err, pgx.ErrNoRows) {
		return false
	}
	sqlstate := code(err)
	if len(sqlstate) < 2 {
		return true // no answer of the server: the connection is lost, or there was none
	}
	switch sqlstate {
	case "55P03", // lock_not_available: others have had their turn for long
		codeReadOnly,
		"57014", // query_canceled, by a timeout of the server or by an administrator
		codeStaleStatement, codeNoStatement:
		return true
	}
	switch sqlstate[:2] {
	case "08", // connection
		"40", // transaction rollback
		"53", // insufficient resources
		"57", // operator intervention
		"58": // system error
		return true
	}
	return false
}

// final returns the error with which a call ends that cannot succeed.
func (s *Store) final(err error) error {
	switch sqlstate := code(err); {
	case errors.Is(err, ErrVersion), errors.Is(err, pgx.ErrNoRows):
		return err
	case errors.Is(err, puddle.ErrClosedPool):
		return fmt.Errorf("%w: the pool is closed: %w", store.ErrClosed, err)
	case sqlstate == "XX001" || sqlstate == "XX002":
		return fmt.Errorf("%w: schema %s: %w", store.ErrCorrupt, s.opts.Schema, err)
	case sqlstate == "42P01" || sqlstate == "42883" || sqlstate == "3F000" || sqlstate == "42703":
		return fmt.Errorf("%w: schema %s: call Migrate: %w", ErrVersion, s.opts.Schema, err)
	default:
		return fmt.Errorf("postgres: schema %s: %w", s.opts.Schema, err)
	}
}

// noteLoss notes that a connection has broken, if that is what the error says.
func (s *Store) noteLoss(err error) {
	if code(err) == "" || !refused(err) {
		s.breaks.note()
	}
}

// telling returns the error of the attempts so far that says most: not that the time for the last one was over, if there was another.
func telling(before, err error) error {
	if before != nil && errors.Is(err, context.DeadlineExceeded) {
		return before
	}
	return err
}

// longestListenPause is the longest one between two attempts to listen, which saves time alone.
const longestListenPause = 5 * time.Second

// read calls fn until it succeeds, and no longer than the patience of the store. fn changes nothing, so that it can be called
// again after a lost answer.
func (s *Store) read(ctx context.Context, fn func(ctx context.Context) error) error {
	return again.Tries{
		Longest: s.opts.Patience / 3, Passing: passing, Final: s.final,
		Failed: func(before, err error) error {
			s.noteLoss(err)
			return telling(before, err)
		},
	}.Until(ctx, time.Now().Add(s.opts.Patience), fn)
}
