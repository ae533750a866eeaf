package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// A workspace is the folder in which steps leave files for later steps. It has a folder for each run, and in the folder of
// a run a folder for each step.
type workspace struct{ root string }

// fill makes the folder of the step of req, and returns its path. First, fn fills a new, empty folder. Then the new folder
// is renamed and replaces the folder that an earlier attempt can have left. The folder of a step is therefore complete
// whenever it exists, even if the process is killed. A program that is still running after its parent was killed writes
// to a folder that nobody reads.
//
// fn must not keep the path that it is given, because the folder is renamed.
func (w workspace) fill(req *conveyor.Request, fn func(dir string) error) (string, error) {
	run := filepath.Join(w.root, req.Run)
	if err := os.MkdirAll(run, 0o700); err != nil {
		return "", err
	}
	unfinished := "." + req.Step.ID + "~" // a step id has no tilde
	if err := removeLeftovers(run, unfinished); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(run, unfinished)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	if err := fn(fresh); err != nil {
		return "", err
	}
	dir := filepath.Join(run, req.Step.ID)
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("remove what an earlier attempt left: %w", err)
	}
	return dir, os.Rename(fresh, dir)
}

// removeLeftovers removes the unfinished folders of killed attempts. An unfinished folder that cannot be removed now is
// removed with the folder of the run.
func removeLeftovers(run, prefix string) error {
	entries, err := os.ReadDir(run)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) {
			os.RemoveAll(filepath.Join(run, entry.Name()))
		}
	}
	return err
}

// prune removes the folder of each run for which keep returns false.
func (w workspace) prune(keep func(run string) (bool, error)) error {
	runs, err := os.ReadDir(w.root)
	if os.IsNotExist(err) {
		return nil
	}
	for _, run := range runs {
		wanted, err := keep(run.Name())
		if err == nil && !wanted {
			err = os.RemoveAll(filepath.Join(w.root, run.Name()))
		}
		if err != nil {
			return err
		}
	}
	return err
}
