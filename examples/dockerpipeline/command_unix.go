//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// newProcessGroup makes the program the head of a process group, so that a kill reaches what it started too: "go test"
// runs compilers and test programs. The group is a session of its own, without a terminal, so that a Ctrl-C is left
// to this program and no ssh asks for a password.
func newProcessGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
