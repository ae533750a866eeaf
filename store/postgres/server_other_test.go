//go:build !unix

package postgres_test

import (
	"os"
	"os/exec"
)

var fastShutdown, immediateShutdown = os.Kill, os.Kill

func runAs(*exec.Cmd, *owner) {}
