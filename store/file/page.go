package file

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The inspection of a file, before bbolt is given it to write.
//
// bbolt puts a checksum on its two meta pages and on nothing else. On damaged pages it panics, runs in circles, starts
// goroutines that panic, or answers that a key is absent. So the pages are read here first, by rules that leave no room
// for a flipped bit: every byte of a page that means anything is accounted for by its neighbours, by the keys around
// it, or by the checksum of a record. The layout is that of bbolt's format version 2, in the byte order of the machine:
//
//	page    id u64, kind u16, count u16, overflow u32 (further pages that belong to it), then what its kind says
//	meta    magic, version, page size, flags u32; root page, sequence, freelist page, pages in use, transaction u64; FNV-1a
//	branch  count times: position u32, key size u32, page u64; then the keys
//	leaf    count times: flags u32, position u32, key size u32, value size u32; then keys and values
//	free    count page ids u64; if count is 0xffff, the first of them is the count
//
// A leaf element with the flag 1 is a bucket: root page, sequence u64; if the root page is 0, a page of kind leaf follows.
// Positions count from the start of their element.
const (
	pageHeader  = 16
	elementSize = 16
	metaSize    = 64

	kindBranch = 0x01
	kindLeaf   = 0x02
	kindMeta   = 0x04
	kindFree   = 0x10

	boltMagic   = 0xED0CDAED
	boltVersion = 2
)

var native = binary.NativeEndian

// meta is a decoded meta page.
type meta struct {
	pageSize             uint64
	root, free, end, txn uint64
}

// treePage is a branch or a leaf, with the pages that belong to it.
type treePage struct {
	id    uint64 // 0 for one that is within the element of its bucket
	data  []byte
	count int
	leaf  bool
}

// parsePage looks at the header of a page, and whether its first key is where its elements end.
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
	case p.count == 0 || pageHeader+elementSize*p.count > len(data),
		int(native.Uint32(data[pageHeader+position:])) != elementSize*p.count:
		return p, fmt.Errorf("page %d: %d elements do not fit", id, p.count)
	}
	return p, nil
}

// search returns the first element whose key is not smaller. It goes the way that bbolt goes, on damaged pages too.
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

// key returns the key of an element. One that is not within the page makes the slice panic, which is left to guard.
func (p *treePage) key(i int) []byte {
	e := p.data[pageHeader+elementSize*i:]
	if p.leaf {
		at, size := uint64(native.Uint32(e[4:])), uint64(native.Uint32(e[8:]))
		return e[at : at+size]
	}
	at, size := uint64(native.Uint32(e)), uint64(native.Uint32(e[4:]))
	return e[at : at+size]
}

// value returns the value of an element of a leaf, and its flags.
func (p *treePage) value(i int) ([]byte, uint32) {
	e := p.data[pageHeader+elementSize*i:]
	at := uint64(native.Uint32(e[4:])) + uint64(native.Uint32(e[8:]))
	end := at + uint64(native.Uint32(e[12:]))
	return e[at:end:end], native.Uint32(e)
}

func (p *treePage) child(i int) uint64 { return native.Uint64(p.data[pageHeader+elementSize*i+8:]) }

// filled is how much of a page is filled.
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
