package postgres_test

import (
	"cmp"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/tests/processes"
)

// link is the way of a process to a store: a proxy of its own.
type link struct {
	*proxy
	schema string
}

func (l link) Place() string { return l.schema + "\n" + l.dsn }

// processesOn starts processes on a store in a schema of its own. Their leases are as short as can be, unless c says otherwise.
func processesOn(t *testing.T, server server, n int, c processes.Config) *processes.World {
	t.Helper()
	testenv.NeedKill(t)
	opts := newSchema(t, server.dsn)
	for range n {
		c.Links = append(c.Links, link{newProxy(t, server), opts.Schema})
	}
	c.Store, c.Lease, c.Seed = open(t, server.dsn, opts), cmp.Or(c.Lease, time.Second), rand.Uint64()
	t.Logf("seed %d", c.Seed)
	return processes.NewWorld(t, c)
}

// TestProcessesGoOnWhateverHappensToThem has five processes share work in one database, while each of them is killed, stopped,
// cut off and disturbed, and the server is restarted and away. Somebody holds a snapshot all the time.
func TestProcessesGoOnWhateverHappensToThem(t *testing.T) {
	server := needServer(t)
	report := connect(t, server.dsn)
	run(t, report, "begin isolation level repeatable read")
	var n int
	require.NoError(t, report.QueryRow(t.Context(), "select count(*) from pg_class").Scan(&n))

	faults := testenv.Bound(t, "CONVEYOR_PROCESS_FAULTS", testenv.Some(t, 10, 100), 10)
	w := processesOn(t, server, 5, processes.Config{Clients: 3})
	var restart func(crash bool)
	if c := server.cluster; c != nil {
		restart = func(crash bool) {
			require.NoError(t, c.Stop(crash))
			require.NoError(t, c.start())
		}
	}
	w.Faults(faults, restart)
	w.FigureFaults(faults, "their server")
}

// TestAServerThatIsAwayForThreeLeasesChangesNothing keeps all processes from the server. When it is back, each goes on with what it had.
func TestAServerThatIsAwayForThreeLeasesChangesNothing(t *testing.T) {
	testenv.Rare(t)
	w := processesOn(t, needServer(t), 3, processes.Config{
		Clients: 3, Kinds: []string{"line", "graph", "limited"},
		Lease: 2 * time.Second,
	})
	w.AwayTimes(3)
}

// TestFiveDriversInFiveProcesses has the drivers of the docker pipeline in a process each. Any of them is killed, and started again.
func TestFiveDriversInFiveProcesses(t *testing.T) {
	w := processesOn(t, needServer(t), len(processes.DockerDrivers), processes.Config{
		Clients: 2, Kinds: []string{processes.Docker}, Drivers: func(process int) []string { return processes.DockerDrivers[process : process+1] },
	})
	kills := testenv.Some(t, 5, 25)
	for n := range kills {
		applies := w.Acknowledged("apply")
		require.Eventually(t, func() bool { return w.Acknowledged("apply") > applies+5 }, time.Minute, time.Millisecond)
		w.Kill(n % len(processes.DockerDrivers))
	}
	seen := w.Rest()
	testenv.Figure(t, "%d kills of five processes with a driver each: %d runs of five steps, %d calls, 0 steps out of order or called again", kills, seen["runs"], seen["calls"])
}
