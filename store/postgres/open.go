package postgres

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/conveyor-go/conveyor/store/internal/gate"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
)

// poolSize is the largest number of connections of a pool of the store's own: one commits, and the others read.
const poolSize = 8

// Open opens the store in the schema of a database, with a pool of connections of its own. [Migrate] must have made the tables.
//
// The DSN is one of pgx: a URL or keywords, with settings of the pool such as pool_max_conns, which is 8 by default. Unless the
// DSN says otherwise, the pool connects to the primary server alone, and works behind pgbouncer in transaction mode.
//
// Open returns these errors:
//
//   - ErrVersion if the tables are missing or are of another format. Migrate makes them.
//   - ErrUnavailable if the server could not be reached within [Options].Patience.
//   - The cause of ctx if ctx has ended.
//   - The error of the server if it refuses something, such as the password.
func Open(ctx context.Context, dsn string, opts Options) (*Store, error) {
	config, err := poolConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	s, err := OpenPool(ctx, pool, opts)
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.ownPool = true
	return s, nil
}

// poolConfig returns the settings of a pool of the store's own.
func poolConfig(dsn string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(dsn, "pool_max_conns") {
		config.MaxConns = poolSize
	}
	if !strings.Contains(dsn, "default_query_exec_mode") {
		// A prepared statement belongs to a connection of the server, and pgbouncer may give another one to each transaction.
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		if config.ConnConfig.StatementCacheCapacity > 0 {
			config.AfterConnect = noteDirect
		}
	}
	onlyPrimary(&config.ConnConfig.Config, dsn)
	return config, nil
}

// onlyPrimary has a connection lead to the primary, unless the DSN says otherwise: a standby would answer reads with what was.
func onlyPrimary(config *pgconn.Config, dsn string) {
	if config.ValidateConnect == nil && !strings.Contains(dsn, "target_session_attrs") {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
}

// OpenPool is [Open] with a pool that the caller has, and closes after the store. Calls of the store wait while all
// connections of the pool are taken.
func OpenPool(ctx context.Context, pool *pgxpool.Pool, opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s := &Store{statements: newStatements(opts.Schema), opts: opts, pool: pool, wakes: newWakes(), tail: newTail(), settling: make(chan struct{}, 1), grace: grace, gate: gate.New()}
	s.breaks.began = time.Now()
	if !opts.NoNotify {
		s.channel, s.teller = channelOf(opts.Schema), newTeller()
	}
	_, _ = rand.Read(s.writer[:])
	s.queue = groupcommit.New(groupcommit.Options{MaxBytes: maxBytes, MaxOps: maxOps, Disjoint: true}, s.commitGroup)
	if err := s.read(ctx, s.begin); err != nil {
		s.gate.Close(func() {})
		return nil, err
	}
	if s.teller != nil {
		s.gate.Go(s.tellNowAndThen)
	}
	if opts.PruneEvery > 0 {
		s.gate.Go(s.pruneNowAndThen)
	}
	return s, nil
}

// channelOf returns the channel of the notifications of a schema.
func channelOf(schema string) string {
	return fmt.Sprintf("conveyor_%x", sha256.Sum256([]byte(schema)))[:30]
}

// begin checks the format of the tables and reads the clock of the server.
func (s *Store) begin(ctx context.Context) (err error) {
	var found *int
	table := pgx.Identifier{s.opts.Schema, "version"}.Sanitize()
	err = s.row(ctx, "select pg_catalog.max(version) from "+table, nil, &found)
	switch {
	case code(err) == "42P01" || code(err) == "3F000":
		return fmt.Errorf("%w: there is no %s: call Migrate: %w", ErrVersion, table, err)
	case err != nil:
		return err
	case found == nil || *found < format:
		return fmt.Errorf("%w: schema %s is of an older format than %d: call Migrate", ErrVersion, s.opts.Schema, format)
	case *found > format:
		return fmt.Errorf("%w: schema %s is of format %d, and this program knows none above %d", ErrVersion, s.opts.Schema, *found, format)
	}
	s.clock, err = s.readClock(ctx)
	return err
}
