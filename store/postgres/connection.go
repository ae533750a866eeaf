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
	return s.with(ctx, func(conn *pgxpool.Conn) error { return conn.QueryRow(ctx, sql, args...).Scan(into...) })
}

// rows calls each for the rows of a query.
func (s *Store) rows(ctx context.Context, sql string, args []any, each func(row pgx.Rows) error) error {
	return s.with(ctx, func(conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, sql, args...)
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
