package file_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
)

// span is a part of a file and the name of its meaning.
type span struct {
	at, size int
	what     string
}

// anatomy has the places of the parts of a fixture's file. The layout is explained in page.go.
type anatomy struct {
	numbers  []span // of bbolt: in the headers of pages, in elements, in the heads of buckets, in meta pages
	heads    []span // of records: format, checksum, revision
	keys     []span
	values   []span
	pages    []int // that are in use
	branches []int
	leaves   []int
}

var native = binary.NativeEndian

// dissect finds the parts of a sound file.
func dissect(f *fixture) *anatomy {
	a := new(anatomy)
	number := func(at, size int, what string) { a.numbers = append(a.numbers, span{at, size, what}) }
	header := func(at int) {
		number(at, 8, "page id")
		number(at+8, 2, "kind")
		number(at+10, 2, "count")
		number(at+12, 4, "overflow")
	}
	var walk func(at int)
	walk = func(at int) { // of a page, or of one within a bucket's element
		header(at)
		count := int(native.Uint16(f.File[at+10:]))
		if native.Uint16(f.File[at+8:]) == 0x01 {
			a.branches = append(a.branches, at/f.PageSize)
			for i := range count {
				e := at + 16 + 16*i
				number(e, 4, "position")
				number(e+4, 4, "key size")
				number(e+8, 8, "child")
				a.keys = append(a.keys, span{e + int(native.Uint32(f.File[e:])), int(native.Uint32(f.File[e+4:])), "separator"})
				child := int(native.Uint64(f.File[e+8:]))
				a.pages = append(a.pages, child)
				walk(child * f.PageSize)
			}
			return
		}
		a.leaves = append(a.leaves, at/f.PageSize)
		for i := range count {
			e := at + 16 + 16*i
			flags, pos := native.Uint32(f.File[e:]), int(native.Uint32(f.File[e+4:]))
			keySize, valueSize := int(native.Uint32(f.File[e+8:])), int(native.Uint32(f.File[e+12:]))
			number(e, 4, "flags")
			number(e+4, 4, "position")
			number(e+8, 4, "key size")
			number(e+12, 4, "value size")
			key, value := e+pos, e+pos+keySize
			if flags == 1 {
				number(value, 8, "root of a bucket")
				number(value+8, 8, "sequence of a bucket")
				a.keys = append(a.keys, span{key, keySize, "name of a bucket"})
				if root := int(native.Uint64(f.File[value:])); root != 0 {
					a.pages = append(a.pages, root)
					walk(root * f.PageSize)
				} else {
					walk(value + 16)
				}
				continue
			}
			what := fmt.Sprintf("of %q", f.File[key:key+keySize])
			a.keys = append(a.keys, span{key, keySize, "key " + what})
			a.heads = append(a.heads, span{value, 1, "format " + what}, span{value + 1, 4, "checksum " + what}, span{value + 5, 8, "revision " + what})
			a.values = append(a.values, span{value + 13, valueSize - 13, "value " + what})
		}
	}
	for page := range 2 {
		at := page * f.PageSize
		number(at, 8, "page id")
		number(at+8, 2, "kind") // the rest of the header means nothing
		at += 16
		for i, what := range []string{"magic", "version", "page size", "flags"} {
			number(at+4*i, 4, "meta "+what)
		}
		for i, what := range []string{"root", "sequence", "free pages", "end", "transaction", "checksum"} {
			number(at+16+8*i, 8, "meta "+what)
		}
	}
	newest := 0
	if native.Uint64(f.File[f.PageSize+16+48:]) > native.Uint64(f.File[16+48:]) {
		newest = 1
	}
	meta := f.File[newest*f.PageSize+16:]
	root, free := int(native.Uint64(meta[16:])), int(native.Uint64(meta[32:]))
	a.pages = append(a.pages, 0, 1, root, free)
	walk(root * f.PageSize)
	header(free * f.PageSize)
	for i := range min(int(native.Uint16(f.File[free*f.PageSize+10:])), 40) {
		number(free*f.PageSize+16+8*i, 8, "free page")
	}
	return a
}

// damage is a copy of a fixture's file that is being damaged.
type damage struct {
	rnd   *rand.Rand
	round int // counts the cases of a kind for a fixture; what has few places goes through them by it
	of    *fixture
	parts *anatomy
	other *fixture // a store of somebody else

	file []byte
	size int64
	what []string // what was done to it

	// The records that the damage can bring back. Nothing in the file distinguishes them from the right ones.
	stale   bool // older versions of records
	foreign bool // records of the other store

	wide    bool // more than one part of the file is damaged, so that a record may lose its key and its value
	certain bool // it cannot be harmless, so it has to be found
	crash   bool // it is no damage, but what a crash in the last commit leaves: the store has to be as it was before
}

