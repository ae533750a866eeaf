package main

import (
	"context"
	"os"
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) {
	superviseIfAsked()
	if os.Getenv(childMain) != "" {
		main()
	}
	if os.Getenv(childLedger) != "" {
		os.Exit(child(context.Background()))
	}
	testenv.Main(m)
}
