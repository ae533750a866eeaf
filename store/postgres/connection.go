package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// suspicious is for how long after a connection broke the others are asked whether they work, before they are used. All break
// at once when a server restarts.
const suspicious = 5 * time.Second

// breaks is when a connection has broken.
type breaks struct {
	began time.Time
	last  atomic.Int64 // nanoseconds after began; zero means never
}

func (b *breaks) note() { b.last.Store(int64(time.Since(b.began))) }

func (b *breaks) recent() bool {
	last := b.last.Load()
	return last != 0 && time.Since(b.began)-time.Duration(last) < suspicious
}

// direct is the key under which a connection of a pool of the store's own notes that it leads to the server itself.
const direct = "github.com/conveyor-go/conveyor/store/postgres.direct"

// noteDirect finds out whether a new connection leads to the server itself. A pooler between them has told a process id of its own. On a
// connection to the server statements are prepared, and planned once: for tables of any size, because they can be small
// when the plan is made.
func noteDirect(ctx context.Context, conn *pgx.Conn) error {
	var pid uint32
	err := conn.QueryRow(ctx, "select pg_catalog.pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid)
	if err != nil || pid != conn.PgConn().PID() {
		return err
	}
	_, err = conn.Exec(ctx, `select pg_catalog.set_config(s.name, s.value, false) from (values
		('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'),
		('enable_hashjoin', 'off'), ('enable_mergejoin', 'off')) s(name, value)`, pgx.QueryExecModeExec)
	conn.PgConn().CustomData()[direct] = err == nil
	return err
}

func isDirect(conn *pgxpool.Conn) bool { return conn.Conn().PgConn().CustomData()[direct] == true }

// prepared returns the arguments of a query, with the mode in which it is sent before them.
func prepared(conn *pgxpool.Conn, args []any) []any {
	if !isDirect(conn) {
		return args
	}
	return append([]any{pgx.QueryExecModeCacheStatement}, args...)
}

// with calls fn with a connection of the pool. fn must not keep the connection.
func (s *Store) with(ctx context.Context, fn func(conn *pgxpool.Conn) error) error {
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // which closes it if it is broken or still in a transaction
	return fn(conn)
}

func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	for {
		conn, err := s.pool.Acquire(ctx)
		if err != nil || !s.breaks.recent() {
			return conn, err
		}
		if err = conn.Ping(ctx); err == nil {
			return conn, nil
		}
		conn.Release() // the pool has one fewer that does not work
		if ctx.Err() != nil {
			return nil, err
		}
	}
}

// row reads the one row of a query.
func (s *Store) row(ctx context.Context, sql string, args []any, into ...any) error {
	return s.with(ctx, func(conn *pgxpool.Conn) error { return conn.QueryRow(ctx, sql, prepared(conn, args)...).Scan(into...) })
}

// rows calls each for the rows of a query.
func (s *Store) rows(ctx context.Context, sql string, args []any, each func(row pgx.Rows) error) error {
	return s.with(ctx, func(conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, sql, prepared(conn, args)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := each(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}
