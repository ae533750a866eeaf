//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"
)

// A group is a program together with all processes that the program starts, and that those start. "go test", for example,
// starts compilers and tests, and a test can start a server and forget it. The group ends as a whole: with the program, with
// the context of the step, or with this process, however this process ends.
//
// A supervisor sees to it (see supervisor_unix.go). It holds the reading end of a pipe on which nothing is ever written. The
// pipe ends when this process closes the writing end or dies.
type group struct {
	read, lifeline *os.File
}

// newGroup makes cmd run its program under a supervisor. The supervisor is the leader of a session without a terminal, so
// that only this process receives a Ctrl-C, and ssh cannot ask for a password.
func newGroup(cmd *exec.Cmd) (*group, error) {
	if cmd.Err != nil {
		return nil, cmd.Err // there is no such program
	}
	self, err := executable()
	if err != nil {
		return nil, err
	}
	read, lifeline, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Args = append([]string{supervisorName, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.ExtraFiles = []*os.File{read}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = lifeline.Close
	return &group{read: read, lifeline: lifeline}, nil
}

// started has to be called when the program was started, or could not be started.
func (g *group) started(*exec.Cmd) error { return g.read.Close() }

// end releases the group. The supervisor has ended by then, and nothing of the group is left.
func (g *group) end() { g.lifeline.Close() }
