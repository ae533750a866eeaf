package baddisk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// Install puts judge between this process and its files, until the process ends. judge is called for one system call at
// a time, while the caller of the system call waits. judge must not use files itself. It can use standard output and
// can read files from start to end, because these use other system calls, which are not intercepted.
//
// Install returns an error if the process was not started by a command that [Prepare] has prepared.
func Install(judge func(Call) syscall.Errno) error {
	if !strings.Contains(os.Getenv("GODEBUG"), undisturbed) {
		return fmt.Errorf("the process was started without %s: a call that a signal interrupts would be judged twice", undisturbed)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		return err
	}
	// A thread that waits for its answer still counts against GOMAXPROCS, so there must be more places than such
	// threads. This comes before the filter: until GOMAXPROCS is set, the runtime reads it from files of the system at
	// times, and setting it waits for such a read, which nobody would answer yet.
	runtime.GOMAXPROCS(max(16, runtime.GOMAXPROCS(0)))
	listener, err := install()
	if err != nil {
		return errors.Join(fmt.Errorf("seccomp: %w", err), memory.Close())
	}
	go serve(listener, memory, judge)
	return nil
}

// undisturbed keeps the runtime from sending signals to its threads. When a signal arrives while the kernel waits for the
// answer to a call, the kernel drops the answer and makes the call again, and neither side can tell.
const undisturbed = "asyncpreemptoff=1"

// Prepare prepares the command of a process that calls [Install]. Prepare must be called after cmd.Env is set.
func Prepare(cmd *exec.Cmd) {
	options := undisturbed
	if set := os.Getenv("GODEBUG"); set != "" {
		options = set + "," + undisturbed
	}
	cmd.Env = append(cmd.Environ(), "GODEBUG="+options)
}

// These constants of the kernel's headers are not in package syscall.
const (
	setNoNewPrivileges = 38         // PR_SET_NO_NEW_PRIVS
	setModeFilter      = 1          // SECCOMP_SET_MODE_FILTER
	everyThread        = 1 << 0     // SECCOMP_FILTER_FLAG_TSYNC
	newListener        = 1 << 3     // SECCOMP_FILTER_FLAG_NEW_LISTENER
	everyThreadESRCH   = 1 << 4     // SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	notify             = 0x7fc00000 // SECCOMP_RET_USER_NOTIF
	allow              = 0x7fff0000 // SECCOMP_RET_ALLOW
	receiveNotice      = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	sendAnswer         = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	goOn               = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// seccompCall is the number of the system call, which package syscall lacks.
var seccompCall = map[string]uintptr{"amd64": 317, "arm64": 277}

// notice is struct seccomp_notif.
type notice struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// reply is struct seccomp_notif_resp.
type reply struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

func install() (listener uintptr, err error) {
	call, ok := seccompCall[runtime.GOARCH]
	if !ok {
		return 0, errors.ErrUnsupported
	}
	watched := []uint32{syscall.SYS_PWRITE64, syscall.SYS_FSYNC, syscall.SYS_FDATASYNC, syscall.SYS_FTRUNCATE, syscall.SYS_PREAD64}
	program := []syscall.SockFilter{{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, K: 0}} // the call's number
	for i, nr := range watched {
		program = append(program, syscall.SockFilter{
			Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, Jt: uint8(len(watched) - i), K: nr,
		})
	}
	program = append(program,
		syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: allow},
		syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: notify},
	)
	filter := syscall.SockFprog{Len: uint16(len(program)), Filter: &program[0]}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, setNoNewPrivileges, 1, 0, 0, 0, 0); errno != 0 {
		return 0, errno
	}
	listener, _, errno := syscall.Syscall(call, setModeFilter, everyThread|newListener|everyThreadESRCH,
		uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return 0, errno
	}
	return listener, nil
}

func serve(listener uintptr, memory *os.File, judge func(Call) syscall.Errno) {
	for {
		var n notice
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, listener, receiveNotice, uintptr(unsafe.Pointer(&n)))
		switch errno {
		case 0:
		case syscall.EINTR:
			continue
		default:
			panic(errno)
		}
		r := reply{id: n.id}
		switch errno := judge(decode(n, memory)); errno {
		case Through:
			r.flags = goOn
		case Done:
		default:
			r.errno = -int32(errno)
		}
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, listener, sendAnswer, uintptr(unsafe.Pointer(&r)))
		if errno != 0 {
			panic(errno)
		}
	}
}

func decode(n notice, memory *os.File) Call {
	var c Call
	c.Path, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", int32(n.args[0])))
	switch n.nr {
	case syscall.SYS_PWRITE64:
		c.Op, c.Offset, c.Data = Write, int64(n.args[3]), make([]byte, n.args[2])
		if _, err := memory.Seek(int64(n.args[1]), io.SeekStart); err != nil {
			panic(err)
		}
		if _, err := io.ReadFull(memory, c.Data); err != nil { // not ReadAt, which is intercepted
			panic(err)
		}
	case syscall.SYS_PREAD64:
		c.Op, c.Offset = Read, int64(n.args[3])
	case syscall.SYS_FTRUNCATE:
		c.Op, c.Offset = Truncate, int64(n.args[1])
	default:
		c.Op = Sync
	}
	return c
}
