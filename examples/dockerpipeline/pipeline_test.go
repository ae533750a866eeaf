package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestPipelineBuildsTheSampleWithoutFlags(t *testing.T) {
	setHostileEnv(t)
	keepGoCaches(t)
	t.Setenv("HOME", t.TempDir()) // git has no configuration there
	t.Setenv("GOPROXY", "http://"+unusedAddress(t))
	data := filepath.Join(t.TempDir(), "data")
	first := start(t.Context(), "-data", data)
	require.Equal(t, exitSucceeded, first.code, "%s%s", first.out, first.errors)
	require.Empty(t, first.errors)
	require.Regexp(t, `^127\.0\.0\.1:\d+/build-app-1@sha256:[0-9a-f]{64}$`, first.value(t, "image"))
	_, digest, _ := strings.Cut(first.value(t, "image"), "@")
	img := openLayout(t, image{Layout: first.value(t, "layout"), Digest: digest})
	require.NotEmpty(t, appOf(t, img))
	order := regexp.MustCompile(`(?m)^(\d) .*: succeeded`).FindAllStringSubmatch(first.out, -1)
	require.Len(t, order, 5)

	second := start(t.Context(), "-data", data)
	require.Equal(t, exitSucceeded, second.code, "%s%s", second.out, second.errors)
	require.NotEqual(t, first.run(t), second.run(t), "a finished build is built again")
	_, again, _ := strings.Cut(second.value(t, "image"), "@")
	require.Equal(t, digest, again, "the same commit gives the same image")
	work, err := os.ReadDir(filepath.Join(data, "work"))
	require.NoError(t, err)
	require.Len(t, work, 1, "the work of finished runs does not pile up")
}

func TestPipelinePublishesARealRepositoryToARealRegistry(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	got := start(t.Context(), "-data", t.TempDir(), "-repo", newRepository(t, nil), "-image", registry+"/team/greet:v1")
	require.Equal(t, exitSucceeded, got.code, "%s%s", got.out, got.errors)
	reference := got.value(t, "image")
	require.True(t, strings.HasPrefix(reference, registry+"/team/greet@sha256:"), reference)
	requireRuns(t, reference)
}

func TestPipelineEndsAtAFailingTest(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	data := t.TempDir()
	args := []string{"-data", data, "-repo", newRepository(t, map[string]string{"main_test.go": failingTest}), "-image", registry + "/app"}
	first := start(t.Context(), args...)
	require.Equal(t, exitFailed, first.code)
	require.Contains(t, first.errors, "step 2 (Run tests, driver test-runner) failed in attempt 1; with the same flags and -log 2, its whole log is shown")
	require.Contains(t, first.errors, "main_test.go:6: this line is the one before the last words")
	require.Contains(t, first.errors, "main_test.go:7: the greeting is impolite")
	require.NotContains(t, first.out, "3 Build and Compile: running")

	second := start(t.Context(), args...)
	require.Equal(t, exitFailed, second.code)
	require.NotEqual(t, first.run(t), second.run(t), "a failed build is tried again by the next start")
}

func TestPipelineGoesOnAfterCtrlC(t *testing.T) {
	t.Parallel()
	blocking := newBlocking(t)
	data := t.TempDir()
	args := []string{"-data", data, "-repo", blocking.repository}

	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan result, 1)
	go func() { ended <- start(ctx, args...) }()
	blocking.await(t)
	locked := start(t.Context(), args...)
	require.Equal(t, exitFailed, locked.code)
	require.Contains(t, locked.errors, "another dockerpipeline is at work in "+data)
	interrupt()
	first := <-ended
	require.Equal(t, exitFailed, first.code)
	require.Contains(t, first.errors, "stopped; started again with the same flags, it goes on where it was (state in "+data+")")

	go func() { ended <- start(t.Context(), args...) }()
	require.NoError(t, blocking.await(t).Close())
	second := <-ended
	require.Equal(t, exitSucceeded, second.code, "%s%s", second.out, second.errors)
	require.Equal(t, first.run(t), second.run(t))
	require.Contains(t, second.out, "an earlier start was interrupted; this one goes on with its run")
	require.NotContains(t, second.out, "1 Clone git repository: running")
	require.Contains(t, second.out, "2 Run tests: running")
}

