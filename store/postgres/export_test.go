package postgres

import (
	"context"
	"iter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// PruneAll forgets all changes, however new they are.
func PruneAll(ctx context.Context, s *Store) error {
	_, err := s.prune(ctx, -time.Minute)
	return err
}

// Groups returns the number of groups that the handle has committed. No commit may be under way.
func Groups(s *Store) int64 { return s.group }

// Hasten makes a handle try for a shorter time than can be asked for. No call may be under way.
func Hasten(s *Store, patience, grace time.Duration) { s.opts.Patience, s.grace = patience, grace }

// Channel returns the channel of the notifications of a handle, and the shortest time between two of them.
func Channel(s *Store) (name string, every time.Duration) { return s.channel, tellEvery }

// ParseNotification returns what a notification tells.
func ParseNotification(payload string) (rev int64, keys iter.Seq[string], ok bool) {
	return parseNotification(payload)
}

// Prepared returns the names of the statements that are prepared in a session of the handle.
func Prepared(ctx context.Context, s *Store) (names []string, err error) {
	err = s.row(ctx, "select coalesce(array_agg(name), '{}') from pg_prepared_statements where name like 'conveyor%'", nil, &names)
	return names, err
}

// Forget removes all prepared statements of a session of the handle.
func Forget(ctx context.Context, s *Store) error {
	return s.with(ctx, func(conn *pgxpool.Conn) error {
		_, err := conn.Conn().PgConn().Exec(ctx, "deallocate all").ReadAll()
		return err
	})
}
