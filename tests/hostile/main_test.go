// Package hostile_test runs the engine in bad company: drivers, watchers, records and numbers that no engine should meet.
package hostile_test

import (
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
