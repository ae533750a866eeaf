// Package model_test checks with Spin that the design of several engines keeps its properties, and that the properties find
// the bugs that are planted in it. README.md describes the model.
package model_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// variant is one way to build the model.
type variant struct {
	name   string
	size   string // what differs from the sizes in head.pml
	cycles bool   // the search is for executions that never end, and not for states
	hashed bool   // a state is kept as a hash of 64 bits, because the states themselves need too much memory
}

// designs are the variants without a planted bug. The first two are always checked, and the first four in full, within a minute.
// The others take several minutes; CONVEYOR_MODEL is how many of all of them are checked.
var designs = []variant{
	{name: "a pause and a lost answer", size: "RUNS=1 PAUSES=1 LOST=1"},
	{name: "three engines", size: "ENGINES=3 RUNS=1"},

	{name: "three runs", size: "RUNS=3"},
	{name: "every execution ends", size: "RUNS=1 PAUSES=1", cycles: true},

	{name: "three runs and a pause", size: "RUNS=3 PAUSES=1", hashed: true},
	{name: "two faults, a pause and a lost answer", size: "RUNS=1 FAULTS=2 PAUSES=1 LOST=1", hashed: true},
	{name: "three runs and a lost answer", size: "RUNS=3 LOST=1", hashed: true},
	{name: "every execution of three runs ends", size: "RUNS=3", cycles: true, hashed: true},
	{name: "every execution of three engines ends", size: "ENGINES=3 RUNS=1", cycles: true},
}

func TestTheDesignKeepsItsProperties(t *testing.T) {
	needSpin(t)
	for _, v := range designs[:min(testenv.Bound(t, "CONVEYOR_MODEL", testenv.Some(t, 2, 4), 2), len(designs))] {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			out := search(t, v)
			require.Contains(t, out, "errors: 0\n", out)
			require.NotContains(t, out, "Search not completed", out)
			require.NotContains(t, out, "max search depth too small", out)
		})
	}
}

// bugs are the planted bugs. Each has the property that it breaks; the search looks at no other property. The size is the
// smallest that is needed.
var bugs = []struct{ name, property, size string }{
	{"CLAIM", "ONCE", "RUNS=1"},
	{"RELEASE", "PLACE", "RUNS=1"},
	{"EARLY", "DRIVERS", "RUNS=1"},
	{"WALL", "DRIVERS", "RUNS=1"},
	{"NOFENCE", "DRIVERS", "RUNS=1"},
	{"HINT", "REST", "RUNS=1"},
	{"HBCHECK", "DRIVERS", "RUNS=1"},
	{"ZOMBIE", "SERVICE", "RUNS=1"},
	{"ACQUIRE", "SERVICE", "RUNS=1"},
	{"SIGNAL", "REST", "RUNS=1"},
	{"CKP", "WRITER", "RUNS=1"},
	{"PENDING", "PLACE", "RUNS=3"},
	{"FORGET", "REST", "RUNS=1 LOST=1"},
	{"PAUSE", "HOLD", "RUNS=1 PAUSES=1"},
	{"RESUME", "REST", "RUNS=1 PAUSES=1"},
	{"ASK", "REST", "RUNS=1"},
	{"LOOP", cycles, "RUNS=1 PAUSES=1"},
}

// cycles is the property that every execution ends. It has no name in the model.
const cycles = ""

// events are the variables in the assertions of the model, by property.
var events = map[string]string{
	"PLACE": "misplaced", "SERVICE": "unserved", "DRIVERS": "two_drivers", "ONCE": "started_again", "WRITER": "foreign_checkpoint",
	"HOLD": "started_held", "REST": "unfinished",
}

func TestEveryPlantedBugIsFound(t *testing.T) {
	needSpin(t)
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			v := variant{name: b.name, size: b.size + " BUG=" + b.name, cycles: b.property == cycles}
			says := `pan:1: non-progress cycle `
			if !v.cycles {
				v.size += " CHECK=" + b.property
				says = `pan:1: assertion violated +!\(` + events[b.property] + `\) `
			}
			require.Regexp(t, says, search(t, v))
		})
	}
}

