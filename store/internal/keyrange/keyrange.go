// Package keyrange turns a query into the interval of keys that a store has to walk.
package keyrange

import (
	"iter"

	"github.com/conveyor-go/conveyor/store"
)

// Range is the interval of keys from From, which is included, to To, which is excluded. An empty To means no end.
type Range struct {
	From, To string
	Reverse  bool // walk from To down to From
}

// Of returns the range of the keys that q selects, without regard to its limit.
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

// after returns the part of r that comes after key in its order.
func (r Range) after(key string) Range {
	if r.Reverse {
		r.To = key
	} else {
		r.From = next(key)
	}
	return r
}

// empty reports whether no key can lie in r.
func (r Range) empty() bool { return r.To != "" && r.From >= r.To }

// Fetch appends to page the first records of r, in the order of r, and at most limit of them. It returns the page, and
// whether r may have more records. If Fetch returns an error, the page has the records that come before the fault.
type Fetch func(page []store.Record, r Range, limit int) (_ []store.Record, more bool, err error)

// The number of records in the first page of a list and in the largest page. The size doubles from page to page. A
// range that ends early has therefore fetched few records, and a long one rarely has to find its place again.
const (
	firstPage   = 16
	largestPage = 256
)

// Pages yields the records that q selects. It fetches them page by page, so a store holds no lock and no transaction
// while the body of the range runs. Pages calls alive before each record, and ends the sequence with the error that
// alive returns.
//
// own returns a copy of a fetched value that the caller of List owns. If own is nil, the caller owns the fetched value
// itself.
func Pages(q store.Query, alive func() error, fetch Fetch, own func([]byte) []byte) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		rest, left, size := Of(q), q.Limit, firstPage
		var page []store.Record
		for more := true; more; size = min(2*size, largestPage) {
			if q.Limit > 0 {
				size = min(size, left)
			}
			page = page[:0]
			err := alive()
			if err == nil {
				page, more, err = fetch(page, rest, size)
			}
			for _, rec := range page {
				if ended := alive(); ended != nil {
					err = ended
					break
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
			if len(page) > 0 {
				rest = rest.after(page[len(page)-1].Key)
			}
			left -= len(page)
			more = more && !rest.empty() && (q.Limit <= 0 || left > 0)
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

// lower returns the smaller of two ends of a range. The empty string is the greatest end.
func lower(a, b string) string {
	if a == "" || b != "" && b < a {
		return b
	}
	return a
}
