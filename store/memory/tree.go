package memory

import (
	"slices"
	"sort"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// tree keeps records in the order of their keys: a B-tree cut off below its root.
//
// One sorted slice of a million records would move half of them at each insertion. Cut into leaves, an insertion moves
// part of one leaf and, when a full leaf is split, part of the slice of leaves. At a million records the latter has
// some thousands of entries, so a third level would gain nothing.
//
// Invariant: no leaf is longer than leafSize, and its keys ascend, none before its from and all before that of the
// next leaf; the first leaf's from is empty.
type tree struct {
	leaves []leaf
}

type leaf struct {
	// The search among the leaves reads these alone. A removal leaves it as it is: it need not be a key in use.
	from    string
	records []*store.Record
}

const leafSize = 256

// insert adds a record whose key the tree does not have.
func (t *tree) insert(rec *store.Record) {
	if len(t.leaves) == 0 {
		t.leaves = []leaf{{}}
	}
	l, i := t.find(rec.Key)
	if len(t.leaves[l].records) == leafSize {
		t.split(l, i)
		l, i = t.find(rec.Key)
	}
	t.leaves[l].records = slices.Insert(t.leaves[l].records, i, rec)
}

// remove takes out the record of a key that the tree has.
func (t *tree) remove(key string) {
	l, i := t.find(key)
	t.leaves[l].records = slices.Delete(t.leaves[l].records, i, i+1)
	if l+1 < len(t.leaves) {
		t.merge(l)
	}
}

// appendRange appends the first records of r in its order until the page has limit of them.
func (t *tree) appendRange(page []store.Record, r keyrange.Range, limit int) []store.Record {
	if r.Reverse {
		return t.appendReverse(page, r, limit)
	}
	l, i := t.find(r.From)
	for ; l < len(t.leaves); l, i = l+1, 0 {
		for _, rec := range t.leaves[l].records[i:] {
			if len(page) == limit || r.To != "" && rec.Key >= r.To {
				return page
			}
			page = append(page, *rec)
		}
	}
	return page
}

func (t *tree) appendReverse(page []store.Record, r keyrange.Range, limit int) []store.Record {
	for l, i := t.findEnd(r.To); l >= 0; l, i = l-1, leafSize {
		records := t.leaves[l].records
		for _, rec := range slices.Backward(records[:min(i, len(records))]) {
			if len(page) == limit || rec.Key < r.From {
				return page
			}
			page = append(page, *rec)
		}
	}
	return page
}

// find returns the leaf where key belongs, and its place there: that of the first key which is not smaller.
func (t *tree) find(key string) (l, i int) {
	// The leaf before the first one that begins after key. The first begins before every key, so there is one, unless
	// the tree is empty.
	l = sort.Search(len(t.leaves), func(l int) bool { return t.leaves[l].from > key }) - 1
	if l < 0 {
		return 0, 0
	}
	records := t.leaves[l].records
	return l, sort.Search(len(records), func(i int) bool { return records[i].Key >= key })
}

// findEnd is find for the end of a range, where an empty string stands for the end of the tree.
func (t *tree) findEnd(to string) (l, i int) {
	if to == "" || len(t.leaves) == 0 {
		return len(t.leaves) - 1, leafSize
	}
	return t.find(to)
}

// split makes two of a full leaf, so that a record can be inserted at its place i.
func (t *tree) split(l, i int) {
	at := leafSize / 2
	if i == leafSize {
		// Keys that grow with time are inserted at the end; they leave full leaves behind, not half-empty ones.
		at = leafSize - 1
	}
	old := t.leaves[l].records
	t.leaves[l].records = slices.Clone(old[:at])
	upper := leaf{from: old[at].Key, records: append(make([]*store.Record, 0, leafSize), old[at:]...)}
	t.leaves = slices.Insert(t.leaves, l+1, upper)
}

// merge joins a leaf and the next one if together they are at most half full, so that a store that has shrunk is not
// made of empty leaves, and the next insertion does not split again what was just joined.
func (t *tree) merge(l int) {
	a, b := &t.leaves[l], &t.leaves[l+1]
	if len(a.records)+len(b.records) > leafSize/2 {
		return
	}
	a.records = append(a.records, b.records...)
	t.leaves = slices.Delete(t.leaves, l+1, l+2)
}