func TestEveryBugAndEveryPropertyOfTheModelIsTried(t *testing.T) {
	head, err := os.ReadFile("head.pml")
	require.NoError(t, err)
	body, err := os.ReadFile("body.pml")
	require.NoError(t, err)
	defined := func(from, to string) (names []string) {
		_, part, found := strings.Cut(string(head), from)
		require.True(t, found, from)
		part, _, found = strings.Cut(part, to)
		require.True(t, found, to)
		for _, name := range regexp.MustCompile(`(?m)^#define (\w+) `).FindAllStringSubmatch(part, -1) {
			names = append(names, name[1])
		}
		return names
	}
	var planted []string
	broken := map[string]bool{cycles: true}
	for _, b := range bugs {
		planted = append(planted, b.name)
		broken[b.property] = true
		require.Contains(t, string(head)+string(body), "PLANTED("+b.name+")")
	}
	require.ElementsMatch(t, planted, defined("#define NONE 0", "#ifndef BUG"))
	require.ElementsMatch(t, slices.Collect(maps.Keys(events)), defined("#define ALL 0", "#ifndef CHECK"))
	for property := range events {
		require.True(t, broken[property], "no bug breaks %s", property)
	}
}

// needSpin skips a test where the programs are missing that it runs.
func needSpin(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			testenv.Skip(t, "needs "+tool)
		}
	}
	if out, _ := exec.CommandContext(t.Context(), "spin", "-V").Output(); !strings.HasPrefix(string(out), "Spin Version 6") {
		testenv.Skip(t, "needs version 6 of Spin, the model checker")
	}
}

// searching limits the number of searches at once. Their memory adds up.
var searching = make(chan struct{}, 2)

// The patterns of what a search says about itself.
var (
	stored = regexp.MustCompile(`(\d+) states, stored`)
	memory = regexp.MustCompile(`([\d.]+)\ttotal actual memory usage`)
)

// search has Spin write a program that searches all states of a variant, runs this program, and returns its output. If it
// finds an error where no bug is planted, search logs the steps that lead to the error.
func search(t *testing.T, v variant) (out string) {
	t.Helper()
	searching <- struct{}{}
	defer func() { <-searching }()
	body, err := filepath.Abs("body.pml")
	require.NoError(t, err)
	dir, sizes := t.TempDir(), []string{}
	for _, size := range strings.Fields(v.size) {
		sizes = append(sizes, "-D"+size)
	}
	planted := strings.Contains(v.size, "BUG=")
	build, look := []string{"-w", "-o", "pan", "pan.c"}, []string{"-m10000", "-Q30"} // a depth, and minutes
	if planted {
		build = append(build, "-O0") // the search takes less time than the compiler
	} else {
		build = append(build, "-O1")
	}
	if v.cycles {
		build, look = append(build, "-DNP"), append(look, "-l")
	} else {
		build = append(build, "-DSAFETY")
	}
	if v.hashed { // MEMLIM is in megabytes. A search that needs more ends, and is not complete.
		build, look = append(build, "-DHC4", "-DMEMLIM=1400"), append(look, "-w25")
	} else {
		build, look = append(build, "-DMEMLIM=450"), append(look, "-w21")
	}
	run(t, dir, "spin", slices.Concat([]string{"-a"}, sizes, []string{body})...)
	run(t, dir, "gcc", build...)
	began := time.Now()
	out = run(t, dir, "./pan", look...)
	if states, used := stored.FindStringSubmatch(out), memory.FindStringSubmatch(out); states != nil && used != nil {
		t.Logf("%s: %s states, %s MB, %s", v.size, states[1], used[1], time.Since(began).Round(time.Millisecond))
	}
	if _, err := os.Stat(filepath.Join(dir, "body.pml.trail")); err == nil && !planted {
		t.Log(run(t, dir, "spin", slices.Concat([]string{"-k", "body.pml.trail", "-p"}, sizes, []string{body})...))
	}
	return out
}

// run runs a program in a folder and returns its output.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}
