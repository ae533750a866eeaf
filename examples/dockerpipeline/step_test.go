package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// outputs are the outputs of the steps before the tested step, by the ids of the steps.
type outputs map[string]any

// outcome is the outcome of a step.
type outcome struct {
	err      error
	attempts int
	output   json.RawMessage
	log      string
}

// stepAttempts is the most attempts of a step in runStep.
const stepAttempts = 2

// runStep runs a driver with an engine, as the step id of a build. The steps before it return the outputs in before.
func runStep(t *testing.T, driver conveyor.Driver, id string, spec BuildSpec, before outputs) outcome {
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

func newRequest(step string) (*conveyor.Request, *messageLog) {
	log := new(messageLog)
	return &conveyor.Request{
		Resource: new(conveyor.Object),
		Run:      "run-1",
		Step:     conveyor.Step{ID: step},
		Attempt:  1,
		Log:      slog.New(log),
	}, log
}

// messageLog is a slog.Handler that keeps messages.
type messageLog struct {
	mu       sync.Mutex // guards messages
	messages []string
}

func (l *messageLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *messageLog) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *messageLog) WithGroup(string) slog.Handler { return l }

func (l *messageLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, r.Message)
	return nil
}

func (l *messageLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.messages, "\n")
}
