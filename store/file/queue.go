package file

import (
	"context"
	"runtime"
	"slices"

	"github.com/conveyor-go/conveyor/store"
)

// request is a commit on its way through the queue. Its caller owns the request before it is queued and after ready is
// closed. In between, the leader owns it.
type request struct {
	ops []store.Op

	// The leader closes ready once the outcome is in rev and err, or once the caller has been made the leader. Nobody
	// sends. Nil if the caller found the store idle and does not wait.
	ready chan struct{}
	leads bool // the caller has waited and is now the leader

	rev store.Revision
	err error
}

// maxGroup is the largest number of bytes of keys and values in a group. The remaining commits are left to the next
// group. A group always has at least one commit, however large.
const maxGroup = 16 << 20

// enqueue commits ops, together with commits that arrive at the same time (group commit).
//
// A caller that finds the store idle becomes the leader: it carries out its own commit in a transaction. Callers that
// arrive meanwhile wait. When the transaction is done, the leader makes the caller that has waited longest the next
// leader. The next leader carries out all waiting commits in one transaction, and so on until nobody waits. No caller
// leads more than one transaction, and the store needs no goroutine of its own.
//
// If ctx ends while the commit is still in the queue, enqueue returns the cause and nothing is written. A commit that
// has been taken from the queue is finished, and enqueue returns its outcome.
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
		// The callers of the last group have just been answered. Give them time to return with their next commit.
		// Otherwise they would miss this transaction, and with many callers each group would have only half of them.
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

// withdraw removes a request from the queue and returns true. It returns false if the request is already being carried
// out or its caller has been made the leader.
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

// takeGroup removes a group from the front of the queue. The first request of the queue is the leader's own.
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

// promoteNext makes the caller that has waited longest the leader. If no caller waits, the store is idle again.
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
