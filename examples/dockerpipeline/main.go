// Command dockerpipeline clones a git repository, tests it, builds it, makes an OCI image of it and pushes that image
// to a registry: the pipeline of pipeline.json, for the resource of resource.json.
//
//	go run ./examples/dockerpipeline
//
// builds a small sample repository and pushes to a registry of its own on this machine, without a network. With
// flags it does the same for real ones:
//
//	go run ./examples/dockerpipeline -repo https://github.com/you/app -image registry.example.com/you/app:v1
//
// It may be stopped at any point, by Ctrl-C or by kill -9: started again with the same -data and the same other flags,
// it goes on with the step in which it was, and repeats no finished one. Started again after the end, it builds again.
//
// Read main.go for the flags, app.go for how an engine is put together, build.go for the resource and for what the
// steps tell each other, and then one file for each driver.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

//go:embed pipeline.json
var pipelineDocument []byte

//go:embed resource.json
var resourceDocument []byte

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitSucceeded = 0
	exitFailed    = 1 // the run failed or was interrupted, or there was no way to begin
	exitUsage     = 2
)

// usageError is a fault of the command line, or of a document that it names.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a, err := parse(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return exitSucceeded
	}
	if err == nil {
		err = a.run(ctx, stdout)
	}
	if err == nil {
		return exitSucceeded
	}
	fmt.Fprintln(stderr, "dockerpipeline:", printableLines(err.Error()))
	if errors.As(err, new(usageError)) {
		fmt.Fprintln(stderr, "See dockerpipeline -help.")
		return exitUsage
	}
	return exitFailed
}
