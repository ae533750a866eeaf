// Command bench measures Conveyor side by side with its peers, against the limits of the machine, and as it grows.
//
//	go run ./bench                      everything; writes bench/RESULTS.md and bench/results.svg
//	go run ./bench -quick               the same tables from short measurements, in about a minute; writes nothing
//	go run ./bench -only speed          one part alone: speed, growth or budgets
//	go run ./bench -only shared         Conveyor and its peers on PostgreSQL, and Conveyor on etcd; -out bench/SHARED.md writes it down
//
// Everything is measured in one process and in one run of the program. The contenders take turns (speed.go). Each
// contender has a file of its own, peer_*.go or floor_*.go. The file says what the contender records, and when the records
// are on the disk. Most budgets (budgets_speed.go and budgets_growth.go) are ratios of measured values, so that they apply
// to any machine. The program does not use a network.
//
// The kernel counts the system calls that sync, in the same way for all contenders, if the tracing file system is mounted
// at /sys/kernel/tracing and the process has the permission to use it (mount -t tracefs nodev /sys/kernel/tracing, as
// root).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/etcdserver"
)

func main() {
	calls, err := countSyncCalls() // must be the first call: see countSyncCalls
	if err != nil {
		calls = nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	etcdserver.Main()
	if asked := os.Getenv(childVariable); asked != "" {
		if err := runChild(ctx, asked); err != nil {
			fmt.Fprintln(os.Stderr, "bench: a process with an engine:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, os.Args, meter{calls: calls}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

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

// findings are the results of the parts. The result of a part that was left out is nil.
type findings struct {
	speed  []*result
	growth *growth
	shared *shared
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
	if slices.ContainsFunc(sharedParts, o.hasShared) {
		if f.shared, err = b.measureShared(ctx, o); err != nil {
			return f, err
		}
	}
	return f, nil
}
