// Package gate lets the calls of a handle end before the handle is closed.
package gate

import (
	"context"
	"sync"

	"github.com/conveyor-go/conveyor/store"
)

// Gate is open until Close is called. Its methods can be called concurrently. Make one with [New].
type Gate struct {
	// Closing ends when Close begins. What goes on for long, such as a watch, ends with it.
	Closing context.Context

	cancel  context.CancelFunc
	entered sync.WaitGroup // the calls that have entered
	behind  sync.WaitGroup // what Go has started
	last    sync.Once

	mu sync.Mutex // held for the begin of a call and of Close, so that no call enters afterwards
}

// New returns a gate that is open.
func New() *Gate {
	g := new(Gate)
	g.Closing, g.cancel = context.WithCancel(context.Background())
	return g
}

// Enter keeps the gate open until Leave is called. It returns [store.ErrClosed] at once, and Leave must not be called, if Close has
// been called.
func (g *Gate) Enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Closing.Err() != nil {
		return store.ErrClosed
	}
	g.entered.Add(1)
	return nil
}

// Leave ends a call that has entered.
func (g *Gate) Leave() { g.entered.Done() }

// Alive returns the cause of ctx if ctx has ended, and [store.ErrClosed] if Close has been called.
func (g *Gate) Alive(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case g.Closing.Err() != nil:
		return store.ErrClosed
	}
	return nil
}

// Go starts something that ends with Closing. It must be called between Enter and Leave, or before the gate is used.
func (g *Gate) Go(fn func()) { g.behind.Go(fn) }

// Close closes the gate, waits for the calls that have entered and for what Go has started, and then calls last. A second Close waits
// for the first one.
func (g *Gate) Close(last func()) {
	g.mu.Lock()
	g.cancel()
	g.mu.Unlock()
	g.entered.Wait()
	g.behind.Wait()
	g.last.Do(last)
}
