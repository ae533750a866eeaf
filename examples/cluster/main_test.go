package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == asWorker {
		exit(work(context.Background(), os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// TestAClusterSurvivesAKill runs the program.
func TestAClusterSurvivesAKill(t *testing.T) {
	c := cluster{workers: 3, images: 12, kill: true}
	var out bytes.Buffer
	err := c.run(t.Context(), &out)
	t.Log(out.String())
	require.NoError(t, err)
	for n := range 3 {
		require.Contains(t, out.String(), fmt.Sprintf("worker-%d finishes", n+1))
	}
	require.Contains(t, out.String(), "is killed\n")
	require.Contains(t, out.String(), "is dead: signal: killed\n")
	require.Contains(t, out.String(), " takes over ")
	require.True(t, strings.HasPrefix(last(out.String()), "all 12 images are done: 36 steps, "), last(out.String()))
}

// last returns the last line that the parent has printed.
func last(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "all ") {
			return lines[i]
		}
	}
	return ""
}

func TestAStoreThatIsNoneIsNamed(t *testing.T) {
	_, err := open(t.Context(), "nonsense", false)
	require.ErrorContains(t, err, `-store: "nonsense"`)
}
