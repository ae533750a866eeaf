// Package pgserver starts a PostgreSQL of its own from the programs that are installed. Only tests and benchmarks import it.
package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// ErrMissing means that PostgreSQL is not installed.
var ErrMissing = errors.New("PostgreSQL is not installed: there is no initdb")

// Cluster is a PostgreSQL on a socket in a temporary folder. It is removed when the process that has made it ends, however it ends.
type Cluster struct {
	Dir string // of the socket, and of all there is

	bin     string
	owner   *owner // nil for the user of this process
	process *exec.Cmd
	log     *os.File
	alive   *os.File // a pipe that ends with this process
}

// owner is the user that runs the server, which refuses to run as root.
type owner struct{ uid, gid uint32 }

// New makes a cluster in a temporary folder below dir; empty means the folder of the system. It returns [ErrMissing] if
// PostgreSQL is not installed.
func New(dir string) (*Cluster, error) {
	bin, ok := binaries()
	if !ok {
		return nil, ErrMissing
	}
	dir, err := os.MkdirTemp(dir, "conveyor-postgres-*")
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, Dir: dir}
	if c.owner, err = giveAway(dir); err != nil {
		return nil, err
	}
	out, err := c.command("initdb", "-D", c.data(), "-U", "conveyor", "-A", "trust", "-E", "UTF8", "--locale=C", "-N").CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), os.RemoveAll(dir))
	}
	return c, c.removeAtTheEnd()
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

// removeAtTheEnd starts a process that stops the server and removes the cluster when this process has ended.
func (c *Cluster) removeAtTheEnd() error {
	ended, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ended.Close()
	c.alive = alive
	const script = `cat >/dev/null; pid=$(head -n 1 data/postmaster.pid 2>/dev/null) && kill -QUIT "$pid"; cd / && rm -rf "$0"`
	cmd := exec.Command("sh", "-c", script, c.Dir)
	cmd.Dir, cmd.Stdin = c.Dir, ended
	return cmd.Start()
}

// Command returns a command that runs in a folder of its own: as another user than root, like the server.
func Command(dir, program string, args ...string) (*exec.Cmd, error) {
	to, err := giveAway(dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	runAs(cmd, to)
	return cmd, nil
}

// giveAway gives a folder to the user that runs a server, and returns that user. It does nothing if this process is not root's.
func giveAway(dir string) (*owner, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	to, err := lessThanRoot()
	if err != nil {
		return nil, err
	}
	return to, os.Chown(dir, int(to.uid), int(to.gid))
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

// At returns the cluster whose files were copied from c to another folder. It is not removed.
func (c *Cluster) At(dir string) *Cluster { return &Cluster{Dir: dir, bin: c.bin, owner: c.owner} }

func (c *Cluster) data() string { return filepath.Join(c.Dir, "data") }

// DSN returns the connection string of a superuser.
func (c *Cluster) DSN() string {
	return fmt.Sprintf("host=%s port=5432 user=conveyor dbname=postgres", c.Dir)
}

// Process returns the id of the process that has started all others of the server.
func (c *Cluster) Process() int { return c.process.Process.Pid }

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.Dir
	runAs(cmd, c.owner)
	return cmd
}

// patience is how long a server can take to answer.
const patience = time.Minute

// Start starts the server with settings such as "fsync=off", and waits until it answers.
func (c *Cluster) Start(settings ...string) error {
	args := []string{"-D", c.data(), "-k", c.Dir, "-c", "listen_addresses="}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	var err error
	if c.log, err = os.OpenFile(filepath.Join(c.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	c.process = c.command("postgres", args...)
	c.process.Stdout, c.process.Stderr = c.log, c.log
	if err := c.process.Start(); err != nil {
		return err
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := c.command("pg_isready", "-q", "-h", c.Dir, "-d", "postgres").Run()
		if err == nil {
			return nil
		}
		if time.Since(began) > patience {
			out, _ := os.ReadFile(c.log.Name())
			return fmt.Errorf("the server does not answer: %w\n%s", err, out)
		}
	}
}

// Stop stops the server: at once as a crash does, or in order but without waiting for clients.
func (c *Cluster) Stop(crash bool) error {
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

// Standby makes a standby of a server that runs. It is not started. It follows asynchronously.
func (c *Cluster) Standby() (*Cluster, error) {
	dir, err := os.MkdirTemp("", "conveyor-postgres-*")
	if err != nil {
		return nil, err
	}
	s := &Cluster{bin: c.bin, Dir: dir}
	if s.owner, err = giveAway(dir); err != nil {
		return nil, err
	}
	out, err := s.command("pg_basebackup", "-h", c.Dir, "-U", "conveyor", "-D", s.data(), "-R", "-c", "fast").CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pg_basebackup: %w: %s", err, out), os.RemoveAll(dir))
	}
	return s, s.removeAtTheEnd()
}
