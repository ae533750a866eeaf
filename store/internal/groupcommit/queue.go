// Package groupcommit lets commits that arrive at the same time share one write to the medium of a store. A store gives
// its commits to a [Queue] and carries out the groups that the queue makes of them. The package knows nothing of how a
// store carries out a group.
//
// A queue is not closed. A store that closes, or that has failed, answers the groups that still come with an error.
package groupcommit

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"github.com/conveyor-go/conveyor/store"
)

// Commit is a commit on its way through a queue. Its caller owns the commit before it is queued and after ready is
// closed. In between, the leader owns it.
type Commit struct {
	Ops []store.Op // as the caller of Queue.Commit gave them; must not be changed

	// The outcome. The function that carries out the group puts it here.
	Revision store.Revision
	Err      error

	// The leader closes ready once the outcome is known, or once the caller has been made the leader. Nobody sends. Nil
	// if the caller found the store idle and does not wait.
	ready chan struct{}
	leads bool // the caller has waited and is now the leader
}

// Queue makes groups of commits and has them carried out one after the other. Make one with [New].
type Queue struct {
	options Options
	commit  func(group []*Commit) // called by the leader only

	mu      sync.Mutex // guards waiting and leading
	waiting []*Commit  // commits that wait to be carried out, the oldest first
	leading bool       // a caller is carrying out a group, or has been made the leader
}

// New returns a queue without commits.
//
// The queue calls commit for each group. commit carries out the group and puts the outcome in each Commit. When it
// returns, each caller returns with the outcome of its commit. There is one call of commit at a time, each in the
// goroutine of a caller of [Queue.Commit], and each call happens before the next one. commit must return and must not
// panic, because other callers wait for it. It must not keep any part of the group.
func New(options Options, commit func(group []*Commit)) *Queue {
	return &Queue{options: options, commit: commit}
}

// Commit has ops carried out, together with commits that arrive at the same time, and returns the outcome.
//
// A caller that finds the store idle becomes the leader: it carries out its own commit. Callers that arrive meanwhile
// wait. When the commit is done, the leader makes the caller that has waited longest the next leader. The next leader
// carries out the waiting commits as one group, and so on until nobody waits. The commits that [Options] keep out of a
// group wait on. The commit that has waited longest is always part of the next group. No caller leads more than one
// group, and the queue needs no goroutine of its own.
//
// If ctx ends while the commit is still in the queue, Commit returns the cause and the commit is not carried out. A
// commit that has been taken from the queue is finished, and Commit returns its outcome. Commit can be called
// concurrently. The caller owns ops, which must not change until Commit has returned.
func (q *Queue) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	c := &Commit{Ops: ops}
	if !q.join(c) {
		select {
		case <-c.ready:
		case <-ctx.Done():
			if q.withdraw(c) {
				return 0, context.Cause(ctx)
			}
			<-c.ready
		}
		if !c.leads {
			return c.Revision, c.Err
		}
	}
	if c.leads {
		// The callers of the last group have just been answered. Give them time to return with their next commit.
		// Otherwise they would miss this group, and with many callers each group would have only half of them.
		for n, idle := q.length(), 0; idle < 2; {
			runtime.Gosched()
			if m := q.length(); m > n {
				n, idle = m, 0
			} else {
				idle++
			}
		}
	}
	group := q.take()
	q.commit(group)
	for _, other := range group {
		if other != c {
			close(other.ready)
		}
	}
	q.promoteNext()
	return c.Revision, c.Err
}

// join puts a commit in the queue and reports whether its caller leads.
func (q *Queue) join(c *Commit) (leads bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, c)
	if q.leading {
		c.ready = make(chan struct{})
		return false
	}
	q.leading = true
	return true
}

// withdraw removes a commit from the queue and returns true. It returns false if the commit is already being carried
// out or its caller has been made the leader.
func (q *Queue) withdraw(c *Commit) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, c)
	if i < 0 || c.leads {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

func (q *Queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// take removes the next group from the queue. The first commit of the queue is the leader's own.
func (q *Queue) take() (group []*Commit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	group, q.waiting = q.options.divide(q.waiting)
	return group
}

// promoteNext makes the caller that has waited longest the leader. If no caller waits, the store is idle again.
func (q *Queue) promoteNext() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.leading = false
		return
	}
	next := q.waiting[0]
	next.leads = true
	close(next.ready)
}
