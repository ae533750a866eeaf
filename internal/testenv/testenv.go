// Package testenv tells the tests what the machine and the build under them can do, and keeps count of what cannot be
// tested there. Only tests import it.
package testenv

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Strict is the name of the environment variable that makes a skip a failure. It is set where every test has to run:
// on Linux, as root, in continuous integration.
const Strict = "CONVEYOR_NO_SKIPS"

// Everything is the name of the environment variable that asks for the full bounds of all tests. Without it they keep to
// bounds that a developer can wait for; with it they take several times as long. Continuous integration sets it.
const Everything = "CONVEYOR_FULL"

// Main runs the tests of a package, fails them if they leave a goroutine behind, and says how many were skipped and
// why, and whether the bounds were lowered. It is called by TestMain and does not return.
//
// Main makes the garbage collector run less often, here and in the processes that the tests start, unless GOGC says how often:
// otherwise a fifth of the time of the tests goes into it.
func Main(m *testing.M) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
		_ = os.Setenv("GOGC", "400") // for a go command, say
	}
	code := m.Run()
	if code == 0 {
		if err := leaks(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	report(os.Stdout)
	os.Exit(code)
}

// patience is how long the goroutines of tests have to return. They do at once, however slow the machine may be to let
// them; the half second that goleak gives them by itself can be too little for that.
const patience = time.Minute

// leaks names the goroutines that do not return.
func leaks() (err error) {
	for began := time.Now(); time.Since(began) < patience; {
		if err = goleak.Find(); err == nil {
			return nil
		}
	}
	return err
}

var (
	mu      sync.Mutex
	skipped = map[string]int{} // tests by reason
	lowered bool               // whether a test has kept to less than its full bounds
	left    int                // tests that Rare has left out
)

// Skip skips a test that cannot run here, for a reason such as "no symbolic links". Where [Strict] is set it fails
// the test.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv(Strict) != "" {
		t.Fatalf("cannot be tested here: %s; and %s is set", reason, Strict)
	}
	mu.Lock()
	skipped[reason]++
	mu.Unlock()
	t.Skip(reason)
}

func report(w io.Writer) {
	mu.Lock()
	defer mu.Unlock()
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(w, "tests skipped: %d: %s\n", skipped[reason], reason)
	}
	if left > 0 {
		fmt.Fprintf(w, "tests left to %s=1: %d\n", Everything, left)
	}
	if lowered {
		fmt.Fprintf(w, "bounds: default; %s=1 for all\n", Everything)
	}
}

// NeedLinux skips a test that works on Linux alone.
func NeedLinux(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		Skip(t, "needs Linux")
	}
}

// NeedRoot skips a test that needs Linux and the rights of root, to mount a file system for instance.
func NeedRoot(t testing.TB) {
	t.Helper()
	NeedLinux(t)
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}

// NeedKill skips a test that kills processes with SIGKILL.
func NeedKill(t testing.TB) {
	t.Helper()
	if runtime.GOOS == "windows" || runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		Skip(t, "needs SIGKILL")
	}
}

// MemoryDir is [testing.TB.TempDir] for files that no loss of power shall survive: in memory, where there is such a file
// system.
func MemoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "conveyor-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Full says whether [Everything] is set.
func Full() bool { return os.Getenv(Everything) != "" }

// Rare leaves a test out unless [Full] bounds are asked for, and counts it. It is for a test that takes seconds and tries
// something of which other tests try most.
func Rare(t testing.TB) {
	t.Helper()
	if Full() {
		return
	}
	mu.Lock()
	left++
	mu.Unlock()
	t.Skipf("bounds: needs %s=1", Everything)
}

// First returns the first n of the cases of a test as a rule, and all of them where [Full] bounds are asked for.
func First[T any](t testing.TB, n int, cases ...T) []T { return cases[:Some(t, n, len(cases))] }

// Some is how much of something a test does: some as a rule, and all of it where [Full] bounds are asked for.
func Some(t testing.TB, some, all int) int {
	t.Helper()
	if Full() || some == all {
		return all
	}
	mu.Lock()
	lowered = true
	mu.Unlock()
	t.Logf("bounds: %d, which is %d in full; %s=1 for all", some, all, Everything)
	return some
}

// Bound is how much of something a test does: n as a rule, and only race under the race detector, where all takes
// several times as long. The environment variable of that name, a number, stands above both, for long runs by hand:
//
//	CONVEYOR_KILLS=10000 go test -run TestKilled -timeout 0 ./tests/kill
func Bound(t testing.TB, variable string, n, race int) int {
	t.Helper()
	if Race {
		n = race
	}
	if set := os.Getenv(variable); set != "" {
		var err error
		if n, err = strconv.Atoi(set); err != nil || n < 1 {
			t.Fatalf("%s=%s: %v", variable, set, cmp.Or(err, strconv.ErrRange))
		}
	}
	return n
}

// Figure logs what a test has counted, in the form in which RELIABILITY.md takes it up.
func Figure(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Logf("figure: "+format, args...)
}
