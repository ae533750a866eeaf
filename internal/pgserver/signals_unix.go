//go:build unix

package pgserver

import (
	"os/exec"
	"syscall"
)

// The signals with which a server stops.
const (
	fastShutdown      = syscall.SIGINT
	immediateShutdown = syscall.SIGQUIT
)

// runAs makes a command run as another user.
func runAs(cmd *exec.Cmd, o *owner) {
	if o != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: o.uid, Gid: o.gid}}
	}
}
