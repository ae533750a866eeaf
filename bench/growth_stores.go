package main

import (
	"context"
	"path/filepath"

	"github.com/conveyor-go/conveyor/store"
	storefile "github.com/conveyor-go/conveyor/store/file"
	storememory "github.com/conveyor-go/conveyor/store/memory"
)

// storeKind is a kind of store that is measured.
type storeKind struct {
	name string
	open func(ctx context.Context, dir string) (store.Store, error)
	// reopen closes a store and opens it again, as the next process does. It returns a store in memory unchanged.
	reopen func(ctx context.Context, st store.Store, dir string) (store.Store, error)
}

var storeKinds = []storeKind{
	{
		name: "store/memory",
		open: func(context.Context, string) (store.Store, error) { return storememory.New(), nil },
		reopen: func(_ context.Context, st store.Store, _ string) (store.Store, error) {
			return st, nil
		},
	},
	{
		name: "store/file",
		open: openFile,
		reopen: func(ctx context.Context, st store.Store, dir string) (store.Store, error) {
			if err := st.Close(); err != nil {
				return nil, err
			}
			return openFile(ctx, dir)
		},
	},
}

func openFile(ctx context.Context, dir string) (store.Store, error) {
	return storefile.Open(ctx, filepath.Join(dir, "conveyor.db"), storefile.Options{})
}
