package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// TestListsOverBothTablesAreThoseOfOneStore makes the same commits in a store in memory, and compares lists.
func TestListsOverBothTablesAreThoseOfOneStore(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	s, reference := open(t, server.dsn, opts), memory.New()
	keys := []string{"a", "a~", "}", "}\xff", "~", "~\x00", "~a", "~a/1", "~a/2", "~~", "~\xff", "\x7f", "\x7fa", "\xff", "\xff~"}
	points := append([]string{"", "b", "~a/", "~b", "~\xff\xff"}, keys...)
	random := rand.New(rand.NewPCG(1, 2))
	pick := func() string { return points[random.IntN(len(points))] }
	for range testenv.Some(t, 25, 300) {
		var ops []store.Op
		for _, key := range keys {
			switch random.IntN(4) {
			case 0:
				ops = append(ops, store.Put(key, fmt.Append(nil, random.Int())))
			case 1:
				ops = append(ops, store.Delete(key))
			}
		}
		_, err := s.Commit(t.Context(), ops...)
		require.NoError(t, err)
		_, err = reference.Commit(t.Context(), ops...)
		require.NoError(t, err)
		for range 10 {
			q := store.Query{Prefix: pick(), After: pick(), Limit: random.IntN(len(keys)), Reverse: random.IntN(2) == 0}
			if random.IntN(2) == 0 {
				q.Prefix = ""
			}
			if random.IntN(2) == 0 {
				q.After = ""
			}
			require.Equal(t, list(t, reference, q), list(t, s, q), "%+v", q)
		}
	}
}

func list(t testing.TB, s store.Store, q store.Query) (found []string) {
	t.Helper()
	for rec, err := range s.List(t.Context(), q) {
		require.NoError(t, err)
		found = append(found, rec.Key+"="+string(rec.Value))
	}
	return found
}

func TestTransientRecordsAreInATableOfTheirOwn(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	s := open(t, server.dsn, opts)
	rev, err := s.Commit(t.Context(), store.Put("a", nil), store.Put("~b", nil), store.Put("~c", nil), store.Put("d", nil))
	require.NoError(t, err)
	_, err = s.Commit(t.Context(), store.Delete("~b").If(rev), store.Put("a", nil).If(rev), store.Check("~c", rev), store.Check("d", rev))
	require.NoError(t, err)
	for _, op := range []store.Op{store.Check("~b", rev), store.Check("~c", 0), store.Put("~c", nil).IfAbsent(), store.Delete("d").IfAbsent()} {
		_, err = s.Commit(t.Context(), op)
		require.ErrorIs(t, err, store.ErrConflict)
		_, err = s.Commit(t.Context(), op, store.Put("e", nil))
		require.ErrorIs(t, err, store.ErrConflict)
		require.ErrorContains(t, err, fmt.Sprintf("%q has revision", op.Key()))
	}
	conn := connect(t, server.dsn)
	for table, want := range map[string]int{"records": 2, "transient": 1} {
		var n int
		require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from "+pgx.Identifier{opts.Schema, table}.Sanitize()).Scan(&n))
		require.Equal(t, want, n, table)
	}
}

// TestAListReadsLargeValuesAMegabyteAtATime also has a value that no page has room for.
func TestAListReadsLargeValuesAMegabyteAtATime(t *testing.T) {
	server := needServer(t)
	s := open(t, server.dsn, newSchema(t, server.dsn))
	var want []string
	for i, size := range []int{300 << 10, 600 << 10, 500 << 10, 2 << 20, 1, 1 << 20, 0, 700 << 10} {
		key := fmt.Sprint("k", i)
		want = append(want, key)
		_, err := s.Commit(t.Context(), store.Put(key, make([]byte, size)))
		require.NoError(t, err)
	}
	for _, reverse := range []bool{false, true} {
		var got []string
		for rec, err := range s.List(t.Context(), store.Query{Reverse: reverse}) {
			require.NoError(t, err)
			if reverse {
				got = append([]string{rec.Key}, got...)
			} else {
				got = append(got, rec.Key)
			}
		}
		require.Equal(t, want, got)
	}
}
