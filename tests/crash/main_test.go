// Package crash_test stops the engine at each commit and read, and compares what follows with a reference that never stopped.
package crash_test

import (
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
