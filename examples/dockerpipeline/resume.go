package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// The values of -resume. Without a value, a run is resumed if the earlier start had the same flags, and the user is asked
// otherwise: a build that was stopped, and perhaps forgotten, must not be pushed by a start that is about something else.
const (
	resumeYes = "yes"
	resumeNo  = "no"
)

// settle says what earlier starts left unfinished, and returns the runs that are resumed when the engine is started. It
// cancels the others. The engine must not be started yet.
func (a *app) settle(ctx context.Context, e *conveyor.Engine, out io.Writer) (resumed, canceled []unfinished, err error) {
	left, err := a.unfinishedRuns(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	var answers []bool
	for _, u := range left { // nothing is changed before all is answered
		fmt.Fprintln(out, u)
		resume, err := a.resumes(ctx, u, out)
		if err != nil {
			return nil, nil, err
		}
		answers = append(answers, resume)
	}
	for i, u := range left {
		if answers[i] {
			resumed = append(resumed, u)
			continue
		}
		if err := e.Cancel(ctx, u.run.ID, "a later start did not resume it"); err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(out, "run %s is canceled\n", u.run.ID)
		canceled = append(canceled, u)
	}
	return resumed, canceled, nil
}

// resumes decides whether a run is resumed.
func (a *app) resumes(ctx context.Context, u unfinished, out io.Writer) (bool, error) {
	switch {
	case a.resume == resumeYes:
		return true, nil
	case a.resume == resumeNo:
		return false, nil
	case u.same:
		return true, nil
	case a.in == nil:
		return false, usageError{fmt.Errorf("run %s was started with other flags; say -resume=yes to finish it first, or "+
			"-resume=no to cancel it", u.run.ID)}
	}
	fmt.Fprint(out, "It was started with other flags. Finish it first? Otherwise it is canceled. [y/N] ")
	answer, err := readLine(ctx, a.in)
	return strings.HasPrefix(strings.ToLower(answer), "y"), err
}

// readLine reads a line, and returns the cause of ctx if ctx ends first. The goroutine that reads then ends with the process.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	answers := make(chan answer, 1) // the goroutine sends once; size 1: it waits for nobody
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		answers <- answer{line, err}
	}()
	select {
	case a := <-answers:
		return a.line, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// questioner returns the standard input if somebody who can answer reads out.
func questioner(out io.Writer) io.Reader {
	if isTerminal(out) && isTerminal(os.Stdin) {
		return os.Stdin
	}
	return nil
}

// ofBuild returns the run among left that is shown with the run of this start: that run itself, or a run that it waits for.
func (a *app) ofBuild(left []unfinished) unfinished {
	for _, u := range left {
		if u.run.Resource == a.build.Key() {
			return u
		}
	}
	return unfinished{}
}

// await waits until runs have ended.
func await(ctx context.Context, e *conveyor.Engine, runs []unfinished) error {
	for _, u := range runs {
		if _, err := e.Wait(ctx, u.run.ID); err != nil {
			return err
		}
	}
	return nil
}
