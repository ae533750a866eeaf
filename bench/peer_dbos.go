package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	_ "github.com/dbos-inc/dbos-transact-golang/dbos/driver/sqlite" // registers SQLite with dbos
)

var dbosSQLite = contender{
	name:    "DBOS Transact, SQLite",
	class:   durable,
	module:  "github.com/dbos-inc/dbos-transact-golang",
	records: "the workflow with its input, the outcome of each step (RunAsStep), and that of the workflow",
	syncs: sqliteSyncs + "; a transaction for the start, one for each step and one for the end, none shared " +
		"(its default is synchronous=NORMAL, which does not sync before it acknowledges)",
	open: openDBOS,
}

// dbosSession starts a workflow for each run, in this process.
type dbosSession struct {
	ctx      dbos.Context
	workflow dbos.Workflow[spec, bool]
	closeDB  func() error
}

func openDBOS(ctx context.Context, at site) (session, error) {
	connections := 8 // the default of DBOS
	if at.flight > 1 {
		connections = 2 // more connections are slower: they sleep while another connection has the lock
	}
	db, err := openSQLite(ctx, filepath.Join(at.dir, "dbos.db"), connections)
	if err != nil {
		return nil, err
	}
	c, err := dbos.NewContext(ctx, dbos.Config{
		AppName:            "bench",
		SQLiteSystemDB:     db,
		Logger:             slog.New(slog.DiscardHandler),
		ApplicationVersion: "1",
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &dbosSession{ctx: c, workflow: dbosWorkflow(at.do), closeDB: db.Close}
	dbos.RegisterWorkflow(c, s.workflow, dbos.WithWorkflowName("five"))
	return s, dbos.Launch(c)
}

func dbosWorkflow(do step) dbos.Workflow[spec, bool] {
	return func(ctx dbos.Context, wanted spec) (bool, error) {
		for n := 1; n <= steps; n++ {
			if _, err := dbos.RunAsStep(ctx, func(context.Context) (bool, error) {
				do(wanted.ID, n)
				return true, nil
			}); err != nil {
				return false, err
			}
		}
		return true, nil
	}
}

func (s *dbosSession) run(_ context.Context, id string) error {
	handle, err := dbos.RunWorkflow(s.ctx, s.workflow, newSpec(id), dbos.WithWorkflowID(id))
	if err != nil {
		return err
	}
	_, err = handle.GetResult(dbos.WithHandleTimeout(runTimeout))
	return err
}

func (s *dbosSession) close(context.Context) error {
	dbos.Shutdown(s.ctx, 10*time.Second)
	return s.closeDB()
}
