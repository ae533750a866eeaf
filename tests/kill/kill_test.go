package kill_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store/file"
)

// TestKilledInsideEveryStepGoesOnThere kills the process inside each step in turn, once while a step is blocked, and
// starts a program of another build each time.
func TestKilledInsideEveryStepGoesOnThere(t *testing.T) {
	testenv.NeedKill(t)
	dir := t.TempDir()
	var runs []string
	for i, life := range []struct {
		build, hold string
		until       string // what the child says before it is killed
	}{
		{"first", "1", "holding 1"},
		{"relabelled", "2", "holding 2"},
		{"first", "3", "holding 3"},
		{"without driver d", "4", "blocked 4"},
		{"first", "4", "holding 4"},
		{"relabelled", "5", "holding 5"},
		{"first", "", "ended succeeded 1 2 3 4 5"},
	} {
		c := startChild(t, child{Dir: dir, Life: i, Build: life.build, Hold: life.hold})
		for said := ""; said != life.until; {
			said = c.line(t)
			if id, ok := strings.CutPrefix(said, "applied "); ok {
				runs = append(runs, id)
			}
		}
		c.kill(t)
	}
	for _, id := range runs {
		require.Equal(t, runs[0], id, "the acknowledged run was lost, and another one made")
	}

	var calls []string
	keys := map[string]string{}
	for _, e := range readJournal(t, dir) {
		what := e.What + " " + e.Step
		if e.Resumed {
			what += " resumed"
		}
		calls = append(calls, what)
		require.Equal(t, 1, e.Attempt, "a kill used an attempt")
		if keys[e.Step] == "" {
			keys[e.Step] = e.Key
		}
		require.Equal(t, keys[e.Step], e.Key, "step %s was called again with another key", e.Step)
	}
	require.Len(t, keys, 5)
	var want []string
	for _, step := range []string{"1", "2", "3", "4", "5"} {
		want = append(want, "begin "+step, "begin "+step+" resumed", "end "+step+" resumed")
	}
	require.Equal(t, want, calls)
}

// TestKilledAtRandomLosesNoAcknowledgedApply kills the process twenty times while it applies one change after the
// other.
func TestKilledAtRandomLosesNoAcknowledgedApply(t *testing.T) {
	testenv.NeedKill(t)
	const kills, resources = 20, 3
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()

	type acknowledged struct {
		spec       int
		generation int64
	}
	acks := map[string]acknowledged{}
	next := 1
	heard := func(said string) {
		var name string
		var ack acknowledged
		if _, err := fmt.Sscanf(said, "acknowledged %s %d %d", &name, &ack.spec, &ack.generation); err == nil {
			require.Greater(t, ack.generation, acks[name].generation, "an acknowledged change of %s was lost", name)
			acks[name], next = ack, ack.spec+1
		}
	}
	for life := range kills {
		c := startChild(t, child{Dir: dir, Life: life, Build: []string{"first", "relabelled"}[life%2], Resources: resources, Next: next})
		for range 1 + random.IntN(8) {
			heard(c.line(t))
		}
		for _, said := range c.kill(t) {
			heard(said)
		}
	}
	require.Len(t, acks, resources)

	// One more life, in this process, runs to the end what was left.
	st, err := file.Open(t.Context(), filepath.Join(dir, "records"), file.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	e := child{Dir: dir, Life: kills, Build: "first"}.engine(t, st, io.Discard)
	require.NoError(t, e.Start(t.Context()))
	for _, run := range rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{Unfinished: true})) {
		_, err := e.Wait(t.Context(), run.ID)
		require.NoError(t, err)
	}
	for name, ack := range acks {
		o, err := e.Get(t.Context(), conveyor.Key{Type: "r", Name: name})
		require.NoError(t, err)
		// The last change may have been recorded without its acknowledgement.
		require.GreaterOrEqual(t, o.Generation, ack.generation, name)
		require.LessOrEqual(t, o.Generation, ack.generation+1, name)
		if o.Generation == ack.generation {
			require.Equal(t, strconv.Itoa(ack.spec), string(o.Spec), name)
		}
		require.Equal(t, o.Generation, o.Status.ObservedGeneration, name)
		require.Equal(t, conveyor.StateSucceeded, o.Status.Phase, name)
	}
	runs := rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{}))
	require.NoError(t, e.Shutdown(t.Context()))
	rig.RequireAtRest(t, st)
	again := requireStepsInOrder(t, readJournal(t, dir), len(runs))
	t.Logf("%d applies acknowledged, %d runs, %d steps called again", next-1, len(runs), again)
}

