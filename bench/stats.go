package main

import (
	"cmp"
	"math"
	"slices"
)

// spread summarizes several measurements of one value.
type spread struct{ median, min, max float64 }

// spreadOf returns the spread of values, or the zero spread if there are no values.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return spread{median: median(sorted), min: sorted[0], max: sorted[len(sorted)-1]}
}

// median returns the middle of sorted values, or the mean of the two values in the middle.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// percentile returns the smallest of the sorted values that is not below p percent of them (nearest rank). It returns the
// zero value if there are no values.
func percentile[T cmp.Ordered](sorted []T, p float64) (value T) {
	if len(sorted) == 0 {
		return value
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}
