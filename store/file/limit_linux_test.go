package file_test

import (
	"syscall"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

// limitMemory limits the memory of this process. A process that needs more and more memory dies before it harms the
// machine.
func limitMemory() {
	if !testenv.Race { // which takes terabytes of addresses
		_ = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: 4 << 30, Max: 4 << 30})
	}
}
