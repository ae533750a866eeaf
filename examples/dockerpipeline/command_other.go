//go:build !unix

package main

import "os/exec"

// newProcessGroup does nothing where there are no process groups: a kill reaches the program itself.
func newProcessGroup(*exec.Cmd) {}
