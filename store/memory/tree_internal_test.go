package memory

import (
	"fmt"
	"maps"
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
	model := map[string]struct{}{}
	for i := range 20_000 {
		key := fmt.Sprintf("%c/%05d", 'a'+rnd.IntN(3), rnd.IntN(8_000))
		// Grow for the first half, shrink for the second, so that leaves are split and merged.
		shrinking := i > 10_000
		_, found := model[key]
		switch remove := rnd.IntN(4) == 0 != shrinking; {
		case found && remove:
			tr.remove(key)
			delete(model, key)
		case !found && !remove:
			tr.insert(&store.Record{Key: key})
			model[key] = struct{}{}
		}
	}
	requireSound(t, &tr)

	want := slices.Sorted(maps.Keys(model))
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
	require.Empty(t, walk(&tr, store.Query{}, 1))
	require.Len(t, tr.leaves, 1)
}

func TestTreeFillsItsLeavesWhenKeysGrow(t *testing.T) {
	var tr tree
	for i := range 10 * leafSize {
		tr.insert(&store.Record{Key: fmt.Sprintf("%06d", i)})
	}
	requireSound(t, &tr)
	require.Len(t, tr.leaves, 11)
}

func requireSound(t *testing.T, tr *tree) {
	t.Helper()
	require.Empty(t, tr.leaves[0].from)
	last := ""
	for _, l := range tr.leaves {
		require.LessOrEqual(t, len(l.records), leafSize)
		require.True(t, l.from == "" || l.from > last)
		for _, rec := range l.records {
			require.GreaterOrEqual(t, rec.Key, l.from)
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
