package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// writtenBytes returns how many bytes the process has written to the disk or caused to be written, as the kernel counts
// them.
func writtenBytes() int64 {
	content, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return unknown
	}
	for line := range bytes.Lines(content) {
		if text, ok := strings.CutPrefix(string(line), "write_bytes: "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
				return n
			}
		}
	}
	return unknown
}

func allocated(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Blocks * 512
	}
	return info.Size()
}

// syncCalls counts the calls of fsync and fdatasync that the threads of this process make.
type syncCalls struct{ events []int } // file descriptors

// countSyncCalls makes the kernel count the calls. The kernel can count them if the tracing file system is mounted and the
// process has the permission to use it. The calls of a new thread are counted with the thread that started it, so
// countSyncCalls must be called before one of the existing threads starts others.
func countSyncCalls() (*syncCalls, error) {
	var s syncCalls
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"sys_enter_fsync", "sys_enter_fdatasync"} {
		id, err := tracepoint(name)
		if err != nil {
			return nil, err
		}
		for _, task := range tasks {
			if err := s.add(task.Name(), id); err != nil {
				return nil, err
			}
		}
	}
	return &s, nil
}

func tracepoint(name string) (uint64, error) {
	content, err := os.ReadFile("/sys/kernel/tracing/events/syscalls/" + name + "/id")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(content)), 10, 64)
}

func (s *syncCalls) add(task string, tracepoint uint64) error {
	thread, err := strconv.Atoi(task)
	if err != nil {
		return err
	}
	event, err := unix.PerfEventOpen(&unix.PerfEventAttr{
		Type: unix.PERF_TYPE_TRACEPOINT, Config: tracepoint, Bits: unix.PerfBitInherit, Size: unix.PERF_ATTR_SIZE_VER5,
	}, thread, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("count system calls: %w", err)
	}
	s.events = append(s.events, event)
	return nil
}

func (s *syncCalls) count() (total int64, err error) {
	for _, event := range s.events {
		var value [8]byte
		if _, err := unix.Read(event, value[:]); err != nil {
			return 0, fmt.Errorf("count system calls: %w", err)
		}
		total += int64(binary.NativeEndian.Uint64(value[:]))
	}
	return total, nil
}