func TestPipelineFinishesAnInterruptedRunBeforeAnotherSpecification(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	blocking, registry := newBlocking(t), newRegistry(t)
	args := []string{"-data", t.TempDir(), "-repo", blocking.repository, "-image"}
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan result, 1)
	go func() { ended <- start(ctx, append(args, registry+"/app:v1")...) }()
	blocking.await(t)
	interrupt()
	first := <-ended
	require.Equal(t, exitFailed, first.code)

	go func() { ended <- start(t.Context(), append(args, registry+"/app:v2", "-resume", "yes")...) }()
	require.NoError(t, blocking.await(t).Close())
	require.NoError(t, blocking.await(t).Close())
	second := <-ended
	require.Equal(t, exitSucceeded, second.code, "%s%s", second.out, second.errors)
	require.Contains(t, second.out, "run "+first.run(t)+", of an earlier specification, is finished first")
	require.NotEqual(t, first.run(t), second.run(t))
	digest := regexp.MustCompile(`@(sha256:.*)`).FindStringSubmatch(second.value(t, "image"))[1]
	for _, tag := range []string{"v1", "v2"} {
		requireTag(t, registry+"/app:"+tag, digest)
	}
}

func TestPipelineTakesUpAnotherSpecification(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	registry := newRegistry(t)
	data := t.TempDir()
	first := start(t.Context(), "-data", data, "-image", registry+"/app:v1")
	second := start(t.Context(), "-data", data, "-image", registry+"/app:v2")
	require.Equal(t, []int{exitSucceeded, exitSucceeded}, []int{first.code, second.code}, second.errors)
	require.Equal(t, first.value(t, "image"), second.value(t, "image"))
}

func TestPipelineGivesUpOnAnUnreachableRegistry(t *testing.T) {
	t.Parallel()
	pipeline := filepath.Join(t.TempDir(), "pipeline.json")
	document := bytes.Replace(pipelineDocument, []byte(`"steps"`), []byte(`"retry": {"maxAttempts": 2, "initial": "1ms"}, "steps"`), 1)
	require.NoError(t, os.WriteFile(pipeline, document, 0o600))
	got := start(t.Context(), "-data", t.TempDir(), "-pipeline", pipeline, "-image", unusedAddress(t)+"/app")
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.errors, "step 5 (Publish to registry, driver image-pusher) failed in attempt 2")
	require.Contains(t, got.errors, "connection refused")
	require.Contains(t, got.out, "5 Publish to registry: retrying")
}

func TestPipelineWithIdsOfItsOwn(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	folder := t.TempDir()
	pipeline, resource := filepath.Join(folder, "pipeline.json"), filepath.Join(folder, "resource.json")
	require.NoError(t, os.WriteFile(pipeline, []byte(`{"name": "p", "resource": "r", "steps": [
		{"id": "clone", "driver": "git-cloner"},
		{"id": "build", "driver": "builder", "with": {"source": "clone"}},
		{"id": "pack", "driver": "image-generator", "with": {"source": "clone", "binary": "build"}},
		{"id": "test", "driver": "test-runner", "with": {"source": "clone"}},
		{"id": "push", "driver": "image-pusher", "with": {"image": "pack"}}]}`), 0o600))
	require.NoError(t, os.WriteFile(resource, []byte(`{"name": "n", "resource": "r", "pipeline": "p",
		"spec": {"repository": "sample", "image": "n"}}`), 0o600))
	got := start(t.Context(), "-data", t.TempDir(), "-pipeline", pipeline, "-resource", resource)
	require.Equal(t, exitSucceeded, got.code, "%s%s", got.out, got.errors)
	require.Contains(t, got.value(t, "image"), "/n@sha256:")
}

func TestDocumentsAreThoseOfConveyorCI(t *testing.T) {
	var pipeline, resource map[string]any
	require.NoError(t, json.Unmarshal(pipelineDocument, &pipeline))
	require.Equal(t, "docker-pipeline", pipeline["name"])
	require.Equal(t, "docker-resource", pipeline["resource"])
	require.Equal(t, []any{
		map[string]any{"id": "1", "name": "Clone git repository", "driver": "git-cloner"},
		map[string]any{"id": "2", "name": "Run tests", "driver": "test-runner"},
		map[string]any{"id": "3", "name": "Build and Compile", "driver": "builder"},
		map[string]any{"id": "4", "name": "Generate docker image", "driver": "image-generator"},
		map[string]any{"id": "5", "name": "Publish to registry", "driver": "image-pusher"},
	}, pipeline["steps"])
	require.NoError(t, json.Unmarshal(resourceDocument, &resource))
	require.Equal(t, "build-app-1", resource["name"])
	require.Equal(t, "docker-pipeline", resource["pipeline"])
}
