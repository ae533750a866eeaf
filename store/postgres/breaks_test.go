package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/load"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
)

func TestTerminatedBackendsLoseNothingAcknowledged(t *testing.T) {
	server := needServer(t)
	dsn := server.with(t, "application_name=terminated")
	opts := newSchema(t, dsn)
	a, b := open(t, dsn, opts), open(t, dsn, opts)
	watch := load.Watch(t, b)
	l := load.Start(t, a, b)
	admin := connect(t, server.dsn)
	terminated := 0
	for range testenv.Some(t, 3, 30) {
		l.Await(t, 30)
		var n int
		require.NoError(t, admin.QueryRow(t.Context(),
			"select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'terminated'").Scan(&n))
		terminated += n
	}
	l.End(t, b)
	watch.End(t, a)
	require.Positive(t, terminated)
	testenv.Figure(t, "%d backends terminated", terminated)
}

func TestAServerThatRestartsLosesNothingAcknowledged(t *testing.T) {
	cluster := needCluster(t)
	opts := newSchema(t, cluster.DSN())
	a, b := open(t, cluster.DSN(), opts), open(t, cluster.DSN(), opts)
	watch := load.Watch(t, b)
	l := load.Start(t, a, b)
	for _, crash := range testenv.First(t, 2, true, false, true, false, true, true) {
		l.Await(t, 30)
		require.NoError(t, cluster.Stop(crash))
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, cluster.start())
	}
	l.Await(t, 30)
	l.End(t, b)
	watch.End(t, a)
}

func TestAServerThatIsAwayIsUnavailable(t *testing.T) {
	server := needServer(t)
	p := newProxy(t, server)
	opts := newSchema(t, server.dsn)
	s := open(t, p.dsn, opts)
	rev, err := s.Commit(t.Context(), store.Put("a", nil))
	require.NoError(t, err)
	p.SetAway(true)
	postgres.Hasten(s, 300*time.Millisecond, 0)
	_, err = s.Get(t.Context(), "a")
	require.ErrorIs(t, err, store.ErrUnavailable)
	for _, err := range s.List(t.Context(), store.Query{}) {
		require.ErrorIs(t, err, store.ErrUnavailable)
	}
	_, err = s.Commit(t.Context(), store.Check("a", rev))
	require.ErrorIs(t, err, store.ErrUnavailable)
	// By now the store knows that its connections are broken, so that the commit is not sent.
	_, err = s.Commit(t.Context(), store.Put("a", []byte("new")))
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.NotErrorIs(t, err, store.ErrUnknown)
	opts.Patience = 300 * time.Millisecond
	_, err = postgres.Open(t.Context(), p.dsn, opts)
	require.ErrorIs(t, err, store.ErrUnavailable)

	left := errors.New("left")
	ctx, leave := context.WithCancelCause(t.Context())
	leave(left)
	_, err = s.Get(ctx, "a")
	require.ErrorIs(t, err, left)

	p.SetAway(false)
	postgres.Hasten(s, time.Minute, time.Minute)
	rec, err := s.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, rev, rec.Revision, "a commit that was refused has happened")
	_, err = s.Commit(t.Context(), store.Put("a", nil).If(rev))
	require.NoError(t, err)
}