func (d *damage) notef(format string, args ...any) {
	d.what = append(d.what, fmt.Sprintf(format, args...))
}

func (d *damage) touched() bool { return len(d.what) > 0 }

func (d *damage) page(id int) []byte {
	size := d.of.PageSize
	if (id+1)*size > len(d.file) {
		return nil
	}
	return d.file[id*size : (id+1)*size]
}

func pick[T any](d *damage, from []T) T { return from[d.rnd.IntN(len(from))] }

// somePage returns a page at random, in most cases one that is in use.
func (d *damage) somePage() int {
	if d.rnd.IntN(8) == 0 {
		return d.rnd.IntN(len(d.of.File) / d.of.PageSize)
	}
	return pick(d, d.parts.pages)
}

// sum writes the right checksum of its bytes into a meta page.
func (d *damage) sum(page int) {
	if meta := d.page(page); meta != nil {
		h := fnv.New64a()
		h.Write(meta[16:72])
		native.PutUint64(meta[72:], h.Sum64())
	}
}

// kinds are the kinds of damage.
var kinds = []struct {
	name string
	do   func(d *damage)
	few  bool // there are so few of it that in the end a bit is flipped as well
}{
	{"truncated", (*damage).truncate, true},
	{"extended", (*damage).extend, false},
	{"a flipped bit in a number", func(d *damage) { d.round *= 2; d.flip(d.parts.numbers) }, false},
	{"a flipped bit in a number", func(d *damage) { d.round = 2*d.round + 1; d.flip(d.parts.numbers) }, false},
	{"a flipped bit in the head of a record", func(d *damage) { d.flip(d.parts.heads) }, true},
	{"a flipped bit in a key", func(d *damage) { d.flip(d.parts.keys) }, true},
	{"a flipped bit in a value", func(d *damage) { d.flip(d.parts.values) }, false},
	{"a flipped bit anywhere", func(d *damage) { d.flip([]span{{0, len(d.of.File), "file"}}) }, false},
	{"a burst", (*damage).burst, false},
	{"a page of zeros", func(d *damage) { d.wipe(d.of.PageSize, d.somePage()*d.of.PageSize) }, true},
	{"a sector of zeros", func(d *damage) { d.wipe(512, d.rnd.IntN(len(d.of.File)/512)*512) }, true},
	{"swapped pages", (*damage).swap, true},
	{"a copied page", (*damage).duplicate, true},
	{"an old page", (*damage).lostWrite, true},
	{"torn writes", (*damage).tear, true},
	{"an interrupted commit", (*damage).interrupt, true},
	{"a page of another store", (*damage).misdirect, true},
	{"mistaken meta pages", (*damage).mistakeMetas, true},
	{"a forged meta page", (*damage).forgeMeta, true},
	{"a forged number", func(d *damage) { d.forge(pick(d, d.parts.numbers)) }, false},
	{"a forged number", func(d *damage) { d.forge(pick(d, d.parts.numbers)) }, false},
	{"a forged child", (*damage).forgeChild, true},
	{"a rewritten value", (*damage).rewriteValue, true},
}

// more flips a bit anywhere. It is used when a kind of damage has no new case or has changed nothing.
func (d *damage) more() {
	d.flip([]span{{0, len(d.of.File), "file"}})
	d.certain, d.crash, d.wide = d.size < int64(len(d.of.File)), false, true
}

// several damages the file in several kinds at once.
func (d *damage) several() {
	d.wide = true
	for range 2 + d.rnd.IntN(4) {
		pick(d, kinds).do(d)
	}
	d.certain, d.crash = d.size < int64(len(d.of.File)), false
}

func (d *damage) truncate() {
	lengths := []int{0, 1, 15, 16, 17, 63, 64, 79, 80, 81}
	for at := 0; at <= len(d.file); at += d.of.PageSize {
		lengths = append(lengths, at, at-1, at+1, at+16, at+80, at+512)
	}
	length := int64(d.rnd.IntN(len(d.file) + 1))
	if d.rnd.IntN(3) > 0 {
		length = min(int64(max(lengths[d.round%len(lengths)], 0)), d.size)
	}
	d.notef("cut off at %d of %d", length, d.size)
	d.certain = d.certain || length < int64(len(d.of.File))
	d.size = length
	d.file = d.file[:min(int64(len(d.file)), length)]
}

func (d *damage) extend() {
	garbage := make([]byte, 1+d.rnd.IntN(3*d.of.PageSize))
	if d.rnd.IntN(2) == 0 {
		for i := range garbage {
			garbage[i] = byte(d.rnd.Uint32())
		}
	} else {
		d.size += int64(d.rnd.IntN(1 << 21))
	}
	d.file = append(d.file, garbage...)
	d.size = max(d.size, int64(len(d.file)))
	d.notef("%d bytes of garbage, then zeros up to %d", len(garbage), d.size)
}

