package postgres_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

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
		bin, ok := binaries()
		if !ok {
			theServer.missing = "needs PostgreSQL: initdb is not installed, and CONVEYOR_POSTGRES is not set"
			return
		}
		c, err := newCluster(bin)
		if err == nil {
			err = c.start()
		}
		if err != nil {
			theServer.err = err
			return
		}
		theServer.server = server{dsn: c.dsn(), cluster: c}
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

// binaries returns the folder of initdb and postgres.
func binaries() (dir string, ok bool) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), true
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", false
	}
	return filepath.Dir(found[len(found)-1]), true
}

// cluster is a PostgreSQL of the tests' own, on a socket in a temporary folder.
type cluster struct {
	bin, dir string
	owner    *owner // nil for the user of the tests
	process  *exec.Cmd
	log      *os.File
	alive    *os.File // a pipe that ends with this process, however it ends
}

// owner is the user that runs the server, which refuses to run as root.
type owner struct{ uid, gid uint32 }

// newCluster makes a cluster in a temporary folder.
func newCluster(bin string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "conveyor-postgres-*")
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: bin, dir: dir}
	if os.Geteuid() == 0 {
		if c.owner, err = lessThanRoot(); err != nil {
			return nil, err
		}
		if err := os.Chown(dir, int(c.owner.uid), int(c.owner.gid)); err != nil {
			return nil, err
		}
	}
	out, err := c.command("initdb", "-D", c.data(), "-U", "conveyor", "-A", "trust", "-E", "UTF8", "--locale=C", "-N").CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), os.RemoveAll(dir))
	}
	return c, c.removeAtTheEnd()
}

// removeAtTheEnd starts a process that stops the server and removes the cluster when this process has ended.
func (c *cluster) removeAtTheEnd() error {
	ended, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ended.Close()
	c.alive = alive
	const script = `cat >/dev/null; pid=$(head -n 1 data/postmaster.pid 2>/dev/null) && kill -QUIT "$pid"; cd / && rm -rf "$0"`
	cmd := exec.Command("sh", "-c", script, c.dir)
	cmd.Dir, cmd.Stdin = c.dir, ended
	return cmd.Start()
}

func lessThanRoot() (*owner, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, other := strconv.ParseUint(u.Gid, 10, 32)
		return &owner{uint32(uid), uint32(gid)}, errors.Join(err, other)
	}
	return nil, errors.New("there is no user postgres or nobody who could run a server")
}

func (c *cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *cluster) dsn() string {
	return fmt.Sprintf("host=%s port=5432 user=conveyor dbname=postgres", c.dir)
}

func (c *cluster) socket() string { return filepath.Join(c.dir, ".s.PGSQL.5432") }

func (c *cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	runAs(cmd, c.owner)
	return cmd
}

// start starts the server and waits until it answers.
func (c *cluster) start(settings ...string) error {
	// A benchmark measures the disk. A test does not: nothing here stops the machine.
	sync := "off"
	if f := flag.Lookup("test.bench"); f != nil && f.Value.String() != "" {
		sync = "on"
	}
	args := []string{
		"-D", c.data(), "-k", c.dir, "-c", "listen_addresses=", "-c", "fsync=" + sync, "-c", "max_connections=200", "-c", "shared_buffers=64MB",
		"-c", "max_wal_size=1GB", "-c", "autovacuum_naptime=5s", "-c", "max_prepared_transactions=10",
	}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	var err error
	if c.log, err = os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	c.process = c.command("postgres", args...)
	c.process.Stdout, c.process.Stderr = c.log, c.log
	if err := c.process.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, c.dsn())
		if err == nil {
			return conn.Close(ctx)
		}
		if ctx.Err() != nil {
			out, _ := os.ReadFile(c.log.Name())
			return fmt.Errorf("the server does not answer: %w\n%s", err, out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop stops the server: at once as a crash does, or in order but without waiting for clients.
func (c *cluster) stop(crash bool) error {
	signal := fastShutdown
	if crash {
		signal = immediateShutdown
	}
	if err := c.process.Process.Signal(signal); err != nil {
		return err
	}
	_ = c.process.Wait() // says how it ended, which is as it was told
	return c.log.Close()
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
