// Package etcdserver starts servers of etcd, each in a process of its own, from nothing but the program that imports the package. Only tests
// and benchmarks import it. It is a module, because etcd needs many others.
package etcdserver

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// variable is the environment variable that makes a process a server. It has the config as JSON.
const variable = "CONVEYOR_ETCD_SERVER"

// Options say how the servers of a cluster work. Zero values are the defaults of etcd.
type Options struct {
	Sync  bool  // a commit is synced to the disk; without it, a loss of power loses what a kill does not
	Quota int64 // bytes of the database
}

// Cluster are the servers of an etcd, with their data in a temporary folder. It is removed by Close. The servers end when the process that has
// started them ends, however it ends.
type Cluster struct {
	Members []*Member
	dir     string
}

// Member is a server.
type Member struct {
	Endpoint string
	config   config

	mu      sync.Mutex // held by what happens to the server
	process *exec.Cmd
	input   io.WriteCloser
}

// config is what a process needs to be a server.
type config struct {
	Name, Dir, Client, Peer, Cluster string
	Options
}

// Main makes this process a server if it was started to be one, and does not return then. It is called at the begin of main or TestMain.
func Main() {
	set := os.Getenv(variable)
	if set == "" {
		return
	}
	if err := serve(set); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(set string) error {
	var c config
	if err := json.Unmarshal([]byte(set), &c); err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.LogLevel = c.Name, c.Dir, "fatal"
	cfg.InitialCluster, cfg.InitialClusterToken = c.Cluster, "conveyor"
	client, peer := url.URL{Scheme: "http", Host: c.Client}, url.URL{Scheme: "http", Host: c.Peer}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.UnsafeNoFsync, cfg.QuotaBackendBytes = !c.Sync, c.Quota
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	select {
	case <-e.Server.ReadyNotify():
		fmt.Println("ready")
	case err := <-e.Err():
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the process that has started this one
	e.Close()
	return nil
}

// New starts a cluster of n servers with their data below dir; empty means the folder of the system.
func New(dir string, n int, opts Options) (*Cluster, error) {
	dir, err := os.MkdirTemp(dir, "conveyor-etcd-*")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir}
	ports, err := freePorts(2 * n)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	var all []string
	for i := range n {
		name := fmt.Sprint("m", i+1)
		m := &Member{Endpoint: ports[2*i], config: config{Name: name, Dir: filepath.Join(dir, name), Client: ports[2*i], Peer: ports[2*i+1], Options: opts}}
		c.Members = append(c.Members, m)
		all = append(all, name+"=http://"+m.config.Peer)
	}
	errs := make([]error, n)
	var starts sync.WaitGroup
	for i, m := range c.Members {
		m.config.Cluster = strings.Join(all, ",")
		starts.Go(func() { errs[i] = m.Start() })
	}
	starts.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// freePorts returns addresses on which nothing listens.
func freePorts(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// Endpoints returns the addresses of the servers.
func (c *Cluster) Endpoints() (all []string) {
	for _, m := range c.Members {
		all = append(all, m.Endpoint)
	}
	return all
}

// Close ends the servers and removes their data.
func (c *Cluster) Close() error {
	var errs []error
	for _, m := range c.Members {
		errs = append(errs, m.Kill())
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// startTime is how long a server has to start, on however slow a machine.
const startTime = 2 * time.Minute

// Start starts a server that does not run, and waits until it answers. A server of several answers once most of them have been started.
func (m *Member) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	set, err := json.Marshal(m.config)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env, cmd.Stderr = append(os.Environ(), variable+"="+string(set)), os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	timer := time.AfterFunc(startTime, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		return errors.Join(fmt.Errorf("server %s has said %q: %w", m.config.Name, line, err), cmd.Wait())
	}
	m.process, m.input = cmd, input
	return nil
}

// Process returns the id of the process of a server that runs.
func (m *Member) Process() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process.Process.Pid
}

// Kill ends a server as a crash does. It does nothing if the server does not run.
func (m *Member) Kill() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return nil
	}
	err := m.process.Process.Kill()
	_ = m.process.Wait()
	m.process = nil
	return err
}

// Stop ends a server in order.
func (m *Member) Stop() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return nil
	}
	_ = m.input.Close()
	err := m.process.Wait()
	m.process = nil
	return err
}
