package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// document is the report of a run of this program.
type document struct {
	options options
	args    []string
	machine machine
	meter   meter
	found   findings
	took    time.Duration
}

// publish writes the report to w. If the options name a file, publish writes the report to the file too, and the picture
// to the same folder.
func (d document) publish(w io.Writer) error {
	var text strings.Builder
	d.write(&text)
	if _, err := io.WriteString(w, text.String()); err != nil {
		return err
	}
	if d.options.out == "" {
		return nil
	}
	if err := os.WriteFile(d.options.out, []byte(text.String()), 0o644); err != nil {
		return err
	}
	if d.found.speed == nil {
		return nil
	}
	picture := filepath.Join(filepath.Dir(d.options.out), "results.svg")
	return os.WriteFile(picture, drawSpeed(d.found.speed), 0o644)
}

func (d document) write(w io.Writer) {
	d.writeHead(w)
	if list := d.budgets(); len(list) > 0 {
		reportBudgets(w, list)
	}
	if d.found.speed != nil {
		reportSpeed(w, d.found.speed, d.machine.versionOf)
	}
	if d.found.growth != nil {
		reportGrowth(w, d.found.growth)
	}
	if d.found.shared != nil {
		d.found.shared.report(w, d.machine.versionOf)
	}
	d.writeVersions(w)
}

// budgets returns all budgets if the budgets were asked for, and otherwise only those that were measured.
func (d document) budgets() []budget {
	all := budgets(d.found)
	if d.options.has(partBudgets) {
		return all
	}
	return slices.DeleteFunc(all, func(b budget) bool { return b.missing })
}

func (d document) writeHead(w io.Writer) {
	command := strings.Join(append([]string{"go run ./bench"}, d.args...), " ")
	fmt.Fprintf(w, "# Results\n\nFrom `%s`, in %s, on: %s.\n", command, d.took.Round(time.Second), d.machine)
	if d.options.quick {
		fmt.Fprint(w, "\n**A quick run: short measurements at small sizes, good for a look and not for a comparison.**\n")
	}
	if d.meter.calls == nil {
		fmt.Fprint(w, "\nThe kernel did not count the calls that sync; the syncs are what contenders know of themselves.\n")
	}
	fmt.Fprintln(w)
}

func (d document) writeVersions(w io.Writer) {
	fmt.Fprintf(w, "\n## Versions\n\n%s, and:\n\n", d.machine.goVersion)
	for _, line := range d.machine.modules {
		fmt.Fprintf(w, "- %s\n", line)
	}
}
