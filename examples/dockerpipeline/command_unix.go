//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// newProcessGroup makes the program the leader of a new process group, so that a kill also reaches the processes that the
// program starts. For example, "go test" starts compilers and test programs. The process group is a session without a
// terminal, so that only this program receives a Ctrl-C, and ssh cannot ask for a password.
func newProcessGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
