// Command reliability runs the tests that try to break the library, and writes RELIABILITY.md from what they have
// counted. It is run from the root of the repository:
//
//	go run ./internal/reliability          what continuous integration does: `go test` by the full bounds
//	go run ./internal/reliability -long    the long runs
//	go run ./internal/reliability -render  writes the page anew from the figures there are
//
// The flag -only takes a pattern, and runs the tests whose names match it.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"
)

const (
	page    = "RELIABILITY.md"
	figures = "internal/reliability/figures.json"
	full    = "CONVEYOR_FULL=1" // has the tests keep to their full bounds
)

func main() {
	log.SetFlags(0)
	long := flag.Bool("long", false, "do the long runs")
	only := flag.String("only", "", "run the tests whose names match this pattern")
	renderOnly := flag.Bool("render", false, "run nothing")
	flag.Parse()
	if err := run(*long, *renderOnly, *only); err != nil {
		log.Fatal(err)
	}
}

func run(long, renderOnly bool, only string) error {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	counted, err := readFigures()
	if err != nil {
		return err
	}
	for _, p := range promises {
		if renderOnly || !pattern.MatchString(p.Test) || long && p.Long == 0 {
			continue
		}
		f, err := measure(p, long)
		if err != nil {
			return err
		}
		counted[p.key(long)] = f
		// Each is kept at once: the long runs take hours, and one that fails shall not take the others along.
		if err := write(counted); err != nil {
			return err
		}
	}
	return write(counted)
}

// figure is what one run of a test came to.
type figure struct {
	Counted string `json:"counted"`
	Took    string `json:"took"`
	Date    string `json:"date"`
	Machine string `json:"machine"`
}

func (p promise) key(long bool) string {
	if long {
		return p.Test + " long"
	}
	return p.Test
}

// command is how a test is run, as a reader would type it.
func (p promise) command(long bool) string {
	c := fmt.Sprintf("go test %s -run '^%s$' -v -count=1", p.Dir, p.Test)
	if long {
		return fmt.Sprintf("%s=%d %s -timeout 0", p.Bound, p.Long, c)
	}
	return full + " " + c
}

// quiet matches the lines of a test's output that tell of no failure.
var quiet = regexp.MustCompile(`(?m)^ *(=== |--- PASS).*\n`)

// measure runs a test, which has to pass and to say what it has counted.
func measure(p promise, long bool) (figure, error) {
	log.Print(p.command(long))
	args := []string{"test", p.Dir, "-run", "^" + p.Test + "$", "-v", "-count=1", "-timeout", "0"}
	cmd := exec.Command("go", args...)
	bound := full
	if long {
		bound = fmt.Sprintf("%s=%d", p.Bound, p.Long)
	}
	cmd.Env = append(os.Environ(), bound)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = quiet.ReplaceAll(out, nil)
		return figure{}, fmt.Errorf("%s: %w\n%s", p.command(long), err, out[max(0, len(out)-10_000):])
	}
	if !bytes.Contains(out, []byte("--- PASS: "+p.Test+" ")) {
		return figure{}, fmt.Errorf("%s: it has not run", p.command(long))
	}
	var counted []string
	for line := range strings.Lines(string(out)) {
		if _, after, ok := strings.Cut(line, "figure: "); ok {
			counted = append(counted, strings.TrimSpace(after))
		}
	}
	if len(counted) == 0 {
		return figure{}, fmt.Errorf("%s: it has not said what it counted", p.command(long))
	}
	f := figure{
		Counted: strings.Join(counted, "; "), Took: time.Since(began).Round(time.Second).String(),
		Date:    began.UTC().Format(time.DateOnly),
		Machine: fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
	}
	log.Printf("    %s, in %s", f.Counted, f.Took)
	return f, nil
}

func readFigures() (map[string]figure, error) {
	counted := map[string]figure{}
	data, err := os.ReadFile(figures)
	if errors.Is(err, fs.ErrNotExist) {
		return counted, nil
	}
	if err != nil {
		return nil, err
	}
	return counted, json.Unmarshal(data, &counted)
}

func write(counted map[string]figure) error {
	data, err := json.MarshalIndent(counted, "", "\t")
	if err != nil {
		return err
	}
	return cmp.Or(
		os.WriteFile(figures, append(data, '\n'), 0o644),
		os.WriteFile(page, []byte(render(counted)), 0o644),
	)
}
