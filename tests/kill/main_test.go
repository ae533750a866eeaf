// Package kill_test kills real processes on the file store, and takes away their disk.
package kill_test

import (
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