// flip flips one bit in one of the places. Consecutive rounds go through all bytes of the places and then through the
// bits, if the places are few.
func (d *damage) flip(places []span) {
	total := 0
	for _, p := range places {
		total += p.size
	}
	if total == 0 {
		return
	}
	nth, bit := d.round%total, (d.round/total+d.round)%8
	if total >= 1<<14 || d.round/total >= 8 {
		nth, bit = d.rnd.IntN(total), d.rnd.IntN(8)
	}
	for _, p := range places {
		if nth < p.size {
			if p.at+nth >= len(d.file) {
				return
			}
			d.file[p.at+nth] ^= 1 << bit
			d.certain = !d.touched() && p.what != "file"
			d.notef("bit %d of byte %d flipped, %s", bit, p.at+nth, p.what)
			return
		}
		nth -= p.size
	}
}

func (d *damage) burst() {
	d.wide = true
	if len(d.file) == 0 {
		return
	}
	at, n := d.rnd.IntN(len(d.file)), 2+d.rnd.IntN(63)
	for i := at; i < min(at+n, len(d.file)); i++ {
		d.file[i] = byte(d.rnd.Uint32())
	}
	d.notef("%d bytes at %d written over", n, at)
}

func (d *damage) wipe(size, at int) {
	d.wide = true
	with := byte([]int{0, 0, 0, 0xff, 'x'}[d.rnd.IntN(5)])
	for i := at; i < min(at+size, len(d.file)); i++ {
		d.file[i] = with
	}
	d.notef("%d bytes of %#x at %d", size, with, at)
}

func (d *damage) swap() {
	a, b := d.somePage(), d.somePage()
	p, q := d.page(a), d.page(b)
	if p == nil || q == nil {
		return
	}
	keep := bytes.Clone(p)
	copy(p, q)
	copy(q, keep)
	if d.rnd.IntN(2) == 0 {
		native.PutUint64(p, uint64(a))
		native.PutUint64(q, uint64(b))
		d.notef("ids mended")
	}
	d.stale = true // of the free pages
	d.notef("pages %d and %d swapped", a, b)
}

func (d *damage) duplicate() {
	a, b := d.somePage(), d.somePage()
	p, q := d.page(a), d.page(b)
	if p == nil || q == nil {
		return
	}
	copy(q, p)
	if d.rnd.IntN(2) == 0 {
		native.PutUint64(q, uint64(b))
		d.notef("id mended")
	}
	d.stale = true
	d.notef("page %d copied over %d", a, b)
}

// lostWrite restores a page to what it was before the last commit wrote it.
func (d *damage) lostWrite() {
	changed := d.changed(d.of.PageSize)
	if len(changed) == 0 {
		d.flip(d.parts.numbers)
		return
	}
	at := changed[d.round%len(changed)]
	if at+d.of.PageSize > len(d.file) {
		return
	}
	copy(d.file[at:], d.of.Before[at:at+d.of.PageSize])
	d.stale = true
	d.notef("page %d as it was before the last commit", at/d.of.PageSize)
}

// changed returns the places that the last commit has written, in pieces of the given size.
func (d *damage) changed(piece int) (at []int) {
	for i := 0; i+piece <= len(d.of.File); i += piece {
		if !bytes.Equal(d.of.File[i:i+piece], d.of.Before[i:i+piece]) {
			at = append(at, i)
		}
	}
	return at
}

// tear mixes sectors that the last commit has written with the sectors that were there before.
func (d *damage) tear() {
	var back []int
	changed := d.changed(512)
	if len(changed) == 0 {
		return
	}
	for _, at := range changed {
		if d.rnd.IntN(2) == 0 && at+512 <= len(d.file) {
			copy(d.file[at:], d.of.Before[at:at+512])
			back = append(back, at/512)
		}
	}
	d.stale = true
	d.notef("sectors %v as they were before the last commit", back)
}

// interrupt leaves what a crash during the last commit would leave: a part of its pages, and no meta page for them.
func (d *damage) interrupt() {
	if d.touched() || len(d.changed(512)) == 0 {
		return
	}
	d.tear()
	copy(d.file, d.of.Before[:2*d.of.PageSize])
	d.crash = true
	d.notef("and both meta pages")
}

