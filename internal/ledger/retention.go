package ledger

import (
	"time"

	"github.com/conveyor-go/conveyor/internal/record"
)

// Keep say what of the past is kept; see [Retention].
type Keep struct {
	Runs      int
	Age       time.Duration
	Revisions int
}

// RemoveBatch bounds the records that one commit removes.
const RemoveBatch = 256

// Leftovers lists the prefixes of those: checkpoints, and signals that nobody took.
func Leftovers(run string) []string {
	return []string{record.CheckpointPrefix + run + "/", record.SignalPrefix + run + "/"}
}
