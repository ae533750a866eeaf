package postgres_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
)

func TestMigrateCanBeCalledAgainAndAtTheSameTime(t *testing.T) {
	dsn := needServer(t).database(t, "migrations")
	var opts postgres.Options
	_, err := postgres.Open(t.Context(), dsn, opts)
	require.ErrorIs(t, err, postgres.ErrVersion)
	require.ErrorContains(t, err, "call Migrate")

	var errs [5]error
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = postgres.Migrate(t.Context(), dsn, opts) })
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	s := open(t, dsn, opts)
	rev, err := s.Commit(t.Context(), store.Put("key", []byte("value")))
	require.NoError(t, err)
	require.NoError(t, postgres.Migrate(t.Context(), dsn, opts))
	rec, err := s.Get(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, store.Record{Key: "key", Value: []byte("value"), Revision: rev}, rec)
	_, err = s.Commit(t.Context(), store.Put("key", nil).If(rev))
	require.NoError(t, err)
}

// TestTablesOfTheFirstFormatAreMigrated has tables as the first version made them: another function commit_group.
func TestTablesOfTheFirstFormatAreMigrated(t *testing.T) {
	dsn := needServer(t).database(t, "older")
	opts := postgres.Options{Schema: "older"}
	require.NoError(t, postgres.Migrate(t.Context(), dsn, opts))
	conn := connect(t, dsn)
	run(t, conn, `delete from older.version; insert into older.version values (1);
		create function older.commit_group(uuid, bigint, int, bigint, text, int[], bytea[], bigint[], int[], bytea[], bytea[], int[], bytea[],
			int[], bytea[], bigint[], int[], bytea[], bytea[], int[], bytea[]) returns int language sql as 'select 1'`)
	_, err := postgres.Open(t.Context(), dsn, opts)
	require.ErrorIs(t, err, postgres.ErrVersion)
	require.ErrorContains(t, err, "call Migrate")
	require.NoError(t, postgres.Migrate(t.Context(), dsn, opts))
	_, err = open(t, dsn, opts).Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	var functions int
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from pg_proc where proname = 'commit_group' and pronamespace = 'older'::regnamespace").Scan(&functions))
	require.Equal(t, 1, functions)
}

func TestTablesOfANewerProgramAreLeftAlone(t *testing.T) {
	dsn := needServer(t).database(t, "newer")
	opts := postgres.Options{Schema: "newer"}
	require.NoError(t, postgres.Migrate(t.Context(), dsn, opts))
	run(t, connect(t, dsn), "insert into newer.version values (99)")
	require.ErrorIs(t, postgres.Migrate(t.Context(), dsn, opts), postgres.ErrVersion)
	_, err := postgres.Open(t.Context(), dsn, opts)
	require.ErrorIs(t, err, postgres.ErrVersion)
	require.ErrorContains(t, err, "format 99")

	run(t, connect(t, dsn), "delete from newer.version")
	_, err = postgres.Open(t.Context(), dsn, opts)
	require.ErrorIs(t, err, postgres.ErrVersion)
	require.ErrorContains(t, err, "call Migrate")
}

func TestAConnectionCanBeUsedAfterAMigrationThatFailed(t *testing.T) {
	dsn := needServer(t).database(t, "failing")
	run(t, connect(t, dsn), "create schema conveyor; create table conveyor.records ()")
	conn := connect(t, dsn)
	require.ErrorContains(t, postgres.MigrateConn(t.Context(), conn.PgConn(), postgres.Options{}), "tables of something else")
	run(t, conn, "select 1")
	var n int
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from pg_tables where schemaname = 'conveyor'").Scan(&n))
	require.Equal(t, 1, n, "a part of the migration is left")
}

// TestOpenNeedsNoRightsToMakeTables has an administrator run the printed SQL and grant what docs/postgres.md lists.
func TestOpenNeedsNoRightsToMakeTables(t *testing.T) {
	server := needServer(t)
	dsn := server.database(t, "roles")
	admin := connect(t, dsn)
	sql, err := postgres.MigrationSQL(postgres.Options{})
	require.NoError(t, err)
	_, err = admin.PgConn().Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err)
	run(t, admin, "drop role if exists conveyor_app; create role conveyor_app login; revoke all on schema public from public")
	t.Cleanup(func() { run(t, connect(t, server.dsn), "drop role conveyor_app") })
	user := dsn + " user=conveyor_app"

	_, err = postgres.Open(t.Context(), user, postgres.Options{})
	require.Equal(t, "42501", sqlstate(err), "%v", err)
	run(t, admin, `
		grant usage on schema conveyor to conveyor_app;
		grant select on conveyor.version to conveyor_app;
		grant select, insert, update, delete on conveyor.records, conveyor.transient, conveyor.log to conveyor_app`)
	require.Error(t, postgres.Migrate(t.Context(), user, postgres.Options{}), "the role may make tables")
	t.Cleanup(func() { run(t, connect(t, dsn), "drop owned by conveyor_app") })

	s := open(t, user, postgres.Options{})
	rev, err := s.Commit(t.Context(), store.Put("a", []byte("1")), store.Put("~a", []byte("2")))
	require.NoError(t, err)
	_, err = s.Commit(t.Context(), store.Delete("a").If(rev), store.Check("~a", rev))
	require.NoError(t, err)
	require.NoError(t, postgres.PruneAll(t.Context(), s))
	_, err = s.Health(t.Context())
	require.NoError(t, err)
	last, err := s.Commit(t.Context(), store.Put("b", nil))
	require.NoError(t, err)
	for c, err := range s.Watch(t.Context(), "", rev+1) {
		require.NoError(t, err)
		require.Equal(t, store.Change{Key: "b", Revision: last}, c)
		break
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		name string
		opts postgres.Options
		want string
	}{
		{"schema of the system", postgres.Options{Schema: "pg_conveyor"}, "Options.Schema"},
		{"patience", postgres.Options{Patience: -1}, "Options.Patience"},
		{"poll", postgres.Options{Poll: -1}, "Options.Poll"},
		{"age of the log", postgres.Options{LogAge: 1}, "Options.LogAge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := postgres.OpenPool(t.Context(), nil, c.opts)
			require.ErrorContains(t, err, c.want)
			_, err = postgres.MigrationSQL(c.opts)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func sqlstate(err error) string {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return answer.Code
	}
	return ""
}
