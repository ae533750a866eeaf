package main

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	superviseIfAsked()
	if os.Getenv(childMain) != "" {
		main()
	}
	if os.Getenv(childLedger) != "" {
		os.Exit(child(context.Background()))
	}
	goleak.VerifyTestMain(m)
}
