package main

import (
	"runtime"
	"sync"
)

// groupCommit carries out the requests of concurrent callers together: the caller that finds it idle does what has come
// up to then in one go, and makes the one that waits longest the next to do so.
type groupCommit[T any] struct {
	commit func([]T) error // never called concurrently

	mu        sync.Mutex
	waiting   []*request[T]
	hasLeader bool
}

type request[T any] struct {
	value T
	lead  chan bool // whether its caller leads; size 1, sent once by the leader
	err   error     // of the group that it was in; written before lead is sent
}

// do returns when the group that value was in has been carried out.
func (g *groupCommit[T]) do(value T) error {
	req := &request[T]{value: value, lead: make(chan bool, 1)}
	if !g.join(req) {
		if leads := <-req.lead; !leads {
			return req.err
		}
		runtime.Gosched() // those just answered come back with their next request
	}
	group, values := g.take()
	err := g.commit(values)
	for _, other := range group {
		other.err = err
		if other != req {
			other.lead <- false
		}
	}
	g.handOver()
	return err
}

func (g *groupCommit[T]) join(req *request[T]) (leads bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, req)
	leads = !g.hasLeader
	g.hasLeader = true
	return leads
}

func (g *groupCommit[T]) take() ([]*request[T], []T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	group := g.waiting
	g.waiting = nil
	values := make([]T, len(group))
	for i, req := range group {
		values[i] = req.value
	}
	return group, values
}

func (g *groupCommit[T]) handOver() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.hasLeader = false
		return
	}
	g.waiting[0].lead <- true
}
