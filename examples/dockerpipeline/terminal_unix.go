//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// usualHeight is the height of a window whose terminal does not know it.
const usualHeight = 24

func terminalHeight(file *os.File) int {
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0
	case size.Row == 0:
		return usualHeight
	default:
		return int(size.Row)
	}
}
