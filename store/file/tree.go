package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"go.etcd.io/bbolt"
)

// tree reads the keys of a bucket in a snapshot and checks every page on its way.
//
// bbolt's own cursor trusts the pages. If a page says that it is its own child, the cursor descends until the process
// has no memory left, and recover does not help against that. If a page has lost elements, their keys are absent. Open
// inspects every file, but not the leaves of a large file. Damage in the leaves that Open has not read, and damage that
// comes after Open, is detected here: each page on the way must be what the page above says. This concerns the number
// and the kind of the page, the place of its first element, and the range of its keys.
type tree struct {
	pages []byte // all pages in use, as the file is mapped
	size  uint64 // of a page
	root  treePage

	// strict makes a search check all elements of each page on its way. Only a strict search proves that a key is
	// absent. A key that is found needs no such check.
	strict bool
	// checked has the pages whose elements have been checked in this write transaction. bbolt splits a page that it
	// changes into its elements and writes them anew, so damaged elements would be written too. Nil for a read
	// transaction.
	checked map[uint64]bool
	// removes says that the transaction is going to remove the key. bbolt can then merge the page with its siblings.
	removes bool
}

// leafSpan is a leaf with its range of keys. The leaf has all keys of the bucket from from, which is included, up to
// to, which is excluded. Nil means that the range has no end on this side.
type leafSpan struct {
	treePage
	from, to []byte
}

// maxDepth is greater than the depth of any tree that fits on a disk.
const maxDepth = 48

// bucketTree returns the tree of a bucket in the snapshot of tx. The tree is strict if tx is a write transaction. It
// must not be used after tx has ended.
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

// asStrict returns a strict copy of the tree.
func (t *tree) asStrict() (tree, error) {
	strict := *t
	strict.strict = true
	if t.strict {
		return strict, nil
	}
	return strict, strict.checkElements(&strict.root)
}

// page returns a page together with its overflow pages.
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

// checkFree checks the header of the list of free pages that transaction txn has written. bbolt frees as many pages as
// the header says, and then overwrites them.
func (t *tree) checkFree(txn uint64) error {
	id := native.Uint64(t.pages[txn%2*t.size+pageHeader+32:])
	end := uint64(len(t.pages)) / t.size
	if id < 2 || id >= end {
		return fmt.Errorf("page %d is outside of the file", id)
	}
	head := t.pages[id*t.size:]
	count, more := uint64(native.Uint16(head[10:])), uint64(native.Uint32(head[12:]))
	if count == 0xffff {
		count = 1 + native.Uint64(head[pageHeader:]) // the count itself is in the list too
	}
	// The list can have spare pages: bbolt allocates its pages before it removes them from the list.
	filled, most := pageHeader+8*count, pageHeader+8*(count+more+2)
	if native.Uint64(head) != id || native.Uint16(head[8:]) != kindFree || more >= end-id ||
		filled > (1+more)*t.size || more*t.size > most {
		return errors.New("the list of free pages is damaged")
	}
	return nil
}

// seek returns the leaf whose range has the key.
func (t *tree) seek(key []byte) (leafSpan, error) { return t.descend(key, false) }

// seekBefore returns the leaf with the greatest keys that are smaller than key. If key is nil, it returns the last
// leaf.
func (t *tree) seekBefore(key []byte) (leafSpan, error) { return t.descend(key, true) }

// descend goes from the root to the leaf for key: the leaf of seekBefore if before is set, and the leaf of seek
// otherwise.
func (t *tree) descend(key []byte, before bool) (leafSpan, error) {
	at := leafSpan{treePage: t.root}
	var first []byte // the key that the first element of the page must have
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

// childFor returns the index of the element through which seek goes on from a branch, or seekBefore if before is set.
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

// checkSiblings checks child i of the page above, and the siblings next to it. bbolt can merge the child with them when
// it removes a key. The siblings must be of the same kind, given by leaf.
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

// checkElements checks that the elements of a page are in place and their keys in order.
func (t *tree) checkElements(p *treePage) error {
	if t.checked[p.id] {
		return nil
	}
	at, last := p.firstKey(), []byte(nil)
	for i := range p.count {
		keyEnd, end, ok := p.extent(i, at)
		if !ok {
			return fmt.Errorf("page %d: %w", p.id, p.outOfPlace(i))
		}
		key := p.data[at:keyEnd]
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("page %d: element %d is out of order", p.id, i)
		}
		at, last = end, key
	}
	if t.checked != nil && p.id != 0 {
		t.checked[p.id] = true
	}
	return nil
}

// find returns the value of a key, or nil if it does not find the key. It returns an error if the element has other
// flags than wanted. If sure is set, find also confirms that a key which it does not find is absent. This costs a check
// of the other keys of the page.
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

// checkAbsent returns an error if it cannot confirm that the key is absent. The key is not at index i of its leaf,
// where it would have to be. checkAbsent checks all elements of the pages on the way to the leaf. It also checks that
// the record is not there under a damaged key, which would be at the same place. If the value is damaged too, nothing
// tells which key the record had.
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

// hasRecordOf reports whether element i has the record of key under another key of the same length. The checksum of the
// record includes its key, and so tells.
func (p *treePage) hasRecordOf(i int, key []byte) bool {
	stored, _ := p.value(i)
	return len(p.key(i)) == len(key) && len(stored) >= headerSize && binary.LittleEndian.Uint32(stored[1:]) == checksum(key, stored)
}