// TestALostAnswerIsUnknownOnlyAsLongAsTheServerIsAway has a commit happen whose answer is lost together with the server.
func TestALostAnswerIsUnknownOnlyAsLongAsTheServerIsAway(t *testing.T) {
	server := needServer(t)
	p := newProxy(t, server)
	opts := newSchema(t, server.dsn)
	opts.NoNotify = true // otherwise the next answer can be that to a notification
	s := open(t, p.dsn, opts)
	_, err := s.Commit(t.Context(), store.Put("before", nil))
	require.NoError(t, err)
	postgres.Hasten(s, 300*time.Millisecond, 100*time.Millisecond)
	p.VanishAtNextAnswer()
	_, err = s.Commit(t.Context(), store.Put("a", nil))
	require.ErrorIs(t, err, store.ErrUnknown)
	_, err = s.Get(t.Context(), "a")
	require.ErrorIs(t, err, store.ErrUnknown)
	require.NotErrorIs(t, err, store.ErrUnavailable)
	for _, err := range s.List(t.Context(), store.Query{}) {
		require.ErrorIs(t, err, store.ErrUnknown)
	}
	_, err = s.Commit(t.Context(), store.Check("a", 0))
	require.ErrorIs(t, err, store.ErrUnknown)
	_, err = s.Commit(t.Context(), store.Put("b", nil))
	require.ErrorIs(t, err, store.ErrUnavailable)
	p.SetAway(false)
	postgres.Hasten(s, time.Minute, time.Minute)
	_, err = s.Get(t.Context(), "a")
	require.NoError(t, err, "the commit had happened when its answer was lost")
	_, err = s.Get(t.Context(), "b")
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = s.Commit(t.Context(), store.Put("b", nil))
	require.NoError(t, err)
}

// TestACommitThatHasWaitedTooLongNeverHappens has a commit wait for its turn for longer than its handle waits for it.
func TestACommitThatHasWaitedTooLongNeverHappens(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	s := open(t, server.dsn, opts)
	postgres.Hasten(s, 300*time.Millisecond, 100*time.Millisecond)
	other := connect(t, server.dsn)
	run(t, other, "begin")
	run(t, other, `select pg_advisory_xact_lock($1::regclass::oid::int, 1)`, `"`+quoted(opts.Schema)+`".records`)
	_, err := s.Commit(t.Context(), store.Put("late", nil))
	require.True(t, errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknown), "%v", err)
	run(t, other, "commit")
	postgres.Hasten(s, time.Minute, time.Minute)
	time.Sleep(store.LimitsOf(s).Unknown)
	_, err = s.Get(t.Context(), "late")
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = s.Commit(t.Context(), store.Put("in time", nil))
	require.NoError(t, err)
}

// TestASnapshotThatIsHeldStopsNothing compares what a commit reads with a snapshot that somebody holds, and without.
func TestASnapshotThatIsHeldStopsNothing(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	s := open(t, server.dsn, opts)
	report := connect(t, server.dsn)
	run(t, report, "begin isolation level repeatable read")
	var n int
	require.NoError(t, report.QueryRow(t.Context(), "select count(*) from pg_class").Scan(&n))
	var rev store.Revision
	for i := range testenv.Some(t, 300, 10000) {
		ops := []store.Op{store.Put("hot", []byte(strconv.Itoa(i))).If(rev), store.Put(fmt.Sprint("~", i), nil)}
		if i > 0 {
			ops = append(ops, store.Delete(fmt.Sprint("~", i-1)))
		}
		var err error
		rev, err = s.Commit(t.Context(), ops...)
		require.NoError(t, err)
	}
	// The newest row of the log is found at once, whatever dead rows there are.
	var pages int
	rows, err := connect(t, server.dsn).Query(t.Context(), `explain (analyze, buffers, timing off, summary off)
		select rev from "`+quoted(opts.Schema)+`".log order by rev desc limit 1`)
	require.NoError(t, err)
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		if pages == 0 { // the first line is that of the whole
			_, _ = fmt.Sscanf(line, "  Buffers: shared hit=%d", &pages)
		}
	}
	require.NoError(t, rows.Err())
	require.True(t, 0 < pages && pages < 10, "%d pages", pages)
	require.NoError(t, postgres.PruneAll(t.Context(), s))
	health, err := s.Health(t.Context())
	require.NoError(t, err)
	require.Positive(t, health.OldestSnapshot)
	require.Equal(t, rev, health.Newest)
	run(t, report, "commit")
	health, err = s.Health(t.Context())
	require.NoError(t, err)
	require.Len(t, health.Tables, 3)
	require.Positive(t, health.Bytes)
}
