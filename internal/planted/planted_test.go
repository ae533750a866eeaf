// Package planted_test puts bugs into a copy of the library, one at a time, and has the tests that should find them
// look for them. A test that finds none is void: it would not notice the bug that somebody makes by mistake either.
//
// The copy is made by an overlay of the go command, so that no line of the library, and no program that uses it, has
// anything to do with it. In the copy each bug sleeps behind a switch, which is why one build serves all of them.
package planted_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// bug is one deliberate fault, and the test that must find it.
type bug struct {
	name string
	file string // from the root of the repository
	// old is there once, and becomes new, in which $BUG is an expression that is true if this bug is awake.
	old, new string
	in       string // the package whose test finds it, by its folder
	by       string // the test, as -run takes it
	says     string // part of what the test says then
}

// bounds keep the searches short. Without a bug they are what a test would do in full, or less.
var bounds = []string{
	testenv.Everything + "=1", "CONVEYOR_GARBAGE=10",
	"CONVEYOR_SCHEDULES=1500", "CONVEYOR_HISTORIES=100", "CONVEYOR_KILLS=100", "CONVEYOR_OWNER_ROUNDS=5",
}

func TestEveryPlantedBugIsFound(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		testenv.Skip(t, "needs the go command")
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	overlay := plant(t, root)
	var planted []bug // of all that are in the copy
	for i, stride := 0, testenv.Some(t, 6, 1); i < len(bugs); i += stride {
		planted = append(planted, bugs[i])
	}
	if testenv.Race {
		planted = planted[:2] // the copy has no race detector in it, so that this only shows that it can be made
	}
	bounds = append(bounds, fmt.Sprint("CONVEYOR_DAMAGE=", testenv.Some(t, 3000, 6000)))
	binaries := map[string]string{} // by package
	for _, b := range planted {
		if binaries[b.in] == "" {
			binaries[b.in] = build(t, root, b.in, overlay)
		}
	}
	var found atomic.Int64
	harnesses := map[string]bool{}
	t.Run("all", func(t *testing.T) {
		for _, b := range planted {
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				out, err := run(t, root, b, binaries[b.in], b.name)
				require.Error(t, err, "%s has not found it:\n%s", b.by, tail(out))
				require.Contains(t, out, "--- FAIL: "+strings.Split(b.by, "/")[0], tail(out))
				require.Contains(t, out, b.says, tail(out))
				found.Add(1)
			})
			if harness := b.in + " " + b.by; !harnesses[harness] {
				harnesses[harness] = true
				t.Run("none, for "+b.by, func(t *testing.T) {
					t.Parallel()
					out, err := run(t, root, b, binaries[b.in], "")
					require.NoError(t, err, tail(out))
					require.Contains(t, out, "--- PASS: "+strings.Split(b.by, "/")[0], tail(out))
				})
			}
		}
	})
	testenv.Figure(t, "%d bugs planted, %d found, by %d searches, which find none where none is", len(planted), found.Load(), len(harnesses))
}

// plant writes the copies of all files that have a bug in them, and returns the overlay.
func plant(t *testing.T, root string) (overlay string) {
	t.Helper()
	dir := t.TempDir()
	sources, replace := map[string]string{}, map[string]string{}
	names := map[string]bool{}
	for _, b := range bugs {
		require.False(t, names[b.name], "two bugs are called %q", b.name)
		names[b.name] = true
		source, ok := sources[b.file]
		if !ok {
			data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(b.file)))
			require.NoError(t, err)
			source = string(data)
			addSwitch(t, root, dir, filepath.Dir(filepath.FromSlash(b.file)), source, replace)
		}
		require.Equal(t, 1, strings.Count(source, b.old), "%s: in %s the place of the bug is there so many times", b.name, b.file)
		with := strings.ReplaceAll(b.new, "$BUG", fmt.Sprintf("planted(%q)", b.name))
		sources[b.file] = strings.Replace(source, b.old, with, 1)
	}
	for name, source := range sources {
		path := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		require.NoError(t, os.WriteFile(path, []byte(source), 0o600))
		replace[filepath.Join(root, filepath.FromSlash(name))] = path
	}
	overlay = filepath.Join(dir, "overlay.json")
	data, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, data, 0o600))
	return overlay
}

// addSwitch adds a file with the switch to the package of a source.
func addSwitch(t *testing.T, root, dir, in, source string, replace map[string]string) {
	t.Helper()
	pkg, _, _ := strings.Cut(source[strings.Index("\n"+source, "\npackage "):], "\n")
	path := filepath.Join(dir, strings.ReplaceAll(in, string(filepath.Separator), "_")+"_switch.go")
	require.NoError(t, os.WriteFile(path, []byte(pkg+`

import "os"

var awake = os.Getenv("CONVEYOR_PLANTED_BUG")

func planted(bug string) bool { return bug == awake }
`), 0o600))
	replace[filepath.Join(root, in, "planted_switch.go")] = path
}

// build makes the test binary of a package.
func build(t *testing.T, root, in, overlay string) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "test.exe")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", binary, ".")
	cmd.Dir = filepath.Join(root, filepath.FromSlash(in))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

// running lets two searches go on at a time, whose own tests are parallel already.
var running = make(chan struct{}, 2)

func run(t *testing.T, root string, b bug, binary, awake string) (out string, err error) {
	t.Helper()
	running <- struct{}{}
	defer func() { <-running }()
	cmd := exec.CommandContext(t.Context(), binary, "-test.run", "^"+b.by+"$", "-test.v", "-test.failfast", "-test.timeout=9m")
	cmd.Dir = filepath.Join(root, filepath.FromSlash(b.in))
	cmd.Env = append(append(os.Environ(), bounds...), "CONVEYOR_PLANTED_BUG="+awake)
	data, err := cmd.CombinedOutput()
	return string(data), err
}

// tail is the end of what a test said.
func tail(out string) string { return out[max(0, len(out)-4000):] }
