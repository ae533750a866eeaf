package postgres_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/load"
	"github.com/conveyor-go/conveyor/internal/pgserver"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
	"github.com/conveyor-go/conveyor/store/storetest"
)

// quoted is a name without the quotes around it.
func quoted(name string) string { return strings.ReplaceAll(name, `"`, `""`) }

// TestStoreKeepsTheContractForAHostileRole has a role whose sessions have every default that could do harm: another isolation
// level, transactions that only read, commits that are not synced, and a search path with operators and functions that lie.
func TestStoreKeepsTheContractForAHostileRole(t *testing.T) {
	server := needServer(t)
	t.Cleanup(func() { run(t, connect(t, server.dsn), "drop role conveyor_hostile") }) // after the database is dropped
	dsn := server.database(t, "hostile")
	admin := connect(t, dsn)
	run(t, admin, `
		create schema evil;
		create table evil.records (); create table evil.version (); create table evil.log ();
		create domain evil.bytea as pg_catalog.text; create domain evil.bigint as pg_catalog.text;
		create function evil.lie(pg_catalog.bytea, pg_catalog.bytea) returns boolean language sql as 'select false';
		create operator evil.= (leftarg = pg_catalog.bytea, rightarg = pg_catalog.bytea, function = evil.lie);
		create operator evil.< (leftarg = pg_catalog.bytea, rightarg = pg_catalog.bytea, function = evil.lie);
		create operator evil.>= (leftarg = pg_catalog.bytea, rightarg = pg_catalog.bytea, function = evil.lie);
		create function evil.lie(int8, int8) returns boolean language sql as 'select false';
		create operator evil.> (leftarg = int8, rightarg = int8, function = evil.lie);
		create operator evil.<> (leftarg = int8, rightarg = int8, function = evil.lie);
		create function evil.clock_timestamp() returns timestamptz language sql as $$ select 'epoch'::timestamptz $$;
		create function evil.octet_length(pg_catalog.bytea) returns int language sql as 'select 1000000000';
		create function evil.unnest(anyarray) returns setof anyelement language sql as 'select $1[1] where false';
		create function evil.pg_advisory_xact_lock(int, int) returns void language sql as '';
		create function evil.pg_current_wal_lsn() returns pg_lsn language sql as $$ select '0/0'::pg_lsn $$;
		drop role if exists conveyor_hostile; create role conveyor_hostile login superuser;
		alter role conveyor_hostile set search_path = evil, pg_catalog;
		alter role conveyor_hostile set default_transaction_isolation = 'repeatable read';
		alter role conveyor_hostile set default_transaction_read_only = on;
		alter role conveyor_hostile set synchronous_commit = off;
		alter role conveyor_hostile set bytea_output = 'escape';
		alter role conveyor_hostile set datestyle = 'German'`)
	user := dsn + " user=conveyor_hostile"

	opts := postgres.Options{PruneEvery: -1}
	require.NoError(t, postgres.Migrate(t.Context(), user, opts))
	a, b := open(t, user, opts), open(t, user, opts)
	watch := load.Watch(t, a)
	l := load.Start(t, a, b)
	l.Await(t, int64(testenv.Some(t, 50, 2000)))
	l.End(t, b)
	_, err := a.Commit(t.Context(), store.Check("count", 0))
	require.ErrorIs(t, err, store.ErrConflict)
	watch.End(t, a)
	health, err := a.Health(t.Context())
	require.NoError(t, err)
	require.Len(t, health.Tables, 3)

	// In the function, the commit is synced although the role does not ask for it.
	conn := connect(t, user)
	run(t, conn, "begin isolation level read committed read write")
	run(t, conn, "select * from conveyor.settle('00000000-0000-0000-0000-000000000001', 1, 9000000000000000)")
	var sync string
	require.NoError(t, conn.QueryRow(t.Context(), "show synchronous_commit").Scan(&sync))
	require.Equal(t, "on", sync)
	run(t, conn, "rollback")
	_, err = conn.Exec(t.Context(), "select * from conveyor.settle('00000000-0000-0000-0000-000000000001', 1, 9000000000000000)")
	require.Equal(t, "CV002", sqlstate(err), "%v", err)
}

// bouncer starts pgbouncer in transaction mode in front of a server, and returns the DSN that leads through it.
func bouncer(t testing.TB, s server) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		testenv.Skip(t, "needs pgbouncer")
	}
	config, err := pgx.ParseConfig(s.dsn)
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "conveyor-pgbouncer-*")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	password := ""
	if config.Password != "" {
		password = " password='" + config.Password + "'"
	}
	ini := fmt.Sprintf(`
[databases]
* = host=%s port=%d user=%s%s
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = %s
auth_type = any
pool_mode = transaction
default_pool_size = 3
`, config.Host, config.Port, config.User, password, dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ini"), []byte(ini), 0o644))
	cmd, err := pgserver.Command(dir, program, "-q", filepath.Join(dir, "ini"))
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(dir, ".s.PGSQL.6432"))
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	return fmt.Sprintf("host=%s port=6432 user=%s dbname=%s", dir, config.User, config.Database)
}

func TestStoreWorksBehindPgbouncerInTransactionMode(t *testing.T) {
	server := needServer(t)
	dsn := bouncer(t, server)
	opts := newSchema(t, server.dsn)
	deaf := opts // listens through pgbouncer, and hears nothing
	opts.ListenDSN = server.dsn
	require.NoError(t, postgres.Migrate(t.Context(), dsn, opts))
	a := open(t, dsn, opts)
	opts.NoNotify = true
	b := open(t, dsn, opts)
	watch, other, third := load.Watch(t, a), load.Watch(t, b), load.Watch(t, open(t, dsn, deaf))
	l := load.Start(t, a, b)
	var readers sync.WaitGroup
	for range 10 { // more than pgbouncer has connections
		readers.Go(func() {
			for range 20 {
				for _, err := range b.List(t.Context(), store.Query{Limit: 30}) {
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	readers.Wait()
	l.Await(t, 50)
	l.End(t, b)
	watch.End(t, a)
	other.End(t, b)
	third.End(t, b)
}

func TestStoreKeepsTheContractBehindPgbouncer(t *testing.T) {
	testenv.Rare(t)
	server := needServer(t)
	dsn := bouncer(t, server)
	storetest.Run(t, harness(server, func(o *postgres.Options) { o.NoNotify, o.Poll = true, 20*time.Millisecond },
		func(t testing.TB, opts postgres.Options) *postgres.Store { return open(t, dsn, opts) }))
}
