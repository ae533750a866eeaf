package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/again"
)

// grace is how much longer than Patience a commit tries to find out what came of it.
const grace = 10 * time.Second

// doubtful is how long after that the writes can still come, as long as most servers work. A server waits seven seconds for the others with
// its default settings.
const doubtful = 10 * time.Second

// settle finds out whether the Txn of a lane that was to write id has happened, and makes sure that it does not happen later. It returns an
// error if it could not find out.
func (s *Store) settle(ctx context.Context, l *lane, id string, deadline time.Time) (happened bool, rev store.Revision, err error) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	var wait again.Pause
	for {
		happened, err = s.fence(ctx, l, id)
		if err == nil {
			return happened, store.Revision(l.revision), nil
		}
		if errors.Is(err, errLaneLost) || !passing(err) || s.client.Ctx().Err() != nil {
			return false, 0, err
		}
		if wait.Next(ctx); ctx.Err() != nil {
			return false, 0, err
		}
	}
}

// fence writes the marker of a lane, unless the Txn that was to write id has done so. The Txn cannot happen any more then. The error is
// errLaneLost if the marker is gone: the Txn cannot happen any more, and nothing tells whether it has.
//
// A database whose quota is reached takes no write. fence removes the marker there, and the lane has to begin again.
func (s *Store) fence(ctx context.Context, l *lane, id string) (happened bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, longestAttempt)
	defer cancel()
	send := func(then clientv3.Op) (*clientv3.TxnResponse, error) {
		return s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(l.marker), "=", l.revision)).
			Then(then).
			Else(clientv3.OpGet(l.marker)).
			Commit()
	}
	left := int64(0) // the revision of the marker, if the fence has left one
	r, err := send(clientv3.OpPut(l.marker, l.next("fence "), clientv3.WithLease(l.lease)))
	switch {
	case is(err, rpctypes.ErrGRPCNoSpace):
		r, err = send(clientv3.OpDelete(l.marker))
	case err == nil:
		left = r.Header.Revision
	}
	switch {
	case is(err, rpctypes.ErrGRPCLeaseNotFound):
		s.lease.lost(l.lease)
		return false, errLaneLost
	case err != nil:
		return false, err
	case r.Succeeded:
		l.revision = left
		return false, nil
	}
	marker := r.Responses[0].GetResponseRange().Kvs
	if len(marker) == 0 {
		return false, errLaneLost
	}
	// It is the Txn that has written the marker, or a fence whose answer was lost.
	l.revision = marker[0].ModRevision
	return string(marker[0].Value) == id, nil
}

// doubt has it found out in the background what came of a Txn, unless nothing can tell. It returns the lane that is to be given back, and
// nil if that is done later.
func (s *Store) doubt(l *lane, id string, unsettled error) *lane {
	if errors.Is(unsettled, errLaneLost) {
		return &lane{} // which takes a place and is not used again
	}
	s.lanes.doubt()
	s.gate.Go(func() {
		defer s.lanes.settle()
		defer func() { s.lanes.release(l) }()
		var wait again.Pause
		for s.gate.Closing.Err() == nil {
			switch _, err := s.fence(s.gate.Closing, l, id); {
			case err == nil:
				return
			case errors.Is(err, errLaneLost):
				l = &lane{}
				return
			}
			wait.Next(s.gate.Closing)
		}
		l = &lane{}
	})
	return nil
}

// awaitSettled waits until no commit of the handle is in doubt, and no longer than the patience of the store. Its error wraps the given
// one, or is the cause of ctx, or store.ErrClosed.
func (s *Store) awaitSettled(ctx context.Context, kind error) error {
	settled := s.lanes.inDoubt()
	if settled == nil {
		return nil
	}
	timer := time.NewTimer(s.opts.Patience)
	defer timer.Stop()
	select {
	case <-settled:
		if s.gate.Closing.Err() != nil { // it is not known, and nobody finds it out any more
			return store.ErrClosed
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	return fmt.Errorf("%w: no server has answered since the outcome of a commit became unknown", kind)
}
