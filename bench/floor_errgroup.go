package main

import (
	"context"

	"golang.org/x/sync/errgroup"
)

var errgroupLoop = contender{
	name:    "bare errgroup loop",
	class:   floor,
	records: "nothing",
	open: func(_ context.Context, at site) (session, error) {
		return &errgroupSession{do: at.do}, nil
	},
}

// errgroupSession calls the five steps in a goroutine of an errgroup, and waits for the goroutine.
type errgroupSession struct{ do step }

func (s *errgroupSession) run(ctx context.Context, id string) error {
	group, _ := errgroup.WithContext(ctx)
	group.Go(func() error {
		for n := 1; n <= steps; n++ {
			s.do(id, n)
		}
		return nil
	})
	return group.Wait()
}

func (s *errgroupSession) close(context.Context) error { return nil }
