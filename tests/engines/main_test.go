// Package engines_test tests several engines on one shared store, in bubbles of testing/synctest.
package engines_test

import (
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
