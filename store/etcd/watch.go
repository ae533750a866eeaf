package etcd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/again"
)

// progressEvery is how often a watch asks how far the servers have got. A watch under whose prefix nothing happens would otherwise go on,
// after a lost connection, from a revision that was compacted since, and would not notice that the servers were taken back.
const progressEvery = time.Minute

// Watch implements [store.Watcher]. It ends with [store.ErrGap] if the history of etcd does not go back that far any more, and if the
// servers have been taken back to a state in which the revision after does not exist.
func (s *Store) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		at := int64(after) // everything up to this revision was told
		var wait again.Pause
		for {
			err := s.watchOnce(ctx, prefix, &at, func(c store.Change) bool {
				wait = 0
				return yield(c, nil)
			})
			if ended := s.alive(ctx); ended != nil && err != errBreak {
				err = ended
			}
			switch {
			case err == errBreak:
				return
			case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrGap), ctx.Err() != nil, !passing(err):
				yield(store.Change{}, err)
				return
			}
			wait.Next(ctx)
		}
	}
}

// errBreak means that the body of a range wants no more.
var errBreak = errors.New("enough")

// watchOnce yields changes until something goes wrong, and returns what. at is the revision up to which everything was told.
func (s *Store) watchOnce(ctx context.Context, prefix string, at *int64, yield func(store.Change) bool) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	defer context.AfterFunc(s.gate.Closing, cancel)()
	if err := s.checkExists(ctx, *at); err != nil {
		return err
	}
	// Watches with equal metadata share a stream, its token, which is valid for a few minutes, and what is said about the progress.
	ctx = metadata.AppendToOutgoingContext(ctx, "conveyor-watch", strconv.FormatInt(s.watches.Add(1), 10))
	answers := s.client.Watch(ctx, s.records+prefix, clientv3.WithPrefix(), clientv3.WithRev(*at+1), clientv3.WithFragment())
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		var answer clientv3.WatchResponse
		var open bool
		select {
		case answer, open = <-answers:
		case <-ticker.C:
			if err := s.checkExists(ctx, *at); errors.Is(err, store.ErrGap) {
				return err
			}
			_ = s.client.RequestProgress(ctx) // an answer that does not come does no harm
			continue
		}
		if !open {
			return errWatchEnded
		}
		if err := s.alive(ctx); err != nil {
			return err
		}
		if err := answer.Err(); err != nil {
			if is(err, rpctypes.ErrGRPCCompacted) || answer.CompactRevision != 0 {
				return fmt.Errorf("%w: revision %d is older than the history of etcd", store.ErrGap, *at)
			}
			return err
		}
		told := *at
		for _, e := range answer.Events {
			told = e.Kv.ModRevision
			if err := s.alive(ctx); err != nil {
				return err
			}
			if !yield(store.Change{Key: string(e.Kv.Key[len(s.records):]), Revision: store.Revision(told)}) {
				return errBreak
			}
		}
		if answer.IsProgressNotify() {
			if told = answer.Header.Revision; told < *at {
				return takenBack(*at, told)
			}
		}
		if told == *at {
			continue
		}
		if *at = told; !yield(store.Change{Revision: store.Revision(told)}) {
			return errBreak
		}
	}
}

// errWatchEnded is no error of etcd, and therefore passing.
var errWatchEnded = errors.New("the watch has ended")

// checkExists returns ErrGap if the servers do not have a revision.
func (s *Store) checkExists(ctx context.Context, at int64) error {
	ctx, cancel := context.WithTimeout(ctx, longestAttempt)
	defer cancel()
	r, err := s.client.Get(ctx, s.opts.Prefix+formatPart, clientv3.WithKeysOnly())
	if err == nil && r.Header.Revision < at {
		err = takenBack(at, r.Header.Revision)
	}
	return err
}

func takenBack(at, to int64) error {
	return fmt.Errorf("%w: revision %d was lost when the servers were taken back to revision %d", store.ErrGap, at, to)
}
