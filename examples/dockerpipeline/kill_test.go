package main

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestKilledInEveryStepItGoesOnThere(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		testenv.Skip(t, "needs SIGKILL")
	}
	steps := []string{"1", "2", "3", "4", "5"}
	type kind struct {
		name, block string
		beforeKill  func(step string) []string
	}
	for _, test := range testenv.First(t, 1,
		kind{
			name: "after the work of the step and before it is recorded", block: "end",
			beforeKill: func(step string) []string { return []string{"begin " + step, "end " + step} },
		},
		kind{
			name: "before the work of the step", block: "begin",
			beforeKill: func(step string) []string { return []string{"begin " + step} },
		},
	) {
		t.Run(test.name, func(t *testing.T) {
			ledger := filepath.Join(t.TempDir(), "ledger")
			args := []string{"-data", t.TempDir(), "-image", newRegistry(t) + "/app:v1"}
			for _, step := range steps {
				runChild(t, ledger, test.block+" "+step, args...)
			}
			out := runChild(t, ledger, "", args...)

			var want []string
			for _, step := range steps {
				want = append(want, test.beforeKill(step)...)
				want = append(want, "begin "+step+" resumed", "end "+step+" resumed")
			}
			entries := readLedger(t, ledger)
			require.Equal(t, want, summarize(entries))
			requireOneRun(t, entries, len(steps))
			requireRuns(t, result{out: out}.value(t, "image"))
		})
	}
}

// summarize returns a line for each entry.
func summarize(entries []entry) (lines []string) {
	for _, e := range entries {
		line := e.What + " " + e.Step
		if e.Resumed {
			line += " resumed"
		}
		lines = append(lines, line)
	}
	return lines
}

// requireOneRun checks that all entries belong to one run and to the first attempt of their step, and that each step has
// one idempotency key.
func requireOneRun(t *testing.T, entries []entry, steps int) {
	t.Helper()
	keys := map[string]string{}
	for _, e := range entries {
		require.Equal(t, entries[0].Run, e.Run)
		require.Equal(t, 1, e.Attempt, "a death of the process uses no attempt")
		if keys[e.Step] == "" {
			keys[e.Step] = e.Key
		}
		require.Equal(t, keys[e.Step], e.Key)
	}
	require.Len(t, keys, steps)
}

func TestKilledWhileTheTestsRunItRunsThemAgain(t *testing.T) {
	testenv.Rare(t)
	if runtime.GOOS == "windows" {
		testenv.Skip(t, "needs SIGKILL")
	}
	t.Parallel()
	blocking := newBlocking(t)
	ledger := filepath.Join(t.TempDir(), "ledger")
	args := []string{"-data", t.TempDir(), "-image", newRegistry(t) + "/app:v1", "-repo", blocking.repository}

	killed := newChild(t, ledger, "", args...)
	killed.Stdout, killed.Stderr = t.Output(), t.Output()
	require.NoError(t, killed.Start())
	blocking.await(t) // a test of the clone is running, in a grandchild of the process that is killed
	require.NoError(t, killed.Process.Kill())
	require.Error(t, killed.Wait())

	ended := make(chan string, 1)
	go func() {
		defer close(ended) // when runChild gives up
		ended <- runChild(t, ledger, "", args...)
	}()
	require.NoError(t, blocking.await(t).Close())
	out := <-ended
	var begun []string
	for _, e := range readLedger(t, ledger) {
		if e.What == "begin" {
			begun = append(begun, e.Step)
		}
	}
	require.Equal(t, []string{"1", "2", "2", "3", "4", "5"}, begun)
	requireRuns(t, result{out: out}.value(t, "image"))
}
