package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor/store"
)

func openInternal(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// transactions returns how many write transactions the file has seen.
func transactions(t *testing.T, s *Store) (n int) {
	t.Helper()
	require.NoError(t, s.db.View(func(tx *bbolt.Tx) error {
		n = tx.ID()
		return nil
	}))
	return n
}

// hold makes the leader of the next transaction of s wait until release is closed. It closes reached when the leader
// waits.
func hold(s *Store) (reached, release chan struct{}) {
	reached, release = make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.commitTx = func(tx *bbolt.Tx) error {
		once.Do(func() {
			close(reached)
			<-release
		})
		return tx.Commit()
	}
	return reached, release
}

func TestCommitsThatComeDuringATransactionShareTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openInternal(t)
		reached, release := hold(s)
		before := transactions(t, s)

		var group sync.WaitGroup
		commit := func(key string) {
			_, err := s.Commit(t.Context(), store.Put(key, nil))
			assert.NoError(t, err)
		}
		group.Go(func() { commit("first") })
		<-reached
		for i := range 100 {
			group.Go(func() { commit(fmt.Sprint("later", i)) })
		}
		synctest.Wait() // until all are in the queue
		close(release)
		group.Wait()

		require.Equal(t, before+2, transactions(t, s))
	})
}

func TestHundredConcurrentCallersNeedFewTransactions(t *testing.T) {
	const callers, commits = 100, 10
	synctest.Test(t, func(t *testing.T) {
		s := openInternal(t)
		s.commitTx = func(tx *bbolt.Tx) error {
			synctest.Wait() // a disk so slow that all the others come meanwhile
			return tx.Commit()
		}
		before := transactions(t, s)
		var group sync.WaitGroup
		for c := range callers {
			group.Go(func() {
				for i := range commits {
					_, err := s.Commit(t.Context(), store.Put(fmt.Sprintf("%d/%d", c, i), nil))
					assert.NoError(t, err)
				}
			})
		}
		group.Wait()
		require.Less(t, transactions(t, s)-before, callers*commits/4)
	})
}

func TestALoneCommitIsOneTransaction(t *testing.T) {
	s := openInternal(t)
	before := transactions(t, s)
	for i := range 3 {
		_, err := s.Commit(t.Context(), store.Put("key", nil))
		require.NoError(t, err)
		require.Equal(t, before+i+1, transactions(t, s))
	}
}

func TestWhatWritesNothingIsNoTransaction(t *testing.T) {
	s := openInternal(t)
	rev, err := s.Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	before := transactions(t, s)
	_, err = s.Commit(t.Context(), store.Check("key", rev))
	require.NoError(t, err)
	_, err = s.Commit(t.Context())
	require.NoError(t, err)
	_, err = s.Commit(t.Context(), store.Put("key", nil).IfAbsent())
	require.ErrorIs(t, err, store.ErrConflict)
	require.Equal(t, before, transactions(t, s))
}

func TestLaterCommitsOfAGroupSeeTheEarlierOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openInternal(t)
		reached, release := hold(s)
		var group sync.WaitGroup
		group.Go(func() { _, _ = s.Commit(t.Context(), store.Put("first", nil)) })
		<-reached

		errs := make([]error, 4)
		for i, ops := range [][]store.Op{
			{store.Put("a", []byte("1")).IfAbsent()},
			{store.Put("a", []byte("2")).IfAbsent(), store.Put("trace", nil)},
			{store.Put("a", []byte("3")).If(2)},
			{store.Delete("a").If(3)},
		} {
			group.Go(func() { _, errs[i] = s.Commit(t.Context(), ops...) })
			synctest.Wait() // one after the other into the queue
		}
		close(release)
		group.Wait()

		require.NoError(t, errs[0])
		require.ErrorIs(t, errs[1], store.ErrConflict)
		require.NoError(t, errs[2])
		require.NoError(t, errs[3])
		for _, key := range []string{"a", "trace"} {
			_, err := s.Get(t.Context(), key)
			require.ErrorIs(t, err, store.ErrNotFound)
		}
	})
}

