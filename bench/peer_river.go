package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

var riverSQLite = contender{
	name:    "River, SQLite",
	class:   durable,
	module:  "github.com/riverqueue/river",
	records: "a job with five resumable steps, each set in a transaction before the next begins; the last completes the job",
	syncs:   sqliteSyncs + "; a transaction for the insert, one for each step, and one for all jobs fetched together",
	open:    openRiver,
}

// riverSession inserts a job for each run. Its workers are in this process.
type riverSession struct {
	client *river.Client[*sql.Tx]
	db     *sql.DB
	ended  *sync.Map // chan struct{} by the id of the run; the worker closes it
}

// Kind implements [river.JobArgs].
func (spec) Kind() string { return "five" }

type riverWorker struct {
	river.WorkerDefaults[spec]
	do    step
	db    *sql.DB
	ended *sync.Map
}

func openRiver(ctx context.Context, at site) (session, error) {
	db, err := openSQLite(ctx, filepath.Join(at.dir, "river.db"), 1) // as the driver of River recommends
	if err != nil {
		return nil, err
	}
	s := &riverSession{db: db, ended: &sync.Map{}}
	driver := riversqlite.New(db)
	quiet := slog.New(slog.DiscardHandler)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{do: at.do, db: db, ended: s.ended})
	s.client, err = river.NewClient(driver, &river.Config{
		// The driver implements notifications by polling a table every 50 ms. Polling the jobs at the shortest interval that
		// is allowed is faster.
		FetchCooldown:     river.FetchCooldownMin,
		FetchPollInterval: river.FetchPollIntervalMin,
		PollOnly:          true,
		JobTimeout:        -1,
		Logger:            quiet,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: max(at.flight, 2)}},
		Workers:           workers,
	})
	if err != nil {
		return nil, err
	}
	return s, s.client.Start(context.WithoutCancel(ctx))
}

func (s *riverSession) run(ctx context.Context, id string) error {
	ended := make(chan struct{})
	s.ended.Store(id, ended)
	if _, err := s.client.Insert(ctx, newSpec(id), nil); err != nil {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *riverSession) close(ctx context.Context) error {
	return errors.Join(s.client.Stop(ctx), s.db.Close())
}

// Work implements [river.Worker].
func (w *riverWorker) Work(ctx context.Context, job *river.Job[spec]) error {
	var failed error
	for n := 1; n <= steps; n++ {
		river.ResumableStep(ctx, fmt.Sprint("step ", n), nil, func(ctx context.Context) error {
			w.do(job.Args.ID, n)
			failed = w.record(ctx, job, n == steps)
			return failed
		})
	}
	if failed != nil {
		return failed
	}
	if ended, ok := w.ended.LoadAndDelete(job.Args.ID); ok {
		close(ended.(chan struct{}))
	}
	return nil
}

// record commits that a step has ended. With the last step, it also commits that the job has ended.
func (w *riverWorker) record(ctx context.Context, job *river.Job[spec], last bool) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect after a commit
	if _, err := river.ResumableSetStepTx[*riversqlite.Driver](ctx, tx, job); err != nil {
		return err
	}
	if last {
		if _, err := river.JobCompleteTx[*riversqlite.Driver](ctx, tx, job); err != nil {
			return err
		}
	}
	return tx.Commit()
}