// requireStepsInOrder checks the calls of all runs: each step once, or again after a kill, resumed, until the next one
// begins. It returns how many were called again.
func requireStepsInOrder(t *testing.T, journal []entry, runs int) (again int) {
	t.Helper()
	last := map[string]entry{} // by run
	for _, e := range journal {
		was, begun := last[e.Run]
		last[e.Run] = e
		switch {
		case e.What == "end":
			require.Equal(t, "begin", was.What)
			require.Equal(t, was.Key, e.Key)
		case !begun:
			require.Equal(t, "1", e.Step, "run %s", e.Run)
		case e.Step == was.Step:
			again++
			require.True(t, e.Resumed, "run %s step %s", e.Run, e.Step)
			require.Greater(t, e.Life, was.Life, "run %s step %s called again without a kill", e.Run, e.Step)
			require.Equal(t, was.Key, e.Key)
			require.Equal(t, 1, e.Attempt)
		default:
			require.Equal(t, "end", was.What, "run %s step %s began before step %s ended", e.Run, e.Step, was.Step)
			before, _ := strconv.Atoi(was.Step)
			require.Equal(t, strconv.Itoa(before+1), e.Step, "run %s", e.Run)
		}
	}
	require.Len(t, last, runs)
	return again
}

// childEnv tells the test binary that it is a child, and which one.
const childEnv = "CONVEYOR_KILL_TEST"

// child is the program that is killed.
type child struct {
	Dir       string // of the records and the journal
	Life      int
	Build     string // of the program: which drivers and which pipeline it has
	Hold      string // step in which it stays until it is killed
	Resources int    // 0: apply one resource and wait for its run; else change so many in turn for ever
	Next      int    // the first change
	Riot      *riot  // anything else that can be acknowledged, from several goroutines
}

// TestKillChild is no test but the main function of the child.
func TestKillChild(t *testing.T) {
	config := os.Getenv(childEnv)
	if config == "" {
		return
	}
	var c child
	require.NoError(t, json.Unmarshal([]byte(config), &c))
	ctx := t.Context()
	if c.Riot != nil {
		c.Riot.run(t, c)
		return
	}
	st, err := file.Open(ctx, filepath.Join(c.Dir, "records"), file.Options{Wait: true})
	require.NoError(t, err)
	e := c.engine(t, st, os.Stdout)
	events := e.Watch(ctx, conveyor.WatchOptions{})
	go func() {
		for event := range events {
			if event.Kind == conveyor.EventStep && event.State == conveyor.StateBlocked {
				fmt.Println(spoken, "blocked", event.Step)
			}
		}
	}()
	require.NoError(t, e.Start(ctx))
	if c.Resources > 0 {
		for i := c.Next; ; i++ {
			o := rig.Object(fmt.Sprint("x", i%c.Resources), i)
			_, err := e.Apply(ctx, o)
			require.NoError(t, err)
			fmt.Println(spoken, "acknowledged", o.Name, i, o.Generation)
		}
	}
	run, err := e.Apply(ctx, rig.Object("x", 1))
	require.NoError(t, err)
	fmt.Println(spoken, "applied", run.ID)
	run, err = e.Wait(ctx, run.ID)
	require.NoError(t, err)
	var steps []string
	for _, s := range run.Steps {
		steps = append(steps, s.ID)
	}
	fmt.Println(spoken, "ended", run.State, strings.Join(steps, " "))
	<-ctx.Done() // to be killed
}

// spoken marks what the child says among what the test binary prints.
const spoken = "child:"

