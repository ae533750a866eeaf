package main

import (
	"context"
	"sync"

	"k8s.io/client-go/util/workqueue"

	"github.com/conveyor-go/conveyor/store"
	storememory "github.com/conveyor-go/conveyor/store/memory"
)

var workqueueRecorded = contender{
	name:    "client-go workqueue, a recorded pass per step",
	class:   memory,
	module:  "k8s.io/client-go",
	records: "what Conveyor commits for the run, in store/memory; a key goes through the queue once per step",
	open:    openRecordedWorkqueue,
}

var workqueueSteps = contender{
	name:    "client-go workqueue, a pass per step",
	class:   memory,
	module:  "k8s.io/client-go",
	records: "the number of the next step, in a map; a key goes through the queue once per step",
	open: func(_ context.Context, at site) (session, error) {
		return openWorkqueue(at, 1, noRecord), nil
	},
}

var workqueueRuns = contender{
	name:    "client-go workqueue, a pass per run",
	class:   memory,
	module:  "k8s.io/client-go",
	records: "nothing between the steps; a key goes through the queue once",
	open: func(_ context.Context, at site) (session, error) {
		return openWorkqueue(at, steps, noRecord), nil
	},
}

// workqueueSession is the loop of a Kubernetes controller. Workers take keys from a rate limited queue, look the object up,
// and do its next steps. They add the key to the queue again until all steps are done.
type workqueueSession struct {
	do      step
	pass    int                             // number of steps for each key that is taken
	record  func(id string, done int) error // called before the first step, and after each pass
	queue   workqueue.TypedRateLimitingInterface[string]
	workers sync.WaitGroup

	mu      sync.Mutex // guards objects
	objects map[string]*queued
}

// queued is the state of a run. It is owned by the worker that has taken the key of the run.
type queued struct {
	spec spec
	next int
	done chan error // size 1; the worker sends once, after the last step or an error
}

func noRecord(string, int) error { return nil }

// openRecordedWorkqueue opens a loop that records as much as Conveyor.
func openRecordedWorkqueue(ctx context.Context, at site) (session, error) {
	commits, err := recordCommits(ctx)
	if err != nil {
		return nil, err
	}
	st := storememory.New()
	return openWorkqueue(at, 1, func(id string, done int) error {
		ops := make([]store.Op, len(commits[done]))
		for i, op := range commits[done] {
			ops[i] = storeOp(op, id)
		}
		_, err := st.Commit(context.Background(), ops...)
		return err
	}), nil
}

// storeOp returns the operation of a recorded write for another run.
func storeOp(op recordedOp, run string) store.Op {
	if op.remove {
		return store.Delete(op.keyFor(run))
	}
	return store.Put(op.keyFor(run), op.value)
}

func openWorkqueue(at site, pass int, record func(string, int) error) *workqueueSession {
	s := &workqueueSession{
		do:      at.do,
		pass:    pass,
		record:  record,
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
		objects: map[string]*queued{},
	}
	for range at.flight {
		s.workers.Go(s.work)
	}
	return s
}

func (s *workqueueSession) run(ctx context.Context, id string) error {
	o := &queued{spec: newSpec(id), next: 1, done: make(chan error, 1)}
	if err := s.record(id, 0); err != nil {
		return err
	}
	s.mu.Lock()
	s.objects[id] = o
	s.mu.Unlock()
	s.queue.Add(id)
	select {
	case err := <-o.done:
		return err
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
	err := s.record(id, o.next-1)
	s.queue.Forget(id)
	if err == nil && o.next <= steps {
		s.queue.Add(id)
		return
	}
	s.mu.Lock()
	delete(s.objects, id)
	s.mu.Unlock()
	o.done <- err
}

func (s *workqueueSession) close(context.Context) error {
	s.queue.ShutDown()
	s.workers.Wait()
	return nil
}