func TestACallerThatLeavesTheQueueHasWrittenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openInternal(t)
		reached, release := hold(s)
		var group sync.WaitGroup
		group.Go(func() { _, _ = s.Commit(t.Context(), store.Put("first", nil)) })
		<-reached

		gone := errors.New("gone")
		ctx, leave := context.WithCancelCause(t.Context())
		group.Go(func() {
			_, err := s.Commit(ctx, store.Put("left", nil))
			assert.ErrorIs(t, err, gone)
		})
		group.Go(func() {
			_, err := s.Commit(t.Context(), store.Put("stayed", nil))
			assert.NoError(t, err)
		})
		synctest.Wait()
		leave(gone)
		synctest.Wait()
		close(release)
		group.Wait()

		_, err := s.Get(t.Context(), "left")
		require.ErrorIs(t, err, store.ErrNotFound)
		_, err = s.Get(t.Context(), "stayed")
		require.NoError(t, err)
	})
}

func TestAGroupLeavesWhatIsTooMuchToTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openInternal(t)
		reached, release := hold(s)
		before := transactions(t, s)
		var group sync.WaitGroup
		group.Go(func() { _, _ = s.Commit(t.Context(), store.Put("first", nil)) })
		<-reached
		for i := range 5 {
			group.Go(func() {
				_, err := s.Commit(t.Context(), store.Put(fmt.Sprint(i), make([]byte, maxGroup/3)))
				assert.NoError(t, err)
			})
		}
		synctest.Wait()
		close(release)
		group.Wait()
		require.Equal(t, before+1+3, transactions(t, s))
	})
}

func TestADiskThatRefusesBeforeTheMetaPageHasWrittenNothing(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		t.Run(cause.Error(), func(t *testing.T) {
			s := openInternal(t)
			rev, err := s.Commit(t.Context(), store.Put("key", []byte("old")))
			require.NoError(t, err)
			s.commitTx = func(tx *bbolt.Tx) error {
				require.NoError(t, tx.Rollback())
				return &fs.PathError{Op: "write", Path: s.path, Err: cause} // as bbolt returns it from a write
			}
			_, err = s.Commit(t.Context(), store.Put("key", []byte("new")))
			require.ErrorIs(t, err, cause)
			require.NotErrorIs(t, err, store.ErrUnknown)
			rec, err := s.Get(t.Context(), "key")
			require.NoError(t, err)
			require.Equal(t, store.Record{Key: "key", Value: []byte("old"), Revision: rev}, rec)

			s.commitTx = (*bbolt.Tx).Commit
			again, err := s.Commit(t.Context(), store.Put("key", []byte("new")))
			require.NoError(t, err)
			require.Greater(t, again, rev)
		})
	}
}

func TestAConflictWithACommitThatFailsIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openInternal(t)
		reached, release := make(chan struct{}), make(chan struct{})
		n := 0
		s.commitTx = func(tx *bbolt.Tx) error {
			if n++; n > 1 {
				assert.NoError(t, tx.Rollback())
				return &fs.PathError{Op: "write", Path: s.path, Err: syscall.ENOSPC}
			}
			close(reached)
			<-release
			return tx.Commit()
		}
		var group sync.WaitGroup
		group.Go(func() { _, _ = s.Commit(t.Context(), store.Put("first", nil)) })
		<-reached
		for range 2 {
			group.Go(func() {
				_, err := s.Commit(t.Context(), store.Put("key", nil).IfAbsent())
				assert.ErrorIs(t, err, syscall.ENOSPC)
				assert.NotErrorIs(t, err, store.ErrConflict)
			})
		}
		synctest.Wait()
		close(release)
		group.Wait()
	})
}

