package main

import (
	"fmt"
	"strings"
)

const intro = `# Reliability

What the library promises, and the tests that try to break each promise. Every figure on this page was counted by the
test beside it, and none was written by hand: ` + "`go run ./internal/reliability`" + ` runs the tests and writes the page, and
with ` + "`-long`" + ` it does the long runs. All of the tests are part of ` + "`CONVEYOR_FULL=1 go test work`" + `, which continuous integration
runs, within the bounds of the first table; without the variable they keep to lower ones.

A test that cannot fail proves nothing. So bugs are planted in a copy of the library, one at a time, and each must be found by the
test named for it in ` + "`internal/planted`" + `; a bug that is not found fails the build.

`

const outro = `
## What this does not show

- The disk is trusted to keep what it has reported as synced, and to write a sector of 512 bytes wholly or not at all.
- Memory is trusted: a bit that flips before a checksum is made over it is kept as it is.
- A fatal error of the Go runtime (a stack that overflows, a map that is written to by two goroutines, memory that is
  used up) and ` + "`os.Exit`" + ` in a driver end the process. What follows is what follows a kill.
- Drivers are called at least once for each step. No test can show "exactly once", and nothing here promises it.
- The schedules and histories are random. They are large numbers, not proofs.
`

func render(counted map[string]figure) string {
	var b strings.Builder
	b.WriteString(intro)
	b.WriteString("## In continuous integration\n\n")
	table(&b, counted, false)
	b.WriteString("\n## One long run\n\n")
	b.WriteString("Where all cases there are, or all that are of use, are tried each time already, there is no longer run.\n\n")
	table(&b, counted, true)
	b.WriteString(outro)
	return b.String()
}

func table(b *strings.Builder, counted map[string]figure, long bool) {
	b.WriteString("| promise | test | counted | took | command | date, machine |\n|---|---|---|---|---|---|\n")
	for _, p := range promises {
		if long && p.Long == 0 {
			continue
		}
		f := counted[p.key(long)]
		fmt.Fprintf(b, "| %s | `%s` | %s | %s | `%s` | %s, %s |\n",
			p.Claim, p.Test, f.Counted, f.Took, p.command(long), f.Date, f.Machine)
	}
}
