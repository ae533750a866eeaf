package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/pgserver"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
)

// TestAFailoverToAStandbyGivesOutNoRevisionAgain loses the newest commits together with the primary, because the standby has not
// received them.
func TestAFailoverToAStandbyGivesOutNoRevisionAgain(t *testing.T) {
	testenv.Rare(t)
	needCluster(t) // whether there is one
	made, err := pgserver.New("")
	require.NoError(t, err)
	primary := cluster{made}
	require.NoError(t, primary.start())
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			require.NoError(t, primary.Stop(true))
		}
	})
	opts := ownSchema(t, primary.DSN())
	opts.Patience = time.Minute
	s := open(t, fmt.Sprintf("host=%s,%s port=5432,5432 user=conveyor dbname=postgres", primary.Dir, primary.Dir), opts)

	copied, err := primary.Standby()
	require.NoError(t, err)
	standby := cluster{copied}
	require.NoError(t, standby.start())
	t.Cleanup(func() { require.NoError(t, standby.Stop(true)) })
	both := open(t, fmt.Sprintf("host=%s,%s port=5432,5432 user=conveyor dbname=postgres", primary.Dir, standby.Dir), opts)
	kept, err := s.Commit(t.Context(), store.Put("kept", nil))
	require.NoError(t, err)
	onStandby := connect(t, standby.DSN())
	require.Eventually(t, func() bool {
		var there bool
		err := onStandby.QueryRow(t.Context(), `select exists (select from "`+quoted(opts.Schema)+`".log where rev = $1)`, int64(kept)).Scan(&there)
		return err == nil && there
	}, time.Minute, 10*time.Millisecond)
	run(t, onStandby, "select pg_wal_replay_pause()")
	run(t, connect(t, primary.DSN()), "select pg_terminate_backend(pid) from pg_stat_replication")
	run(t, onStandby, "alter system set primary_conninfo = ''")
	run(t, onStandby, "select pg_reload_conf()")
	var lost store.Revision
	require.Eventually(t, func() bool { // until it follows no more
		lost, err = both.Commit(t.Context(), store.Put("lost", nil))
		var n int
		return err == nil && connect(t, primary.DSN()).QueryRow(t.Context(), "select count(*) from pg_stat_replication").Scan(&n) == nil && n == 0
	}, time.Minute, 50*time.Millisecond)
	lost, err = both.Commit(t.Context(), store.Put("lost", nil))
	require.NoError(t, err)
	require.NoError(t, primary.Stop(true))
	stopped = true
	run(t, onStandby, "select pg_wal_replay_resume()")
	run(t, onStandby, "select pg_promote()")

	rev, err := both.Commit(t.Context(), store.Put("after", nil)) // the store finds the new primary by itself
	require.NoError(t, err)
	require.Greater(t, rev, lost, "a revision is given out a second time")
	_, err = both.Get(t.Context(), "kept")
	require.NoError(t, err)
	if r, err := both.Get(t.Context(), "lost"); err == nil {
		require.Less(t, r.Revision, lost, "the standby was not behind")
	}
	for _, err := range both.Watch(t.Context(), "", lost) {
		require.ErrorIs(t, err, store.ErrGap, "a watch that has told of a lost commit goes on")
	}
}
