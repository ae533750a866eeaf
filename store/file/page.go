package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// The layout of a bbolt file, format version 2, in the byte order of the machine:
//
//	page    id u64, kind u16, count u16, overflow u32 (the number of further pages that belong to it), then by its kind:
//	meta    magic, version, page size, flags u32; root page, sequence, freelist page, pages in use, transaction u64; FNV-1a
//	branch  count times: position u32, key size u32, page u64; then the keys
//	leaf    count times: flags u32, position u32, key size u32, value size u32; then keys and values
//	free    count page ids u64; if count is 0xffff, the first of them is the count
//
// A position counts from the start of its element. A leaf element with flag 1 is a bucket. The value of a bucket is its
// root page u64 and a sequence u64. If the root page is 0, a page of kind leaf follows in the value.
const (
	pageHeader   = 16
	elementSize  = 16
	metaSize     = 64
	bucketHeader = 16

	kindBranch = 0x01
	kindLeaf   = 0x02
	kindMeta   = 0x04
	kindFree   = 0x10

	bucketFlag = 1

	boltMagic   = 0xED0CDAED
	boltVersion = 2
)

var native = binary.NativeEndian

// meta is a decoded meta page.
type meta struct {
	pageSize             uint64
	root, free, end, txn uint64
}

// parseMeta decodes the meta page that begins at byte at of the file.
func parseMeta(page []byte, at uint64) (meta, error) {
	b := page[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	m := meta{
		pageSize: uint64(native.Uint32(b[8:])),
		root:     native.Uint64(b[16:]), free: native.Uint64(b[32:]), end: native.Uint64(b[40:]), txn: native.Uint64(b[48:]),
	}
	switch {
	case native.Uint32(b) != boltMagic:
		return meta{}, errors.New("not a bbolt file, or its meta pages are damaged")
	case native.Uint32(b[4:]) != boltVersion:
		return meta{}, fmt.Errorf("bbolt format version %d, not %d", native.Uint32(b[4:]), boltVersion)
	case native.Uint64(b[metaSize-8:]) != sum.Sum64():
		return meta{}, errors.New("meta page is damaged: checksum does not match")
	case m.pageSize < 1<<9 || m.pageSize > 1<<24 || m.pageSize&(m.pageSize-1) != 0:
		return meta{}, fmt.Errorf("page size %d", m.pageSize)
	case native.Uint64(page) != at/m.pageSize || native.Uint16(page[8:]) != kindMeta:
		return meta{}, errors.New("meta page is damaged: wrong header")
	}
	return m, nil
}

// errDamagedHead reports a bucket whose value makes no sense.
var errDamagedHead = errors.New("damaged head")

// parseBucket decodes the value of a bucket. It returns the number of the root page. If the number is 0, the root page
// is within the value, and parseBucket returns the page.
func parseBucket(value []byte) (root uint64, inline treePage, err error) {
	if len(value) < bucketHeader || native.Uint64(value[8:]) != 0 {
		return 0, inline, errDamagedHead
	}
	root, page := native.Uint64(value), value[bucketHeader:]
	if root != 0 {
		if len(page) > 0 {
			return 0, inline, errDamagedHead
		}
		return root, inline, nil
	}
	// A page within an element has no number. If it had one, bbolt would free the page of that number with the next
	// commit.
	if len(page) < pageHeader || native.Uint64(page) != 0 || native.Uint16(page[8:]) != kindLeaf || native.Uint32(page[12:]) != 0 {
		return 0, inline, errDamagedHead
	}
	inline, err = parsePage(0, page)
	return 0, inline, err
}

// treePage is a branch or a leaf, together with its overflow pages.
type treePage struct {
	id    uint64 // 0 for a page within the element of its bucket
	data  []byte
	count int
	leaf  bool
}

// parsePage decodes the header of a branch or a leaf, and checks that its first key is where its elements end.
func parsePage(id uint64, data []byte) (treePage, error) {
	p := treePage{id: id, data: data}
	p.count = int(native.Uint16(data[10:]))
	position := 0
	switch native.Uint16(data[8:]) {
	case kindLeaf:
		p.leaf, position = true, 4
	case kindBranch:
	default:
		return p, fmt.Errorf("page %d: kind %#x where keys should be", id, native.Uint16(data[8:]))
	}
	switch {
	case p.count == 0 && p.leaf:
	case p.count == 0 || p.firstKey() > len(data),
		int(native.Uint32(data[pageHeader+position:])) != elementSize*p.count:
		return p, fmt.Errorf("page %d: %d elements do not fit", id, p.count)
	}
	return p, nil
}

// firstKey returns where the keys begin, behind the elements.
func (p *treePage) firstKey() int { return pageHeader + elementSize*p.count }

// element is one element of a page, decoded.
type element struct {
	key   []byte
	value []byte // in a leaf
	flags uint32 // in a leaf
	child uint64 // in a branch
	end   int    // where the key and the value end
}

// elementAt decodes element i. It returns an error if the key does not begin at byte at of the page, or if the key and
// the value are not within the page.
func (p *treePage) elementAt(i, at int) (element, error) {
	split, end, ok := p.extent(i, at)
	if !ok {
		return element{}, p.outOfPlace(i)
	}
	e := element{key: p.data[at:split], value: p.data[split:end], end: end}
	head := p.data[pageHeader+elementSize*i:]
	if p.leaf {
		e.flags = native.Uint32(head)
	} else {
		e.child = native.Uint64(head[8:])
	}
	return e, nil
}

func (p *treePage) outOfPlace(i int) error { return fmt.Errorf("element %d is out of place", i) }

// extent returns where the key and the value of element i end. It returns false if the key does not begin at byte at of
// the page, or if the key and the value are not within the page.
func (p *treePage) extent(i, at int) (keyEnd, end int, ok bool) {
	start := pageHeader + elementSize*i
	head := p.data[start : start+elementSize]
	first, second, third := uint64(native.Uint32(head)), uint64(native.Uint32(head[4:])), uint64(native.Uint32(head[8:]))
	position, keySize, valueSize := first, second, uint64(0)
	if p.leaf { // the flags are first
		position, keySize, valueSize = second, third, uint64(native.Uint32(head[12:]))
	}
	if uint64(start)+position != uint64(at) || keySize+valueSize > uint64(len(p.data)-at) {
		return 0, 0, false
	}
	keyEnd = at + int(keySize)
	return keyEnd, keyEnd + int(valueSize), true
}

// search returns the first element whose key is not smaller than key. It compares the same elements as bbolt does, so
// that it finds the same element on a damaged page too.
func (p *treePage) search(key []byte) (i int, exact bool) {
	end := p.count
	for i < end {
		mid := (i + end) / 2
		switch bytes.Compare(p.key(mid), key) {
		case -1:
			i = mid + 1
		case 0:
			exact = true
			end = mid
		default:
			end = mid
		}
	}
	return i, exact
}

// key returns the key of element i. If the key is not within the page, the slice expression panics; guard turns the
// panic into an error.
func (p *treePage) key(i int) []byte {
	e := p.data[pageHeader+elementSize*i:]
	if p.leaf {
		at, size := uint64(native.Uint32(e[4:])), uint64(native.Uint32(e[8:]))
		return e[at : at+size]
	}
	at, size := uint64(native.Uint32(e)), uint64(native.Uint32(e[4:]))
	return e[at : at+size]
}

// value returns the value and the flags of element i of a leaf. It can panic as key does.
func (p *treePage) value(i int) ([]byte, uint32) {
	e := p.data[pageHeader+elementSize*i:]
	at := uint64(native.Uint32(e[4:])) + uint64(native.Uint32(e[8:]))
	end := at + uint64(native.Uint32(e[12:]))
	return e[at:end:end], native.Uint32(e)
}

func (p *treePage) child(i int) uint64 { return native.Uint64(p.data[pageHeader+elementSize*i+8:]) }

// filled returns how many bytes of a page are filled.
func (p *treePage) filled() int {
	if p.count == 0 {
		return pageHeader
	}
	at := pageHeader + elementSize*(p.count-1)
	e := p.data[at:]
	if p.leaf {
		return at + int(native.Uint32(e[4:])) + int(native.Uint32(e[8:])) + int(native.Uint32(e[12:]))
	}
	return at + int(native.Uint32(e)) + int(native.Uint32(e[4:]))
}
