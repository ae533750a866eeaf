package main

import (
	"runtime"
	"sync"
)

// groupCommit commits the requests of concurrent callers in groups. One caller at a time is the leader. The leader commits
// all requests that wait at that time, its own included, and then makes the caller that has waited longest the next
// leader. A caller that finds no leader becomes the leader.
type groupCommit[T any] struct {
	commit func([]T) error // never called concurrently

	mu        sync.Mutex // guards waiting and hasLeader
	waiting   []*request[T]
	hasLeader bool
}

type request[T any] struct {
	value T
	lead  chan bool // whether the caller is the next leader; the leader sends once; size 1, so that the leader does not wait
	err   error     // the error of its group; the leader writes it before it sends to lead
}

// do returns when the group of value has been committed. It returns the error of the commit.
func (g *groupCommit[T]) do(value T) error {
	req := &request[T]{value: value, lead: make(chan bool, 1)}
	if !g.join(req) {
		if leads := <-req.lead; !leads {
			return req.err
		}
		runtime.Gosched() // the callers whose requests were just committed can add their next requests
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
