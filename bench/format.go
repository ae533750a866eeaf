package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// number writes three significant digits, and all digits before the point, in groups.
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

// grouped writes an integer with a comma before each three digits.
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

// known writes a number, or n/a if it is unknown.
func known(v float64) string {
	if v < 0 {
		return "n/a"
	}
	return number(v)
}

// size writes bytes in the unit that suits them.
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

// duration writes seconds in the unit that suits them.
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

// times writes a ratio.
func times(v float64) string { return number(v) + "×" }

// ranged writes a spread in one format: the median, and the range where there is one.
func (s spread) ranged(form func(float64) string) string {
	if s.min == s.max {
		return form(s.median)
	}
	return fmt.Sprintf("%s (%s – %s)", form(s.median), form(s.min), form(s.max))
}
