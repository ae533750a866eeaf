package memory_test

import (
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
	"github.com/conveyor-go/conveyor/store/storetest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Harness{Open: func(testing.TB) store.Store { return memory.New() }})
}
