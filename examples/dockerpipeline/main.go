// Command dockerpipeline clones a git repository, tests it, builds it, makes an OCI image of it and pushes the image to a
// registry. The steps are those of pipeline.json. The resource is that of resource.json.
//
//	go run ./examples/dockerpipeline
//
// This command builds a small sample repository, and pushes the image to a registry that the program itself serves on
// this machine. It needs no network. With flags, the program does the same for a real repository and a real registry:
//
//	go run ./examples/dockerpipeline -repo https://github.com/you/app -image registry.example.com/you/app:v1
//
// The program can be stopped at any point, by Ctrl-C or by kill -9, and leaves no process of a step behind. The first signal
// lets the step under way end, and the second one ends the program at once. On macOS, a process that has left its process
// group can stay; on Windows, a process that a program starts in its very first moment (see supervisor_otherunix.go and
// group_windows.go).
//
// A program that is started again with the same -data and the same other flags continues with the step that was interrupted,
// and repeats no finished step. With other flags it says what it has found, and asks: see -resume. A program that is started
// again after the end builds again.
//
// What is published is what was committed: the tests run in a copy of the clone, and the settings of the user reach neither
// the clone nor the program that is built. The same commit, flags and Go toolchain give the same image.
//
// Read flags.go for the flags, app.go for how an engine is set up, build.go for the resource and for the outputs that
// steps pass on to later steps, and then one file for each driver: git_cloner.go, test_runner.go, builder.go,
// image_generator.go and image_pusher.go. The programs that steps run are in command.go, git.go and golang.go, and what the
// terminal shows is in follow.go and progress.go.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

//go:embed pipeline.json
var pipelineDocument []byte

//go:embed resource.json
var resourceDocument []byte

func main() {
	superviseIfAsked()
	os.Exit(run(untilSignal(context.Background()), os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes. A program that the signal n has stopped exits with 128+n.
const (
	exitSucceeded = 0
	exitFailed    = 1 // the run failed, or could not be started
	exitUsage     = 2
)

// usageError is an error in the command line, or in a document that the command line names.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a, err := parse(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return exitSucceeded
	}
	if err == nil {
		a.in = questioner(stdout)
		err = a.run(ctx, stdout)
	}
	if err == nil {
		return exitSucceeded
	}
	fmt.Fprintln(stderr, "dockerpipeline:", printableLines(err.Error()))
	code := exitCodeOf(ctx, err)
	if code == exitUsage {
		fmt.Fprintln(stderr, "See dockerpipeline -help.")
	}
	return code
}
