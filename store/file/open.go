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
)

// Options says how [Open] opens a file. The zero value works.
type Options struct {
	// Wait makes Open wait for as long as another owner has the file open, until its context ends. Unset, it gives up
	// within a tenth of a second.
	Wait bool
}

const (
	// lockTimeout is how long Open tries without Wait: another Open that is inspecting the file holds it for a moment.
	lockTimeout = 60 * time.Millisecond
	// lockRetry is the time between two attempts to get hold of the file.
	lockRetry = 10 * time.Millisecond
	// inspectAllUpTo is the size up to which Open inspects every record of a file. It reads somewhat less than a gigabyte
	// in a second; a larger file is opened at once, and its records are checked as they are read, and by [Check].
	inspectAllUpTo = 256 << 20
)

// Open opens the store in the file at path, or makes a new one, along with the directories that lead to it.
//
// When it returns nil, the file and its name are on disk, and the caller owns the store until it calls Close. Open
// returns ErrLocked while another owner, in this process or another one, has the file; ErrCorrupt, and leaves the file
// as it is, if it is damaged, is not a file, or was written by another program or a newer version; and the cause of ctx
// if it ends first. The error that wraps ErrLocked wraps the cause of ctx too if Open was waiting. What the system
// refuses comes as its own error, such as syscall.ENOSPC, syscall.EROFS or fs.ErrPermission.
//
// The owner is that of the file, whatever names it has, and as long as its process lives, also while that is stopped. A
// process that is killed leaves no lock, unless one that it started has been given the open file: that one has the lock
// then. A file that has been renamed stays with its owner, and the name is free for a new store.
//
// The directories are made for the user alone, mode 0700, and so is the file, mode 0600. An empty file is refused: the
// store never leaves one, so it is the remains of something.
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

// Check reads a whole file that is not open and returns what is wrong with it, as an error that wraps ErrCorrupt, or
// nil. It changes nothing. What Open refuses, Check refuses; a file that Check finds nothing wrong with opens, and every
// record can be read. Of ErrLocked and ctx the same holds as for [Open].
func Check(ctx context.Context, path string, opts Options) error {
	return acquire(ctx, path, opts, func() error { return inspectFile(path, math.MaxInt64) })
}

// acquire calls fn until another owner no longer has the file.
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
				return fmt.Errorf("%w: %s: %w", store.ErrLocked, path, context.Cause(ctx))
			}
			return fmt.Errorf("%w: %s", store.ErrLocked, path)
		case <-again.C:
		}
	}
}

// open opens an existing file, and inspects it whole up to that size. The error wraps bbolt's ErrTimeout if another
// owner has it.
func open(path string, inspectAllUpTo int64) (*Store, error) {
	if err := inspectFile(path, inspectAllUpTo); err != nil {
		return nil, err
	}
	s := &Store{path: path, commitTx: (*bbolt.Tx).Commit}
	err := s.withBolt(boltOptions(), func() error {
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		// While this Open came for the lock, the file that it had opened may have been replaced by its owner.
		named, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !os.SameFile(info, named) {
			return errReplaced
		}
		s.setFileSize(info.Size())
		// The process before may have died, or the disk failed, between writing a meta page and syncing it, or between
		// giving the file its name and syncing that.
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

// errReplaced reports that a file has lost its name to another one before it was locked.
var errReplaced = errors.New("the file was replaced")

// inspectFile refuses a file that is not a sound store, before anything is written to it. It keeps others from writing
// by opening the file for bbolt to read, which takes a shared lock and looks at the meta pages alone.
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
