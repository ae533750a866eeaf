package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/again"
)

// errLost reports that the answer to a Txn was lost.
var errLost = errors.New("the answer of the server was lost")

// errLaneLost reports that the marker of a lane is gone. The lease has ended: no server could be reached for longer than [leaseTTL].
var errLaneLost = errors.New("the marker is gone")

// commit carries out the ops. It tries until Patience is over. An attempt whose answer was lost is settled before the next one, so that
// at most one of them happens.
func (s *Store) commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	deadline := time.Now().Add(s.opts.Patience)
	l, err := s.laneFor(ctx, deadline)
	if err != nil {
		return 0, err
	}
	during, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	rev, l, err := s.carryOut(during, l, ops, deadline)
	if l != nil {
		s.lanes.release(l)
	}
	return rev, err
}

// laneFor returns a lane for a commit, once a server can be reached and no earlier commit of the handle is in doubt. It is only then that
// the commit begins.
func (s *Store) laneFor(ctx context.Context, deadline time.Time) (*lane, error) {
	if err := s.awaitSettled(ctx, store.ErrUnavailable); err != nil {
		return nil, err
	}
	if s.client.ActiveConnection().GetState() != connectivity.Ready {
		// What is sent now could be sent or not, for all that is known afterwards.
		if err := s.readUntil(ctx, deadline, s.reach); err != nil {
			return nil, err
		}
	}
	l, err := s.lanes.take(ctx, deadline)
	if err != nil || l.revision > 0 {
		return l, err
	}
	err = s.readUntil(ctx, deadline, func(ctx context.Context) error {
		err := s.begin(ctx, l)
		if err != nil {
			l = s.lanes.another()
		}
		return err
	})
	if err != nil {
		s.lanes.release(l)
		return nil, err
	}
	return l, nil
}

// reach asks a server for something.
func (s *Store) reach(ctx context.Context) error {
	_, err := s.client.Get(ctx, s.opts.Prefix+formatPart, clientv3.WithKeysOnly())
	return err
}

// carryOut has the ops carried out in a lane. It returns the lane that is to be given back, and nil if it is in doubt.
func (s *Store) carryOut(ctx context.Context, l *lane, ops []store.Op, deadline time.Time) (store.Revision, *lane, error) {
	var wait again.Pause
	var why error
	for {
		rev, id, err := s.attempt(ctx, l, ops)
		if errors.Is(err, errLost) {
			var happened bool
			var unsettled error
			if happened, rev, unsettled = s.settle(ctx, l, id, deadline.Add(s.grace)); unsettled != nil {
				return 0, s.doubt(l, id, unsettled), fmt.Errorf("%w: %w", store.ErrUnknown, errors.Join(err, unsettled))
			}
			if happened {
				return rev, l, nil
			}
		}
		switch {
		case err == nil || errors.Is(err, store.ErrConflict):
			return rev, l, err
		case !passing(err):
			return 0, l, s.final(err)
		case errors.Is(err, errLaneLost) || l.revision == 0:
			l = s.lanes.another()
		}
		why = s.trouble.telling(why, err)
		if wait.Next(ctx); ctx.Err() != nil {
			return 0, l, again.Unavailable(why)
		}
	}
}

// attempt sends the Txn of a commit once, in a lane that it begins if need be. The error wraps errLost if the Txn may have happened,
// errLaneLost if the lane cannot be used any more, and store.ErrConflict if a condition does not hold. Nothing has happened then, or with any
// other error. id is what the marker has if the Txn has happened.
func (s *Store) attempt(ctx context.Context, l *lane, ops []store.Op) (rev store.Revision, id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, longestAttempt)
	defer cancel()
	if l.revision == 0 {
		if err := s.begin(ctx, l); err != nil {
			return 0, "", err
		}
	}
	id = l.next("commit ")
	conditions, writes, reads := s.translate(ops)
	conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(l.marker), "=", l.revision))
	writes = append(writes, clientv3.OpPut(l.marker, id, clientv3.WithLease(l.lease)))
	reads = append(reads, clientv3.OpGet(l.marker))
	r, err := s.client.Txn(ctx).If(conditions...).Then(writes...).Else(reads...).Commit()
	switch {
	case is(err, rpctypes.ErrGRPCLeaseNotFound):
		s.lease.lost(l.lease)
		return 0, id, errLaneLost
	case err != nil && refused(err):
		return 0, id, err
	case err != nil:
		return 0, id, fmt.Errorf("%w: %w", errLost, err)
	case r.Succeeded:
		l.revision = r.Header.Revision
		return store.Revision(l.revision), id, nil
	}
	last := len(r.Responses) - 1
	switch marker := r.Responses[last].GetResponseRange().Kvs; {
	case len(marker) == 0:
		return 0, id, errLaneLost
	case string(marker[0].Value) == id: // the client has sent the Txn twice
		l.revision = marker[0].ModRevision
		return store.Revision(l.revision), id, nil
	case marker[0].ModRevision != l.revision:
		return 0, id, errLaneLost
	}
	r.Responses = r.Responses[:last]
	return 0, id, s.conflict(ops, (*clientv3.TxnResponse)(r))
}

// translate returns the conditions of ops, their writes, and what is read to say which condition does not hold.
func (s *Store) translate(ops []store.Op) (conditions []clientv3.Cmp, writes, reads []clientv3.Op) {
	conditions, writes = make([]clientv3.Cmp, 0, len(ops)+1), make([]clientv3.Op, 0, len(ops)+1)
	for _, op := range ops {
		key := s.records + op.Key()
		if rev, ok := op.Condition(); ok {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", int64(rev)))
			if len(reads) < namedOnConflict {
				reads = append(reads, clientv3.OpGet(key, clientv3.WithKeysOnly()))
			}
		}
		switch {
		case op.Removes():
			writes = append(writes, clientv3.OpDelete(key))
		case op.Writes():
			writes = append(writes, clientv3.OpPut(key, string(op.Value())))
		}
	}
	return conditions, writes, reads
}

// conflict returns the error for a Txn of which a condition did not hold.
func (s *Store) conflict(ops []store.Op, r *clientv3.TxnResponse) error {
	for _, op := range ops {
		if !op.Conditional() {
			continue
		}
		if len(r.Responses) == 0 {
			break
		}
		var rev store.Revision
		if found := r.Responses[0].GetResponseRange().Kvs; len(found) > 0 {
			rev = store.Revision(found[0].ModRevision)
		}
		if r.Responses = r.Responses[1:]; !op.Holds(rev) {
			return fmt.Errorf("%w: %q has revision %d", store.ErrConflict, op.Key(), rev)
		}
	}
	return store.ErrConflict
}

// check carries out a commit that writes nothing.
func (s *Store) check(ctx context.Context, ops []store.Op) (rev store.Revision, err error) {
	if err := s.awaitSettled(ctx, store.ErrUnknown); err != nil {
		return 0, err
	}
	var conflict error
	err = s.read(ctx, func(ctx context.Context) error {
		if len(ops) == 0 {
			r, err := s.client.Get(ctx, s.opts.Prefix+formatPart, clientv3.WithKeysOnly())
			if err == nil {
				rev = store.Revision(r.Header.Revision)
			}
			return err
		}
		conditions, _, reads := s.translate(ops)
		r, err := s.client.Txn(ctx).If(conditions...).Else(reads...).Commit()
		if err != nil {
			return err
		}
		if rev, conflict = store.Revision(r.Header.Revision), nil; !r.Succeeded {
			rev, conflict = 0, s.conflict(ops, r)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return rev, conflict
}
