package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
)

// load is what writers do to a store while something happens to its server: they count by compare-and-set, and write keys of
// their own.
type load struct {
	commits atomic.Int64  // that were acknowledged
	counted atomic.Int64  // those of them that were increments
	written [][]string    // keys that were acknowledged, by writer
	errs    []error       // of each writer, the error that ended it
	stop    chan struct{} // closed to end the writers
	all     sync.WaitGroup
}

const writers = 8

func startLoad(t testing.TB, handles ...store.Store) *load {
	t.Helper()
	_, err := handles[0].Commit(t.Context(), store.Put("count", []byte("0")))
	require.NoError(t, err)
	l := &load{written: make([][]string, writers), errs: make([]error, writers), stop: make(chan struct{})}
	for w := range writers {
		l.all.Go(func() { l.errs[w] = l.write(context.WithoutCancel(t.Context()), handles[w%len(handles)], w) })
	}
	return l
}

func (l *load) write(ctx context.Context, s store.Store, w int) error {
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return nil
		default:
		}
		rec, err := s.Get(ctx, "count")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(rec.Value))
		if err != nil {
			return err
		}
		key := fmt.Sprintf("w%d/%d", w, i)
		if _, err = s.Commit(ctx, store.Put(key, []byte(key)).IfAbsent()); err != nil { // a conflict would be with itself
			return err
		}
		l.written[w] = append(l.written[w], key)
		l.commits.Add(1)
		switch _, err = s.Commit(ctx, store.Put("count", []byte(strconv.Itoa(n+1))).If(rec.Revision)); {
		case err == nil:
			l.counted.Add(1)
			l.commits.Add(1)
		case !errors.Is(err, store.ErrConflict):
			return err
		}
	}
}

// await waits until n more commits have been acknowledged.
func (l *load) await(t testing.TB, n int64) {
	t.Helper()
	n += l.commits.Load()
	require.Eventually(t, func() bool { return l.commits.Load() >= n }, time.Minute, time.Millisecond)
}

// end ends the writers and checks that nothing acknowledged is lost and that nothing has happened twice.
func (l *load) end(t testing.TB, s store.Store) {
	t.Helper()
	close(l.stop)
	l.all.Wait()
	for w := range writers {
		require.NoError(t, l.errs[w], "writer %d", w)
		found := 0
		for rec, err := range s.List(t.Context(), store.Query{Prefix: fmt.Sprintf("w%d/", w)}) {
			require.NoError(t, err)
			require.Equal(t, rec.Key, string(rec.Value))
			found++
		}
		require.Len(t, l.written[w], found, "writer %d", w)
	}
	rec, err := s.Get(t.Context(), "count")
	require.NoError(t, err)
	require.Equal(t, strconv.FormatInt(l.counted.Load(), 10), string(rec.Value))
	testenv.Figure(t, "%d commits acknowledged, 0 lost, 0 twice", l.commits.Load())
}

// watched takes note of the keys that a watch tells.
type watched struct {
	mu   sync.Mutex
	keys map[string]bool
	err  error
	done sync.WaitGroup
}

// startWatch watches until the key "end" comes.
func startWatch(t testing.TB, s *postgres.Store) *watched {
	w := &watched{keys: map[string]bool{}}
	w.done.Go(func() {
		for c, err := range s.Watch(t.Context(), "", 0) {
			if err != nil {
				w.err = err
				return
			}
			w.keys[c.Key] = true
			if c.Key == "end" {
				return
			}
		}
	})
	return w
}

func (w *watched) end(t testing.TB, s store.Store) {
	t.Helper()
	_, err := s.Commit(t.Context(), store.Put("end", nil))
	require.NoError(t, err)
	w.done.Wait()
	require.NoError(t, w.err)
	for rec, err := range s.List(t.Context(), store.Query{}) {
		require.NoError(t, err)
		require.True(t, w.keys[rec.Key], "the watch has missed %s", rec.Key)
	}
}

func TestTerminatedBackendsLoseNothingAcknowledged(t *testing.T) {
	server := needServer(t)
	dsn := server.with(t, "application_name=terminated")
	opts := newSchema(t, dsn)
	a, b := open(t, dsn, opts), open(t, dsn, opts)
	watch := startWatch(t, b)
	l := startLoad(t, a, b)
	admin := connect(t, server.dsn)
	terminated := 0
	for range testenv.Some(t, 3, 30) {
		l.await(t, 30)
		var n int
		require.NoError(t, admin.QueryRow(t.Context(),
			"select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'terminated'").Scan(&n))
		terminated += n
	}
	l.end(t, b)
	watch.end(t, a)
	require.Positive(t, terminated)
	testenv.Figure(t, "%d backends terminated", terminated)
}

func TestAServerThatRestartsLosesNothingAcknowledged(t *testing.T) {
	cluster := needCluster(t)
	opts := newSchema(t, cluster.DSN())
	a, b := open(t, cluster.DSN(), opts), open(t, cluster.DSN(), opts)
	watch := startWatch(t, b)
	l := startLoad(t, a, b)
	for _, crash := range testenv.First(t, 2, true, false, true, false, true, true) {
		l.await(t, 30)
		require.NoError(t, cluster.Stop(crash))
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, cluster.start())
	}
	l.await(t, 30)
	l.end(t, b)
	watch.end(t, a)
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
