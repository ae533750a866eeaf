// Package keyrange turns a query into the interval of keys that a store has to walk.
package keyrange

import (
	"iter"

	"github.com/conveyor-go/conveyor/store"
)

// Range is the interval of keys from From, which belongs to it, to To, which does not. An empty To means no end.
type Range struct {
	From, To string
	Reverse  bool // walk from To down to From
}

// Of returns the keys that q selects, before its limit.
func Of(q store.Query) Range {
	r := Range{From: q.Prefix, To: successor(q.Prefix), Reverse: q.Reverse}
	if q.After == "" {
		return r
	}
	if r.Reverse {
		r.To = lower(r.To, q.After)
	} else {
		r.From = max(r.From, next(q.After))
	}
	return r
}

// After returns what is left of r once key has been walked past.
func (r Range) After(key string) Range {
	if r.Reverse {
		r.To = key
	} else {
		r.From = next(key)
	}
	return r
}

// Empty reports whether no key can lie in r.
func (r Range) Empty() bool { return r.To != "" && r.From >= r.To }

// Fetch appends to page the first records of r, in its order, at most limit of them. The records belong to the caller,
// their values perhaps not; see [Pages].
type Fetch func(page []store.Record, r Range, limit int) ([]store.Record, error)

// The number of records in the first page of a list and in the largest one. Pages double in between, so that a list
// that is left early has fetched little, and a long one spends little on finding its place again.
const (
	FirstPage   = 16
	LargestPage = 256
)

// Pages yields the records that q selects, fetched page by page, so that a store holds no lock and no transaction
// while the body of the loop runs. It asks alive before each record, and ends with its error.
//
// own turns a fetched value into one that the caller of List may keep; nil means that it already is.
func Pages(q store.Query, alive func() error, fetch Fetch, own func([]byte) []byte) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		var (
			rest = Of(q)
			left = q.Limit
			size = FirstPage
			page []store.Record
		)
		if err := alive(); err != nil {
			yield(store.Record{}, err)
			return
		}
		for !rest.Empty() {
			if q.Limit > 0 {
				size = min(size, left)
			}
			var err error
			if page, err = fetch(page[:0], rest, size); err == nil && len(page) == 0 {
				return
			}
			for _, rec := range page {
				if gone := alive(); gone != nil {
					yield(store.Record{}, gone)
					return
				}
				if own != nil {
					rec.Value = own(rec.Value)
				}
				if !yield(rec, nil) {
					return
				}
			}
			if err != nil {
				yield(store.Record{}, err)
				return
			}
			left -= len(page)
			if len(page) < size || q.Limit > 0 && left <= 0 {
				return
			}
			rest = rest.After(page[len(page)-1].Key)
			size = min(2*size, LargestPage)
		}
	}
}

// successor returns the smallest string that is greater than every string with the prefix, or "" if there is none.
func successor(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return ""
}

// next returns the smallest string that is greater than key.
func next(key string) string { return key + "\x00" }

// lower returns the smaller of two ends, "" being the greatest.
func lower(a, b string) string {
	if a == "" || b != "" && b < a {
		return b
	}
	return a
}
