//go:build unix && !linux

package main

import (
	"os"
	"syscall"
)

func executable() (string, error) { return os.Executable() }

// adoptOrphans does nothing, because only Linux can give the children of a dead process to an ancestor.
func adoptOrphans() {}

// programAttributes gives the program a process group of its own, so that the supervisor outlives a kill of the group.
func programAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killAll kills the process group of the program, and reports whether the group had a process. A process that has left the
// group is not found on this system.
func killAll(program int) (killed bool) { return syscall.Kill(-program, syscall.SIGKILL) == nil }
