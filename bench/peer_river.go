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
	"github.com/riverqueue/river/riverdriver"
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

func openRiver(ctx context.Context, at site) (session, error) {
	db, err := openSQLite(ctx, filepath.Join(at.dir, "river.db"), 1) // as the driver of River recommends
	if err != nil {
		return nil, err
	}
	// The driver implements notifications by polling a table every 50 ms. Polling the jobs at the shortest interval that
	// is allowed is faster.
	config := river.Config{FetchPollInterval: river.FetchPollIntervalMin, PollOnly: true}
	return startRiver(ctx, riversqlite.New(db), config, at.flight, at.do, riverDB[*sql.Tx]{
		begin:    func(ctx context.Context) (*sql.Tx, error) { return db.BeginTx(ctx, nil) },
		commit:   func(_ context.Context, tx *sql.Tx) error { return tx.Commit() },
		rollback: func(_ context.Context, tx *sql.Tx) error { return tx.Rollback() },
		close:    db.Close,
	})
}

// riverDB is a database as River's users have it. Tx is the type of its transactions.
type riverDB[Tx any] struct {
	begin            func(context.Context) (Tx, error)
	commit, rollback func(context.Context, Tx) error
	close            func() error
}

// riverSession inserts a job for each run. Its workers are in this process.
type riverSession[Tx any] struct {
	client *river.Client[Tx]
	db     riverDB[Tx]
	ended  *sync.Map // chan struct{} by the id of the run; the worker closes it
}

// Kind implements [river.JobArgs].
func (spec) Kind() string { return "five" }

type riverWorker[Driver riverdriver.Driver[Tx], Tx any] struct {
	river.WorkerDefaults[spec]
	do    step
	db    riverDB[Tx]
	ended *sync.Map
}

// startRiver makes the tables and starts a client. It completes config.
func startRiver[Driver riverdriver.Driver[Tx], Tx any](ctx context.Context, driver Driver, config river.Config, flight int, do step, db riverDB[Tx]) (session, error) {
	s := &riverSession[Tx]{db: db, ended: &sync.Map{}}
	config.Logger = slog.New(slog.DiscardHandler)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: config.Logger})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	config.Workers = river.NewWorkers()
	river.AddWorker(config.Workers, &riverWorker[Driver, Tx]{do: do, db: db, ended: s.ended})
	config.FetchCooldown, config.JobTimeout = river.FetchCooldownMin, -1
	config.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: max(flight, 2)}}
	if s.client, err = river.NewClient(driver, &config); err != nil {
		return nil, err
	}
	return s, s.client.Start(context.WithoutCancel(ctx))
}

func (s *riverSession[Tx]) run(ctx context.Context, id string) error {
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

func (s *riverSession[Tx]) close(ctx context.Context) error {
	return errors.Join(s.client.Stop(ctx), s.db.close())
}

// Work implements [river.Worker].
func (w *riverWorker[Driver, Tx]) Work(ctx context.Context, job *river.Job[spec]) error {
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
func (w *riverWorker[Driver, Tx]) record(ctx context.Context, job *river.Job[spec], last bool) error {
	tx, err := w.db.begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = w.db.rollback(ctx, tx) }() // no effect after a commit
	if _, err := river.ResumableSetStepTx[Driver](ctx, tx, job); err != nil {
		return err
	}
	if last {
		if _, err := river.JobCompleteTx[Driver](ctx, tx, job); err != nil {
			return err
		}
	}
	return w.db.commit(ctx, tx)
}
