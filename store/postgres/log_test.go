package postgres_test

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
)

func TestPruneRemovesWhatIsOldInBatches(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	s := open(t, server.dsn, opts)
	log := pgx.Identifier{opts.Schema, "log"}.Sanitize()
	conn := connect(t, server.dsn)
	run(t, conn, `insert into `+log+` (rev, base, writer, grp, kind, failed, nums, keys, place, at)
		select i, i - 1, gen_random_uuid(), i, 'c', '{}', '{1}', array['k'::bytea],
			(select "`+quoted(opts.Schema)+`".place()), now() - interval '1 hour' * (2501 - i) / 1000 from generate_series(1, 2500) i`)
	rev, err := s.Commit(t.Context(), store.Put("new", nil))
	require.NoError(t, err)
	require.Equal(t, store.Revision(2501), rev)

	_, err = s.Prune(t.Context(), time.Minute)
	require.ErrorContains(t, err, "less than 10m")
	removed, err := s.Prune(t.Context(), time.Hour)
	require.NoError(t, err)
	require.InDelta(t, 1501, removed, 1)
	health, err := s.Health(t.Context())
	require.NoError(t, err)
	require.InDelta(t, time.Hour, health.LogAge, float64(time.Minute))

	for c, err := range s.Watch(t.Context(), "", 1000) {
		require.ErrorIs(t, err, store.ErrGap)
		require.Zero(t, c)
	}
	for c, err := range s.Watch(t.Context(), "", 1502) {
		require.NoError(t, err)
		require.Equal(t, store.Change{Key: "k", Revision: 1503}, c)
		break
	}
	removed, err = s.Prune(t.Context(), time.Hour)
	require.NoError(t, err)
	require.LessOrEqual(t, removed, 10)
}

func TestTheLogIsPrunedInTheBackground(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	opts.PruneEvery = 10 * time.Millisecond
	s := open(t, server.dsn, opts)
	_, err := s.Commit(t.Context(), store.Put("a", nil))
	require.NoError(t, err)
	log := pgx.Identifier{opts.Schema, "log"}.Sanitize()
	admin := connect(t, server.dsn)
	run(t, admin, "update "+log+" set at = at - interval '2 hours'")
	require.Eventually(t, func() bool {
		var oldest *int64
		require.NoError(t, admin.QueryRow(t.Context(), "select min(base) from "+log).Scan(&oldest))
		return oldest == nil || *oldest > 0
	}, 20*time.Second, 20*time.Millisecond)
	for _, err := range s.Watch(t.Context(), "", 0) {
		require.ErrorIs(t, err, store.ErrGap)
	}
	rev, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, store.Revision(1), rev, "the newest revision was forgotten with the log")
}

