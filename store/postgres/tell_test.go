package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
)

// hear returns a connection that listens for the notifications of a handle.
func hear(t *testing.T, server server, s *postgres.Store) *pgx.Conn {
	t.Helper()
	conn := connect(t, server.dsn)
	channel, _ := postgres.Channel(s)
	run(t, conn, "listen "+channel)
	return conn
}

// heardUpTo returns the kinds of keys of all notifications up to the one that tells of a revision, and how many there were.
func heardUpTo(t *testing.T, conn *pgx.Conn, rev store.Revision) (kinds []string, count int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(ctx)
		require.NoError(t, err)
		told, keys, ok := postgres.ParseNotification(n.Payload)
		require.True(t, ok, n.Payload)
		kinds, count = append(kinds, slices.Collect(keys)...), count+1
		if told >= int64(rev) {
			slices.Sort(kinds)
			return slices.Compact(kinds), count
		}
	}
}

func TestANotificationIsForAllCommitsOfAFewMilliseconds(t *testing.T) {
	server := needServer(t)
	s := open(t, server.dsn, newSchema(t, server.dsn))
	conn := hear(t, server, s)
	_, every := postgres.Channel(s)
	var rev store.Revision
	began := time.Now()
	for i := range 200 {
		var err error
		rev, err = s.Commit(t.Context(), store.Put(fmt.Sprint("key/", i), nil), store.Put("~away", nil), store.Put("x", nil))
		require.NoError(t, err)
	}
	took := time.Since(began)
	kinds, count := heardUpTo(t, conn, rev)
	require.Equal(t, []string{"key/", "x", "~awa"}, kinds)
	require.LessOrEqual(t, count, int(took/every)+2)
}

func TestCloseTellsWhatWasNotTold(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	for i := range 10 {
		s := open(t, server.dsn, opts)
		conn := hear(t, server, s)
		var rev store.Revision
		for range 3 { // the later ones while the handle waits before the next notification
			var err error
			rev, err = s.Commit(t.Context(), store.Put("key", fmt.Append(nil, i)))
			require.NoError(t, err)
		}
		require.NoError(t, s.Close())
		heardUpTo(t, conn, rev)
		require.NoError(t, conn.Close(t.Context()))
	}
}

func TestNotificationsOfVeryManyKindsSayThatAnyKeyMayHaveChanged(t *testing.T) {
	server := needServer(t)
	s := open(t, server.dsn, newSchema(t, server.dsn))
	conn := hear(t, server, s)
	var ops []store.Op
	for i := range 1000 {
		ops = append(ops, store.Put(fmt.Sprintf("%04d/key", i), nil))
	}
	rev, err := s.Commit(t.Context(), ops...)
	require.NoError(t, err)
	kinds, _ := heardUpTo(t, conn, rev)
	require.Equal(t, []string{""}, kinds)
}

// TestStatementsArePreparedWhereTheServerItselfIs looks at the sessions of a pool of the store's own.
func TestStatementsArePreparedWhereTheServerItselfIs(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	for name, dsn := range map[string]string{"the server": server.dsn, "pgbouncer": bouncer(t, server)} {
		s := open(t, dsn+" pool_max_conns=1", opts)
		_, err := s.Commit(t.Context(), store.Put("key", nil))
		require.NoError(t, err)
		prepared, err := postgres.Prepared(t.Context(), s)
		require.NoError(t, err)
		if name == "pgbouncer" {
			require.Empty(t, prepared)
		} else {
			require.Contains(t, prepared, "conveyor_commit")
		}
		require.NoError(t, postgres.Migrate(t.Context(), server.dsn, opts)) // makes the functions anew
		run(t, connect(t, server.dsn), "analyze "+pgx.Identifier{opts.Schema}.Sanitize()+".records")
		requireWorks(t, s)
	}
}

func requireWorks(t *testing.T, s *postgres.Store) {
	t.Helper()
	_, err := s.Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	_, err = s.Get(t.Context(), "key")
	require.NoError(t, err)
}

func TestAStoreWhosePoolPreparesNothing(t *testing.T) {
	server := needServer(t)
	requireWorks(t, open(t, server.dsn+" statement_cache_capacity=0", newSchema(t, server.dsn)))
}

// TestAPreparedStatementThatIsGoneIsPreparedAnew removes all statements of a session behind the back of the store.
func TestAPreparedStatementThatIsGoneIsPreparedAnew(t *testing.T) {
	server := needServer(t)
	s := open(t, server.dsn+" pool_max_conns=1", newSchema(t, server.dsn))
	for range 3 {
		requireWorks(t, s)
		require.NoError(t, postgres.Forget(t.Context(), s))
	}
}
