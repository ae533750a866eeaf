//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
)

// supervisorName is the name under which this program is started as a supervisor. Lists of processes show it.
const supervisorName = "dockerpipeline-supervisor"

// lifelineFile is the file that a supervisor gets as the reading end of the pipe.
const lifelineFile = 3

// superviseIfAsked does not return if this process was started as a supervisor.
func superviseIfAsked() {
	if os.Args[0] == supervisorName {
		supervise(os.Args[1:])
	}
}

// supervise runs a program, ends all processes that are left when the program has ended or when the lifeline breaks, and
// then ends this process as the program has ended.
func supervise(program []string) {
	// The parent-death signal of Linux comes when the thread ends that started the program.
	runtime.LockOSThread()
	stop := make(chan os.Signal, 1) // the signal package sends; size 1: one signal is enough
	signal.Notify(stop, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	syscall.CloseOnExec(lifelineFile)
	adoptOrphans()
	pid, err := syscall.ForkExec(program[0], program, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: programAttributes(),
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", program[0], err)
		os.Exit(exitNotStarted)
	}
	var ending atomic.Bool
	kill := func() {
		ending.Store(true)
		killAll(pid)
	}
	go func() {
		io.Copy(io.Discard, os.NewFile(lifelineFile, "lifeline"))
		kill()
	}()
	go func() {
		<-stop
		kill()
	}()
	exitAs(filepath.Base(program[0]), awaitAll(pid, &ending))
}

// exitNotStarted is the exit code for a program that cannot be started, as in a shell.
const exitNotStarted = 126

// awaitAll waits until the program and all processes that it left have ended, and returns how the program ended. When the
// program has ended, or ending is set, awaitAll kills the processes that are left. Some of them can become children of this
// process only when their parent is dead, so that it looks for them again after each death.
func awaitAll(program int, ending *atomic.Bool) (status syscall.WaitStatus) {
	for ended := false; ; {
		var of syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &of, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return status // there is no child any more
		}
		if pid == program {
			status, ended = of, true
			ending.Store(true)
		}
		if ending.Load() && !killAll(program) && ended {
			return status // what is left, if anything, belongs to another user
		}
	}
}

// exitAs ends this process as a program has ended.
func exitAs(name string, status syscall.WaitStatus) {
	if !status.Signaled() {
		os.Exit(status.ExitStatus())
	}
	if status.Signal() != syscall.SIGKILL {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, status.Signal())
	}
	// The Go runtime has handlers for most signals. SIGKILL says as well that the program has not exited by itself.
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