// TestAGroupThatWasSettledIsNotCarriedOutLater calls the functions as a statement does that arrives after its caller has asked for it.
func TestAGroupThatWasSettledIsNotCarriedOutLater(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	s := open(t, server.dsn, opts)
	rev, err := s.Commit(t.Context(), store.Put("a", nil))
	require.NoError(t, err)
	conn := connect(t, server.dsn)
	schema := pgx.Identifier{opts.Schema}.Sanitize()
	commit := func(group int) error {
		_, err := conn.Exec(t.Context(), `select `+schema+`.commit_group(md5('writer')::uuid, $1, 1, 9000000000000000,
			'{}', '{}', '{}', '{1}', array['b'::bytea], array['v'::bytea], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')`, group)
		return err
	}
	settle := func(group int) (happened bool, base *int64) {
		require.NoError(t, conn.QueryRow(t.Context(), `select happened, base from `+schema+`.settle(md5('writer')::uuid, $1, 9000000000000000)`, group).
			Scan(&happened, &base))
		return happened, base
	}
	for range 2 {
		happened, _ := settle(1)
		require.False(t, happened)
		require.Equal(t, "23505", sqlstate(commit(1)))
		_, err = s.Get(t.Context(), "b")
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	require.NoError(t, commit(2))
	happened, base := settle(2)
	require.True(t, happened)
	require.EqualValues(t, rev+1, *base, "the revision of the group that was not carried out")
	require.Equal(t, "23505", sqlstate(commit(2)), "a group was carried out twice")
	var told []store.Change
	for c, err := range s.Watch(t.Context(), "", rev) {
		require.NoError(t, err)
		if told = append(told, c); c.Revision == rev+2 && c.Key == "" {
			break
		}
	}
	require.Contains(t, told, store.Change{Key: "b", Revision: rev + 2})
}

// TestRevisionsOfALostHistoryAreNotGivenOutAgain has the server say that it is in another place, as after a failover.
func TestRevisionsOfALostHistoryAreNotGivenOutAgain(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	s := open(t, server.dsn, opts)
	var last store.Revision
	var err error
	for i := range 5 {
		last, err = s.Commit(t.Context(), store.Put(fmt.Sprint("k", i), nil))
		require.NoError(t, err)
	}
	// The standby has not got the last two commits.
	conn := connect(t, server.dsn)
	in := func(name string) string { return pgx.Identifier{opts.Schema, name}.Sanitize() }
	run(t, conn, "delete from "+in("log")+" where rev > 3")
	run(t, conn, "delete from "+in("records")+" where rev > 3")
	run(t, conn, "update "+in("log")+" set place = 'old'")

	rev, err := s.Commit(t.Context(), store.Put("after", nil))
	require.NoError(t, err)
	require.Greater(t, rev, last+1<<30)
	next, err := s.Commit(t.Context(), store.Put("after", nil).If(rev))
	require.NoError(t, err)
	require.Equal(t, rev+1, next)

	for c, err := range s.Watch(t.Context(), "", last) {
		require.ErrorIs(t, err, store.ErrGap, "who has seen a commit that was lost must list anew")
		require.Zero(t, c)
	}
	for c, err := range s.Watch(t.Context(), "", 3) {
		require.NoError(t, err)
		if c.Key != "" {
			require.Equal(t, store.Change{Key: "after", Revision: rev}, c)
			break
		}
	}
}

// TestARestoredBackupGivesOutNoRevisionAgain copies the files of the server and recovers from them, as a restored backup does,
// while the server goes on.
func TestARestoredBackupGivesOutNoRevisionAgain(t *testing.T) {
	testenv.Rare(t)
	cluster := needCluster(t)
	opts := newSchema(t, cluster.DSN())
	s := open(t, cluster.DSN(), opts)
	_, err := s.Commit(t.Context(), store.Put("a", nil))
	require.NoError(t, err)

	backup := cluster.At(t.TempDir())
	require.NoError(t, cluster.Stop(false))
	out, err := exec.Command("sh", "-c", `cp -a "$0/data" "$1" && touch "$1/data/recovery.signal" && chown -R --reference="$0" "$1" && chmod 711 "$1" "$1/.."`,
		cluster.Dir, backup.Dir).CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, cluster.start())
	lost, err := s.Commit(t.Context(), store.Put("b", nil))
	require.NoError(t, err)
	require.NoError(t, s.Close())

	require.NoError(t, backup.Start("restore_command=false", "max_prepared_transactions=10", "max_connections=200"))
	defer func() { require.NoError(t, backup.Stop(false)) }()
	restored := open(t, backup.DSN(), opts)
	rev, err := restored.Commit(t.Context(), store.Put("c", nil))
	require.NoError(t, err)
	require.Greater(t, rev, lost)
	for _, err := range restored.Watch(t.Context(), "", lost) {
		require.ErrorIs(t, err, store.ErrGap)
	}
	require.NoError(t, restored.Close())
}

func TestCallsOnAClosedPoolSayThatTheStoreIsClosed(t *testing.T) {
	server := needServer(t)
	pool := newPool(t, server.dsn)
	s, err := postgres.OpenPool(t.Context(), pool, newSchema(t, server.dsn))
	require.NoError(t, err)
	pool.Close()
	_, err = s.Get(t.Context(), "a")
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.Commit(t.Context(), store.Put("a", nil))
	require.ErrorIs(t, err, store.ErrClosed)
	require.NoError(t, s.Close())
}
