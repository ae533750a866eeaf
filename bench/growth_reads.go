package main

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/conveyor-go/conveyor"
)

// pageSize is the number of resources or runs on a page of a list.
const pageSize = 100

func (g *grower) measureReads(ctx context.Context, size int, row *sizeRow) error {
	deep := growerName(int64(size) * 9 / 10)
	object, err := g.engine.Get(ctx, conveyor.Key{Type: "thing", Name: deep})
	if err != nil {
		return err
	}
	early, err := g.engine.Get(ctx, conveyor.Key{Type: "thing", Name: growerName(int64(size) / 10)})
	if err != nil {
		return err
	}
	pages := []struct {
		into *spread
		read func() error
	}{
		{&row.get, func() error { return g.getAny(ctx, size) }},
		{&row.listFirst, func() error { return g.listPage(ctx, "") }},
		{&row.listDeep, func() error { return g.listPage(ctx, deep) }},
		{&row.runsFirst, func() error { return g.runsPage(ctx, conveyor.RunFilter{}) }},
		{&row.runsDeep, func() error { return g.runsPage(ctx, conveyor.RunFilter{After: object.Status.Run}) }},
		{&row.runsNewest, func() error {
			return g.runsPage(ctx, conveyor.RunFilter{After: early.Status.Run, Newest: true})
		}},
	}
	for _, page := range pages {
		if *page.into, err = timed(page.read); err != nil {
			return err
		}
	}
	return nil
}

func (g *grower) getAny(ctx context.Context, size int) error {
	_, err := g.engine.Get(ctx, conveyor.Key{Type: "thing", Name: growerName(rand.Int64N(int64(size)))})
	return err
}

func (g *grower) listPage(ctx context.Context, after string) error {
	return readAll(g.engine.List(ctx, conveyor.ResourceFilter{Type: "thing", After: after, Limit: pageSize}))
}

func (g *grower) runsPage(ctx context.Context, f conveyor.RunFilter) error {
	f.Limit = pageSize
	return readAll(g.engine.Runs(ctx, f))
}

func readAll[T any](values iter.Seq2[T, error]) error {
	for _, err := range values {
		if err != nil {
			return err
		}
	}
	return nil
}

// timed calls do some hundred times, and returns the seconds that one call took.
func timed(do func() error) (spread, error) {
	const calls = 50
	var each []float64
	for range growthBlocks {
		start := time.Now()
		for range calls {
			if err := do(); err != nil {
				return spread{}, err
			}
		}
		each = append(each, time.Since(start).Seconds()/calls)
	}
	return spreadOf(each), nil
}
