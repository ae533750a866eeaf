package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
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
	if signal.Ignored(syscall.SIGHUP) { // as nohup has it; the programs that the tests start would ignore it too
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	testenv.Main(m)
}
