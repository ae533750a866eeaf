package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// format is the format of the tables. A change that an older program cannot live with raises it.
const format = 2

// ErrVersion reports that the tables of a store are missing, or are of another format than this program needs. If they are
// older, [Migrate] makes them.
var ErrVersion = errors.New("postgres: the tables are not those that this program needs")

//go:embed schema.sql
var schemaSQL string

// MigrationSQL returns the SQL that [Migrate] runs, for an administrator who runs it with psql. It is one transaction, and can
// be run again.
func MigrationSQL(opts Options) (string, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return "", err
	}
	schema := pgx.Identifier{opts.Schema}.Sanitize()
	return strings.NewReplacer(
		"{S}", schema, "{N}", literal(opts.Schema), "{L}", literal(schema+".records"), "{V}", strconv.Itoa(format),
	).Replace(schemaSQL), nil
}

// literal returns text as a literal of SQL.
func literal(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		quoted = "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// Migrate makes the schema of a store with its tables and functions, or brings them to the format that this program needs. It
// is one transaction: after an error nothing has changed. It can be called again, and by several programs at the same time.
//
// The role of the connection must be allowed to create in the schema, or to create the schema where there is none. [Open] needs
// no such rights: docs/postgres.md of the repository lists those it needs. Migrate returns [ErrVersion] if the tables are
// of a newer format.
func Migrate(ctx context.Context, dsn string, opts Options) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("postgres: migrate: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return MigrateConn(ctx, conn.PgConn(), opts)
}

// MigrateConn is [Migrate] with a connection that the caller has, such as the PgConn of one of a pool. The connection must
// not be in a transaction.
func MigrateConn(ctx context.Context, conn *pgconn.PgConn, opts Options) error {
	sql, err := MigrationSQL(opts)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql).ReadAll()
	if err == nil {
		return nil
	}
	if conn.TxStatus() != 'I' {
		_, _ = conn.Exec(context.WithoutCancel(ctx), "rollback").ReadAll()
	}
	if code(err) == codeNewer {
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	return fmt.Errorf("postgres: migrate: %w", err)
}
