// Package gate lets the calls of a handle end before the handle is closed.
package gate

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/conveyor-go/conveyor/store"
)

// Gate is open until Close is called. Its methods can be called concurrently. Make one with [New].
type Gate struct {
	// Closing ends when Close begins. What goes on for long, such as a watch, ends with it.
	Closing context.Context

	cancel context.CancelFunc
	closed atomic.Bool    // written with open held
	open   sync.RWMutex   // held for reading by every call that has entered
	behind sync.WaitGroup // what Go has started
}

// New returns a gate that is open.
func New() *Gate {
	g := new(Gate)
	g.Closing, g.cancel = context.WithCancel(context.Background())
	return g
}

// Enter keeps the gate open until Leave is called. It returns [store.ErrClosed], and Leave must not be called, if the gate is closed.
func (g *Gate) Enter() error {
	g.open.RLock()
	if g.closed.Load() {
		g.open.RUnlock()
		return store.ErrClosed
	}
	return nil
}

// Leave ends a call that has entered.
func (g *Gate) Leave() { g.open.RUnlock() }

// Alive returns the cause of ctx if ctx has ended, and [store.ErrClosed] if the gate is closed.
func (g *Gate) Alive(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case g.closed.Load():
		return store.ErrClosed
	}
	return nil
}

// Go starts something that ends with Closing. It must be called between Enter and Leave, or before the gate is used.
func (g *Gate) Go(fn func()) { g.behind.Go(fn) }

// Close closes the gate, waits for the calls that have entered and for what Go has started, and then calls last. A second Close does
// nothing.
func (g *Gate) Close(last func()) {
	g.cancel()
	g.open.Lock()
	defer g.open.Unlock()
	if g.closed.Swap(true) {
		return
	}
	g.behind.Wait()
	last()
}
