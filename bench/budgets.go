package main

import (
	"fmt"
	"io"
)

// budget is a bound for the library, with the measured value.
type budget struct {
	what     string
	bound    float64
	least    bool // the bound is a minimum, not a maximum
	measured float64
	format   func(float64) string // formats bound and measured
	note     string               // how the value was measured, or why it was not measured
	missing  bool                 // there is no measured value
}

// ratio returns the measured value divided by the bound.
func (b budget) ratio() float64 { return b.measured / b.bound }

// met reports whether the measured value is within the bound. It returns false if there is no measured value.
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

// budgets returns all budgets with the measured values.
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
