package memory

import (
	"slices"
	"sort"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// tree is an ordered set of records, one for each key: a B-tree cut off below its root.
//
// One sorted slice of a million records would move half of them at each insertion. Cut into leaves, an insertion
// moves part of one leaf, and now and then, when a leaf is full and is split, part of the slice of leaves. At a million
// records the latter has about ten thousand pointers, so a third level would gain nothing.
//
// Invariant: no leaf is empty, none is longer than leafSize, and keys ascend within a leaf and from leaf to leaf.
type tree struct {
	leaves []*leaf
}

type leaf struct {
	records []store.Record
}

const leafSize = 128

func (t *tree) get(key string) (store.Record, bool) {
	l, i, found := t.find(key)
	if !found {
		return store.Record{}, false
	}
	return t.leaves[l].records[i], true
}

func (t *tree) put(rec store.Record) {
	l, i, found := t.find(rec.Key)
	switch {
	case found:
		t.leaves[l].records[i] = rec
	case len(t.leaves) == 0:
		t.leaves = append(t.leaves, newLeaf(rec))
	case len(t.leaves[l].records) < leafSize:
		t.leaves[l].records = slices.Insert(t.leaves[l].records, i, rec)
	case i == leafSize:
		// Past the end of a full leaf: keys that grow with time leave full leaves behind, not half-empty ones.
		t.leaves = slices.Insert(t.leaves, l+1, newLeaf(rec))
	default:
		t.split(l)
		t.put(rec)
	}
}

func (t *tree) remove(key string) {
	l, i, found := t.find(key)
	if !found {
		return
	}
	t.leaves[l].records = slices.Delete(t.leaves[l].records, i, i+1)
	switch {
	case len(t.leaves[l].records) == 0:
		t.leaves = slices.Delete(t.leaves, l, l+1)
	case l+1 < len(t.leaves):
		t.merge(l)
	}
}

// appendRange appends the first records of r in its order, at most limit of them. Their values are those of the tree.
func (t *tree) appendRange(page []store.Record, r keyrange.Range, limit int) []store.Record {
	if r.Reverse {
		return t.appendReverse(page, r, limit)
	}
	l, i, _ := t.find(r.From)
	for ; l < len(t.leaves); l, i = l+1, 0 {
		for _, rec := range t.leaves[l].records[i:] {
			if len(page) == limit || r.To != "" && rec.Key >= r.To {
				return page
			}
			page = append(page, rec)
		}
	}
	return page
}

func (t *tree) appendReverse(page []store.Record, r keyrange.Range, limit int) []store.Record {
	l, i := len(t.leaves)-1, 0
	if r.To != "" {
		l, i, _ = t.find(r.To)
	} else if l >= 0 {
		i = len(t.leaves[l].records)
	}
	for l >= 0 && l < len(t.leaves) {
		for i--; i >= 0; i-- {
			rec := t.leaves[l].records[i]
			if len(page) == limit || rec.Key < r.From {
				return page
			}
			page = append(page, rec)
		}
		if l--; l >= 0 {
			i = len(t.leaves[l].records)
		}
	}
	return page
}

// find returns the leaf that holds key or would hold it, its place there, and whether it is there. The place is that
// of the first greater key of the leaf, which may be past its end.
func (t *tree) find(key string) (l, i int, found bool) {
	// The last leaf that does not begin after key.
	l = sort.Search(len(t.leaves), func(i int) bool { return t.leaves[i].records[0].Key > key }) - 1
	if l < 0 {
		return 0, 0, false
	}
	records := t.leaves[l].records
	i = sort.Search(len(records), func(i int) bool { return records[i].Key >= key })
	return l, i, i < len(records) && records[i].Key == key
}

// split moves the upper half of a leaf to a new leaf after it.
func (t *tree) split(l int) {
	lower := t.leaves[l].records
	upper := newLeaf(lower[leafSize/2:]...)
	clear(lower[leafSize/2:])
	t.leaves[l].records = lower[:leafSize/2]
	t.leaves = slices.Insert(t.leaves, l+1, upper)
}

// merge joins a leaf and the next one if the result is at most half full, so that a store that has shrunk is not made
// of nearly empty leaves, and a removal followed by an insertion does not split again what was just joined.
func (t *tree) merge(l int) {
	a, b := t.leaves[l], t.leaves[l+1]
	if len(a.records)+len(b.records) > leafSize/2 {
		return
	}
	a.records = append(a.records, b.records...)
	t.leaves = slices.Delete(t.leaves, l+1, l+2)
}

// newLeaf returns a leaf with room for as many records as it will ever have, so that it never moves to grow.
func newLeaf(records ...store.Record) *leaf {
	return &leaf{records: append(make([]store.Record, 0, leafSize), records...)}
}
