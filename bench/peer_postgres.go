package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// sharedContender is one way to execute runs of five steps on a PostgreSQL.
type sharedContender struct {
	name, module string
	does         string // what it records, and in which transactions
	open         func(ctx context.Context, d *database, flight int) (session, error)
}

// sharedContenders are the contenders in the order of the tables. Conveyor is the first.
var sharedContenders = []sharedContender{
	{
		name: "Conveyor, store/postgres", module: "github.com/conveyor-go/conveyor/store/postgres",
		does: "The resource, the run, and the start and outcome of each step; six commits a run, those that come at the same time in one transaction",
		open: func(ctx context.Context, d *database, flight int) (session, error) {
			schema, err := d.newSchema(ctx)
			if err != nil {
				return nil, err
			}
			st, err := d.store(ctx, schema)
			if err != nil {
				return nil, err
			}
			return openEngine(ctx, st, flight, func(string, int) {})
		},
	},
	{
		name: "DBOS Transact", module: "github.com/dbos-inc/dbos-transact-golang",
		does: "The workflow with its input, the outcome of each step (RunAsStep), and that of the workflow; a transaction for each",
		open: openDBOSPostgres,
	},
	{
		name: "River", module: "github.com/riverqueue/river",
		does: "A job with five resumable steps, each set in a transaction before the next begins; the last completes the job; jobs are fetched together",
		open: openRiverPostgres,
	},
}

// connections is the size of the pools of the peers. More were not faster: the server has the processors of this machine.
const connections = 32

func (d *database) pool(ctx context.Context, schema string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(d.server.DSN())
	if err != nil {
		return nil, err
	}
	config.MaxConns = connections
	config.ConnConfig.RuntimeParams["search_path"] = schema
	return pgxpool.NewWithConfig(ctx, config)
}

func openDBOSPostgres(ctx context.Context, d *database, _ int) (session, error) {
	schema := d.newName()
	pool, err := d.pool(ctx, "public")
	if err != nil {
		return nil, err
	}
	c, err := dbos.NewContext(ctx, dbos.Config{
		AppName: "bench", SystemDBPool: pool, DatabaseSchema: schema, Logger: slog.New(slog.DiscardHandler), ApplicationVersion: "1",
	})
	if err != nil {
		return nil, err
	}
	s := &dbosSession{ctx: c, workflow: dbosWorkflow(func(string, int) {}), closeDB: func() error { pool.Close(); return nil }}
	dbos.RegisterWorkflow(c, s.workflow, dbos.WithWorkflowName("five"))
	return s, dbos.Launch(c)
}

// riverPostgresSession inserts a job for each run. Its workers are in this process.
type riverPostgresSession struct {
	client *river.Client[pgx.Tx]
	pool   *pgxpool.Pool
	ended  *sync.Map // chan struct{} by the id of the run; the worker closes it
}

type riverPostgresWorker struct {
	river.WorkerDefaults[spec]
	pool  *pgxpool.Pool
	ended *sync.Map
}

func openRiverPostgres(ctx context.Context, d *database, flight int) (session, error) {
	schema := d.newName()
	if _, err := d.conn.Exec(ctx, "create schema "+schema); err != nil {
		return nil, err
	}
	pool, err := d.pool(ctx, schema)
	if err != nil {
		return nil, err
	}
	s := &riverPostgresSession{pool: pool, ended: &sync.Map{}}
	driver, quiet := riverpgxv5.New(pool), slog.New(slog.DiscardHandler)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverPostgresWorker{pool: pool, ended: s.ended})
	s.client, err = river.NewClient(driver, &river.Config{
		FetchCooldown: river.FetchCooldownMin, FetchPollInterval: 100 * time.Millisecond, // it is notified besides
		JobTimeout: -1, Logger: quiet, Workers: workers,
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: max(flight, 2)}},
	})
	if err != nil {
		return nil, err
	}
	return s, s.client.Start(context.WithoutCancel(ctx))
}

func (s *riverPostgresSession) run(ctx context.Context, id string) error {
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

func (s *riverPostgresSession) close(ctx context.Context) error {
	err := s.client.Stop(ctx)
	s.pool.Close()
	return err
}

// Work implements [river.Worker].
func (w *riverPostgresWorker) Work(ctx context.Context, job *river.Job[spec]) error {
	var failed error
	for n := 1; n <= steps; n++ {
		river.ResumableStep(ctx, fmt.Sprint("step ", n), nil, func(ctx context.Context) error {
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
func (w *riverPostgresWorker) record(ctx context.Context, job *river.Job[spec], last bool) (err error) {
	tx, err := w.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if rollback := tx.Rollback(ctx); !errors.Is(rollback, pgx.ErrTxClosed) && !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, rollback)
		}
	}()
	if _, err := river.ResumableSetStepTx[*riverpgxv5.Driver](ctx, tx, job); err != nil {
		return err
	}
	if last {
		if _, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}
