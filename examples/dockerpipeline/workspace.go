package main

import (
	"errors"
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
// whenever it exists, even if the process is killed.
//
// fn must not keep the path that it is given, because the folder is renamed.
func (w workspace) fill(req *conveyor.Request, fn func(dir string) error) (string, error) {
	dir := filepath.Join(w.root, req.Run, req.Step.ID)
	return dir, w.lend(req, func(fresh string) error {
		if err := fn(fresh); err != nil {
			return err
		}
		if err := removeAll(dir); err != nil {
			return fmt.Errorf("remove what an earlier attempt left: %w", err)
		}
		return os.Rename(fresh, dir)
	})
}

// lend calls fn with a new, empty folder, and removes the folder when fn has returned. It also removes the folders that
// were lent to earlier attempts of the step and were left by a kill. A folder that cannot be removed is no reason to fail;
// it is removed with the folder of the run.
func (w workspace) lend(req *conveyor.Request, fn func(dir string) error) error {
	run := filepath.Join(w.root, req.Run)
	if err := os.MkdirAll(run, 0o700); err != nil {
		return err
	}
	lent := "." + req.Step.ID + "~" // a step id has no tilde
	entries, err := os.ReadDir(run)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), lent) {
			removeAll(filepath.Join(run, entry.Name()))
		}
	}
	fresh, err := os.MkdirTemp(run, lent)
	if err != nil {
		return err
	}
	defer removeAll(fresh)
	return fn(fresh)
}

// prune removes the folder of each run for which keep returns false. It goes on after a folder that it cannot remove, and
// returns the errors of all such folders in left: they take room on the disk, and are in nobody's way. The error err is
// the error of keep, or of reading the workspace.
func (w workspace) prune(keep func(run string) (bool, error)) (left, err error) {
	runs, err := os.ReadDir(w.root)
	if os.IsNotExist(err) {
		return nil, nil
	}
	for _, run := range runs {
		wanted, err := keep(run.Name())
		if err != nil {
			return left, err
		}
		if !wanted {
			left = errors.Join(left, removeAll(filepath.Join(w.root, run.Name())))
		}
	}
	return left, err
}
