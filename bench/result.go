package main

import (
	"fmt"
	"time"
)

// result holds all samples of a contender for one number of runs in flight.
type result struct {
	contender
	flight  int
	samples []sample
	spent   time.Duration // the time that the samples took
	leftOut string        // why there are no samples, or no more samples
}

// spread returns the spread of one value over the samples.
func (r *result) spread(value func(sample) float64) spread {
	values := make([]float64, len(r.samples))
	for i, s := range r.samples {
		values[i] = value(s)
	}
	return spreadOf(values)
}

func (r *result) rate() spread { return r.spread(func(s sample) float64 { return s.rate }) }

func (r *result) p50() spread { return r.spread(func(s sample) float64 { return s.p50 }) }

func (r *result) p99() spread { return r.spread(func(s sample) float64 { return s.p99 }) }

func (r *result) title() string {
	if r.unit != "" {
		return fmt.Sprintf("%s (a run is one %s)", r.name, r.unit)
	}
	return r.name
}

// find returns the result of a contender, or nil if it was not measured.
func find(results []*result, name string, flight int) *result {
	for _, r := range results {
		if r.name == name && r.flight == flight && len(r.samples) > 0 {
			return r
		}
	}
	return nil
}

func selectResults(results []*result, keep func(*result) bool) (kept []*result) {
	for _, r := range results {
		if keep(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// flightsOf returns the numbers of runs in flight that were measured, in order.
func flightsOf(results []*result) (flights []int) {
	for _, r := range results {
		if len(flights) == 0 || flights[len(flights)-1] != r.flight {
			flights = append(flights, r.flight)
		}
	}
	return flights
}
