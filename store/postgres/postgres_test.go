package postgres_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
	"github.com/conveyor-go/conveyor/store/storetest"
)

var schemas struct {
	sync.Mutex
	made int
	free []string
	conn *pgx.Conn // that empties them
}

// newSchema returns options with a schema of the server that has empty tables, and that no other test uses meanwhile. Tests use a schema again, because making
// one takes longer than most tests.
func newSchema(t testing.TB, dsn string) postgres.Options {
	t.Helper()
	schemas.Lock()
	defer schemas.Unlock()
	opts := postgres.Options{PruneEvery: -1}
	if n := len(schemas.free); n > 0 {
		opts.Schema, schemas.free = schemas.free[n-1], schemas.free[:n-1]
		if schemas.conn == nil || schemas.conn.Ping(t.Context()) != nil { // the server has been restarted
			var err error
			schemas.conn, err = pgx.Connect(t.Context(), dsn)
			require.NoError(t, err)
		}
		for _, table := range []string{"records", "transient", "log"} {
			run(t, schemas.conn, "delete from "+pgx.Identifier{opts.Schema, table}.Sanitize())
		}
	} else {
		schemas.made++
		opts.Schema = fmt.Sprintf(`the "test" %d's`, schemas.made) // a name that needs quotes
		require.NoError(t, postgres.Migrate(t.Context(), dsn, opts))
	}
	t.Cleanup(func() {
		schemas.Lock()
		defer schemas.Unlock()
		schemas.free = append(schemas.free, opts.Schema)
	})
	return opts
}

// ownSchema returns options with a new schema of a server that one test has for itself.
func ownSchema(t testing.TB, dsn string) postgres.Options {
	t.Helper()
	opts := postgres.Options{Schema: `the "only" one`, PruneEvery: -1}
	require.NoError(t, postgres.Migrate(t.Context(), dsn, opts))
	return opts
}

func open(t testing.TB, dsn string, opts postgres.Options) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), dsn, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// handle is a store of the suite with what is needed to open it again.
type handle struct {
	*postgres.Store
	opts postgres.Options
}

// harness returns the functions of the suite for stores that open opens.
func harness(server server, set func(*postgres.Options), open func(t testing.TB, opts postgres.Options) *postgres.Store) storetest.Harness {
	again := func(t testing.TB, s store.Store) store.Store {
		opts := s.(*handle).opts
		return &handle{open(t, opts), opts}
	}
	return storetest.Harness{
		Open: func(t testing.TB) store.Store {
			opts := newSchema(t, server.dsn)
			set(&opts)
			return &handle{open(t, opts), opts}
		},
		Reopen: again,
		Join:   again,
		Forget: func(t testing.TB, s store.Store) {
			require.NoError(t, postgres.PruneAll(t.Context(), s.(*handle).Store))
		},
	}
}

// TestStoreKeepsTheContract has all handles use one pool, through a proxy that can lose answers.
func TestStoreKeepsTheContract(t *testing.T) {
	server := needServer(t)
	p := newProxy(t, server)
	pool := newPool(t, p.dsn+" pool_max_conns=16 default_query_exec_mode=cache_describe")
	h := harness(server, func(*postgres.Options) {}, func(t testing.TB, opts postgres.Options) *postgres.Store {
		s, err := postgres.OpenPool(t.Context(), pool, opts)
		require.NoError(t, err)
		return s
	})
	h.Lose = func(testing.TB, store.Store) (heal func()) { return p.Lose() }
	storetest.Run(t, h)
}

func TestStoreKeepsTheContractWithoutNotifications(t *testing.T) {
	testenv.Rare(t)
	server := needServer(t)
	pool := newPool(t, server.dsn) // which prepares statements
	storetest.Run(t, harness(server, func(opts *postgres.Options) { opts.NoNotify, opts.Poll = true, 20*time.Millisecond },
		func(t testing.TB, opts postgres.Options) *postgres.Store {
			s, err := postgres.OpenPool(t.Context(), pool, opts)
			require.NoError(t, err)
			return s
		}))
}

func TestStoreKeepsTheContractOnPoolsOfItsOwn(t *testing.T) {
	testenv.Rare(t)
	server := needServer(t)
	storetest.Run(t, harness(server, func(*postgres.Options) {}, func(t testing.TB, opts postgres.Options) *postgres.Store {
		return open(t, server.dsn, opts)
	}))
}

func newPool(t testing.TB, dsn string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}
