package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// options are the values of the command line.
type options struct {
	quick bool
	only  []string // the parts to measure; empty means all parts
	dir   string   // the folder for the temporary folder; empty means that tempDir chooses
	out   string   // the file for the results; empty means no file
}

const (
	partSpeed   = "speed"
	partGrowth  = "growth"
	partBudgets = "budgets"
	partShared  = "shared" // needs PostgreSQL, and is measured only if it is asked for
)

// sharedParts are the parts of [partShared].
var sharedParts = []string{"shared-speed", "shared-processes", "shared-takeover", "shared-costs", "shared-idle", "shared-growth", "shared-etcd"}

func parseOptions(args []string) (options, error) {
	var (
		o    options
		only string
	)
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "measure shortly, at small sizes, and write no file unless -out is given")
	flags.StringVar(&only, "only", "", "comma-separated parts: speed, growth, budgets (default all three), shared, or shared-speed, shared-processes, shared-takeover, shared-costs, shared-idle, shared-growth, shared-etcd (all of them need PostgreSQL)")
	flags.StringVar(&o.dir, "dir", "", "folder on the disk to measure, for temporary data (default the current one)")
	flags.StringVar(&o.out, "out", "", "file for the results (default bench/RESULTS.md, for a run of everything)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, part := range o.only {
		if !slices.Contains([]string{partSpeed, partGrowth, partBudgets, partShared}, part) && !slices.Contains(sharedParts, part) {
			return o, fmt.Errorf("-only: there is no part %q", part)
		}
	}
	if o.out == "" && !o.quick && only == "" {
		o.out = defaultOut()
	}
	return o, nil
}

// defaultOut returns the path of RESULTS.md in the folder of this program. The current folder can be the folder of this
// program or the root of the repository.
func defaultOut() string {
	if _, err := os.Stat(filepath.Join("bench", "go.mod")); err == nil {
		return filepath.Join("bench", "RESULTS.md")
	}
	return "RESULTS.md"
}

// hasShared reports whether a part that is measured on PostgreSQL was asked for.
func (o options) hasShared(part string) bool {
	return slices.Contains(o.only, partShared) || slices.Contains(o.only, part)
}

func (o options) has(part string) bool { return len(o.only) == 0 || slices.Contains(o.only, part) }
