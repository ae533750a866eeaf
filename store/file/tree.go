package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"go.etcd.io/bbolt"
)

// tree reads the keys of a bucket in a snapshot, and takes nothing on trust.
//
// bbolt's own cursor believes what a page says. If one says that it is its own parent, it goes round until the process
// has no memory left, and no recover helps against that; if one has lost some elements, their keys are absent. A file of
// any size is inspected when it is opened, a large one not to the last page; but what damages it later, or in the part
// that was not read, is met here. So each page on the way has to be what the page above says: its number, its kind, the
// place of its first element, and the range of its keys.
type tree struct {
	pages []byte // of the whole file, as far as they are in use, as they are mapped
	size  uint64 // of a page
	root  treePage

	// Whether to look at all elements of the pages on a way, which a search among them relies on. A key that is found needs
	// no more than itself.
	strict bool
	// Before a transaction writes: the pages that were looked at so, for bbolt takes a page that it changes to pieces, and
	// writes what it finds. Nil for one that reads.
	checked map[uint64]bool
	// Whether the transaction is to remove the key, after which bbolt may merge its page with those on the sides.
	removes bool
}

// leafSpan is a leaf with the part of the bucket that it stands for. The leaf has all keys that the bucket has from one
// end up to the other, which is left out. Nil means no end.
type leafSpan struct {
	treePage
	from, to []byte
}

// maxDepth is more than a tree of all the pages in the world needs.
const maxDepth = 48

// bucketTree returns the tree of a bucket in the snapshot of tx.
func (s *Store) bucketTree(tx *bbolt.Tx, bucket string) (t tree, err error) {
	if tx.Writable() {
		t.strict, t.checked = true, map[uint64]bool{}
	}
	info := s.db.Info()
	t.size = uint64(info.PageSize)
	t.pages = unsafe.Slice(*(**byte)(unsafe.Pointer(&info.Data)), tx.Size())
	if t.root, err = t.page(uint64(tx.Cursor().Bucket().Root())); err != nil {
		return t, err
	}
	value, err := t.find([]byte(bucket), bucketFlag, true)
	if err != nil {
		return t, err
	}
	if value == nil {
		return t, fmt.Errorf("bucket %s is missing", bucket)
	}
	root, inline, err := parseBucket(value)
	switch {
	case err != nil:
		err = fmt.Errorf("bucket %s: %w", bucket, err)
	case root != 0:
		t.root, err = t.page(root)
	default:
		t.root = inline
	}
	if err == nil && t.strict {
		err = t.checkElements(&t.root)
	}
	return t, err
}

// asStrict returns the tree with strict set.
func (t *tree) asStrict() (tree, error) {
	strict := *t
	strict.strict = true
	if t.strict {
		return strict, nil
	}
	return strict, strict.checkElements(&strict.root)
}

// page returns a page with those that belong to it.
func (t *tree) page(id uint64) (treePage, error) {
	end := uint64(len(t.pages)) / t.size
	if id < 2 || id >= end {
		return treePage{}, fmt.Errorf("page %d is outside of the file", id)
	}
	data := t.pages[id*t.size:]
	more := uint64(native.Uint32(data[12:]))
	if native.Uint64(data) != id || more >= end-id {
		return treePage{}, fmt.Errorf("page %d has a damaged header", id)
	}
	p, err := parsePage(id, data[:(1+more)*t.size:(1+more)*t.size])
	if err == nil && uint64(p.filled()-1)/t.size != more {
		err = fmt.Errorf("page %d: %d bytes do not fill %d pages", id, p.filled(), 1+more)
	}
	return p, err
}

// checkFree looks at the head of the list of free pages that the transaction txn has left. bbolt gives up as many pages
// as it says there, and writes over them.
func (t *tree) checkFree(txn uint64) error {
	id := native.Uint64(t.pages[txn%2*t.size+pageHeader+32:])
	end := uint64(len(t.pages)) / t.size
	if id < 2 || id >= end {
		return fmt.Errorf("page %d is outside of the file", id)
	}
	head := t.pages[id*t.size:]
	count, more := uint64(native.Uint16(head[10:])), uint64(native.Uint32(head[12:]))
	if count == 0xffff {
		count = 1 + native.Uint64(head[pageHeader:]) // itself, and what it says
	}
	// bbolt takes the pages for the list before it takes them off the list.
	filled, most := pageHeader+8*count, pageHeader+8*(count+more+2)
	if native.Uint64(head) != id || native.Uint16(head[8:]) != kindFree || more >= end-id ||
		filled > (1+more)*t.size || more*t.size > most {
		return errors.New("the list of free pages is damaged")
	}
	return nil
}

// seek returns the leaf that the key belongs to.
func (t *tree) seek(key []byte) (leafSpan, error) { return t.descend(key, false) }

// seekBefore returns the leaf with the greatest keys that are smaller than key, or the last one if key is nil.
func (t *tree) seekBefore(key []byte) (leafSpan, error) { return t.descend(key, true) }

