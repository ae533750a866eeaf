package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// number formats v with three significant digits, or two if v is below 1. It never cuts digits before the decimal point,
// and groups them by commas.
func number(v float64) string {
	switch size := math.Abs(v); {
	case size == 0:
		return "0"
	case size < 1:
		return strconv.FormatFloat(v, 'g', 2, 64)
	case size < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case size < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return grouped(int64(math.Round(v)))
}

// grouped formats n with a comma between groups of three digits.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	start := len(text) % 3
	if n < 0 {
		start = (len(text)-1)%3 + 1
	}
	var b strings.Builder
	b.WriteString(text[:start])
	for i := start; i < len(text); i += 3 {
		if i > 0 && text[:i] != "-" {
			b.WriteByte(',')
		}
		b.WriteString(text[i : i+3])
	}
	return b.String()
}

// known formats v as a number, or as n/a if v is unknown.
func known(v float64) string {
	if v < 0 {
		return "n/a"
	}
	return number(v)
}

// size formats a number of bytes in a suitable unit.
func size(v float64) string {
	switch {
	case v < 0:
		return "n/a"
	case v < 1<<10:
		return number(v) + " B"
	case v < 1<<20:
		return number(v/(1<<10)) + " KiB"
	case v < 1<<30:
		return number(v/(1<<20)) + " MiB"
	}
	return number(v/(1<<30)) + " GiB"
}

// duration formats a number of seconds in a suitable unit.
func duration(s float64) string {
	switch d := time.Duration(s * float64(time.Second)); {
	case d < time.Microsecond:
		return number(s*1e9) + " ns"
	case d < time.Millisecond:
		return number(s*1e6) + " µs"
	case d < time.Second:
		return number(s*1e3) + " ms"
	}
	return number(s) + " s"
}

// times formats a ratio.
func times(v float64) string { return number(v) + "×" }

// ranged formats the median, followed by the minimum and the maximum if they differ.
func (s spread) ranged(format func(float64) string) string {
	if s.min == s.max {
		return format(s.median)
	}
	return fmt.Sprintf("%s (%s – %s)", format(s.median), format(s.min), format(s.max))
}
