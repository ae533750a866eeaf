package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/conveyor-go/conveyor/store"
)

// A stored value is
//
//	1 byte   the version of this format
//	4 bytes  CRC-32C of the key, of the revision as it is stored, and of the payload; little-endian
//	8 bytes  the revision; little-endian
//	         the payload: the value that the caller of Commit gave
//
// The checksum includes the key, so that a value under the wrong key is detected.
const (
	valueVersion = 1
	headerSize   = 1 + 4 + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged reports a stored value that is not what was written.
var errDamaged = errors.New("checksum does not match")

// encode returns the key and the stored value of a record, in one piece of memory.
func encode(key string, rev store.Revision, payload []byte) (k, stored []byte) {
	k, stored, _ = encodeInto(nil, key, rev, payload)
	return k, stored
}

// encodeInto is encode into the free capacity of buf, or into new memory if that is too small. rest is buf, extended by
// what was encoded.
func encodeInto(buf []byte, key string, rev store.Revision, payload []byte) (k, stored, rest []byte) {
	size := encodedSize(key, payload)
	if cap(buf)-len(buf) < size {
		buf = make([]byte, 0, size)
	}
	from := len(buf)
	rest = buf[:from+size]
	k = rest[from : from+len(key) : from+len(key)]
	stored = rest[from+len(key) : from+size : from+size]
	copy(k, key)
	stored[0] = valueVersion
	binary.LittleEndian.PutUint64(stored[5:], uint64(rev))
	copy(stored[headerSize:], payload)
	binary.LittleEndian.PutUint32(stored[1:], checksum(k, stored))
	return k, stored, rest
}

func encodedSize(key string, payload []byte) int { return len(key) + headerSize + len(payload) }

// decode returns the revision and the payload of a stored value. The payload shares the memory of stored.
func decode(key, stored []byte) (store.Revision, []byte, error) {
	switch {
	case len(stored) < headerSize:
		return 0, nil, fmt.Errorf("value of %d bytes is too short", len(stored))
	case stored[0] != valueVersion:
		return 0, nil, fmt.Errorf("value has the format version %d, not %d", stored[0], valueVersion)
	case binary.LittleEndian.Uint32(stored[1:]) != checksum(key, stored):
		return 0, nil, errDamaged
	}
	return store.Revision(binary.LittleEndian.Uint64(stored[5:])), stored[headerSize:], nil
}

func checksum(key, stored []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, stored[5:])
}