// childFor returns the element of a branch below which seek, or seekBefore, goes on.
func (p *treePage) childFor(key []byte, before bool) int {
	if before && key == nil {
		return p.count - 1
	}
	i, exact := p.search(key)
	if exact && !before {
		return i
	}
	return max(i-1, 0)
}

func (t *tree) descend(key []byte, before bool) (leafSpan, error) {
	at := leafSpan{treePage: t.root}
	var first []byte // what the first key of the page has to be
	for range maxDepth {
		if first != nil && (at.count == 0 || !bytes.Equal(at.key(0), first)) ||
			at.to != nil && bytes.Compare(at.key(at.count-1), at.to) >= 0 {
			return at, fmt.Errorf("page %d has keys of another", at.id)
		}
		if at.leaf {
			return at, nil
		}
		i := at.childFor(key, before)
		first = at.key(i)
		if i > 0 {
			at.from = first
		}
		if i+1 < at.count {
			at.to = at.key(i + 1)
			if bytes.Compare(first, at.to) >= 0 {
				return at, fmt.Errorf("page %d: element %d is out of order", at.id, i)
			}
		}
		next, err := t.page(at.child(i))
		if err == nil && t.strict {
			err = t.checkElements(&next)
		}
		if err == nil && t.removes {
			err = t.checkSiblings(&at.treePage, i, next.leaf)
		}
		if err != nil {
			return at, err
		}
		at.treePage = next
	}
	return at, errors.New("its pages go round in circles")
}

// checkSiblings looks at the pages on the sides of one that bbolt may take to pieces, with which it may be merged.
func (t *tree) checkSiblings(above *treePage, i int, leaf bool) error {
	for j := max(i-1, 0); j < min(i+2, above.count); j++ {
		id := above.child(j)
		if t.checked[id] {
			continue
		}
		side, err := t.page(id)
		if err == nil {
			err = t.checkElements(&side)
		}
		if err != nil {
			return err
		}
		if side.leaf != leaf || side.count == 0 || !bytes.Equal(side.key(0), above.key(j)) {
			return fmt.Errorf("page %d has keys of another", id)
		}
	}
	return nil
}

// checkElements looks at all elements of a page.
func (t *tree) checkElements(p *treePage) error {
	if t.checked[p.id] {
		return nil
	}
	end, last := p.firstKey(), []byte(nil)
	for i := range p.count {
		e, err := p.elementAt(i, end)
		if err != nil {
			return fmt.Errorf("page %d: %w", p.id, err)
		}
		if i > 0 && bytes.Compare(last, e.key) >= 0 {
			return fmt.Errorf("page %d: element %d is out of order", p.id, i)
		}
		end, last = e.end, e.key
	}
	if t.checked != nil && p.id != 0 {
		t.checked[p.id] = true
	}
	return nil
}

// find returns the value of a key, which has to have those flags, or nil if it is absent. To make sure of that costs a
// look at the other keys of the page, and is left out unless sure is set.
func (t *tree) find(key []byte, wanted uint32, sure bool) ([]byte, error) {
	at, err := t.seek(key)
	if err != nil {
		return nil, err
	}
	i, _ := at.search(key)
	if i < at.count && bytes.Equal(at.key(i), key) {
		value, flags := at.value(i)
		if flags != wanted {
			return nil, fmt.Errorf("%q is something else: flags %#x", string(key), flags)
		}
		return value, nil
	}
	if sure {
		err = t.checkAbsent(&at, i, key)
	}
	return nil, err
}

// checkAbsent makes sure that a key which is not at its place i of a leaf is nowhere. The pages that led there, and those on
// their sides, have to be in order; and the record may not be there under a damaged key, which is then still between the
// same others. (If its value is damaged too, there is no telling whose it was.)
func (t *tree) checkAbsent(at *leafSpan, i int, key []byte) error {
	if !t.strict {
		strict, err := t.asStrict()
		if err == nil {
			_, err = strict.seek(key)
		}
		if err != nil {
			return err
		}
	}
	for j := max(i-1, 0); j < min(i+1, at.count); j++ {
		if at.hasRecordOf(j, key) {
			return fmt.Errorf("record %q: its key is damaged", string(key))
		}
	}
	if i == at.count && at.to != nil {
		next, err := t.nextLeaf(at)
		if err == nil && next.hasRecordOf(0, key) {
			err = fmt.Errorf("record %q: its key is damaged", string(key))
		}
		return err
	}
	return nil
}

// hasRecordOf reports whether an element has the record of a key under another one of the same length.
func (p *treePage) hasRecordOf(i int, key []byte) bool {
	stored, _ := p.value(i)
	return len(p.key(i)) == len(key) && len(stored) >= headerSize && binary.LittleEndian.Uint32(stored[1:]) == checksum(key, stored)
}
