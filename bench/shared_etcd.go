package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/conveyor-go/conveyor/internal/etcdserver"
)

// onEtcd are the results on an etcd of some servers, each of which syncs. Those of a part that was left out are nil.
type onEtcd struct {
	servers   int
	speed     []*sharedResult
	takeovers []takeover
	idle      *float64 // requests a second of an idle engine
}

// cluster is an etcd. Each store has a prefix of it.
type cluster struct {
	*etcdserver.Cluster
	count int
}

// newStore implements [place].
func (c *cluster) newStore(context.Context) (where string, err error) {
	c.count++
	return strings.Join([]string{"etcd", fmt.Sprintf("bench%d/", c.count), strings.Join(c.Endpoints(), ",")}, "\n"), nil
}

// servers implements [place].
func (c *cluster) servers() (all []int) {
	for _, m := range c.Members {
		all = append(all, m.Process())
	}
	return all
}

// requests implements [place]. The servers count the calls that have begun. A watch is one call, and a lease that is kept alive is another.
func (c *cluster) requests(ctx context.Context) (n int64, err error) {
	for _, endpoint := range c.Endpoints() {
		calls, err := startedCalls(ctx, endpoint)
		if err != nil {
			return 0, err
		}
		n += calls
	}
	return n, nil
}

func startedCalls(ctx context.Context, endpoint string) (n int64, err error) {
	asked, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+endpoint+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(asked)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	return sumOf(answer.Body, "grpc_server_started_total{")
}

// sumOf adds up the values of all series of a metric.
func sumOf(metrics io.Reader, metric string) (sum int64, err error) {
	lines := bufio.NewScanner(metrics)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), metric) {
			continue
		}
		value, err := strconv.ParseFloat(lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum += int64(value)
	}
	return sum, lines.Err()
}

// measureEtcd measures an etcd of one server and of three, all on this machine.
func (b *bench) measureEtcd(ctx context.Context, p sharedPlan) (all []onEtcd, err error) {
	if inMemory(fileSystem(os.TempDir())) {
		return nil, fmt.Errorf("%s is in memory, where a sync costs nothing: set TMPDIR to a folder on a disk", os.TempDir())
	}
	for _, servers := range []int{1, 3} {
		e, err := b.measureServers(ctx, servers, p)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

func (b *bench) measureServers(ctx context.Context, servers int, p sharedPlan) (e onEtcd, err error) {
	b.logf("shared: etcd of %d servers", servers)
	made, err := etcdserver.New("", servers, etcdserver.Options{Sync: true, Quota: 8 << 30})
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, made.Close()) }()
	at := &cluster{Cluster: made}
	e.servers = servers
	only := []sharedContender{{
		name: "Conveyor, store/etcd", module: "github.com/conveyor-go/conveyor/store/etcd",
		open: func(ctx context.Context, flight int) (session, error) { return startEngine(ctx, at, flight) },
	}}
	if e.speed, err = b.sharedSpeed(ctx, at, only, p); err != nil {
		return e, err
	}
	if e.takeovers, err = b.takeovers(ctx, at, p.waiting[:1]); err != nil {
		return e, err
	}
	e.idle, err = b.idle(ctx, at, p)
	return e, err
}

func (e onEtcd) report(w io.Writer) {
	fmt.Fprintf(w, "\n## On etcd, servers: %d\n\nThe servers, their client and the load share the machine. Each server syncs. The runs are those of the tables above.\n", e.servers)
	reportFlights(w, e.speed, 1)
	fmt.Fprintf(w, "\n### Takeover\n\n%s", takeoverTable(e.takeovers))
	fmt.Fprintf(w, "\n### Idle\n\nTen idle engines, with a lease of 30 s: %s requests to the servers a second, each of them.\n", number(*e.idle))
}
