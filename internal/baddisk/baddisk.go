// Package baddisk lets a test decide the outcome of each write, sync and read of its process. Only tests import the
// package.
//
// The kernel intercepts the calls with a seccomp filter. A goroutine of the same process answers the notifications of
// the filter. The code under test therefore makes its real system calls on real files, through any library, and the
// disk fails at exactly the call that the test has chosen. The package needs Linux, but no privileges. A process cannot
// remove its filter, so a test installs the filter in a process that it starts for this purpose.
package baddisk

import "syscall"

// Op is the kind of a call.
type Op int

// The calls that are intercepted: pwrite, fsync and fdatasync, ftruncate, pread.
const (
	Write Op = iota + 1
	Sync
	Truncate
	Read
)

func (op Op) String() string { return [...]string{"any", "write", "sync", "truncate", "read"}[op] }

// Call is a system call that a thread of this process is making.
type Call struct {
	Op     Op
	Path   string // of the file, as /proc reports it
	Offset int64  // of a write or a read; the new size for Truncate
	Data   []byte // of a write
}

// Through is the answer that lets a call go on to the real file. Every other answer, except [Done], is the error that
// the call returns instead.
const Through = syscall.Errno(0)

// Done is the answer that makes a call return success without any effect. It saves the time of a sync that only the
// test's model of a disk needs to know of.
const Done = ^syscall.Errno(0)
