package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// sharedContender is one way to execute runs of five steps on a PostgreSQL.
type sharedContender struct {
	name, module string
	does         string // what it records, and in which transactions
	open         func(ctx context.Context, flight int) (session, error)
}

// contenders are the contenders in the order of the tables. Conveyor is the first.
func (d *database) contenders() []sharedContender {
	return []sharedContender{{
		name: "Conveyor, store/postgres", module: "github.com/conveyor-go/conveyor/store/postgres",
		does: "The resource, the run, and the start and outcome of each step; six commits a run, those that come at the same time in one transaction",
		open: func(ctx context.Context, flight int) (session, error) { return startEngine(ctx, d, flight) },
	}, {
		name: "DBOS Transact", module: "github.com/dbos-inc/dbos-transact-golang",
		does: "The workflow with its input, the outcome of each step (RunAsStep), and that of the workflow; a transaction for each",
		open: d.openDBOS,
	}, {
		name: "River", module: "github.com/riverqueue/river",
		does: "A job with five resumable steps, each set in a transaction before the next begins; the last completes the job; jobs are fetched together",
		open: d.openRiver,
	}}
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

func (d *database) openDBOS(ctx context.Context, _ int) (session, error) {
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

func (d *database) openRiver(ctx context.Context, flight int) (session, error) {
	schema := d.newName()
	if _, err := d.conn.Exec(ctx, "create schema "+schema); err != nil {
		return nil, err
	}
	pool, err := d.pool(ctx, schema)
	if err != nil {
		return nil, err
	}
	return startRiver(ctx, riverpgxv5.New(pool), river.Config{FetchPollInterval: 100 * time.Millisecond}, flight, func(string, int) {}, riverDB[pgx.Tx]{
		begin:    pool.Begin,
		commit:   func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
		rollback: func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) },
		close:    func() error { pool.Close(); return nil },
	})
}
