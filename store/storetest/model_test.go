package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestMemoryAgreesWithAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := memory.New()
		compare(t, s, func() store.Store { return s })
	})
}

func TestFileAgreesWithAModel(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		require.NoError(t, err)
		open := func() store.Store {
			s, err := file.Open(context.Background(), filepath.Join(dir, "store.db"), file.Options{})
			require.NoError(t, err)
			return s
		}
		s := open()
		last := compare(t, s, func() store.Store {
			require.NoError(t, s.Close())
			s = open()
			return s
		})
		require.NoError(t, last.Close())
	})
}

// model is the simplest possible store: a map that is sorted for each list.
type model struct {
	records map[string]store.Record
	newest  store.Revision
}

func (m *model) commit(ops []store.Op) (store.Revision, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	writes := false
	for _, op := range ops {
		if !op.Holds(m.records[op.Key()].Revision) {
			return 0, store.ErrConflict
		}
		writes = writes || op.Writes()
	}
	if writes {
		m.newest++
	}
	for _, op := range ops {
		if op.Removes() {
			delete(m.records, op.Key())
		} else if op.Writes() {
			m.records[op.Key()] = store.Record{Key: op.Key(), Value: op.Value(), Revision: m.newest}
		}
	}
	return m.newest, nil
}

func (m *model) list(q store.Query) (recs []string) {
	keys := slices.Sorted(maps.Keys(m.records))
	if q.Reverse {
		slices.Reverse(keys)
	}
	for _, key := range keys {
		past := q.After == "" || !q.Reverse && key > q.After || q.Reverse && key < q.After
		if strings.HasPrefix(key, q.Prefix) && past && (q.Limit <= 0 || len(recs) < q.Limit) {
			recs = append(recs, printed(m.records[key]))
		}
	}
	return recs
}

func printed(rec store.Record) string {
	return fmt.Sprintf("%q %d %x", rec.Key, rec.Revision, rec.Value)
}

var (
	someKey = rapid.StringOfN(rapid.RuneFrom([]rune("ab/\x00\u00ff")), 1, 4, -1)
	anyKey  = rapid.StringOfN(rapid.RuneFrom([]rune("ab/\x00\u00ff")), 0, 3, -1)
	value   = rapid.SliceOfN(rapid.Byte(), 0, 3)
	// These values are so long that a few of them fill a page of a file.
	times = rapid.SampledFrom([]int{1, 1, 1, 500})
)

// compare makes the same calls on a store and on the model and compares the results. It returns the store that was
// opened last.
func compare(t *rapid.T, s store.Store, reopen func() store.Store) store.Store {
	ctx := context.Background()
	m := &model{records: map[string]store.Record{}}

	op := rapid.Custom(func(t *rapid.T) store.Op {
		key := someKey.Draw(t, "key")
		if len(m.records) > 0 && rapid.Bool().Draw(t, "existing") {
			key = rapid.SampledFrom(slices.Sorted(maps.Keys(m.records))).Draw(t, "key")
		}
		// Most conditions hold, so that most commits do something.
		rev := m.records[key].Revision
		if rapid.IntRange(0, 9).Draw(t, "wrong") == 0 {
			rev++
		}
		payload := []byte(strings.Repeat(string(value.Draw(t, "value")), times.Draw(t, "times")))
		return rapid.SampledFrom([]store.Op{
			store.Put(key, payload), store.Put(key, payload).If(rev), store.Delete(key), store.Delete(key).If(rev), store.Check(key, rev),
		}).Draw(t, "op")
	})
	query := rapid.Custom(func(t *rapid.T) store.Query {
		return store.Query{
			Prefix: anyKey.Draw(t, "prefix"), After: anyKey.Draw(t, "after"),
			Limit: rapid.IntRange(0, 3).Draw(t, "limit"), Reverse: rapid.Bool().Draw(t, "reverse"),
		}
	})

	t.Repeat(map[string]func(*rapid.T){
		"commit": func(t *rapid.T) {
			ops := rapid.SliceOfN(op, 0, 6).Draw(t, "ops")
			want, wantErr := m.commit(ops)
			got, err := s.Commit(ctx, ops...)
			require.Equal(t, want, got)
			require.Equal(t, wantErr == nil, err == nil)
			require.Equal(t, errors.Is(wantErr, store.ErrConflict), errors.Is(err, store.ErrConflict))
		},
		"get": func(t *rapid.T) {
			key := someKey.Draw(t, "key")
			rec, err := s.Get(ctx, key)
			if want, ok := m.records[key]; ok {
				require.NoError(t, err)
				require.Equal(t, printed(want), printed(rec))
			} else {
				require.ErrorIs(t, err, store.ErrNotFound)
			}
		},
		"list": func(t *rapid.T) {
			q := query.Draw(t, "query")
			require.Equal(t, m.list(q), listed(t, s, q))
		},
		"reopen": func(*rapid.T) { s = reopen() },
		"":       func(t *rapid.T) { require.Equal(t, m.list(store.Query{}), listed(t, s, store.Query{})) },
	})
	return s
}

func listed(t *rapid.T, s store.Store, q store.Query) (recs []string) {
	for rec, err := range s.List(context.Background(), q) {
		require.NoError(t, err)
		recs = append(recs, printed(rec))
	}
	return recs
}
