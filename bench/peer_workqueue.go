package main

import (
	"context"
	"sync"

	"k8s.io/client-go/util/workqueue"
)

var workqueueSteps = contender{
	name:    "client-go workqueue, a pass per step",
	class:   memory,
	module:  "k8s.io/client-go",
	records: "the number of the next step, in a map; a key goes through the queue once per step",
	open: func(_ context.Context, at site) (session, error) {
		return openWorkqueue(at, 1), nil
	},
}

var workqueueRuns = contender{
	name:    "client-go workqueue, a pass per run",
	class:   memory,
	module:  "k8s.io/client-go",
	records: "nothing between the steps; a key goes through the queue once",
	open: func(_ context.Context, at site) (session, error) {
		return openWorkqueue(at, steps), nil
	},
}

// workqueueSession is the loop of a Kubernetes controller: workers take keys from a rate limited queue, look the object
// up, do the next steps, and put the key back until nothing is left.
type workqueueSession struct {
	do      step
	pass    int // steps per key taken
	queue   workqueue.TypedRateLimitingInterface[string]
	workers sync.WaitGroup

	mu      sync.Mutex
	objects map[string]*queued
}

// queued is what the loop knows of a run. It belongs to the worker that has taken its key.
type queued struct {
	spec spec
	next int
	done chan struct{} // closed by the worker after the last step
}

func openWorkqueue(at site, pass int) *workqueueSession {
	s := &workqueueSession{
		do:      at.do,
		pass:    pass,
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
		objects: map[string]*queued{},
	}
	for range at.flight {
		s.workers.Go(s.work)
	}
	return s
}

func (s *workqueueSession) run(ctx context.Context, id string) error {
	o := &queued{spec: newSpec(id), next: 1, done: make(chan struct{})}
	s.mu.Lock()
	s.objects[id] = o
	s.mu.Unlock()
	s.queue.Add(id)
	select {
	case <-o.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *workqueueSession) work() {
	for {
		id, shutdown := s.queue.Get()
		if shutdown {
			return
		}
		s.reconcile(id)
		s.queue.Done(id)
	}
}

func (s *workqueueSession) reconcile(id string) {
	s.mu.Lock()
	o := s.objects[id]
	s.mu.Unlock()
	for range s.pass {
		s.do(o.spec.ID, o.next)
		o.next++
	}
	s.queue.Forget(id)
	if o.next <= steps {
		s.queue.Add(id)
		return
	}
	s.mu.Lock()
	delete(s.objects, id)
	s.mu.Unlock()
	close(o.done)
}

func (s *workqueueSession) close(context.Context) error {
	s.queue.ShutDown()
	s.workers.Wait()
	return nil
}
