package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpreadHasMedianAndRange(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []float64
		want   spread
	}{
		{"of none", nil, spread{}},
		{"of one", []float64{3}, spread{median: 3, min: 3, max: 3}},
		{"of an odd number", []float64{9, 1, 4}, spread{median: 4, min: 1, max: 9}},
		{"of an even number", []float64{8, 1, 4, 2}, spread{median: 3, min: 1, max: 8}},
	} {
		t.Run(test.name, func(t *testing.T) { require.Equal(t, test.want, spreadOf(test.values)) })
	}
}

func TestPercentileIsTheNearestRank(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, test := range []struct {
		name   string
		sorted []int
		p      float64
		want   int
	}{
		{"of none", nil, 50, 0},
		{"of one", []int{7}, 99, 7},
		{"the middle of a hundred", hundred, 50, 50},
		{"99 of a hundred", hundred, 99, 99},
		{"all of a hundred", hundred, 100, 100},
		{"none of a hundred", hundred, 0, 1},
		{"99 of three", []int{1, 2, 3}, 99, 3},
	} {
		t.Run(test.name, func(t *testing.T) { require.Equal(t, test.want, percentile(test.sorted, test.p)) })
	}
}
