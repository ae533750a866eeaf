package main

import (
	"fmt"
	"io"
)

// budget is one bound that the library has set itself, and what was measured.
type budget struct {
	what     string
	bound    float64
	least    bool // the bound is the least that will do, not the most
	measured float64
	format   func(float64) string // of bound and measured
	note     string               // how it was measured, or why it was not
	missing  bool                 // it was not
}

// ratio is the measured value by the bound.
func (b budget) ratio() float64 { return b.measured / b.bound }

// met is false for what was not measured.
func (b budget) met() bool {
	switch {
	case b.missing:
		return false
	case b.least:
		return b.measured >= b.bound
	}
	return b.measured <= b.bound
}

func (b budget) verdict() string {
	switch {
	case b.missing:
		return "not measured"
	case b.met():
		return "met"
	}
	return "missed"
}

func (b budget) boundText() string {
	if b.least {
		return "at least " + b.format(b.bound)
	}
	return "at most " + b.format(b.bound)
}

func reportBudgets(w io.Writer, list []budget) {
	fmt.Fprint(w, "## Budgets\n\n")
	t := &table{header: []string{"", "budget", "measured", "of the budget", "verdict", "from"}}
	for _, b := range list {
		if b.missing {
			t.add(b.what, b.boundText(), "", "", b.verdict(), b.note)
			continue
		}
		t.add(b.what, b.boundText(), b.format(b.measured), number(b.ratio())+"×", b.verdict(), b.note)
	}
	fmt.Fprintln(w, t)
}

// budgets compares what was found with all bounds.
func budgets(f findings) []budget {
	list := speedBudgets(f.speed)
	g := f.growth
	if g == nil {
		g = &growth{}
	}
	return append(list, growthBudgets(g)...)
}

func (b budget) notMeasured(why string) budget {
	b.missing, b.note = true, why
	return b
}
