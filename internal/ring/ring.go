// Package ring keeps the newest items of a stream for any number of readers. It must not know what the items are.
package ring

import (
	"context"
	"fmt"
	"sync"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// Ring keeps the newest items that were published. Each reader reads at its own pace, by the numbers of the items. A slow
// reader holds nobody up and costs no memory: the ring overwrites what the reader has not read, and the reader gets
// [fault.Gap]. A Ring is safe for concurrent use.
type Ring[T any] struct {
	size int // how many items are kept

	mu     sync.Mutex    // guards what follows; held for a copy
	items  []T           // item n is at index n-1 modulo size; grows up to size, because few streams fill it
	next   int64         // number of the next item; the first is 1
	wake   chan struct{} // closed by Publish and Close when a reader waits; made by the reader
	closed bool
}

// New returns a ring that keeps size items. The size must be at least 1.
func New[T any](size int) *Ring[T] { return &Ring[T]{size: size, next: 1} }

// Publish adds items. After Close it does nothing, because Await has reported the end of the stream to the readers.
func (r *Ring[T]) Publish(items ...T) {
	if len(items) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	for i := range items {
		if len(r.items) < r.size {
			r.items = append(r.items, items[i])
		} else {
			r.items[r.index(r.next)] = items[i]
		}
		r.next++
	}
	r.wakeLocked()
}

// index returns where item n is kept.
func (r *Ring[T]) index(n int64) int { return int((n - 1) % int64(r.size)) }

// Close ends the stream. The items that are kept can still be read. A second Close does nothing.
func (r *Ring[T]) Close() {
	r.mu.Lock()
	r.closed = true
	r.wakeLocked()
	r.mu.Unlock()
}

func (r *Ring[T]) wakeLocked() {
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

// Next returns the number of the item that will be published next.
func (r *Ring[T]) Next() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// Oldest returns the number of the oldest item that is kept.
func (r *Ring[T]) Oldest() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next - int64(len(r.items))
}

// Await returns item n, and waits for it if it has not been published. It returns [fault.Gap] if the item is no longer
// kept, [fault.Closed] if the ring was closed before the item came, and the cause of ctx if ctx ends first.
func (r *Ring[T]) Await(ctx context.Context, n int64) (T, error) {
	for {
		if ctx.Err() != nil {
			var none T
			return none, context.Cause(ctx)
		}
		item, more, err := r.read(n)
		if err != nil || more == nil {
			return item, err
		}
		select {
		case <-more:
		case <-ctx.Done():
		}
	}
}

// read returns item n. If the item has not been published, read returns the channel that is closed when more comes.
func (r *Ring[T]) read(n int64) (item T, more <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case n < r.next-int64(len(r.items)):
		return item, nil, fmt.Errorf("%w: event %d of %d is no longer kept", fault.Gap, n, r.next-1)
	case n < r.next:
		return r.items[r.index(n)], nil, nil
	case r.closed:
		return item, nil, fault.Closed
	}
	if r.wake == nil {
		r.wake = make(chan struct{})
	}
	return item, r.wake, nil
}
