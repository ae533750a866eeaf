// Package processes starts real processes with an engine each on one shared store, lets bad things happen to them, and holds what is on
// record in the end against what they were acknowledged and what their drivers have done. Only tests import it.
package processes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

// Link is the way of a process to the store.
type Link interface {
	Place() string       // of the store by this way, for [Open]
	SetAway(bool)        // nothing passes any more, or it does again
	Lose() (heal func()) // connections break now and then, in the middle of an answer too
}

// Config says what a world is like.
type Config struct {
	Links   []Link                     // one for each process
	Store   store.Store                // a handle of the test, for which nothing goes wrong
	Lease   time.Duration              // of the engines
	Drivers func(process int) []string // which a process has; nil for [AllDrivers]
	Kinds   []string                   // of resources; nil for [AllKinds]
	Clients int                        // of each process
	Seed    uint64
}

// World is a number of processes on one store.
type World struct {
	t *testing.T
	Config
	dir       string
	processes []*process
	account   *account
	ways      []sync.Mutex // held while something is wrong with a link
	watched   func()       // ends the look at the checkpoints

	mu    sync.Mutex // guards what follows
	lives int
}

// process is one of the processes of a world, of which there may be several lives.
type process struct {
	world *World
	name  string
	index int

	began []begin // guarded by the lock of the world

	mu    sync.Mutex // held by what happens to the process
	life  int
	cmd   *exec.Cmd
	input io.WriteCloser
	ready chan struct{} // closed when it works
	rests chan struct{} // closed when its clients do nothing more
	heard chan struct{} // closed when all that it has said is known
}

// begin is when a life began.
type begin struct {
	life int
	at   time.Time
}

// livesSince returns the lives that a process has had since a time.
func (p *process) livesSince(from time.Time) (lives []int) {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	for i, b := range p.began {
		if i == len(p.began)-1 || p.began[i+1].at.After(from) {
			lives = append(lives, b.life)
		}
	}
	return lives
}

// NewWorld starts the processes. They end with the test.
func NewWorld(t *testing.T, c Config) *World {
	t.Helper()
	w := &World{t: t, Config: c, dir: t.TempDir(), account: newAccount(), ways: make([]sync.Mutex, len(c.Links))}
	if w.Kinds == nil {
		w.Kinds = AllKinds
	}
	e := w.engine()
	for _, p := range pipelines() {
		require.NoError(t, e.SavePipeline(t.Context(), p))
	}
	w.watched = w.watchCheckpoints()
	t.Cleanup(w.watched)
	for i := range c.Links {
		p := &process{world: w, name: fmt.Sprint("p", i+1), index: i}
		w.processes = append(w.processes, p)
		t.Cleanup(p.end)
		p.start()
	}
	w.awaitReady()
	return w
}

// awaitReady waits until all processes work.
func (w *World) awaitReady() {
	w.t.Helper()
	for _, p := range w.processes {
		select {
		case <-p.heard:
			require.Fail(w.t, p.name+" has ended by itself")
		case <-p.ready:
		case <-time.After(patience):
			require.Fail(w.t, p.name+" does not start")
		}
	}
}

// engine returns an engine on the handle of the test, which is not started.
func (w *World) engine() *conveyor.Engine {
	e, err := conveyor.New(w.Store, child{Process: "test", Lease: w.Lease}.options())
	require.NoError(w.t, err)
	return e
}

// patience is how long a test waits for something that takes a second or so, on however slow a machine.
const patience = 2 * time.Minute

func (w *World) await(done <-chan struct{}, what string, args ...any) {
	w.t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		require.Fail(w.t, fmt.Sprintf(what, args...))
	}
}

