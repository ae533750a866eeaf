package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/conveyor-go/conveyor/store"
)

// inspector inspects a file before bbolt may write to it.
//
// bbolt puts a checksum on its two meta pages and on nothing else. On damaged pages bbolt panics, loops for ever,
// starts goroutines that panic, or reports that a key is absent. The inspector therefore reads the pages first. Its
// rules detect every flipped bit that matters: each byte of a page that has a meaning is checked against its
// neighbours, against the keys around it, or by the checksum of a record.
type inspector struct {
	file       io.ReaderAt
	readLeaves bool // read the leaves too, not only the pages that lead to them
	meta       meta
	used       []bool         // by page id: reached from the root, or free
	last       []byte         // the greatest key so far in the bucket that is being walked; nil at its start
	newest     store.Revision // of the store, as the file says
}

// inspect returns an error if a file of the given size is not a sound store. Without readLeaves it reads only the pages
// that lead to the records, which are about a hundredth of a large file, and not the records.
func inspect(f io.ReaderAt, size int64, readLeaves bool) error {
	in := &inspector{file: f, readLeaves: readLeaves}
	if err := in.readMetas(size); err != nil {
		return err
	}
	in.used = make([]bool, in.meta.end)
	in.used[0], in.used[1] = true, true

	buckets, err := in.readRoot()
	if err != nil {
		return err
	}
	owner, records := buckets[ownerBucket], buckets[recordsBucket]
	if owner == nil {
		return errors.New("written by another program: it has no record of a Conveyor store")
	}
	// The owner bucket is read first, so that a newer format is reported as such, whatever else it has changed.
	if err := in.readOwner(owner); err != nil {
		return fmt.Errorf("bucket %s: %w", ownerBucket, err)
	}
	if records == nil || len(buckets) != 2 {
		return errors.New("its buckets are not those of a Conveyor store")
	}
	if err := in.walkBucket(records, in.checkRecord); err != nil {
		return fmt.Errorf("bucket %s: %w", recordsBucket, err)
	}
	if err := in.readFree(); err != nil {
		return err
	}
	if !readLeaves {
		return nil // which overflow pages the unread leaves use is unknown
	}
	for id, used := range in.used {
		if !used {
			return fmt.Errorf("page %d is neither used nor free", id)
		}
	}
	return nil
}

// readMetas reads both meta pages. Both must be sound and belong together. bbolt is content with one sound meta page,
// and then goes on from the commit before the last one; but a store must not forget a commit that it has acknowledged.
func (in *inspector) readMetas(size int64) error {
	first, err := in.readMeta(0, size)
	if err != nil {
		return err
	}
	second, err := in.readMeta(first.pageSize, size)
	if err != nil {
		return err
	}
	if first.pageSize != second.pageSize || first.txn%2 != 0 || second.txn%2 != 1 {
		return errors.New("the two meta pages do not belong together")
	}
	in.meta = first
	switch {
	case second.txn == first.txn+1:
		in.meta = second
	case first.txn != second.txn+1:
		return errors.New("a commit is missing between the two meta pages")
	}
	m := in.meta
	switch {
	case m.end > uint64(size)/m.pageSize:
		return fmt.Errorf("file has %d bytes, and %d pages of %d bytes are in use", size, m.end, m.pageSize)
	case m.root < 2 || m.root >= m.end || m.free < 2 || m.free >= m.end:
		return errors.New("a meta page points outside of the file")
	}
	return nil
}

func (in *inspector) readMeta(at uint64, size int64) (meta, error) {
	buf := make([]byte, pageHeader+metaSize)
	if _, err := in.file.ReadAt(buf, int64(at)); err != nil {
		if errors.Is(err, io.EOF) {
			return meta{}, fmt.Errorf("file of %d bytes ends before its meta pages do", size)
		}
		return meta{}, err
	}
	return parseMeta(buf, at)
}

// readRoot returns the values of the buckets by their names.
func (in *inspector) readRoot() (map[string][]byte, error) {
	buckets := map[string][]byte{}
	err := in.walk(in.meta.root, nil, func(flags uint32, key, value []byte) error {
		if flags != bucketFlag || len(value) < bucketHeader {
			return fmt.Errorf("%q at the root is not a bucket", key)
		}
		buckets[string(key)] = bytes.Clone(value)
		return nil
	})
	return buckets, err
}

func (in *inspector) readOwner(bucket []byte) error {
	found := map[string][]byte{}
	err := in.walkBucket(bucket, func(flags uint32, key, value []byte) error {
		_, payload, err := decode(key, value)
		if err != nil || flags != 0 {
			return fmt.Errorf("record %q: %w", key, errDamaged)
		}
		found[string(key)] = bytes.Clone(payload)
		return nil
	})
	if err != nil {
		return err
	}
	if err := checkFormat(found[formatKey]); err != nil {
		return err
	}
	rev, ok := found[revisionKey]
	if !ok || len(rev) != 8 || len(found) != 2 {
		return errors.New("its records are not those of a Conveyor store")
	}
	in.newest = decodeRevision(rev)
	return nil
}

func (in *inspector) checkRecord(flags uint32, key, value []byte) error {
	rev, _, err := decode(key, value)
	switch {
	case err != nil:
		return fmt.Errorf("record %q: %w", key, err)
	case flags != 0 || len(key) == 0:
		return fmt.Errorf("%q is not a record", key)
	case rev < 1 || rev > in.newest:
		return fmt.Errorf("record %q: revision %d, and the newest is %d", key, rev, in.newest)
	}
	return nil
}

