// Package documents_test tests how documents and resources are read, checked and written, well-formed and hostile ones.
package documents_test

import (
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
