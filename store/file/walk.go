package file

import (
	"bytes"
	"fmt"

	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// walk calls visit with the records of r, in the order of r, until visit returns false.
func (t *tree) walk(r keyrange.Range, visit func(key, stored []byte) (more bool)) error {
	if r.Reverse {
		return t.walkDown(r, visit)
	}
	strict, err := t.asStrict()
	if err != nil {
		return err
	}
	at, err := strict.seek([]byte(r.From))
	if err != nil {
		return err
	}
	i, _ := at.search([]byte(r.From))
	for last := []byte(nil); ; i = 0 {
		for ; i < at.count; i++ {
			key := at.key(i)
			if last != nil && bytes.Compare(key, last) <= 0 {
				return fmt.Errorf("page %d: element %d is out of order", at.id, i)
			}
			last = key
			if r.To != "" && string(key) >= r.To {
				return nil
			}
			stored, _ := at.value(i)
			if !visit(key, stored) {
				return nil
			}
		}
		if at.to == nil || r.To != "" && string(at.to) >= r.To {
			return nil
		}
		if at, err = t.nextLeaf(&at); err != nil {
			return err
		}
	}
}

// walkDown is walk in descending order.
func (t *tree) walkDown(r keyrange.Range, visit func(key, stored []byte) (more bool)) error {
	at, i, err := t.seekEnd(r.To)
	if err != nil {
		return err
	}
	for last := []byte(nil); ; i = at.count {
		for i--; i >= 0; i-- {
			key := at.key(i)
			if last != nil && bytes.Compare(key, last) >= 0 {
				return fmt.Errorf("page %d: element %d is out of order", at.id, i)
			}
			last = key
			if string(key) < r.From {
				return nil
			}
			stored, _ := at.value(i)
			if !visit(key, stored) {
				return nil
			}
		}
		if at.from == nil || string(at.from) <= r.From {
			return nil
		}
		if at, err = t.previousLeaf(&at); err != nil {
			return err
		}
	}
}

// seekEnd returns the leaf with the greatest keys that are smaller than to, and the index after the last of these keys.
// If to is empty, the leaf is the last one of the bucket.
func (t *tree) seekEnd(to string) (at leafSpan, i int, err error) {
	strict, err := t.asStrict()
	if err != nil {
		return at, 0, err
	}
	if to == "" {
		at, err = strict.seekBefore(nil)
		return at, at.count, err
	}
	if at, err = strict.seekBefore([]byte(to)); err != nil {
		return at, 0, err
	}
	if i, _ = at.search([]byte(to)); i == at.count && at.to != nil {
		_, err = t.nextLeaf(&at) // no leaf may be missing between at and to
	}
	return at, i, err
}

// nextLeaf returns the leaf after at. It returns an error if the leaf does not begin where at ends.
func (t *tree) nextLeaf(at *leafSpan) (leafSpan, error) {
	next, err := t.seek(at.to)
	if err == nil && !bytes.Equal(next.from, at.to) {
		err = fmt.Errorf("page %d does not follow on page %d", next.id, at.id)
	}
	return next, err
}

// previousLeaf returns the leaf before at. It returns an error if the leaf does not end where at begins.
func (t *tree) previousLeaf(at *leafSpan) (leafSpan, error) {
	next, err := t.seekBefore(at.from)
	if err == nil && !bytes.Equal(next.to, at.from) {
		err = fmt.Errorf("page %d does not go before page %d", next.id, at.id)
	}
	return next, err
}
