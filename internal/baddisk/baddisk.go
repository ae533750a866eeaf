// Package baddisk lets a test decide what becomes of each write, sync and read of its process. Only tests import it.
//
// The calls are intercepted by the kernel, with a seccomp filter whose notifications a goroutine of the same process
// answers. So the code under test makes its real system calls on real files, through whatever library, and meets a disk
// that fails at the very call that the test wants it to fail at. It needs Linux, and no rights. A process cannot get
// rid of its filter, so it is installed in a process that the test starts for the purpose.
package baddisk

import "syscall"

// Op is what a call does.
type Op int

// The calls that are intercepted: pwrite, fsync and fdatasync, ftruncate, pread.
const (
	Write Op = iota + 1
	Sync
	Truncate
	Read
)

func (op Op) String() string { return [...]string{"any", "write", "sync", "truncate", "read"}[op] }

// Call is a call that a thread of this process is in.
type Call struct {
	Op     Op
	Path   string // of the file, as /proc knows it
	Offset int64  // of a write or a read; the new size for Truncate
	Data   []byte // of a write
}

// Through is the answer that lets a call go on to the real file; any other one is the error that it gets instead.
const Through = syscall.Errno(0)

// Done is the answer that says to the caller that a call has succeeded, and does nothing. A sync that only the
// model of a disk needs to know of costs no time that way.
const Done = ^syscall.Errno(0)