func (d *damage) misdirect() {
	if d.other.PageSize != d.of.PageSize {
		// Pages of one size are exchanged as a whole. Of pages of different sizes, a part is exchanged.
		d.notef("pages of %d bytes", d.other.PageSize)
	}
	a := d.somePage()
	p := d.page(a)
	if p == nil {
		return
	}
	from := a * d.of.PageSize
	if d.rnd.IntN(2) == 0 || from+len(p) > len(d.other.File) {
		if len(p) > len(d.other.File) {
			return
		}
		from = d.rnd.IntN((len(d.other.File)-len(p))/d.of.PageSize+1) * d.of.PageSize
	}
	copy(p, d.other.File[from:])
	if d.rnd.IntN(2) == 0 {
		native.PutUint64(p, uint64(a))
		d.notef("id mended")
	}
	d.foreign, d.stale = true, true // a meta page may lead to the commit before
	d.notef("page %d has what is at %d in %s", a, from, d.other.Name)
}

func (d *damage) mistakeMetas() {
	p, q := d.page(0), d.page(1)
	if q == nil {
		return
	}
	keep, at := bytes.Clone(p), 0
	switch d.round % 6 {
	case 0:
		copy(p, q)
	case 1:
		copy(q, p)
	case 2:
		copy(p, q)
		copy(q, keep)
	case 3, 4:
		at = d.round%6 - 3
		copy(d.page(at), d.of.Before[at*d.of.PageSize:(at+1)*d.of.PageSize])
	case 5:
		copy(d.file, d.of.Before[:2*d.of.PageSize])
	}
	if d.rnd.IntN(3) == 0 {
		native.PutUint64(p, 0)
		native.PutUint64(q, 1)
		d.notef("ids mended")
	}
	d.stale = true
	d.notef("meta pages mistaken in the way %d", d.round%6)
}

func (d *damage) forgeMeta() {
	page := d.rnd.IntN(2)
	for range 1 + d.rnd.IntN(2) {
		field := []span{
			{0, 4, "magic"}, {4, 4, "version"}, {8, 4, "page size"}, {12, 4, "flags"}, {16, 8, "root"}, {24, 8, "sequence"},
			{32, 8, "free pages"}, {40, 8, "end"}, {48, 8, "transaction"},
		}[d.rnd.IntN(9)]
		field.at += page*d.of.PageSize + 16
		d.forge(field)
	}
	d.sum(page)
	d.stale = true // the older root is there, as far as it is whole
	d.notef("with the right checksum")
}

// forge gives a number another value that has a meaning.
func (d *damage) forge(n span) {
	if n.at+n.size > len(d.file) {
		return
	}
	b := d.file[n.at : n.at+n.size]
	var old uint64
	for i := range b { // the test files are those of a machine of one order, and the number need not be right
		old |= uint64(b[i]) << (8 * i)
	}
	end := uint64(len(d.of.File) / d.of.PageSize)
	value := pick(d, []uint64{
		0, 1, 2, 3, 4, 0x10, 0xffff, old + 1, old - 1, old + 2, old - 2, old + 16, old - 16, old << 1, old >> 1, ^old, end, end - 1,
		end + 1, uint64(n.at / d.of.PageSize), uint64(d.somePage()), uint64(d.somePage()), 1 << 31, 1<<32 - 1, 1 << 63, 1<<64 - 1, d.rnd.Uint64(),
		512, 1024, 4096, uint64(d.rnd.IntN(d.of.PageSize)),
	})
	var room [8]byte
	binary.LittleEndian.PutUint64(room[:], value)
	if slices.Equal(b, room[:n.size]) {
		room[0]++
	}
	copy(b, room[:])
	d.stale = true // a root or a child may now be an old page
	d.notef("%s at %d is %#x instead of %#x", n.what, n.at, room[:n.size], old)
}

// forgeChild makes a branch point to itself, to the branch above, or to another page of its tree.
func (d *damage) forgeChild() {
	var children []span
	for _, n := range d.parts.numbers {
		if n.what == "child" || n.what == "root of a bucket" {
			children = append(children, n)
		}
	}
	n := pick(d, children)
	if n.at+8 > len(d.file) {
		return
	}
	to := n.at / d.of.PageSize
	if len(d.parts.branches) > 0 && d.rnd.IntN(3) > 0 {
		to = pick(d, d.parts.branches)
	}
	if d.rnd.IntN(3) == 0 {
		to = d.somePage()
	}
	native.PutUint64(d.file[n.at:], uint64(to))
	d.stale = true
	d.notef("%s at %d is page %d", n.what, n.at, to)
}

func (d *damage) rewriteValue() {
	v := pick(d, d.parts.values)
	if v.at+v.size > len(d.file) {
		return
	}
	b := d.file[v.at : v.at+v.size]
	for range 1 + d.rnd.IntN(4) {
		if len(b) > 0 {
			b[d.rnd.IntN(len(b))] = byte(d.rnd.Uint32())
		}
	}
	d.notef("%s rewritten", v.what)
}
