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
	seen := w.Rest()
	t.Log(seen)
	testenv.Figure(t, "%d faults of processes with an engine each and of their server; %d runs, %d calls of drivers, %d of which came to another process; "+
		"%d applies, %d deletions, %d signals acknowledged, 0 lost; 0 stale writes in %d checkpoints and %d log lines",
		faults, seen["runs"], seen["calls"], seen["calls that came to another process"], seen["acked: apply"], seen["acked: delete"],
		seen["acked: signal"], seen["checkpoints seen"], seen["log lines"])
}

// TestAServerThatIsAwayForThreeLeasesChangesNothing keeps all processes from the server. When it is back, each goes on with what it had.
func TestAServerThatIsAwayForThreeLeasesChangesNothing(t *testing.T) {
	testenv.Rare(t)
	w := processesOn(t, needServer(t), 3, processes.Config{
		Clients: 3, Kinds: []string{"line", "graph", "limited"},
		Lease: 2 * time.Second, // so that a process that waits for a processor is not taken for dead
	})
	const times = 3
	for range times {
		applies := w.Acknowledged("apply")
		w.RequireNothingTakenOver(w.AllAway)
		require.Eventually(t, func() bool { return w.Acknowledged("apply") > applies+20 }, time.Minute, 10*time.Millisecond)
	}
	seen := w.Rest()
	testenv.Figure(t, "the server away for three leases %d times, for three processes: 0 engines taken for dead, 0 deaths counted, %d runs, %d calls cut short and made again",
		times, seen["runs"], seen["calls resumed"])
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
