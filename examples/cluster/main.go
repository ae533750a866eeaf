// Cluster has several processes share work, and one of them killed.
//
//	go run ./examples/cluster
//
// The program hosts an etcd, starts three worker processes of itself, and applies resources. Each line shows which worker does what. After a
// while the program kills a worker that is at work: when the lease of the worker is over, the others take over what it was doing. Any other
// worker can be killed too; its process id is in its first line.
//
// With -store postgres://... the workers meet in a PostgreSQL, and with -store etcd://host:2379 in an etcd that is there already.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == asWorker {
		exit(work(context.Background(), os.Args[2], os.Args[3]))
	}
	var c cluster
	flag.StringVar(&c.store, "store", "", "where the workers meet: postgres://... or etcd://host:port,...; empty for an etcd in this process")
	flag.IntVar(&c.workers, "workers", 3, "number of worker processes")
	flag.IntVar(&c.images, "images", 12, "number of resources")
	flag.BoolVar(&c.kill, "kill", true, "kill a worker that is at work")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	exit(c.run(ctx, os.Stdout))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// cluster is what the parent does.
type cluster struct {
	store           string
	workers, images int
	kill            bool

	mu        sync.Mutex // guards what follows, and the output
	processes []*exec.Cmd
	calls     map[string]int // of steps that were carried out to the end
	taken     int            // calls that go on with what another worker has begun
	killed    bool
}

// run starts workers, has them reconcile the images, and returns when all of them are done.
func (c *cluster) run(ctx context.Context, out io.Writer) error {
	if c.store == "" {
		endpoint, end, err := hostEtcd()
		if err != nil {
			return err
		}
		defer end()
		c.store = "etcd://" + endpoint
	}
	st, err := open(ctx, c.store, true)
	if err != nil {
		return err
	}
	defer st.Close()
	engine, err := conveyor.New(st, options("parent")) // it has no drivers, and works on nothing
	if err != nil {
		return err
	}
	if err := engine.SavePipeline(ctx, pipeline); err != nil {
		return err
	}
	if err := engine.Start(ctx); err != nil {
		return err
	}
	defer engine.Shutdown(context.WithoutCancel(ctx))

	c.calls = map[string]int{}
	var workers sync.WaitGroup
	defer workers.Wait()
	for n := range c.workers {
		end, err := c.startWorker(ctx, &workers, fmt.Sprint("worker-", n+1), out)
		if err != nil {
			return err
		}
		defer end()
	}
	var runs []string
	for n := range c.images {
		run, err := engine.Apply(ctx, &conveyor.Object{Meta: conveyor.Meta{Type: "image", Name: fmt.Sprintf("image-%02d-%d", n+1, os.Getpid()), Pipeline: pipeline.Name}})
		if err != nil {
			return err
		}
		runs = append(runs, run.ID)
	}
	for _, id := range runs {
		run, err := engine.Wait(ctx, id)
		if err == nil {
			err = run.Err()
		}
		if err != nil {
			return err
		}
	}
	return c.report(out)
}

// report says what has come of all.
func (c *cluster) report(out io.Writer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	steps, again := c.images*len(pipeline.Steps), 0
	if len(c.calls) != steps {
		return fmt.Errorf("%d steps were carried out, and not %d", len(c.calls), steps)
	}
	for _, times := range c.calls {
		again += times - 1
	}
	fmt.Fprintf(out, "all %d images are done: %d steps, %d of them taken over", c.images, steps, c.taken)
	if again > 0 { // the worker died between the end of the step and its record
		fmt.Fprintf(out, ", %d of them carried out again", again)
	}
	fmt.Fprintln(out)
	return nil
}

// startWorker starts a worker process. It ends when end is called, or with this process.
func (c *cluster) startWorker(ctx context.Context, all *sync.WaitGroup, name string, out io.Writer) (end func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, asWorker, name, c.store)
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.processes = append(c.processes, cmd)
	fmt.Fprintf(out, "%s starts as process %d\n", name, cmd.Process.Pid)
	c.mu.Unlock()
	all.Go(func() {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			c.heard(name, lines.Text(), cmd, out)
		}
		err := cmd.Wait()
		var died *exec.ExitError
		if errors.As(err, &died) {
			c.mu.Lock()
			fmt.Fprintf(out, "%s is dead: %v\n", name, err)
			c.mu.Unlock()
		}
	})
	return func() { _ = input.Close() }, nil
}

// heard prints a line of a worker, and kills the worker if it is time.
func (c *cluster) heard(name, line string, worker *exec.Cmd, out io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(out, "%s %s\n", name, line)
	switch what, of, _ := strings.Cut(line, " "); what {
	case "finishes":
		c.calls[of]++
	case "takes":
		c.taken++
	case "begins":
		if c.kill && !c.killed && len(c.calls) >= c.images/2 {
			c.killed = true
			fmt.Fprintf(out, "%s is killed\n", name)
			time.AfterFunc(workTime/2, func() { _ = worker.Process.Kill() })
		}
	}
}

// pipeline is how an image is made.
var pipeline = conveyor.PipelineSpec{
	Name: "images", Resource: "image", Description: "fetch, build and publish an image",
	Steps: []conveyor.Step{{ID: "fetch", Driver: "fetcher"}, {ID: "build", Driver: "builder"}, {ID: "publish", Driver: "publisher"}},
}

// options are those of the engine of a process.
func options(name string) conveyor.Options {
	return conveyor.Options{Name: name + "-" + strconv.Itoa(os.Getpid()), Lease: lease, Workers: 2}
}

// The lease is short, so that one sees quickly what happens when a process dies.
const (
	lease    = 3 * time.Second
	workTime = 400 * time.Millisecond
)
