package main

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childLedger) != "" {
		os.Exit(child(context.Background()))
	}
	goleak.VerifyTestMain(m)
}