// leafFunc checks one element of a leaf.
type leafFunc func(flags uint32, key, value []byte) error

// walkBucket checks the pages of a bucket, given the value of the bucket.
func (in *inspector) walkBucket(bucket []byte, visit leafFunc) error {
	in.last = nil
	root, inline, err := parseBucket(bucket)
	switch {
	case err != nil:
		return err
	case root != 0:
		return in.walk(root, nil, visit)
	}
	end, err := in.walkLeaf(&inline, nil, visit)
	if err == nil && end != len(inline.data) {
		err = errDamagedHead
	}
	return err
}

// walk checks page id and all pages below it. The first key must be from, unless from is nil. When bbolt writes a page
// anew, it looks up the place of the page in the branch above by this key. If the branch had another key, bbolt would
// add the page a second time.
func (in *inspector) walk(id uint64, from []byte, visit leafFunc) error {
	data, err := in.readPage(id)
	if err != nil {
		return err
	}
	page, err := parsePage(id, data)
	if err != nil {
		return err
	}
	if page.leaf {
		_, err = in.walkLeaf(&page, from, visit)
	} else {
		err = in.walkBranch(&page, from, visit)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// walkLeaf checks the elements of a leaf, calls visit with each, and returns where the last one ends.
func (in *inspector) walkLeaf(page *treePage, from []byte, visit leafFunc) (end int, err error) {
	if page.count == 0 && from != nil {
		return 0, errors.New("0 elements do not fit")
	}
	end = page.firstKey()
	for i := range page.count {
		e, err := page.elementAt(i, end)
		if err != nil {
			return 0, err
		}
		end = e.end
		if i == 0 && from != nil && !bytes.Equal(e.key, from) || in.last != nil && bytes.Compare(e.key, in.last) <= 0 {
			return 0, fmt.Errorf("element %d is out of order", i)
		}
		in.last = append(in.last[:0], e.key...)
		if err := visit(e.flags, e.key, e.value); err != nil {
			return 0, err
		}
	}
	return end, nil
}

func (in *inspector) walkBranch(page *treePage, from []byte, visit leafFunc) error {
	// The pages below a branch are all of one kind. If the first one is a leaf, the others need not be read.
	unread := false
	end := page.firstKey()
	for i := range page.count {
		e, err := page.elementAt(i, end)
		if err != nil {
			return err
		}
		end = e.end
		switch {
		case i == 0 && from != nil && !bytes.Equal(e.key, from), i > 0 && bytes.Compare(e.key, in.last) <= 0:
			return fmt.Errorf("element %d is out of order", i)
		case unread:
			if e.child < 2 || e.child >= uint64(len(in.used)) || in.used[e.child] {
				return fmt.Errorf("element %d points to page %d", i, e.child)
			}
			in.used[e.child] = true
			in.last = bytes.Clone(e.key)
			continue
		}
		if err := in.walk(e.child, e.key, visit); err != nil {
			return err
		}
		if !in.readLeaves && i == 0 {
			unread = in.isLeaf(e.child)
		}
	}
	return nil
}

func (in *inspector) isLeaf(id uint64) bool {
	var header [pageHeader]byte
	_, err := in.file.ReadAt(header[:], int64(id*in.meta.pageSize))
	return err == nil && native.Uint16(header[8:]) == kindLeaf
}

// readFree checks the list of free pages. bbolt overwrites free pages without looking at them.
func (in *inspector) readFree() error {
	page, err := in.readPage(in.meta.free)
	if err != nil {
		return err
	}
	ids, count := page[pageHeader:], uint64(native.Uint16(page[10:]))
	if count == 0xffff {
		count, ids = native.Uint64(ids), ids[8:]
	}
	if native.Uint16(page[8:]) != kindFree || count > uint64(len(ids)/8) {
		return errors.New("the list of free pages is damaged")
	}
	for i, last := uint64(0), uint64(1); i < count; i++ {
		id := native.Uint64(ids[8*i:])
		if id <= last || id >= in.meta.end || in.used[id] {
			return fmt.Errorf("the list of free pages has page %d, which is not free", id)
		}
		in.used[id], last = true, id
	}
	return nil
}

// readPage reads a page together with its overflow pages, and marks all of them as used. A page that is used twice is
// an error, so a walk cannot run in a cycle.
func (in *inspector) readPage(id uint64) ([]byte, error) {
	if id < 2 || id >= in.meta.end {
		return nil, fmt.Errorf("page %d is outside of the file", id)
	}
	page, err := in.readAt(id, 1)
	if err != nil {
		return nil, err
	}
	more := uint64(native.Uint32(page[12:]))
	if native.Uint64(page) != id || more >= in.meta.end-id {
		return nil, fmt.Errorf("page %d has a damaged header", id)
	}
	for used := id; used <= id+more; used++ {
		if in.used[used] {
			return nil, fmt.Errorf("page %d is used twice", used)
		}
		in.used[used] = true
	}
	if more > 0 {
		return in.readAt(id, 1+more)
	}
	return page, nil
}

func (in *inspector) readAt(id, pages uint64) ([]byte, error) {
	buf := make([]byte, pages*in.meta.pageSize)
	if _, err := in.file.ReadAt(buf, int64(id*in.meta.pageSize)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return buf, nil
}
