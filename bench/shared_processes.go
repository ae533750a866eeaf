package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

// childVariable is the environment variable that makes this program a process with an engine. It has a [child] as JSON.
const childVariable = "CONVEYOR_BENCH_CHILD"

// child is how such a process begins.
type child struct {
	Store    string // where it is
	Name     string
	Lease    time.Duration
	Flight   int           // runs at once
	Duration time.Duration // for which it begins runs when its input tells it to; 0 to begin none
	Busy     time.Duration // of the processor, for each step
	Waiting  int           // runs that it applies, and that wait
}

// runChild is the main function of the process.
func runChild(ctx context.Context, asked string) error {
	var c child
	if err := json.Unmarshal([]byte(asked), &c); err != nil {
		return err
	}
	st, err := openStore(ctx, c.Store)
	if err != nil {
		return err
	}
	e, err := conveyor.New(st, conveyor.Options{Name: c.Name, Lease: c.Lease, Workers: max(c.Flight, 32)})
	if err != nil {
		return err
	}
	err = errors.Join(
		e.Register("step", stepDriver(func(string, int) {
			for began := time.Now(); time.Since(began) < c.Busy; {
			}
		})),
		e.Register("waiter", conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return conveyor.Await("go", 0), nil })),
		e.Start(ctx),
	)
	if err != nil {
		return err
	}
	if err := c.applyWaiting(ctx, e); err != nil {
		return err
	}
	fmt.Println("ready")
	input := bufio.NewScanner(os.Stdin)
	if input.Scan() && c.Duration > 0 {
		s := &namedSession{engineSession: engineSession{store: st, engine: e}, prefix: c.Name}
		out, err := (&loadGenerator{session: s}).run(ctx, c.Flight, c.Duration)
		if err != nil {
			return err
		}
		fmt.Println(float64(out.runs) / out.elapsed.Seconds())
	}
	for input.Scan() {
	}
	return errors.Join(e.Shutdown(ctx), st.Close())
}

