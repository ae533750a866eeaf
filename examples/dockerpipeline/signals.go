package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// stopSignals are the signals that stop the program. A terminal that is closed sends SIGHUP. SIGPIPE is not one of them: it
// comes when nobody reads the output any more, and ends the program at once.
var stopSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// stopped is the cause of the end of a context that a signal has ended.
type stopped struct{ signal os.Signal }

func (s stopped) Error() string { return "stopped by signal: " + s.signal.String() }

// exitCode returns 128+n for the signal n, as a shell does.
func (s stopped) exitCode() int {
	if number, ok := s.signal.(syscall.Signal); ok {
		return 128 + int(number)
	}
	return exitFailed
}

// untilSignal returns a context that ends at the first signal. The second signal ends the program at once. A signal that is
// ignored when the program begins, as nohup does with SIGHUP, stays ignored.
func untilSignal(ctx context.Context) context.Context {
	ctx, stop := context.WithCancelCause(ctx)
	received := make(chan os.Signal, 2) // the signal package sends; size 2: it waits for nobody, and two signals count
	for _, sig := range stopSignals {
		if !signal.Ignored(sig) {
			signal.Notify(received, sig)
		}
	}
	go func() {
		stop(stopped{<-received})
		os.Exit(stopped{<-received}.exitCode())
	}()
	return ctx
}

// exitCodeOf returns the exit code of a start that has failed.
func exitCodeOf(ctx context.Context, err error) int {
	if by := (stopped{}); errors.As(context.Cause(ctx), &by) {
		return by.exitCode()
	}
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitFailed
}
