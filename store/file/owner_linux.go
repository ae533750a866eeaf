package file

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ownerOf returns who has the lock of the file at path, in words, and an empty text if the system does not say so. The lock can
// be given back at any moment, so the answer is a hint.
func ownerOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer locks.Close() // it was only read
	lines := bufio.NewScanner(locks)
	for lines.Scan() {
		if pid := holder(lines.Text(), lockID(stat)); pid > 0 {
			return describeProcess(pid)
		}
	}
	return ""
}

// lockID returns how the kernel names a file in its list of locks: the numbers of the device in hexadecimal form, and the
// inode.
func lockID(stat *syscall.Stat_t) string {
	dev := uint64(stat.Dev) //nolint:unconvert // it has another size on some machines
	major := dev>>8&0xfff | dev>>32&^0xfff
	minor := dev&0xff | dev>>12&^0xff
	return fmt.Sprintf("%02x:%02x:%d", major, minor, stat.Ino)
}

// holder returns the process that a line of the list of locks says to have an flock on a file, and 0 if the line is of another
// lock. The line of a process that waits for a lock has an arrow.
func holder(line, id string) (pid int) {
	fields := strings.Fields(line) // such as: 1: FLOCK ADVISORY WRITE 1234 fd:01:131077 0 EOF
	if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != id {
		return 0
	}
	pid, _ = strconv.Atoi(fields[4]) // it is 0 or -1 for a process that this one cannot see
	return pid
}

// describeProcess returns the number of a process and its name.
func describeProcess(pid int) string {
	if pid == os.Getpid() {
		return thisProcess
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d has it", pid)
	}
	return fmt.Sprintf("process %d (%s) has it", pid, strings.TrimSpace(string(name)))
}
