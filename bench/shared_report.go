package main

import (
	"fmt"
	"io"
	"slices"
)

// report writes what was measured as Markdown.
func (f *shared) report(w io.Writer, versionOf func(module string) string) {
	if f.speed == nil {
		fmt.Fprintf(w, "On PostgreSQL %s.\n", f.version)
	} else {
		f.reportSpeed(w, versionOf)
	}
	if f.scaling != nil {
		f.reportProcesses(w)
	}
	if f.takeovers != nil {
		fmt.Fprintf(w, "\n## Takeover\n\nOne of three processes has the runs, which wait, and is killed.\n\n%s", takeoverTable(f.takeovers))
	}
	if f.costs != nil {
		t := &table{header: []string{"", "commits", "operations", "reads"}}
		for _, c := range f.costs {
			t.add(c.what, number(c.commits), number(c.ops), number(c.reads))
		}
		fmt.Fprintf(w, "\n## What a run needs of the store\n\nA run of five steps, while a second engine works on the store. All calls of both engines are counted, heartbeats too.\n\n%s", t)
	}
	if f.idle != nil {
		fmt.Fprintf(w, "\n## Idle\n\nTen idle engines, with a lease of 30 s: %s transactions of the server a second, each of them.\n", number(*f.idle))
	}
	if f.growth != nil {
		t := &table{header: []string{"runs on record", "a step", "times the first"}}
		for _, g := range f.growth {
			t.add(grouped(int64(g.runs)), g.step.ranged(duration), number(g.step.median/f.growth[0].step.median)+"×")
		}
		fmt.Fprintf(w, "\n## Growth\n\nWith 100 runs in flight.\n\n%s", t)
	}
	for _, e := range f.etcd {
		e.report(w)
	}
}

func takeoverTable(all []takeover) *table {
	t := &table{header: []string{"waiting runs", "lease", "until all were taken over", "in leases"}}
	for _, o := range all {
		t.add(grouped(int64(o.runs)), o.lease.String(), duration(o.took.Seconds()), number(o.took.Seconds()/o.lease.Seconds()))
	}
	return t
}

// reportSpeed writes a table for each number of runs in flight, and what each contender does.
func (f *shared) reportSpeed(w io.Writer, versionOf func(module string) string) {
	fmt.Fprintf(w, "## Side by side on PostgreSQL %s\n\nThe server, its clients and the load share the machine. fsync and synchronous_commit are on for all. Each run is five steps that do nothing, "+
		"from submitting it to its known end. Medians of the repetitions, with minimum and maximum.\n", f.version)
	contenders := new(database).contenders()
	reportFlights(w, f.speed, len(contenders))
	fmt.Fprint(w, "\n### What each of them does\n\n")
	for _, c := range contenders {
		fmt.Fprintf(w, "- **%s** (%s %s). %s.\n", c.name, c.module, versionOf(c.module), c.does)
	}
}

// reportFlights writes a table for each number of runs in flight.
func reportFlights(w io.Writer, speed []*sharedResult, contenders int) {
	for of := range slices.Chunk(speed, contenders) {
		t := &table{header: []string{"", "runs/s", "Conveyor's", "p50", "p99", "processor/run, client", "processor/run, server", "n"}}
		rate := func(s sharedSample) float64 { return s.rate }
		for _, r := range of {
			times := ""
			if r != of[0] {
				times = number(of[0].spread(rate).median/r.spread(rate).median) + "×"
			}
			t.add(r.name, r.spread(rate).ranged(number), times,
				r.spread(func(s sharedSample) float64 { return s.p50 }).ranged(duration), r.spread(func(s sharedSample) float64 { return s.p99 }).ranged(duration),
				duration(r.spread(func(s sharedSample) float64 { return s.client }).median), duration(r.spread(func(s sharedSample) float64 { return s.server }).median),
				fmt.Sprint(len(r.samples)))
		}
		fmt.Fprintf(w, "\n### %s in flight\n\n%s", grouped(int64(of[0].flight)), t)
	}
}

// reportProcesses compares each number of processes with one process.
func (f *shared) reportProcesses(w io.Writer) {
	t := &table{header: []string{"processes", "MaxRuns", "runs/s", "times one process", "n"}}
	for _, s := range f.scaling {
		one := slices.IndexFunc(f.scaling, func(o scaling) bool { return o.processes == 1 && o.maxRuns == s.maxRuns && o.work == s.work })
		limit := "none"
		if s.maxRuns > 0 {
			limit = fmt.Sprint(s.maxRuns)
		}
		t.add(fmt.Sprintf("%d, %s", s.processes, s.work), limit, s.rate.ranged(number), number(s.rate.median/f.scaling[one].rate.median)+"×", fmt.Sprint(s.n))
	}
	fmt.Fprintf(w, "\n## Several processes\n\nEach process has one processor (GOMAXPROCS=1) and an engine, and applies resources of its own, 100 at once. "+
		"\"busy\": each step needs a millisecond of its processor.\n\n%s", t)
}
