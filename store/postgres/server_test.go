package postgres_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/pgserver"
	"github.com/conveyor-go/conveyor/internal/testenv"
)

// server is where the tests connect: the one that CONVEYOR_POSTGRES names, or a cluster of their own.
type server struct {
	dsn     string
	cluster *cluster // nil for a server of somebody else's
}

// theServer is started by the first test that needs it. It ends with the process of the tests.
var theServer struct {
	once sync.Once
	server
	missing string // why there is none
	err     error
}

// needServer returns the server. It skips the test if the machine has none.
func needServer(t testing.TB) server {
	t.Helper()
	theServer.once.Do(func() {
		if dsn := os.Getenv("CONVEYOR_POSTGRES"); dsn != "" {
			theServer.dsn = dsn
			return
		}
		made, err := pgserver.New("")
		if errors.Is(err, pgserver.ErrMissing) {
			theServer.missing = "needs PostgreSQL: initdb is not installed, and CONVEYOR_POSTGRES is not set"
			return
		}
		c := &cluster{made}
		if err == nil {
			err = c.start()
		}
		if err != nil {
			theServer.err = err
			return
		}
		theServer.server = server{dsn: c.DSN(), cluster: c}
	})
	if theServer.missing != "" {
		testenv.Skip(t, theServer.missing)
	}
	require.NoError(t, theServer.err)
	return theServer.server
}

// needCluster returns a cluster that the test may stop. It skips the test where the server is somebody else's.
func needCluster(t testing.TB) *cluster {
	t.Helper()
	if s := needServer(t); s.cluster == nil {
		testenv.Skip(t, "needs a PostgreSQL of its own: CONVEYOR_POSTGRES is set")
	}
	return theServer.cluster
}

// cluster is a PostgreSQL of the tests' own.
type cluster struct{ *pgserver.Cluster }

// start starts the server and waits until it answers.
func (c cluster) start() error {
	// A benchmark measures the disk. A test does not: nothing here stops the machine.
	sync := "off"
	if f := flag.Lookup("test.bench"); f != nil && f.Value.String() != "" {
		sync = "on"
	}
	return c.Start("fsync="+sync, "max_connections=200", "shared_buffers=64MB", "max_wal_size=1GB", "autovacuum_naptime=5s", "max_prepared_transactions=10")
}

// database makes a database and returns its DSN. It is dropped at the end of the test.
func (s server) database(t testing.TB, name string) string {
	t.Helper()
	admin := connect(t, s.dsn)
	run(t, admin, "drop database if exists "+name+" with (force)")
	run(t, admin, "create database "+name)
	t.Cleanup(func() { run(t, connect(t, s.dsn), "drop database if exists "+name+" with (force)") })
	return s.with(t, "dbname="+name)
}

// with returns the DSN of the server with other keywords.
func (s server) with(t testing.TB, keywords string) string {
	t.Helper()
	if strings.Contains(s.dsn, "://") {
		testenv.Skip(t, "needs CONVEYOR_POSTGRES as keywords, not as a URL")
	}
	return s.dsn + " " + keywords
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.WithoutCancel(t.Context()), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func run(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	_, err := conn.Exec(context.WithoutCancel(t.Context()), sql, args...)
	require.NoError(t, err, sql)
}
