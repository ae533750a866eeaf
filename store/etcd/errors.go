package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/again"
)

// ErrFull means that the database of etcd has reached its quota. Nothing was written. The quota must be raised, or the history compacted,
// the members defragmented and the alarm disarmed (see docs/etcd.md of the repository).
var ErrFull = errors.New("etcd: the database has reached its quota")

// codeOf returns the code of an error of a server or of the connection.
func codeOf(err error) codes.Code {
	if known, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return known.Code()
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return codes.Unknown
}

// is reports whether an error is one of those of package rpctypes.
func is(err, known error) bool {
	e, ok := errors.AsType[rpctypes.EtcdError](rpctypes.Error(err))
	return ok && e.Error() == rpctypes.ErrorDesc(known)
}

// refusing reports whether a code is one of those with which servers refuse something.
func refusing(code codes.Code) bool {
	switch code {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.ResourceExhausted, codes.PermissionDenied, codes.Unauthenticated,
		codes.NotFound, codes.OutOfRange, codes.Unimplemented, codes.DataLoss:
		return true
	}
	return false
}

// refused reports whether a server, or the client itself, has refused a Txn, so that nothing of it was or will be written. A code alone does
// not say so, because something between the client and the server can answer with it. That the quota is reached does not say so either: the
// Txn with which it is reached is carried out and then answered with that error.
func refused(err error) bool {
	if tooLarge(err) {
		return true
	}
	known, ok := errors.AsType[rpctypes.EtcdError](rpctypes.Error(err))
	return ok && refusing(known.Code()) && !is(err, rpctypes.ErrGRPCNoSpace)
}

// tooLarge reports whether the client has not sent a request because it is too large.
func tooLarge(err error) bool {
	return codeOf(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max")
}

// passing reports whether an error can be over when the same is tried again later.
func passing(err error) bool {
	switch {
	case errors.Is(err, store.ErrCorrupt), errors.Is(err, ErrVersion):
		return false
	case is(err, rpctypes.ErrGRPCRequestTooManyRequests), is(err, rpctypes.ErrGRPCNotLeader), is(err, rpctypes.ErrGRPCNotSupportedForLearner),
		is(err, rpctypes.ErrGRPCInvalidAuthToken), is(err, rpctypes.ErrGRPCAuthOldRevision),
		is(err, rpctypes.ErrGRPCLeaseNotFound), // another lease is asked for
		is(err, rpctypes.ErrGRPCCompacted):     // during a list: it is read again as it is now
		return true
	}
	return !refusing(codeOf(err))
}

// final returns the error with which a call ends that cannot succeed.
func (s *Store) final(err error) error {
	switch {
	case errors.Is(err, store.ErrCorrupt), errors.Is(err, ErrVersion):
		return err
	case is(err, rpctypes.ErrGRPCNoSpace):
		return fmt.Errorf("%w: compact, defragment and disarm the alarm: %w", ErrFull, err)
	case is(err, rpctypes.ErrGRPCTooManyOps):
		return fmt.Errorf("etcd: Options.MaxTxnOps is %d, and the servers allow less (their --max-txn-ops): %w", s.opts.MaxTxnOps, err)
	case is(err, rpctypes.ErrGRPCRequestTooLarge), tooLarge(err):
		return fmt.Errorf("etcd: Options.MaxRequestBytes is %d, and the servers allow less (their --max-request-bytes), or the client does (its MaxCallSendMsgSize): %w",
			s.opts.MaxRequestBytes, err)
	case codeOf(err) == codes.DataLoss:
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	case s.client.Ctx().Err() != nil:
		return fmt.Errorf("%w: the client is closed: %w", store.ErrClosed, err)
	}
	return fmt.Errorf("etcd: prefix %q: %w", s.opts.Prefix, err)
}

// trouble is what the connections of a client had the last time that they did not work, and nil if they work. The client itself forgets it
// when the time of a call is over.
type trouble struct{ atomic.Pointer[error] }

// watch takes note of how a call ends.
func (t *trouble) watch(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	switch status.Code(err) {
	case codes.OK:
		t.Store(nil)
	case codes.Unavailable, codes.DeadlineExceeded:
		t.Store(&err)
	}
	return err
}

// telling returns the error of the attempts so far that says most: not that the time for the last one was over, if it is known what was
// wrong.
func (t *trouble) telling(before, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if known := t.Load(); known != nil {
		return *known
	}
	return cmp.Or(before, err)
}

// longestAttempt is how long one server has for its answer. Another one is asked then: the server can be stopped, though its connection is
// open.
const longestAttempt = 3 * time.Second

// read calls fn until it succeeds, and no longer than the patience of the store. fn changes nothing, so that it can be called again after
// a lost answer.
func (s *Store) read(ctx context.Context, fn func(ctx context.Context) error) error {
	return s.readUntil(ctx, time.Now().Add(s.opts.Patience), fn)
}

// readUntil is read with another end.
func (s *Store) readUntil(ctx context.Context, deadline time.Time, fn func(ctx context.Context) error) error {
	return again.Tries{
		Longest: longestAttempt, Final: s.final, Failed: s.trouble.telling,
		Passing: func(err error) bool { return s.client.Ctx().Err() == nil && passing(err) },
	}.Until(ctx, deadline, fn)
}
