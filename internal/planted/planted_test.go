// Package planted_test plants bugs in a copy of the library and checks that a named test finds each of them. A test that
// does not find its planted bug would not find the same bug in the library either.
//
// The copy is an overlay of the go command. The library itself is not changed and does not know of the bugs. Each bug in
// the copy has a switch. One build contains all bugs, and each run of a test turns on one of them or none.
package planted_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// bug is a deliberate fault, with the test that must find it.
type bug struct {
	name string
	file string // the path of the source file, from the root of the repository
	// The text old occurs once in the file and is replaced by new. In new, $BUG is true if this bug is turned on. A short
	// old of one or two lines of code, without a comment, survives most changes of the file.
	old, new string
	in       string // the folder of the package whose test must find the bug
	by       string // the name of that test, as a pattern of -run without its anchors
	says     string // a part of the output of the test that finds the bug
}

func TestEveryPlantedBugIsFound(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		testenv.Skip(t, "needs the go command")
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	overlay := plant(t, root)
	var planted []bug // the bugs that are tried here; the copy contains all of them
	for i, stride := 0, testenv.Some(t, 9, 1); i < len(bugs); i += stride {
		planted = append(planted, bugs[i])
	}
	if testenv.Race {
		planted = planted[:2] // the copy is built without the race detector; two bugs show that it can be built
	}
	env := append(os.Environ(),
		testenv.Everything+"=1", "CONVEYOR_GARBAGE=10", "CONVEYOR_SCHEDULES=1500", "CONVEYOR_HISTORIES=100",
		"CONVEYOR_KILLS=100", "CONVEYOR_OWNER_ROUNDS=5", fmt.Sprint("CONVEYOR_DAMAGE=", testenv.Some(t, 3000, 10_000)))
	// What the copy does while no bug is awake shows in few cases. The tests themselves try all of them.
	few := append(slices.Clip(env), "CONVEYOR_SCHEDULES=200", "CONVEYOR_HISTORIES=20", "CONVEYOR_KILLS=10", "CONVEYOR_OWNER_ROUNDS=1", "CONVEYOR_DAMAGE=200")
	binaries := map[string]string{} // test binaries, by the folder of the package
	for _, b := range planted {
		if binaries[b.in] == "" {
			binaries[b.in] = build(t, root, b.in, overlay)
		}
	}
	var found atomic.Int64
	harnesses := map[string]bool{} // the tests that have also been run without a bug
	t.Run("all", func(t *testing.T) {
		for _, b := range planted {
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				out, err := run(t, root, b, binaries[b.in], env, b.name)
				require.Error(t, err, "%s has not found it:\n%s", b.by, tail(out))
				require.Contains(t, out, "--- FAIL: "+strings.Split(b.by, "/")[0], tail(out))
				require.Contains(t, out, b.says, tail(out))
				found.Add(1)
			})
			if harness := b.in + " " + b.by; !harnesses[harness] {
				harnesses[harness] = true
				t.Run("none, for "+b.by, func(t *testing.T) {
					t.Parallel()
					out, err := run(t, root, b, binaries[b.in], few, "")
					require.NoError(t, err, tail(out))
					require.Contains(t, out, "--- PASS: "+strings.Split(b.by, "/")[0], tail(out))
				})
			}
		}
	})
	testenv.Figure(t, "%d bugs planted, %d found, by %d searches, which find none where none is", len(planted), found.Load(), len(harnesses))
}

// plant writes a copy of each file that gets a bug, and returns the path of the overlay.
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
		require.Equal(t, 1, strings.Count(source, b.old), "%s: %s must contain the text in old once", b.name, b.file)
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

// addSwitch adds the file that defines the switch to the package of a source, unless the package already has it. The
// parameter in is the folder of the package, from the root of the repository.
func addSwitch(t *testing.T, root, dir, in, source string, replace map[string]string) {
	t.Helper()
	added := filepath.Join(root, in, "planted_switch.go")
	if replace[added] != "" {
		return
	}
	pkg, _, _ := strings.Cut(source[strings.Index("\n"+source, "\npackage "):], "\n")
	path := filepath.Join(dir, strings.ReplaceAll(in, string(filepath.Separator), "_")+"_switch.go")
	require.NoError(t, os.WriteFile(path, []byte(pkg+`

import "os"

var awake = os.Getenv("CONVEYOR_PLANTED_BUG")

func planted(bug string) bool { return bug == awake }
`), 0o600))
	replace[added] = path
}

// build builds the test binary of a package from the copy of the library, and returns its path.
func build(t *testing.T, root, in, overlay string) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "test.exe")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", binary, ".")
	cmd.Dir = filepath.Join(root, filepath.FromSlash(in))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

// running limits the number of test binaries that run at once. The tests in them are parallel themselves.
var running = make(chan struct{}, 2)

// run runs the test that must find a bug, and returns its output. The bug with the name awake is turned on; an empty name
// turns on none.
func run(t *testing.T, root string, b bug, binary string, env []string, awake string) (out string, err error) {
	t.Helper()
	running <- struct{}{}
	defer func() { <-running }()
	cmd := exec.CommandContext(t.Context(), binary, "-test.run", "^"+b.by+"$", "-test.v", "-test.failfast", "-test.timeout=9m")
	cmd.Dir = filepath.Join(root, filepath.FromSlash(b.in))
	cmd.Env = append(slices.Clip(env), "CONVEYOR_PLANTED_BUG="+awake)
	data, err := cmd.CombinedOutput()
	return string(data), err
}

// tail returns the end of an output.
func tail(out string) string { return out[max(0, len(out)-4000):] }
