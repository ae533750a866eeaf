package file

import (
	"context"
	"runtime"
	"slices"

	"github.com/conveyor-go/conveyor/store"
)

// request is a commit on its way through the queue. Its caller owns it, except between enqueue and the signal on ready,
// when the leader does.
type request struct {
	ops []store.Op

	// The leader closes ready, once the caller has either its answer or the lead. Nil for a caller that need not wait.
	ready chan struct{}
	leads bool

	rev store.Revision
	err error
}

// maxGroup is how many bytes of keys and values a group takes in before it leaves the rest to the next one. A group
// always has one commit, however large.
const maxGroup = 16 << 20

// enqueue gets a commit carried out, together with those that come at the same time.
//
// The caller that finds the store idle leads: it carries out its own commit in a transaction. Those who come meanwhile
// wait. When its transaction is done, it makes the caller that has waited longest the next leader, which carries out
// all that wait in one transaction, and so on until nobody waits. So nobody leads more than one transaction, and there
// is no goroutine of the store's own to start, to stop and to wait for.
func (s *Store) enqueue(ctx context.Context, ops []store.Op) (store.Revision, error) {
	req := &request{ops: ops}
	if !s.join(req) {
		select {
		case <-req.ready:
		case <-ctx.Done():
			if s.withdraw(req) {
				return 0, context.Cause(ctx)
			}
			<-req.ready
		}
		if !req.leads {
			return req.rev, req.err
		}
	}
	if req.leads {
		// Let the callers that have just been answered come back with their next commit. They would wait for the
		// transaction after this one otherwise, and with many callers each group would have half of them.
		for n, idle := s.queued(), 0; idle < 2; {
			runtime.Gosched()
			if m := s.queued(); m > n {
				n, idle = m, 0
			} else {
				idle++
			}
		}
	}
	group := s.takeGroup()
	s.commitGroup(group)
	for _, other := range group {
		if other != req {
			close(other.ready)
		}
	}
	s.promoteNext()
	return req.rev, req.err
}

// join puts a request in the queue and reports whether its caller leads.
func (s *Store) join(req *request) (leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, req)
	if s.leading {
		req.ready = make(chan struct{})
		return false
	}
	s.leading = true
	return true
}

// withdraw takes a request out of the queue, unless it is under way or its caller leads.
func (s *Store) withdraw(req *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, req)
	if i < 0 || req.leads {
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	return true
}

func (s *Store) queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// takeGroup removes a group from the front of the queue, where the leader's own request is.
func (s *Store) takeGroup() []*request {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for ; n < len(s.queue); n++ {
		for _, op := range s.queue[n].ops {
			size += len(op.Key()) + len(op.Value())
		}
		if n > 0 && size > maxGroup {
			break
		}
	}
	group := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	return group
}

// promoteNext makes the caller that has waited longest the leader, if there is one.
func (s *Store) promoteNext() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.leading = false
		return
	}
	next := s.queue[0]
	next.leads = true
	close(next.ready)
}
