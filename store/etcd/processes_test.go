package etcd_test

import (
	"cmp"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/badnet"
	"github.com/conveyor-go/conveyor/internal/etcdserver"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/tests/processes"
)

// link is the way of a process to a store: a proxy of its own for each server.
type link struct {
	prefix  string
	proxies []*badnet.Proxy
}

func newLink(t *testing.T, prefix string, cluster *etcdserver.Cluster) (l link) {
	l.prefix = prefix
	for _, endpoint := range cluster.Endpoints() {
		l.proxies = append(l.proxies, badnet.New(t, "tcp", endpoint))
	}
	return l
}

func (l link) Place() string {
	place := []string{l.prefix}
	for _, p := range l.proxies {
		place = append(place, p.Address)
	}
	return strings.Join(place, "\n")
}

func (l link) SetAway(away bool) {
	for _, p := range l.proxies {
		p.SetAway(away)
	}
}

func (l link) Lose() (heal func()) {
	var all []func()
	for _, p := range l.proxies {
		all = append(all, p.Lose())
	}
	return func() {
		for _, heal := range all {
			heal()
		}
	}
}

// processesOn starts processes on a store of their own. Their leases are as short as can be, unless c says otherwise.
func processesOn(t *testing.T, cluster *etcdserver.Cluster, n int, c processes.Config) *processes.World {
	t.Helper()
	testenv.NeedKill(t)
	opts := newPrefix()
	for range n {
		c.Links = append(c.Links, newLink(t, opts.Prefix, cluster))
	}
	c.Store, c.Lease, c.Seed = open(t, opts, cluster.Endpoints()...), cmp.Or(c.Lease, time.Second), rand.Uint64()
	t.Logf("seed %d", c.Seed)
	return processes.NewWorld(t, c)
}

// TestProcessesGoOnWhateverHappensToThemAndTheirServers has three processes share work on three servers, while each of them is killed,
// stopped, cut off and disturbed, the leader is killed or stopped, and the servers are away.
func TestProcessesGoOnWhateverHappensToThemAndTheirServers(t *testing.T) {
	cluster := newCluster(t, 3, noSync)
	faults := testenv.Bound(t, "CONVEYOR_PROCESS_FAULTS", testenv.Some(t, 10, 100), 10)
	w := processesOn(t, cluster, 3, processes.Config{Clients: 3, Lease: 2 * time.Second})
	health := open(t, newPrefix(), cluster.Endpoints()...)
	w.Faults(faults, func(crash bool) {
		leader := leaderOf(t, health, cluster)
		if crash {
			require.NoError(t, leader.Kill())
			require.NoError(t, leader.Start())
			return
		}
		require.NoError(t, leader.Pause())
		time.Sleep(2 * time.Second) // the others find that it is gone, and the connections to it stay
		require.NoError(t, leader.Resume())
	})
	w.FigureFaults(faults, "their three servers")
}

// TestServersThatAreAwayForThreeLeasesChangeNothing keeps all processes from the servers. When they are back, each goes on with what it had.
func TestServersThatAreAwayForThreeLeasesChangeNothing(t *testing.T) {
	testenv.Rare(t)
	w := processesOn(t, newCluster(t, 1, noSync), 3, processes.Config{
		Clients: 3, Kinds: []string{"line", "graph", "limited"},
		Lease: 2 * time.Second,
	})
	w.AwayTimes(3)
}
