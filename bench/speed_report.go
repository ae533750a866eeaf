package main

import (
	"fmt"
	"io"
	"strings"
)

// reportSpeed writes a table for each number of runs in flight, and the reasons why contenders are not in the table.
func reportSpeed(w io.Writer, results []*result, versionOf func(module string) string) {
	fmt.Fprintf(w, "## Speed\n\nEach run is five steps that do nothing, from submitting it to its known end. "+
		"Medians of the repetitions, with minimum and maximum.\n")
	for _, flight := range flightsOf(results) {
		at := selectResults(results, func(r *result) bool { return r.flight == flight })
		fmt.Fprintf(w, "\n### %s in flight\n\n%s", grouped(int64(flight)), speedTable(at))
		reportLeftOut(w, at)
	}
	reportContenders(w, results, versionOf)
}

func reportLeftOut(w io.Writer, results []*result) {
	left := selectResults(results, func(r *result) bool { return r.leftOut != "" })
	if len(left) > 0 {
		fmt.Fprintln(w)
	}
	for _, r := range left {
		fmt.Fprintf(w, "- %s: %s.\n", r.name, r.leftOut)
	}
}

func speedTable(results []*result) *table {
	t := &table{header: []string{
		"", "runs/s", "Conveyor's", "p50", "p99", "allocs/run", "heap/run", "written/run", "disk/run", "syncs/run", "n",
	}}
	for _, r := range results {
		if len(r.samples) == 0 {
			t.add(r.title(), "left out", "", "", "", "", "", "", "", "", "0")
			continue
		}
		t.add(
			r.title(),
			r.rate().ranged(number),
			conveyorTimes(results, r),
			r.p50().ranged(duration),
			r.p99().ranged(duration),
			number(r.spread(func(s sample) float64 { return s.allocs }).median),
			size(r.spread(func(s sample) float64 { return s.bytes }).median),
			size(r.spread(func(s sample) float64 { return s.written }).median),
			size(r.spread(func(s sample) float64 { return s.disk }).median),
			known(r.spread(func(s sample) float64 { return s.syncs }).median),
			fmt.Sprint(len(r.samples)),
		)
	}
	return t
}

// conveyorTimes returns the runs/s of Conveyor divided by the runs/s of a contender. Conveyor uses the store of the same
// kind: the file store if the contender syncs, and the memory store otherwise.
func conveyorTimes(results []*result, r *result) string {
	ours := conveyorMemory.name
	if r.syncs != "" {
		ours = conveyorFile.name
	}
	mine := find(results, ours, r.flight)
	if mine == nil || r.unit != "" || r.name == ours {
		return ""
	}
	return number(mine.rate().median/r.rate().median) + "×"
}

// reportContenders writes what each contender records and syncs.
func reportContenders(w io.Writer, results []*result, versionOf func(module string) string) {
	fmt.Fprint(w, "\n### What each of them does\n\n")
	seen := map[string]bool{}
	for _, r := range results {
		if seen[r.name] {
			continue
		}
		seen[r.name] = true
		synced := "Nothing is synced."
		if r.syncs != "" {
			synced = "Synced: " + r.syncs + "."
		}
		from := "code of this folder"
		if r.module != "" {
			from = r.module + " " + versionOf(r.module)
		}
		fmt.Fprintf(w, "- **%s** (%s, %s). Recorded: %s. %s\n", r.name, r.class, from, r.records, synced)
	}
	fmt.Fprint(w, "\n"+strings.TrimSpace(speedNotes)+"\n")
}

const speedNotes = `
"Conveyor's" is how many times as many runs/s Conveyor does in the same table, on the store of the same kind. "heap/run"
is allocated, not kept. "written/run" is what the kernel counts as written by the process (write_bytes of
/proc/self/io), "disk/run" how much more disk the contender's files take after a run. "syncs/run" are the calls of
fsync and fdatasync of the whole process; where those cannot be counted, n/a, or what the contender itself knows.
"n" is the number of repetitions.
`
