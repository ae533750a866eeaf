// Command bench measures Conveyor side by side with its peers, against the limits of the machine, and as it grows.
//
//	go run ./bench                      everything; writes bench/RESULTS.md and bench/results.svg
//	go run ./bench -quick               the same tables from short measurements, in about a minute; writes nothing
//	go run ./bench -only speed          one part alone: speed, growth or budgets
//
// All is measured in one process and one run, the contenders taking turns (speed.go). Each contender is a file of its
// own, peer_*.go and floor_*.go, which says what it records and when that is on disk. The budgets (budgets.go) are
// ratios between what was measured, so that they hold on any machine. Nothing talks to a network.
//
// System calls that sync are counted by the kernel, for all contenders alike, if the tracing file system is mounted at
// /sys/kernel/tracing and the process may use it (mount -t tracefs nodev /sys/kernel/tracing, as root).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	calls, err := countSyncCalls() // first, see there
	if err != nil {
		calls = nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args, meter{calls: calls}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	quick bool
	only  []string // parts; empty for all
	dir   string   // below which the temporary folder is made; empty to choose
	out   string   // the file for the results; empty for none
}

const (
	partSpeed   = "speed"
	partGrowth  = "growth"
	partBudgets = "budgets"
)

func parseOptions(args []string) (options, error) {
	var (
		o    options
		only string
	)
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "measure shortly, at small sizes, and write no file unless -out is given")
	flags.StringVar(&only, "only", "", "comma-separated parts: speed, growth, budgets (default all)")
	flags.StringVar(&o.dir, "dir", "", "folder on the disk to measure, for temporary data (default the current one)")
	flags.StringVar(&o.out, "out", "", "file for the results (default bench/RESULTS.md, for a run of everything)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, part := range o.only {
		if !slices.Contains([]string{partSpeed, partGrowth, partBudgets}, part) {
			return o, fmt.Errorf("-only: there is no part %q", part)
		}
	}
	if o.out == "" && !o.quick && only == "" {
		o.out = defaultOut()
	}
	return o, nil
}

// defaultOut is RESULTS.md in the folder of this program, as seen from it or from the root of the repository.
func defaultOut() string {
	if _, err := os.Stat(filepath.Join("bench", "go.mod")); err == nil {
		return filepath.Join("bench", "RESULTS.md")
	}
	return "RESULTS.md"
}

func (o options) has(part string) bool { return len(o.only) == 0 || slices.Contains(o.only, part) }

func run(ctx context.Context, args []string, m meter) (err error) {
	o, err := parseOptions(args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := tempDir(o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	start := time.Now()
	b := &bench{dir: dir, meter: m, logf: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}}
	found, err := b.measureParts(ctx, o)
	if err != nil {
		return err
	}
	doc := document{
		options: o, args: args[1:], machine: describeMachine(dir), meter: m, found: found, took: time.Since(start),
	}
	return doc.publish(os.Stdout)
}

// findings are what the parts came to; nil where a part was left out.
type findings struct {
	speed  []*result
	growth *growth
}

func (b *bench) measureParts(ctx context.Context, o options) (f findings, err error) {
	if o.has(partSpeed) || o.has(partBudgets) {
		if f.speed, err = b.speed(ctx, o.speedPlan()); err != nil {
			return f, err
		}
	}
	if o.has(partGrowth) || o.has(partBudgets) {
		if f.growth, err = b.growth(ctx, o.growthPlan()); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (o options) speedPlan() speedPlan {
	p := speedPlan{
		contenders:  contenders(),
		flights:     []int{1, 100, 1000},
		repetitions: 5,
		duration:    1500 * time.Millisecond,
		allowed:     100 * time.Second, // for five waves of the slowest peer with the most in flight
	}
	if o.quick {
		p.duration, p.allowed = 60*time.Millisecond, 9*time.Second
	}
	return p
}