// start starts the next life of the process.
func (p *process) start() {
	w := p.world
	w.mu.Lock()
	w.lives++
	p.life = w.lives
	p.began = append(p.began, begin{p.life, time.Now()})
	w.mu.Unlock()
	c := child{
		Process: p.name, Life: p.life, Place: w.Links[p.index].Place(), Dir: w.dir, Drivers: AllDrivers, Kinds: w.Kinds, Clients: w.Clients,
		Seed: w.Seed, Lease: w.Lease,
	}
	if w.Drivers != nil {
		c.Drivers = w.Drivers(p.index)
	}
	asked, err := json.Marshal(c)
	require.NoError(w.t, err)
	self, err := os.Executable()
	require.NoError(w.t, err)
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), environment+"="+string(asked))
	p.cmd.Stderr = os.Stderr
	output, err := p.cmd.StdoutPipe()
	require.NoError(w.t, err)
	p.input, err = p.cmd.StdinPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, p.cmd.Start())
	p.ready, p.rests, p.heard = make(chan struct{}), make(chan struct{}), make(chan struct{})
	go p.hear(output, p.ready, p.rests, p.heard)
}

// hear enters into the account what the process says.
func (p *process) hear(output io.Reader, ready, rests, heard chan struct{}) {
	defer close(heard)
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		var s said
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			p.world.account.blame("%s says %q", p.name, lines.Text()) // or was killed in the middle of the line
			continue
		}
		switch s.What {
		case "ready":
			close(ready)
		case "rests":
			close(rests)
		default:
			p.world.account.enter(p.name, s)
		}
	}
	p.world.account.left(p.name)
}

// kill kills the process, and returns when all that it has said is in the account.
func (p *process) kill() {
	p.world.account.note(p.life, faultKill, time.Now(), time.Time{})
	_ = p.cmd.Process.Kill() // it may have ended by itself, which comes out in the end
	<-p.heard
	_ = p.cmd.Wait()
	p.world.account.dead(p.life, time.Now())
}

// end ends the process with the test.
func (p *process) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.kill()
		p.cmd = nil
	}
}

// shutDown has the process shut its engine down, and returns when it has ended.
func (p *process) shutDown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.world.t
	require.NoError(t, p.input.Close())
	p.world.await(p.heard, "%s does not shut down", p.name)
	require.NoError(t, p.cmd.Wait(), "%s", p.name)
	p.world.account.dead(p.life, time.Now())
	p.cmd = nil
}

// Rest has the clients ask for nothing more, waits until all runs have ended, shuts everything down, and compares. Nothing must be wrong
// any more with any process. It returns what has been seen.
func (w *World) Rest() map[string]int {
	t := w.t
	t.Helper()
	w.awaitReady()
	for _, p := range w.processes {
		_, err := io.WriteString(p.input, "rest\n")
		require.NoError(t, err)
	}
	for _, p := range w.processes {
		w.await(p.rests, "the clients of %s do not come to an end", p.name)
	}
	e := w.engine()
	require.NoError(t, e.Start(t.Context()))
	w.finish(e)
	for _, p := range w.processes {
		p.shutDown()
	}
	w.watched()
	w.compare(e)
	require.NoError(t, e.Shutdown(t.Context()))
	w.requireNothingLeft()
	return w.account.counts
}

// finish waits until all runs have ended, and sends the signals that they wait for.
func (w *World) finish(e *conveyor.Engine) {
	t := w.t
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	number := int64(w.lives+1) * 1_000_000
	for {
		var unfinished []*conveyor.Run
		for run, err := range e.Runs(ctx, conveyor.RunFilter{Unfinished: true}) {
			require.NoError(t, err)
			unfinished = append(unfinished, run)
		}
		if len(unfinished) == 0 {
			return
		}
		for _, run := range unfinished {
			for run.Resource.Type == "ask" && run.Cause != conveyor.CauseDeleted && number%10 < 2 {
				number++
				err := e.Signal(ctx, run.ID, "go", number)
				require.True(t, err == nil || errors.Is(err, conveyor.ErrConflict) || errors.Is(err, conveyor.ErrNotFound), "%v", err)
				if err == nil {
					w.account.signals[run.ID] = append(w.account.signals[run.ID], number)
				}
			}
			number += 10 - number%10
			_, err := e.Wait(ctx, run.ID)
			require.NoError(t, err, "run %s of %s does not come to an end", run.ID, run.Resource)
		}
	}
}
