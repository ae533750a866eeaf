package main

import (
	"context"
	"database/sql"
	"fmt"

	"modernc.org/sqlite"
)

// sqliteParams are the parameters with which SQLite syncs each transaction before it acknowledges the transaction.
const sqliteParams = "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(60000)&_txlock=immediate"

// sqliteSyncs describes the syncs of SQLite with sqliteParams.
const sqliteSyncs = "SQLite, WAL, synchronous=FULL, with fdatasync: one sync of the log a transaction, and two or three " +
	"more about every thousand pages, when the log is copied into the database"

// openSQLite opens a database for a peer, and checks that the database syncs as sqliteSyncs describes.
func openSQLite(ctx context.Context, path string, connections int) (*sql.DB, error) {
	if err := useFdatasync(); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+path+sqliteParams)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, checkSQLite(ctx, db)
}

// useFdatasync makes SQLite sync with fdatasync if the system has it. An SQLite that is built with its own configuration
// does the same. fdatasync costs less than fsync and gives the same guarantee.
func useFdatasync() error {
	if _, err := sqlite.Fdatasync(true); err != nil && err != sqlite.ErrFdatasyncUnavailable {
		return err
	}
	return nil
}

// checkSQLite returns an error unless db syncs a transaction before it acknowledges the transaction.
func checkSQLite(ctx context.Context, db *sql.DB) error {
	var (
		journal     string
		synchronous int
	)
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return err
	}
	if err := db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return err
	}
	if journal != "wal" || synchronous != 2 {
		return fmt.Errorf("sqlite: journal_mode is %s and synchronous is %d, not wal and 2", journal, synchronous)
	}
	return nil
}
