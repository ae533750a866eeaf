package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
)

// logReads counts the queries that read the log.
type logReads struct{ n atomic.Int64 }

func (c *logReads) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if strings.Contains(q.SQL, "order by rev limit") {
		c.n.Add(1)
	}
	return ctx
}

func (c *logReads) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestTheWatchesOfAHandleReadTheLogTogether has twenty watches of one handle learn of the commits of another one.
func TestTheWatchesOfAHandleReadTheLogTogether(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	config, err := pgxpool.ParseConfig(server.dsn)
	require.NoError(t, err)
	reads := &logReads{}
	config.ConnConfig.Tracer = reads
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	s, err := postgres.OpenPool(t.Context(), pool, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	other := open(t, server.dsn, opts)

	const watches, commits = 20, 50
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	var told atomic.Int64
	for range watches {
		watching.Go(func() {
			for c, err := range s.Watch(ctx, "seen/", 0) {
				if err == nil && c.Key != "" {
					told.Add(1)
				}
			}
		})
	}
	rev, err := other.Commit(t.Context(), store.Put("seen/first", nil))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return told.Load() == watches }, time.Minute, time.Millisecond)
	reads.n.Store(0)
	for i := range commits {
		rev, err = other.Commit(t.Context(), store.Put("seen/first", []byte(fmt.Sprint(i))).If(rev))
		require.NoError(t, err)
		require.Eventually(t, func() bool { return told.Load() == int64(watches*(i+2)) }, time.Minute, time.Millisecond)
	}
	require.Positive(t, reads.n.Load())
	require.Less(t, reads.n.Load(), int64(4*commits), "each watch reads the log for itself")

	reads.n.Store(0)
	for i := range commits {
		_, err = other.Commit(t.Context(), store.Put("~else", []byte(fmt.Sprint(i))))
		require.NoError(t, err)
	}
	_, err = other.Commit(t.Context(), store.Put("seen/last", nil))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return told.Load() == watches*(commits+2) }, time.Minute, time.Millisecond)
	require.Less(t, reads.n.Load(), int64(commits), "a watch is woken for what is not under its prefix")
	cancel()
	watching.Wait()
}
