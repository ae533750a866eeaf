package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/conveyor-go/conveyor/store"
	storememory "github.com/conveyor-go/conveyor/store/memory"
)

// recordedOp is one write of a run. Its key does not contain the name of the run.
type recordedOp struct {
	key    []string // the parts of the key between the places of the name
	value  []byte
	remove bool
}

// keyFor returns the key of the write for another run.
func (o recordedOp) keyFor(run string) string { return strings.Join(o.key, run) }

// recordCommits returns what Conveyor commits for one run of five steps.
func recordCommits(ctx context.Context) ([][]recordedOp, error) {
	rec := &recorder{Store: storememory.New()}
	if err := rec.recordRun(ctx); err != nil {
		return nil, fmt.Errorf("record a run: %w", err)
	}
	return rec.commits, nil
}

// recorder is a store that records what is committed to it.
type recorder struct {
	store.Store

	mu      sync.Mutex // guards commits
	commits [][]recordedOp
}

// recordRun executes one run with an engine on the recorder.
func (r *recorder) recordRun(ctx context.Context) error {
	s, err := openEngine(ctx, r, 1, func(string, int) {})
	if err != nil {
		return err
	}
	r.reset()
	run, err := s.apply(ctx, "run-0")
	if err == nil {
		run, err = s.engine.Wait(ctx, run.ID)
	}
	if err != nil {
		return err
	}
	if err := s.close(ctx); err != nil { // no commit follows, so commits can be read without mu
		return err
	}
	r.removeNames(run.ID, run.Resource.Name)
	return nil
}

func (r *recorder) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	var writes []recordedOp
	for _, op := range ops {
		if op.Writes() {
			writes = append(writes, recordedOp{key: []string{op.Key()}, value: bytes.Clone(op.Value()), remove: op.Removes()})
		}
	}
	r.mu.Lock()
	r.commits = append(r.commits, writes)
	r.mu.Unlock()
	return r.Store.Commit(ctx, ops...)
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits = nil
}

// removeNames removes names from the keys.
func (r *recorder) removeNames(names ...string) {
	for _, ops := range r.commits {
		for i := range ops {
			key := ops[i].key[0]
			for _, name := range names {
				key = strings.ReplaceAll(key, name, "\x00")
			}
			ops[i].key = strings.Split(key, "\x00")
		}
	}
}