// requireGone checks that every call on a store returns the cause for which the store must be reopened.
func requireGone(t *testing.T, s *Store, cause error) {
	t.Helper()
	_, get := s.Get(t.Context(), "key")
	_, write := s.Commit(t.Context(), store.Put("other", nil))
	_, check := s.Commit(t.Context(), store.Check("other", 0))
	_, nothing := s.Commit(t.Context())
	errs := []error{get, write, check, nothing}
	for _, err := range s.List(t.Context(), store.Query{}) {
		errs = append(errs, err)
	}
	require.Len(t, errs, 5)
	for _, err := range errs {
		require.ErrorIs(t, err, store.ErrClosed)
		require.ErrorIs(t, err, cause)
		require.NotErrorIs(t, err, store.ErrUnknown)
		require.ErrorContains(t, err, s.path+" must be reopened")
	}
}

func TestAFailedSyncOfTheMetaPageLeavesTheOutcomeToTheNextOpen(t *testing.T) {
	s := openInternal(t)
	before, err := s.Commit(t.Context(), store.Put("key", []byte("old")))
	require.NoError(t, err)
	s.commitTx = func(tx *bbolt.Tx) error {
		require.NoError(t, tx.Commit())
		return syscall.EIO
	}
	_, err = s.Commit(t.Context(), store.Put("key", []byte("new")))
	require.ErrorIs(t, err, store.ErrUnknown)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, err, store.ErrClosed)
	s.commitTx = (*bbolt.Tx).Commit
	requireGone(t, s, syscall.EIO)
	require.NoError(t, s.Close())

	s, err = Open(t.Context(), s.path, Options{})
	require.NoError(t, err)
	defer s.Close()
	rec, err := s.Get(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, "new", string(rec.Value))
	require.Greater(t, rec.Revision, before)
	rev, err := s.Commit(t.Context(), store.Put("key", nil).If(rec.Revision))
	require.NoError(t, err)
	require.Greater(t, rev, rec.Revision)
}

func TestAFailedSyncOfThePagesHasWrittenNothingAndIsTheLast(t *testing.T) {
	s := openInternal(t)
	_, err := s.Commit(t.Context(), store.Put("key", []byte("old")))
	require.NoError(t, err)
	s.commitTx = func(tx *bbolt.Tx) error {
		require.NoError(t, tx.Rollback())
		return syscall.EIO // as bbolt returns it from fdatasync
	}
	_, err = s.Commit(t.Context(), store.Put("key", []byte("new")))
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, err, store.ErrClosed)
	require.NotErrorIs(t, err, store.ErrUnknown)
	s.commitTx = (*bbolt.Tx).Commit
	requireGone(t, s, syscall.EIO)
	require.NoError(t, s.Close())

	s, err = Open(t.Context(), s.path, Options{})
	require.NoError(t, err)
	defer s.Close()
	rec, err := s.Get(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, "old", string(rec.Value))
}

func TestThoseWhoWaitWhenASyncFailsAreNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openInternal(t)
		reached, release := make(chan struct{}), make(chan struct{})
		n := 0
		s.commitTx = func(tx *bbolt.Tx) error {
			if n++; n > 1 {
				return tx.Commit()
			}
			close(reached)
			<-release
			assert.NoError(t, tx.Rollback())
			return syscall.EIO
		}
		var group sync.WaitGroup
		for i := range 3 {
			group.Go(func() {
				_, err := s.Commit(t.Context(), store.Put(fmt.Sprint(i), nil))
				assert.ErrorIs(t, err, store.ErrClosed)
				assert.ErrorIs(t, err, syscall.EIO)
			})
		}
		<-reached
		synctest.Wait()
		close(release)
		group.Wait()
		require.Equal(t, 1, n)
	})
}

func TestAPanicOfBoltStopsTheWriting(t *testing.T) {
	s := openInternal(t)
	_, err := s.Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	s.commitTx = func(*bbolt.Tx) error { panic("page 7 already freed") }
	_, err = s.Commit(t.Context(), store.Put("other", nil))
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.ErrorContains(t, err, s.path)
	require.ErrorContains(t, err, "page 7 already freed")

	s.commitTx = (*bbolt.Tx).Commit
	_, err = s.Commit(t.Context(), store.Put("other", nil))
	require.ErrorIs(t, err, store.ErrCorrupt)
	_, err = s.Get(t.Context(), "key")
	require.NoError(t, err)
	require.NoError(t, s.Close())
}
