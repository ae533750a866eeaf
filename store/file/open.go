package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
)

// Options says how [Open] and [Check] get hold of a file. The zero value works.
type Options struct {
	// Wait makes Open and Check wait while another owner has the file open, until the context ends. If Wait is false,
	// they return ErrLocked within a tenth of a second.
	Wait bool
}

const (
	// lockTimeout is how long Open tries to lock the file without Wait. It is not zero because another Open that is
	// inspecting the file has the lock for a moment.
	lockTimeout = 60 * time.Millisecond
	// lockRetry is the time between two attempts to lock the file.
	lockRetry = 10 * time.Millisecond
	// inspectAllUpTo is the size in bytes up to which Open inspects every record of a file. An inspection reads
	// somewhat less than a gigabyte in a second. A larger file is opened at once; its records are checked when they are
	// read, and by [Check].
	inspectAllUpTo = 256 << 20
)

// Open opens the store in the file at path. If there is no file, Open makes a new store, along with the directories
// that lead to it.
//
// When Open returns a nil error, the file and its name are on disk, and the caller owns the store until it calls Close.
// Open returns these errors:
//
//   - ErrLocked while another owner, in this process or another one, has the file. The error names the process on Linux. If
//     Open was waiting when ctx ended, the error wraps the cause of ctx too.
//   - ErrCorrupt if the file is damaged, is not a regular file, or was written by another program or a newer version.
//     The file is left unchanged.
//   - The cause of ctx if ctx has ended before Open begins.
//   - The error of the operating system if the system refuses something, such as syscall.ENOSPC, syscall.EROFS or
//     fs.ErrPermission.
//
// A lock belongs to the file, not to a name of the file: the owner is found by every name. The owner keeps the lock as
// long as its process lives, even while the process is stopped. A process that is killed leaves no lock, unless it has
// passed the open file on to a process that it started; then that process has the lock. A file that has been renamed
// still belongs to its owner, and its old name can be used for a new store.
//
// The directories and the file are made for the user alone, with modes 0700 and 0600. Open refuses an empty file with
// ErrCorrupt: the store never leaves an empty file behind, so something else has made it or cut it off.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("create %s: %w", path, err)
		}
	}
	var s *Store
	err := acquire(ctx, path, opts, func() (err error) {
		s, err = open(path, inspectAllUpTo)
		return err
	})
	return s, err
}

// Check reads a whole file that is not open. It returns nil if the file is sound, and an error that wraps ErrCorrupt if
// the file is damaged. Check changes nothing. Check refuses every file that Open refuses. If Check returns nil, the
// file can be opened and every record can be read. Check returns ErrLocked and the cause of ctx under the same
// conditions as [Open]. A check that has begun is finished even if ctx ends.
func Check(ctx context.Context, path string, opts Options) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return acquire(ctx, path, opts, func() error { return inspectFile(path, math.MaxInt64) })
}

// acquire calls fn until it no longer fails because another owner has the file, or until the time for this is over.
func acquire(ctx context.Context, path string, opts Options, fn func() error) error {
	limit := ctx
	if !opts.Wait {
		var stop context.CancelFunc
		limit, stop = context.WithTimeout(ctx, lockTimeout)
		defer stop()
	}
	again := time.NewTicker(lockRetry)
	defer again.Stop()
	for {
		err := fn()
		if !errors.Is(err, bbolterrors.ErrTimeout) && !errors.Is(err, errReplaced) {
			return err
		}
		select {
		case <-limit.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %s%s: %w", store.ErrLocked, path, ownedBy(path), context.Cause(ctx))
			}
			return fmt.Errorf("%w: %s%s; Options.Wait waits for it", store.ErrLocked, path, ownedBy(path))
		case <-again.C:
		}
	}
}

// thisProcess is what ownerOf returns if the owner is this process.
const thisProcess = "this process has it open already: one store has one owner, and one engine"

// ownedBy returns who has the lock of a file, to be added to the text of an error.
func ownedBy(path string) string {
	if owner := ownerOf(path); owner != "" {
		return ": " + owner
	}
	return ""
}

// open opens an existing file. It inspects all pages of a file of at most inspectAllUpTo bytes. The error wraps bbolt's
// ErrTimeout if another owner has the file, and errReplaced if the file has lost its name meanwhile.
func open(path string, inspectAllUpTo int64) (*Store, error) {
	if err := inspectFile(path, inspectAllUpTo); err != nil {
		return nil, err
	}
	s := newStore(path)
	err := s.withBolt(boltOptions(), func() error {
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		// While this Open was waiting for the lock, the owner may have replaced the file that this Open has opened.
		named, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !os.SameFile(info, named) {
			return errReplaced
		}
		s.setFileSize(info.Size())
		// The last owner may have died, or the disk may have failed, before a meta page was synced, or before the name
		// of the file was synced.
		if err := s.rewriteMeta(); err != nil {
			return err
		}
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return err
		}
		if err := syncOldDir(filepath.Dir(real)); err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// newStore returns a store for the file at path, which is not open yet.
func newStore(path string) *Store {
	s := &Store{path: path, commitTx: (*bbolt.Tx).Commit}
	s.queue = groupcommit.New(groupcommit.Options{MaxBytes: maxGroup}, s.commitGroup)
	return s
}

// errReplaced reports that, before the file was locked, another file has got its name.
var errReplaced = errors.New("the file was replaced")

// inspectFile returns an error if the file is not a sound store. It must be called before anything is written to the
// file. It opens the file read-only with bbolt, which takes a shared lock, so that nobody writes meanwhile. bbolt reads
// only the meta pages then.
func inspectFile(path string, inspectAllUpTo int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a file: %s", store.ErrCorrupt, path, info.Mode())
	}
	if info.Size() == 0 {
		return fmt.Errorf("%w: %s is empty", store.ErrCorrupt, path)
	}
	s, opts := &Store{path: path}, boltOptions()
	opts.ReadOnly = true
	err = s.withBolt(opts, func() error {
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		if err := inspect(s.file, info.Size(), info.Size() <= inspectAllUpTo); err != nil {
			return s.corrupt(err)
		}
		return nil
	})
	if err == nil {
		return s.db.Close()
	}
	return err
}
