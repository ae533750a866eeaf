package file_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

const (
	// hang is how long a case may take. Most cases take a millisecond.
	hang = 2 * time.Minute
	// portion is how many cases a child gets at a time.
	portion = 2000
)

// TestDamageIsFoundOrHarmless damages files in every way we could think of, before they are opened and while they are
// open. Either Open refuses the damaged file and does not change it, or every read returns what was written or an
// error. An error names the file, and the record if the damage is in a record. No process dies or hangs. Each case has
// a number and is the same each time:
//
//	CONVEYOR_DAMAGE_CASE=4711 go test -v -run TestDamageIsFoundOrHarmless ./store/file
func TestDamageIsFoundOrHarmless(t *testing.T) {
	testenv.NeedKill(t)
	t.Parallel()
	r := &damageRun{t: t, dir: testenv.MemoryDir(t), hashes: map[uint64]bool{}, outcomes: map[string]int{}}
	saveFixtures(t, filepath.Join(r.dir, "fixtures"), fixtures(t))
	if one := os.Getenv("CONVEYOR_DAMAGE_CASE"); one != "" {
		var n int
		_, err := fmt.Sscan(one, &n)
		require.NoError(t, err)
		r.work(n, n+1)
		t.Log(r.last)
	} else {
		r.total = testenv.Bound(t, "CONVEYOR_DAMAGE", testenv.Some(t, 3_000, 26_000), 3_000)
		var group sync.WaitGroup
		for range max(2, runtime.GOMAXPROCS(0)) {
			group.Go(r.portions)
		}
		group.Wait()
	}
	if r.total > 0 && len(r.failed) == 0 {
		r.requireVariety()
	}
	require.Empty(t, r.failed, "%d of the cases", len(r.failed))
}

// damageRun is the state of the parent of the children that run the cases.
type damageRun struct {
	t     *testing.T
	dir   string
	total int
	next  atomic.Int64

	mu       sync.Mutex // guards those below
	hashes   map[uint64]bool
	outcomes map[string]int
	failed   []string
	last     string
}

// portions has portions of the cases run until none is left.
func (r *damageRun) portions() {
	for {
		to := int(r.next.Add(portion))
		from := to - portion
		if from >= r.total || r.given() {
			return
		}
		r.work(from, min(to, r.total))
	}
}

// given reports whether there are so many failures that the run can end.
func (r *damageRun) given() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failed) >= 20
}

// work has children run a range of cases. If a child dies or hangs, its case has failed, and another child goes on with
// the next case.
func (r *damageRun) work(from, to int) {
	for from < to && !r.given() {
		done, death := r.child(from, to)
		from = done
		if done < to {
			r.mu.Lock()
			r.failed = append(r.failed, fmt.Sprintf("case %d ended its process: %s", done, death))
			r.mu.Unlock()
			from++
		}
	}
}

// child has one child run a range of cases. It returns the first case that the child has not run, and how the child
// died.
func (r *damageRun) child(from, to int) (next int, death string) {
	cmd := childCommand(r.t, "damage", r.dir)
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d %d", rangeVariable, from, to), "GOMAXPROCS=2")
	var trace bytes.Buffer
	cmd.Stderr = &trace
	out, err := cmd.StdoutPipe()
	require.NoError(r.t, err)
	require.NoError(r.t, cmd.Start())
	var hung atomic.Bool
	watch := time.AfterFunc(hang, func() {
		hung.Store(true)
		_ = cmd.Process.Signal(syscall.SIGQUIT) // for a trace
		time.AfterFunc(hang/4, func() { _ = cmd.Process.Kill() })
	})
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for next = from; lines.Scan(); next++ {
		watch.Reset(hang)
		r.note(lines.Text())
	}
	err = cmd.Wait()
	watch.Stop()
	if next == to && err == nil {
		return next, ""
	}
	if hung.Load() {
		death = "no end within " + hang.String() + "; "
	}
	text := trace.String()
	return next, fmt.Sprintf("%s%v: %s", death, err, text[:min(len(text), 3000)])
}

// note records the line that a child has printed for a case.
func (r *damageRun) note(line string) {
	var result, mode, outcome string
	var n int
	var hash uint64
	_, err := fmt.Sscan(line, &result, &n, &hash, &mode, &outcome)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || result != "done" {
		r.failed = append(r.failed, line)
	}
	r.last = line
	r.hashes[hash] = true
	r.outcomes[mode+" "+outcome]++
}

// requireVariety checks that the cases were different and have ended in all possible ways.
func (r *damageRun) requireVariety() {
	var text []string
	for what, n := range r.outcomes {
		text = append(text, fmt.Sprintf("%s %d", what, n))
	}
	slices.Sort(text)
	r.t.Log(strings.Join(text, ", "))
	testenv.Figure(r.t, "%d cases, %d of them different; 0 panics, deaths, hangs and values that were never committed", r.total, len(r.hashes))
	if r.total < 3000 || r.total > 200_000 {
		return
	}
	require.Greater(r.t, len(r.hashes), r.total*9/10)
	for _, m := range []mode{whole, large, underOpen} {
		for _, o := range []outcome{refused, found, harmless, stale} {
			if m == whole && o == found || m == underOpen && o == refused {
				continue // nothing is found later that Open has read, and Open comes before the damage
			}
			require.Greater(r.t, r.outcomes[string(m)+" "+string(o)], r.total/2000, "%s %s", m, o)
		}
	}
}
