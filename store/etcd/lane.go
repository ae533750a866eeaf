package etcd

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor/store/internal/again"
)

// mostLanes is how many commits of a handle are under way at once. More of them would wait in etcd instead.
const mostLanes = 128

// lane has one commit at a time. Its marker is a key of etcd that each of its commits writes. Whoever has taken the lane owns it.
type lane struct {
	marker   string
	revision int64 // of the marker, as the newest commit or fence of the lane has left it
	lease    clientv3.LeaseID
	n        int // the number of the newest commit or fence
}

// next returns a value for the marker that it has never had before.
func (l *lane) next(kind string) (id string) {
	l.n++
	return kind + strconv.Itoa(l.n)
}

// lanes are the lanes of a handle.
type lanes struct {
	prefix string        // of the markers; no other handle has the same
	places chan struct{} // holds a value for each lane that is taken

	mu      sync.Mutex // guards what follows
	free    []*lane    // the one that was given back last is taken first, so that few are used
	made    int
	doubts  int           // lanes that nobody can use until it is known what came of a commit
	settled chan struct{} // closed when there are no doubts; nil if there are none
}

func newLanes(prefix string) *lanes {
	return &lanes{prefix: prefix + rand.Text() + "/", places: make(chan struct{}, mostLanes)}
}

// take returns a lane whose marker is on record, or one that has to begin (see Store.begin). It waits until the deadline for one that is free.
func (l *lanes) take(ctx context.Context, deadline time.Time) (*lane, error) {
	select {
	case l.places <- struct{}{}:
	default:
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		select {
		case l.places <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
			return nil, again.Unavailable(fmt.Errorf("%d commits of this handle are under way, and none has ended", mostLanes))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		free := l.free[n-1]
		l.free = l.free[:n-1]
		return free, nil
	}
	return l.newLocked(), nil
}

func (l *lanes) newLocked() *lane {
	l.made++
	return &lane{marker: l.prefix + strconv.Itoa(l.made)}
}

// another returns a lane in place of one that is not used again.
func (l *lanes) another() *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newLocked()
}

// release gives a lane back.
func (l *lanes) release(of *lane) {
	if of.revision > 0 {
		l.mu.Lock()
		l.free = append(l.free, of)
		l.mu.Unlock()
	}
	<-l.places
}

// doubt notes that it is not known what came of the newest commit of a lane that is taken.
func (l *lanes) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doubts++; l.settled == nil {
		l.settled = make(chan struct{})
	}
}

// settle notes that it is known now.
func (l *lanes) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doubts--; l.doubts == 0 {
		close(l.settled)
		l.settled = nil
	}
}

// inDoubt returns a channel that is closed when there are no doubts, or nil if there are none.
func (l *lanes) inDoubt() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settled
}

// leaseTTL is how long the markers of a handle stay after its process has died. It is much longer than a commit waits for its answer.
const leaseTTL = 2 * time.Minute

// lease is the lease of etcd to which the markers of a handle belong.
type lease struct {
	asking chan struct{} // holds a value while a lease is asked for

	mu sync.Mutex // guards what follows
	id clientv3.LeaseID
}

// leased returns the lease of the handle, which is kept alive from then on. Its error is one of etcd, or the cause of ctx.
func (s *Store) leased(ctx context.Context) (clientv3.LeaseID, error) {
	if id := s.lease.held(); id != 0 {
		return id, nil
	}
	select {
	case s.lease.asking <- struct{}{}:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { <-s.lease.asking }()
	if id := s.lease.held(); id != 0 {
		return id, nil
	}
	granted, err := s.client.Grant(ctx, int64(leaseTTL/time.Second))
	if err != nil {
		return 0, err
	}
	id := granted.ID
	alive, err := s.client.KeepAlive(s.gate.Closing, id)
	if err != nil {
		return 0, err
	}
	s.lease.mu.Lock()
	s.lease.id = id
	s.lease.mu.Unlock()
	s.gate.Go(func() {
		for range alive { // the client waits for its answers to be read
		}
		if s.gate.Closing.Err() == nil {
			s.lease.lost(id)
		}
	})
	return id, nil
}

// held returns the lease, or zero if there is none.
func (l *lease) held() clientv3.LeaseID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// lost notes that a lease has ended.
func (l *lease) lost(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == id {
		l.id = 0
	}
}

// end ends the lease, and with it the markers.
func (l *lease) end(ctx context.Context, client *clientv3.Client) {
	if id := l.held(); id != 0 {
		_, _ = client.Revoke(ctx, id) // otherwise it ends by itself
		l.lost(id)
	}
}

// begin puts the marker of a new lane on record. The lane is not used again if begin returns an error, which is one of etcd.
func (s *Store) begin(ctx context.Context, l *lane) error {
	lease, err := s.leased(ctx)
	if err != nil {
		return err
	}
	r, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(l.marker), "=", 0)).
		Then(clientv3.OpPut(l.marker, l.next("begin "), clientv3.WithLease(lease))).
		Commit()
	switch {
	case err != nil:
		if is(err, rpctypes.ErrGRPCLeaseNotFound) {
			s.lease.lost(lease)
		}
		return err
	case !r.Succeeded:
		return fmt.Errorf("the marker %q is there already", l.marker)
	}
	l.revision, l.lease = r.Header.Revision, lease
	return nil
}
