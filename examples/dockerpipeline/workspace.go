package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// A workspace is where steps leave files for later steps: a folder for each run, in it one for each step.
type workspace struct{ root string }

// fill makes the folder of the step that req is for. fn fills a new, empty folder, which then takes the place of
// what an earlier attempt may have left. So whoever finds the folder finds all of it, whenever the process was
// killed, and a program that outlived its killed parent writes where nobody looks.
//
// fn must not keep the name it is given, as the folder is renamed.
func (w workspace) fill(req *conveyor.Request, fn func(dir string) error) (string, error) {
	run := filepath.Join(w.root, req.Run)
	if err := os.MkdirAll(run, 0o700); err != nil {
		return "", err
	}
	unfinished := "." + req.Step.ID + "~" // no id has a tilde
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

// removeLeftovers removes what an attempt that was killed had not finished. What cannot be removed yet goes with the
// folder of the run.
func removeLeftovers(run, prefix string) error {
	entries, err := os.ReadDir(run)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) {
			os.RemoveAll(filepath.Join(run, entry.Name()))
		}
	}
	return err
}

// prune removes the folders of all runs but those that keep wants.
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
