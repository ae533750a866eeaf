package memory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

func TestTreeAgreesWithASortedMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var tr tree
	model := map[string]store.Revision{}
	for i := range 20_000 {
		key := fmt.Sprintf("%c/%05d", 'a'+rnd.IntN(3), rnd.IntN(8_000))
		// Grow for the first half, shrink for the second, so that leaves are split and merged.
		if shrinking := i > 10_000; rnd.IntN(4) == 0 != shrinking {
			tr.remove(key)
			delete(model, key)
		} else {
			tr.put(store.Record{Key: key, Revision: store.Revision(i)})
			model[key] = store.Revision(i)
		}
	}
	requireSound(t, &tr)

	var want []string
	for key, rev := range model {
		rec, found := tr.get(key)
		require.True(t, found)
		require.Equal(t, rev, rec.Revision)
		want = append(want, key)
	}
	slices.Sort(want)
	require.Equal(t, want, walk(&tr, store.Query{}, len(want)+1))

	of := slices.DeleteFunc(slices.Clone(want), func(k string) bool { return !strings.HasPrefix(k, "b/") })
	require.Equal(t, of, walk(&tr, store.Query{Prefix: "b/"}, len(want)))
	require.Equal(t, of[:77], walk(&tr, store.Query{Prefix: "b/"}, 77))
	slices.Reverse(of)
	require.Equal(t, of, walk(&tr, store.Query{Prefix: "b/", Reverse: true}, len(want)))
	require.Equal(t, of[200:300], walk(&tr, store.Query{Prefix: "b/", Reverse: true, After: of[199]}, 100))
	slices.Reverse(want)
	require.Equal(t, want, walk(&tr, store.Query{Reverse: true}, len(want)))

	for _, key := range want {
		tr.remove(key)
	}
	require.Empty(t, tr.leaves)
}

func TestTreeFillsItsLeavesWhenKeysGrow(t *testing.T) {
	var tr tree
	for i := range 10 * leafSize {
		tr.put(store.Record{Key: fmt.Sprintf("%06d", i)})
	}
	requireSound(t, &tr)
	require.Len(t, tr.leaves, 10)
}

func requireSound(t *testing.T, tr *tree) {
	t.Helper()
	last := ""
	for _, l := range tr.leaves {
		require.NotEmpty(t, l.records)
		require.LessOrEqual(t, len(l.records), leafSize)
		for _, rec := range l.records {
			require.Greater(t, rec.Key, last)
			last = rec.Key
		}
	}
}

func walk(tr *tree, q store.Query, limit int) []string {
	var keys []string
	for _, rec := range tr.appendRange(nil, keyrange.Of(q), limit) {
		keys = append(keys, rec.Key)
	}
	return keys
}
