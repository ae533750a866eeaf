// Package clock_test tests each feature of the engine by itself and together with the others, in bubbles of testing/synctest.
package clock_test

import (
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
