package main

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// concurrently calls do for each number below n, and begins the calls in order. At most flight calls run at once. After
// the first error it begins no more calls, and returns the error.
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