// engine makes an engine as the child's build has it.
func (c child) engine(t *testing.T, st *file.Store, out io.Writer) *conveyor.Engine {
	t.Helper()
	e, err := conveyor.New(st, conveyor.Options{Limits: conveyor.Limits{Interruptions: 1000}})
	require.NoError(t, err)
	drivers := []string{"a", "b", "c", "d", "e"}
	p := rig.PipelineOf(drivers...)
	switch c.Build {
	case "relabelled":
		p.Description, p.Version = "the same with other labels", "2"
		for i := range p.Steps {
			p.Steps[i].Name = "step of driver " + p.Steps[i].Driver
		}
		if c.Resources == 0 { // the run under way has another pipeline
			p.Steps = append(p.Steps[1:], conveyor.Step{Driver: "f"})
		}
		drivers = append([]string{"f"}, drivers...)
	case "without driver d":
		drivers = []string{"a", "b", "c", "e"}
	}
	require.NoError(t, e.SavePipeline(t.Context(), p))
	journal, err := os.OpenFile(filepath.Join(c.Dir, "journal"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { _ = journal.Close() })
	for _, name := range drivers {
		require.NoError(t, e.Register(name, rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			seen := entry{
				Life: c.Life, What: "begin", Run: req.Run, Step: req.Step.ID, Attempt: req.Attempt, Resumed: req.Resumed,
				Key: req.IdempotencyKey(),
			}
			if err := seen.write(journal); err != nil {
				return conveyor.Done(), err
			}
			if req.Step.ID == c.Hold {
				_, _ = fmt.Fprintln(out, spoken, "holding", req.Step.ID)
				<-ctx.Done()
				return conveyor.Done(), context.Cause(ctx)
			}
			seen.What = "end"
			return conveyor.Done(), seen.write(journal)
		})))
	}
	return e
}

// entry is a line of the journal that the drivers write beside the store.
type entry struct {
	Life      int
	What      string // begin or end
	Run, Step string
	Attempt   int
	Resumed   bool
	Key       string
}

// write appends the line in one piece.
func (e entry) write(journal *os.File) error {
	_, err := journal.Write(append(rig.JSON(e), '\n'))
	return err
}

// completeLines returns the lines of a journal that were written wholly. A kill can cut a write short at the end of a page
// of memory, so that the next process continues the same line. What there is of the first write is as if it were not there.
func completeLines(journal string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(journal) {
			line = line[max(strings.LastIndex(line, `{"Life":`), 0):]
			if !strings.HasSuffix(line, "\n") || !yield(line) {
				return
			}
		}
	}
}

func readJournal(t *testing.T, dir string) (journal []entry) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "journal"))
	require.NoError(t, err)
	for line := range completeLines(string(data)) {
		var e entry
		require.NoError(t, json.Unmarshal([]byte(line), &e), line)
		journal = append(journal, e)
	}
	return journal
}

// process is a child that runs.
type process struct {
	cmd  *exec.Cmd
	out  *bufio.Reader
	said []string
}

func startChild(t *testing.T, c child) *process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // so that a child that hangs fails the test
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, "-test.run=^TestKillChild$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), childEnv+"="+string(rig.JSON(c)))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return &process{cmd: cmd, out: bufio.NewReader(pipe)}
}

// line waits for the next thing that the child says.
func (p *process) line(t *testing.T) string {
	t.Helper()
	said, err := p.read()
	require.NoError(t, err, "the child ended; it had said %q", p.said)
	return said
}

func (p *process) read() (string, error) {
	for {
		line, err := p.out.ReadString('\n')
		if err != nil {
			return "", err
		}
		p.said = append(p.said, line)
		if said, ok := strings.CutPrefix(line, spoken+" "); ok {
			return strings.TrimSuffix(said, "\n"), nil
		}
	}
}

// kill ends the child without a chance to put anything in order, and returns what it had said besides.
func (p *process) kill(t *testing.T) (rest []string) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill())
	for {
		said, err := p.read()
		if err != nil {
			break
		}
		rest = append(rest, said)
	}
	require.ErrorContains(t, p.cmd.Wait(), "killed")
	return rest
}
