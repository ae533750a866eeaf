package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// executable returns the path of this program. It stays valid when the file is removed.
func executable() (string, error) { return "/proc/self/exe", nil }

// adoptOrphans makes this process the parent of all its descendants whose parent dies. A process that has left its process
// group and its session is therefore found too.
func adoptOrphans() {
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// programAttributes has the program killed if the supervisor is killed.
func programAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// killAll kills the process group of the program and all children of this process. It reports whether it has killed a child.
func killAll(program int) (killed bool) {
	syscall.Kill(-program, syscall.SIGKILL)
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		// The name of the program, in parentheses, can have any characters. The state and the parent come after it.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 || string(fields[1]) != strconv.Itoa(os.Getpid()) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed = true
		}
	}
	return killed
}
