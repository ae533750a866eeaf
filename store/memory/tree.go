package memory

import (
	"slices"
	"sort"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// tree keeps records in the order of their keys. It is a B-tree with two levels: one root and its leaves.
//
// An insertion into one sorted slice of a million records would move half of them. With leaves, an insertion moves a
// part of one leaf. When a full leaf is split, the insertion also moves a part of the slice of leaves. At a million
// records there are some thousands of leaves, so a third level would gain nothing.
//
// Invariant: a leaf has at most leafSize records, in ascending order of their keys. No key is smaller than the from of
// its leaf, and every key is smaller than the from of the next leaf. The from of the first leaf is empty.
type tree struct {
	leaves []leaf
}

type leaf struct {
	// The search for a leaf reads only this field. A removal does not change it, so from need not be the key of a
	// record.
	from    string
	records []*store.Record
}

const leafSize = 256

// insert adds a record. The tree must not have its key yet.
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

// remove removes the record of a key. The tree must have the key.
func (t *tree) remove(key string) {
	l, i := t.find(key)
	t.leaves[l].records = slices.Delete(t.leaves[l].records, i, i+1)
	if l+1 < len(t.leaves) {
		t.merge(l)
	}
}

// appendRange appends the first records of r, in the order of r, until the page has limit records.
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

// find returns the leaf l where key belongs, and its index i in the leaf: the index of the first key that is not
// smaller.
func (t *tree) find(key string) (l, i int) {
	// This is the leaf before the first leaf that begins after key. The first leaf begins before every key, so there is
	// such a leaf unless the tree is empty.
	l = sort.Search(len(t.leaves), func(l int) bool { return t.leaves[l].from > key }) - 1
	if l < 0 {
		return 0, 0
	}
	records := t.leaves[l].records
	return l, sort.Search(len(records), func(i int) bool { return records[i].Key >= key })
}

// findEnd is find for the end of a range. An empty string means the end of the tree.
func (t *tree) findEnd(to string) (l, i int) {
	if to == "" || len(t.leaves) == 0 {
		return len(t.leaves) - 1, leafSize
	}
	return t.find(to)
}

// split divides a full leaf in two, so that a record can be inserted at index i of the leaf.
func (t *tree) split(l, i int) {
	at := leafSize / 2
	if i == leafSize {
		// Keys that grow with time are inserted at the end. This split leaves full leaves behind them, not half-empty
		// ones.
		at = leafSize - 1
	}
	old := t.leaves[l].records
	t.leaves[l].records = slices.Clone(old[:at])
	upper := leaf{from: old[at].Key, records: append(make([]*store.Record, 0, leafSize), old[at:]...)}
	t.leaves = slices.Insert(t.leaves, l+1, upper)
}

// merge joins leaf l and the next leaf if they have at most half of leafSize records together. A store that has shrunk
// therefore does not consist of empty leaves, and the next insertion does not split the joined leaf again.
func (t *tree) merge(l int) {
	a, b := &t.leaves[l], &t.leaves[l+1]
	if len(a.records)+len(b.records) > leafSize/2 {
		return
	}
	a.records = append(a.records, b.records...)
	t.leaves = slices.Delete(t.leaves, l+1, l+2)
}
