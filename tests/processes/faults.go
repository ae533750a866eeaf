package processes

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
)

// The kinds of faults.
const (
	faultKill    = "killed"
	faultStop    = "stopped for three leases"
	faultCutOff  = "cut off for three leases"
	faultLose    = "connections broken"
	faultServer  = "server restarted"
	faultAllAway = "server away for three leases"
)

// Faults lets n bad things happen. Several processes have theirs at the same time. If restart is given, it restarts the server, in order
// or as after a crash, and returns when the server answers. Afterwards nothing is wrong any more.
func (w *World) Faults(n int, restart func(crash bool)) {
	var left atomic.Int64
	left.Store(int64(n))
	var each, server sync.WaitGroup
	for _, p := range w.processes {
		each.Go(func() {
			r := rand.New(rand.NewPCG(w.Seed, uint64(p.index)))
			for left.Add(-1) >= 0 {
				p.fault(r)
			}
		})
	}
	over := make(chan struct{})
	server.Go(func() {
		r := rand.New(rand.NewPCG(w.Seed, 1<<32))
		for {
			select {
			case <-over:
				return
			case <-time.After(2*w.Lease + time.Duration(r.Int64N(int64(4*w.Lease)))): // for the rest to go on meanwhile
			}
			if left.Add(-1) >= 0 {
				w.faultForAll(r, restart)
			}
		}
	})
	each.Wait()
	close(over)
	server.Wait()
}

// fault lets something happen to the process.
func (p *process) fault(r *rand.Rand) {
	w := p.world
	time.Sleep(time.Duration(r.Int64N(int64(w.Lease)))) // for the fault to strike anywhere
	p.mu.Lock()
	defer p.mu.Unlock()
	kind := []string{faultKill, faultKill, faultKill, faultKill, faultLose, faultLose, faultLose, faultStop, faultStop, faultCutOff}[r.IntN(10)]
	w.account.count("faults: "+kind, 1)
	switch kind {
	case faultKill:
		p.kill()
		time.Sleep(time.Duration(r.Int64N(int64(2 * w.Lease))))
		p.start()
	case faultStop:
		from := time.Now()
		p.pause()
		time.Sleep(3 * w.Lease)
		p.resume()
		w.account.note(p.life, kind, from, time.Now())
	case faultCutOff:
		w.away(kind, p)
	case faultLose:
		from := time.Now()
		w.ways[p.index].Lock()
		heal := w.Links[p.index].Lose()
		time.Sleep(w.Lease / 2)
		heal()
		w.ways[p.index].Unlock()
		w.account.note(p.life, kind, from, time.Now())
	}
}

// away cuts processes off for three leases.
func (w *World) away(kind string, processes ...*process) {
	from := time.Now()
	for _, p := range processes {
		w.ways[p.index].Lock()
	}
	for _, p := range processes {
		w.Links[p.index].SetAway(true)
	}
	time.Sleep(3 * w.Lease)
	for _, p := range processes {
		w.Links[p.index].SetAway(false)
	}
	for _, p := range processes {
		w.ways[p.index].Unlock()
	}
	w.noteFor(processes, kind, from)
}

// noteFor notes that something was wrong until now with all lives that some processes had meanwhile.
func (w *World) noteFor(processes []*process, kind string, from time.Time) {
	for _, p := range processes {
		for _, life := range p.livesSince(from) {
			w.account.note(life, kind, from, time.Now())
		}
	}
}

// faultForAll lets something happen to the server.
func (w *World) faultForAll(r *rand.Rand, restart func(crash bool)) {
	if restart == nil || r.IntN(2) == 0 {
		w.account.count("faults: "+faultAllAway, 1)
		w.away(faultAllAway, w.processes...)
		return
	}
	w.account.count("faults: "+faultServer, 1)
	from := time.Now()
	restart(r.IntN(2) == 0)
	w.noteFor(w.processes, faultServer, from)
}

// AllAway cuts all processes off for three leases.
func (w *World) AllAway() { w.away(faultAllAway, w.processes...) }

// RequireNothingTakenOver lets do happen, during which no engine is taken for dead, and no run is charged with a death.
func (w *World) RequireNothingTakenOver(do func()) {
	t := w.t
	t.Helper()
	before := w.engines()
	require.Len(t, before, len(w.processes))
	do()
	time.Sleep(2 * w.Lease) // not for anything to happen: whoever wanted to mark an engine would have done so
	require.Equal(t, before, w.engines())
	for r, err := range w.Store.List(t.Context(), store.Query{Prefix: "stp/"}) {
		require.NoError(t, err)
		require.NotContains(t, string(r.Value), `"crashes"`, r.Key)
	}
}

// AwayTimes has all processes cut off for three leases, some times, and requires each time that nothing is taken over, and that all go on with what
// they had. Their leases must be long enough that a process which waits for a processor is not taken for dead.
func (w *World) AwayTimes(times int) {
	w.t.Helper()
	for range times {
		applies := w.Acknowledged("apply")
		w.RequireNothingTakenOver(w.AllAway)
		require.Eventually(w.t, func() bool { return w.Acknowledged("apply") > applies+20 }, time.Minute, 10*time.Millisecond)
	}
	seen := w.Rest()
	testenv.Figure(w.t, "the servers away for three leases %d times, for %d processes: 0 engines taken for dead, 0 deaths counted, %d runs, %d calls cut short and made again",
		times, len(w.processes), seen["runs"], seen["calls resumed"])
}

// FigureFaults says what a number of faults has done to the processes and their servers, which rest now.
func (w *World) FigureFaults(faults int, servers string) {
	seen := w.Rest()
	w.t.Log(seen)
	testenv.Figure(w.t, "%d faults of processes with an engine each and of %s; %d runs, %d calls of drivers, %d of which came to another process; "+
		"%d applies, %d deletions, %d signals acknowledged, 0 lost; 0 stale writes in %d checkpoints and %d log lines",
		faults, servers, seen["runs"], seen["calls"], seen["calls that came to another process"], seen["acked: apply"], seen["acked: delete"],
		seen["acked: signal"], seen["checkpoints seen"], seen["log lines"])
}

// engines returns the ids of the engines on record, which must be live.
func (w *World) engines() (ids []string) {
	all, err := w.engine().Engines(w.t.Context())
	require.NoError(w.t, err)
	for _, e := range all {
		require.Zero(w.t, e.Dead, "engine %s is marked dead", e.Name)
		ids = append(ids, e.ID)
	}
	return ids
}

// Acknowledged returns how often clients were acknowledged something so far.
func (w *World) Acknowledged(op string) int {
	w.account.mu.Lock()
	defer w.account.mu.Unlock()
	return w.account.counts["acked: "+op]
}

// Kill kills a process and starts it again.
func (w *World) Kill(process int) {
	p := w.processes[process]
	p.mu.Lock()
	defer p.mu.Unlock()
	w.account.count("faults: "+faultKill, 1)
	p.kill()
	p.start()
}

// window is a time at which something was wrong with a process.
type window struct {
	life     int
	kind     string
	from, to time.Time // to is zero for a kill, after which the life is over
}

func clockOf(t time.Time) string { return t.Format("05.000") }
