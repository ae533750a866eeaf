// Package rules_test holds the engine to the numbered rules of its design, and to the scenarios in testdata/transcripts.
package rules_test

import (
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