func (c child) applyWaiting(ctx context.Context, e *conveyor.Engine) error {
	group, applying := errgroup.WithContext(ctx)
	group.SetLimit(500)
	for n := range c.Waiting {
		group.Go(func() error {
			_, err := e.Apply(applying, object(runName(int64(n)), "wait"))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for { // until all of them wait
		s, err := e.Stats(ctx)
		if err != nil || s.Runs[conveyor.StateWaiting] >= c.Waiting {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// namedSession gives the runs of a process names of their own.
type namedSession struct {
	engineSession
	prefix string
}

func (s *namedSession) run(ctx context.Context, id string) error {
	return s.engineSession.run(ctx, s.prefix+id)
}

// processAt is a process from the outside.
type processAt struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Scanner
}

func startChild(c child, env ...string) (*processAt, error) {
	asked, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), childVariable+"="+string(asked)), env...)
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &processAt{cmd, input, bufio.NewScanner(output)}, cmd.Start()
}

// hear returns the next line that the process says.
func (p *processAt) hear() (string, error) {
	if !p.output.Scan() {
		return "", errors.Join(errors.New("a process has ended by itself"), p.output.Err())
	}
	return p.output.Text(), nil
}

func (p *processAt) end() error {
	return errors.Join(p.input.Close(), p.cmd.Wait())
}

// scaling is what some processes do together.
type scaling struct {
	processes int
	maxRuns   int // of the pipeline; 0 for no limit
	work      string
	rate      spread
	n         int
}

// scaling measures one, two and four processes in turns.
func (b *bench) scaling(ctx context.Context, at place, p sharedPlan) (all []scaling, err error) {
	for _, kind := range []struct {
		work    string
		busy    time.Duration
		maxRuns int
	}{{"no-op", 0, 0}, {"no-op", 0, 50}, {"busy", time.Millisecond, 0}, {"busy", time.Millisecond, 50}} {
		rates := map[int][]float64{}
		for rep := range p.repetitions {
			for _, n := range p.processes {
				b.logf("shared: %d processes, %s, MaxRuns %d, repetition %d of %d", n, kind.work, kind.maxRuns, rep+1, p.repetitions)
				rate, err := scaleAt(ctx, at, n, kind.busy, kind.maxRuns, p.duration)
				if err != nil {
					return nil, err
				}
				rates[n] = append(rates[n], rate)
			}
		}
		for _, n := range p.processes {
			all = append(all, scaling{n, kind.maxRuns, kind.work, spreadOf(rates[n]), len(rates[n])})
		}
	}
	return all, nil
}

func scaleAt(ctx context.Context, at place, n int, busy time.Duration, maxRuns int, duration time.Duration) (rate float64, err error) {
	where, err := at.newStore(ctx)
	if err != nil {
		return 0, err
	}
	spec := pipeline("five", steps)
	spec.MaxRuns = maxRuns
	if err := savePipelines(ctx, where, spec); err != nil {
		return 0, err
	}
	var processes []*processAt
	defer func() {
		for _, p := range processes {
			err = errors.Join(err, p.end())
		}
	}()
	for i := range n {
		p, err := startChild(child{
			Store: where, Name: fmt.Sprint("p", i, "-"), Lease: 30 * time.Second, Flight: 100, Duration: duration, Busy: busy,
		}, "GOMAXPROCS=1")
		if err != nil {
			return 0, err
		}
		processes = append(processes, p)
	}
	for _, p := range processes {
		if _, err := p.hear(); err != nil {
			return 0, err
		}
	}
	for _, p := range processes {
		if _, err := io.WriteString(p.input, "go\n"); err != nil {
			return 0, err
		}
	}
	for _, p := range processes {
		said, err := p.hear()
		if err != nil {
			return 0, err
		}
		var of float64
		if _, err := fmt.Sscan(said, &of); err != nil {
			return 0, err
		}
		rate += of
	}
	return rate, nil
}

// savePipelines saves pipelines by an engine that is not started.
func savePipelines(ctx context.Context, where string, pipelines ...conveyor.PipelineSpec) (err error) {
	st, err := openStore(ctx, where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	e, err := conveyor.New(st, conveyor.Options{})
	if err != nil {
		return err
	}
	for _, p := range pipelines {
		if err := e.SavePipeline(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// takeover is how long it took until the runs of an engine that was killed were those of others.
type takeover struct {
	runs  int
	lease time.Duration
	took  time.Duration
}

func (b *bench) takeovers(ctx context.Context, at place, waiting []int) (all []takeover, err error) {
	for _, runs := range waiting {
		b.logf("shared: takeover of %d waiting runs", runs)
		took, err := takeoverAt(ctx, at, runs, takeoverLease)
		if err != nil {
			return nil, err
		}
		all = append(all, takeover{runs, takeoverLease, took})
	}
	return all, nil
}

// takeoverLease is a lease that a program might have.
const takeoverLease = 10 * time.Second

func takeoverAt(ctx context.Context, at place, runs int, lease time.Duration) (took time.Duration, err error) {
	where, err := at.newStore(ctx)
	if err != nil {
		return 0, err
	}
	wait := pipeline("wait", 1)
	wait.Steps[0].Driver = "waiter"
	if err := savePipelines(ctx, where, wait); err != nil {
		return 0, err
	}
	start := func(name string, waiting int) (*processAt, error) {
		p, err := startChild(child{Store: where, Name: name, Lease: lease, Waiting: waiting})
		if err == nil {
			_, err = p.hear()
		}
		return p, err
	}
	victim, err := start("victim", runs)
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"second", "third"} {
		p, err := start(name, 0)
		if err != nil {
			return 0, err
		}
		defer func() { _, _ = p.cmd.Process.Kill(), p.cmd.Wait() }()
	}
	time.Sleep(2 * lease) // they get to know each other
	st, err := openStore(ctx, where)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	e, err := conveyor.New(st, conveyor.Options{})
	if err != nil {
		return 0, err
	}
	engines, err := e.Engines(ctx)
	if err != nil {
		return 0, err
	}
	dead := ""
	for _, info := range engines {
		if info.Name == "victim" {
			dead = info.ID
		}
	}
	began := time.Now()
	_ = victim.cmd.Process.Kill()
	_ = victim.cmd.Wait()
	for {
		left := false
		for r, err := range st.List(ctx, store.Query{Prefix: "~own/" + dead + "/", Limit: 1}) {
			if err != nil {
				return 0, err
			}
			left = left || strings.HasPrefix(r.Key, "~own/"+dead)
		}
		if !left {
			return time.Since(began), nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}
