package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// lines is a slog.Handler that keeps messages.
type lines struct {
	mu       sync.Mutex // guards messages
	messages []string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) WithGroup(string) slog.Handler            { return l }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, r.Message)
	return nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.messages, "\n")
}

func newRequest(step string) (*conveyor.Request, *lines) {
	log := new(lines)
	return &conveyor.Request{
		Resource: new(conveyor.Object),
		Run:      "run-1",
		Step:     conveyor.Step{ID: step},
		Attempt:  1,
		Log:      slog.New(log),
	}, log
}

// given are the outputs of steps before the one that is tested, by their ids.
type given map[string]any

// outcome is what became of a step.
type outcome struct {
	err      error
	attempts int
	output   json.RawMessage
	log      string
}

// stepAttempts is how often runStep tries a step.
const stepAttempts = 2

// runStep has an engine run a driver as the step id of a build, after steps that return what is given.
func runStep(t *testing.T, driver conveyor.Driver, id string, spec BuildSpec, before given) outcome {
	t.Helper()
	e, err := conveyor.New(memory.New(), conveyor.Options{})
	require.NoError(t, err)
	require.NoError(t, e.Register("tested", driver))
	require.NoError(t, e.Register("given", conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return conveyor.DoneWith(req.Step.With), nil
	})))
	pipeline := conveyor.PipelineSpec{Name: "p", Resource: "docker-resource", Retry: &conveyor.RetryPolicy{
		MaxAttempts: stepAttempts, Initial: conveyor.Duration(time.Millisecond),
	}}
	for _, step := range slices.Sorted(maps.Keys(before)) {
		with, err := json.Marshal(before[step])
		require.NoError(t, err)
		pipeline.Steps = append(pipeline.Steps, conveyor.Step{ID: step, Driver: "given", With: with})
	}
	pipeline.Steps = append(pipeline.Steps, conveyor.Step{ID: id, Driver: "tested"})
	require.NoError(t, e.SavePipeline(t.Context(), pipeline))
	require.NoError(t, e.Start(t.Context()))
	defer func() { require.NoError(t, e.Shutdown(context.WithoutCancel(t.Context()))) }()

	build := &DockerBuild{Meta: conveyor.Meta{Name: "b", Type: "docker-resource", Pipeline: "p"}, Spec: spec}
	run, err := e.Apply(t.Context(), build)
	require.NoError(t, err)
	run, err = e.Wait(t.Context(), run.ID)
	require.NoError(t, err)
	var log []string
	for line, err := range e.Logs(t.Context(), run.ID, conveyor.LogOptions{Step: id}) {
		require.NoError(t, err)
		log = append(log, lineText(line))
	}
	step := run.Step(id)
	return outcome{err: run.Err(), attempts: step.Attempt, output: step.Output, log: strings.Join(log, "\n")}
}

// newRepository makes a git repository of the sample's files, changed by files.
func newRepository(t *testing.T, files map[string]string) string {
	t.Helper()
	all := maps.Clone(sampleFiles)
	maps.Copy(all, files)
	dir := filepath.Join(t.TempDir(), "repository")
	require.NoError(t, makeSample(t.Context(), dir, all))
	return dir
}

// newRegistry starts a registry and returns its host:port.
func newRegistry(t *testing.T) string {
	t.Helper()
	r, err := startRegistry()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r.Addr()
}

// unusedAddress is a host:port of this machine at which nobody answers.
func unusedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

const failingTest = `package main

import "testing"

func TestGreeting(t *testing.T) {
	t.Log("this line is the one before the last words")
	t.Error("the greeting is impolite")
}
`

// blocking is a repository whose test waits until it is told to end.
type blocking struct {
	repository string
	listener   *net.TCPListener
}

func newBlocking(t *testing.T) blocking {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	t.Setenv("BLOCK", listener.Addr().String())
	return blocking{repository: newRepository(t, map[string]string{"main_test.go": blockingTest}), listener: listener.(*net.TCPListener)}
}

// await waits until the test runs, and returns what ends it when closed.
func (b blocking) await(t *testing.T) net.Conn {
	t.Helper()
	require.NoError(t, b.listener.SetDeadline(time.Now().Add(5*time.Minute))) // so that a test that never runs fails this one
	conn, err := b.listener.Accept()
	require.NoError(t, err, "the test in the repository did not run")
	t.Cleanup(func() { conn.Close() })
	return conn
}

// blockingTest calls the address in BLOCK and then waits for ever.
const blockingTest = `package main

import (
	"io"
	"net"
	"os"
	"testing"
)

func TestGreeting(t *testing.T) {
	conn, err := net.Dial("tcp", os.Getenv("BLOCK"))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, conn)
}
`
