package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// speedPlan says how the contenders are compared.
type speedPlan struct {
	contenders  []contender
	flights     []int         // numbers of runs in flight, ascending
	repetitions int           // number of times that each measurement is repeated
	duration    time.Duration // the time in which a measurement begins runs
	allowed     time.Duration // the time for all repetitions of one contender with one number of runs in flight
}

func (o options) speedPlan() speedPlan {
	p := speedPlan{
		contenders:  contenders(),
		flights:     []int{1, 100, 1000},
		repetitions: 5,
		duration:    1500 * time.Millisecond,
		allowed:     100 * time.Second, // enough for five measurements of the slowest peer with the most runs in flight
	}
	if o.quick {
		p.duration, p.allowed = 60*time.Millisecond, 9*time.Second
	}
	return p
}

// bench holds what the measurements share.
type bench struct {
	dir   string // the folder for temporary data
	meter meter
	logf  func(format string, args ...any)
}

// speed measures every contender with each number of runs in flight. The contenders take turns within each repetition, so
// that other work of the machine affects all contenders equally.
func (b *bench) speed(ctx context.Context, plan speedPlan) ([]*result, error) {
	var all []*result
	for _, flight := range plan.flights {
		results := plan.newResults(flight, all)
		for rep := range plan.repetitions {
			for _, r := range results {
				if !plan.repeats(r, rep) {
					continue
				}
				b.logf("%d in flight, repetition %d of %d: %s", flight, rep+1, plan.repetitions, r.name)
				if err := b.repeat(ctx, r, plan.duration); err != nil {
					return all, err
				}
			}
		}
		all = append(all, results...)
	}
	return all, nil
}

// newResults makes a result for each contender. It leaves out the contenders that would take too long. It estimates the
// time from the results with fewer runs in flight.
func (p speedPlan) newResults(flight int, before []*result) []*result {
	var results []*result
	for _, c := range p.contenders {
		r := &result{contender: c, flight: flight}
		if rate := lastRate(before, c.name); rate > 0 {
			once := time.Duration(float64(flight) / rate * float64(time.Second))
			if once > p.allowed {
				r.leftOut = fmt.Sprintf("at %.0f runs/s, %d runs would take %s, longer than the %s allowed",
					rate, flight, once.Round(time.Second), p.allowed)
			}
		}
		results = append(results, r)
	}
	return results
}

func lastRate(results []*result, name string) (rate float64) {
	for _, r := range results {
		if r.name == name && len(r.samples) > 0 {
			rate = r.rate().median
		}
	}
	return rate
}

// repeats reports whether the result gets one more repetition. It gets one if the allowed time is enough for another
// repetition of average length.
func (p speedPlan) repeats(r *result, rep int) bool {
	if r.leftOut != "" {
		return false
	}
	if rep > 0 && r.spent+r.spent/time.Duration(rep) > p.allowed {
		r.leftOut = fmt.Sprintf("%d of %d repetitions, which took %s of the %s allowed",
			rep, p.repetitions, r.spent.Round(time.Second), p.allowed)
		return false
	}
	return true
}

// repeat adds a sample to a result. It returns an error only for the end of ctx and for an error of the disk. A contender
// that fails is left out from then on.
func (b *bench) repeat(ctx context.Context, r *result, d time.Duration) error {
	dir, err := os.MkdirTemp(b.dir, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	defer func() { r.spent += time.Since(start) }()
	s, err := b.measure(ctx, r.contender, dir, r.flight, d)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		r.leftOut = "failed: " + err.Error()
		b.logf("%s is left out: %v", r.name, err)
	default:
		r.samples = append(r.samples, s)
	}
	return nil
}
