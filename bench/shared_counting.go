package main

import (
	"context"
	"iter"
	"sync/atomic"

	"github.com/conveyor-go/conveyor/store"
)

// counting counts the calls of stores.
type counting struct{ commits, ops, reads atomic.Int64 }

func (n *counting) reset() {
	n.commits.Store(0)
	n.ops.Store(0)
	n.reads.Store(0)
}

func (n *counting) copy() *counting {
	c := &counting{}
	c.commits.Store(n.commits.Load())
	c.ops.Store(n.ops.Load())
	c.reads.Store(n.reads.Load())
	return c
}

// on returns a shared store whose calls are counted.
func (n *counting) on(st store.Store) store.Store { return counted{st, n} }

type counted struct {
	store.Store
	n *counting
}

// Limits implements [store.Limited].
func (c counted) Limits() store.Limits { return store.LimitsOf(c.Store) }

// Watch implements [store.Watcher].
func (c counted) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return c.Store.(store.Watcher).Watch(ctx, prefix, after)
}

// Get implements [store.Store].
func (c counted) Get(ctx context.Context, key string) (store.Record, error) {
	c.n.reads.Add(1)
	return c.Store.Get(ctx, key)
}

// List implements [store.Store].
func (c counted) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	c.n.reads.Add(1)
	return c.Store.List(ctx, q)
}

// Commit implements [store.Store].
func (c counted) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	c.n.commits.Add(1)
	c.n.ops.Add(int64(len(ops)))
	return c.Store.Commit(ctx, ops...)
}
