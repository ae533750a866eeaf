package file_test

import (
	"syscall"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

// limitMemory makes a process that takes ever more memory die of it, before the machine does.
func limitMemory() {
	if !testenv.Race { // which takes terabytes of addresses
		_ = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: 4 << 30, Max: 4 << 30})
	}
}
