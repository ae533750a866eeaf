package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestTheCommandsAskForTheFullBounds(t *testing.T) {
	require.Equal(t, testenv.Everything+"=1", full)
}

// TestThePageShowsTheFiguresThatWereCounted fails if the page was edited by hand, or a promise has no figure yet.
func TestThePageShowsTheFiguresThatWereCounted(t *testing.T) {
	root := filepath.Join("..", "..")
	data, err := os.ReadFile(filepath.Join(root, figures))
	require.NoError(t, err)
	counted := map[string]figure{}
	require.NoError(t, json.Unmarshal(data, &counted))
	written, err := os.ReadFile(filepath.Join(root, page))
	require.NoError(t, err)
	require.Equal(t, render(counted), string(written), "run: go run ./internal/reliability -render")
	want := 0
	for _, p := range promises {
		for _, long := range []bool{false, true} {
			if long && p.Long == 0 {
				continue
			}
			want++
			f := counted[p.key(long)]
			require.NotEmpty(t, f.Counted, p.key(long))
			require.NotEmpty(t, f.Date, p.key(long))
		}
	}
	require.Len(t, counted, want, "there are figures of tests that are not on the page")
}

func TestEveryTestOnThePageIsThere(t *testing.T) {
	for _, p := range promises {
		files, err := filepath.Glob(filepath.Join("..", "..", p.Dir, "*_test.go"))
		require.NoError(t, err)
		found := false
		for _, file := range files {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			found = found || regexp.MustCompile(`(?m)^func `+p.Test+`\(t \*testing\.T\)`).Match(data)
			if p.Bound != "" && regexp.MustCompile(`testenv\.Bound\(t, "`+p.Bound+`"`).Match(data) {
				p.Bound = ""
			}
		}
		require.True(t, found, "%s in %s", p.Test, p.Dir)
		require.Empty(t, p.Bound, "no test in %s has that bound", p.Dir)
	}
}
