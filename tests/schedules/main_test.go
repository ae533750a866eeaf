// Package schedules_test plays random programs in random orders, and has witnesses say whether all went by the rules.
package schedules_test

import (
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
