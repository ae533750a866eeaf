package main

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// concurrently calls do for the numbers below n, in order, so many at once. The first error ends it.
func concurrently(ctx context.Context, flight, n int, do func(ctx context.Context, i int) error) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(flight, n) {
		group.Go(func() error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := do(ctx, i); err != nil {
					return err
				}
			}
			return context.Cause(ctx)
		})
	}
	return group.Wait()
}
