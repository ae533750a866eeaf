package postgres

import (
	"encoding/binary"
	"errors"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
)

// transientByte is the first byte of the keys whose records come and go. They are in a table of their own.
const transientByte = '~'

// binaryFormat is the format code of all arguments and results.
var binaryFormat = []int16{pgtype.BinaryFormatCode}

// arguments are those of the function commit_group, in the binary format of PostgreSQL.
type arguments [][]byte

// The types of the arguments: those before the arrays, and those of the arrays of each table.
var (
	headTypes  = []uint32{pgtype.UUIDOID, pgtype.Int8OID, pgtype.Int4OID, pgtype.Int8OID}
	arrayTypes = []uint32{
		pgtype.Int4ArrayOID, pgtype.ByteaArrayOID, pgtype.Int8ArrayOID,
		pgtype.Int4ArrayOID, pgtype.ByteaArrayOID, pgtype.ByteaArrayOID, pgtype.Int4ArrayOID, pgtype.ByteaArrayOID,
	}
)

// newArguments returns the arguments for a group, but for those that head sets.
func newArguments(group []*groupcommit.Commit) arguments {
	var tables [2]changes
	for i, c := range group {
		n := int32(i + 1)
		for _, op := range c.Ops {
			t := &tables[0]
			if op.Key()[0] == transientByte {
				t = &tables[1]
			}
			t.add(n, op)
		}
	}
	a := make(arguments, len(headTypes), len(headTypes)+len(tables)*len(arrayTypes))
	a[2] = int32Value(int32(len(group)))
	for i := range tables {
		t := &tables[i]
		a = append(a, t.conditionNums.bytes(pgtype.Int4OID), t.conditionKeys.bytes(pgtype.ByteaOID), t.revs.bytes(pgtype.Int8OID),
			t.putNums.bytes(pgtype.Int4OID), t.putKeys.bytes(pgtype.ByteaOID), t.putValues.bytes(pgtype.ByteaOID),
			t.deleteNums.bytes(pgtype.Int4OID), t.deleteKeys.bytes(pgtype.ByteaOID))
	}
	return a
}

// head sets who commits the group, its number, and until when on the clock of the server it may have its turn.
func (a arguments) head(writer [16]byte, group, until int64) {
	a[0], a[1], a[3] = writer[:], int64Value(group), int64Value(until)
}

// changes are the ops of a group for one table.
type changes struct {
	conditionNums, conditionKeys, revs array
	putNums, putKeys, putValues        array
	deleteNums, deleteKeys             array
}

func (c *changes) add(n int32, op store.Op) {
	key := op.Key()
	if rev, ok := op.Condition(); ok {
		c.conditionNums.addInt32(n)
		addBytes(&c.conditionKeys, key)
		c.revs.addInt64(int64(rev))
	}
	switch {
	case op.Removes():
		c.deleteNums.addInt32(n)
		addBytes(&c.deleteKeys, key)
	case op.Writes():
		c.putNums.addInt32(n)
		addBytes(&c.putKeys, key)
		addBytes(&c.putValues, op.Value())
	}
}

// array is an array of PostgreSQL in its binary format. The zero array is empty.
type array struct {
	n    int
	data []byte // begins with room for the header
}

// arrayHeader is the size of the header of an array of one dimension, and emptyHeader that of one without elements.
const (
	arrayHeader = 20
	emptyHeader = 12
)

// add begins an element of a size. The caller appends the element.
func (a *array) add(size int) {
	if a.n == 0 {
		a.data = make([]byte, arrayHeader, arrayHeader+4*(4+size))
	}
	a.n++
	a.data = binary.BigEndian.AppendUint32(a.data, uint32(size))
}

func (a *array) addInt32(v int32) {
	a.add(4)
	a.data = binary.BigEndian.AppendUint32(a.data, uint32(v))
}

func (a *array) addInt64(v int64) {
	a.add(8)
	a.data = binary.BigEndian.AppendUint64(a.data, uint64(v))
}

func addBytes[B string | []byte](a *array, v B) {
	a.add(len(v))
	a.data = append(a.data, v...)
}

// bytes returns the array with its header: the number of dimensions, whether there are nulls, the type of the elements, their
// number, and the index of the first one.
func (a *array) bytes(element uint32) []byte {
	if a.n == 0 {
		return binary.BigEndian.AppendUint32(make([]byte, 8, emptyHeader), element)
	}
	binary.BigEndian.PutUint32(a.data[0:], 1)
	binary.BigEndian.PutUint32(a.data[8:], element)
	binary.BigEndian.PutUint32(a.data[12:], uint32(a.n))
	binary.BigEndian.PutUint32(a.data[16:], 1)
	return a.data
}

func int32Value(v int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

func int64Value(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

var errAnswer = errors.New("the server has answered with something else than it was asked for")

// scan takes a bigint out of an answer. A null is 0.
func scan(data []byte, into *int64) error {
	if data == nil {
		*into = 0
		return nil
	}
	if len(data) != 8 {
		return errAnswer
	}
	*into = int64(binary.BigEndian.Uint64(data))
	return nil
}

func scanBool(data []byte, into *bool) error {
	if len(data) != 1 {
		return errAnswer
	}
	*into = data[0] != 0
	return nil
}

// elements calls each for the elements of an array. A null is an array without elements.
func elements(data []byte, each func(element []byte) error) error {
	if data == nil {
		return nil
	}
	if len(data) < emptyHeader {
		return errAnswer
	}
	if binary.BigEndian.Uint32(data) == 0 {
		return nil
	}
	if len(data) < arrayHeader {
		return errAnswer
	}
	n, rest := int(binary.BigEndian.Uint32(data[12:])), data[arrayHeader:]
	for range n {
		if len(rest) < 4 {
			return errAnswer
		}
		size := int(binary.BigEndian.Uint32(rest))
		if rest = rest[4:]; size > len(rest) {
			return errAnswer
		}
		if err := each(rest[:size]); err != nil {
			return err
		}
		rest = rest[size:]
	}
	return nil
}

func scanInts(data []byte, into *[]int32) error {
	*into = nil
	return elements(data, func(e []byte) error {
		if len(e) != 4 {
			return errAnswer
		}
		*into = append(*into, int32(binary.BigEndian.Uint32(e)))
		return nil
	})
}

func scanRevs(data []byte, into *[]int64) error {
	*into = nil
	return elements(data, func(e []byte) error {
		var v int64
		err := scan(e, &v)
		*into = append(*into, v)
		return err
	})
}

func scanKeys(data []byte, into *[][]byte) error {
	*into = nil
	return elements(data, func(e []byte) error {
		*into = append(*into, append([]byte(nil), e...))
		return nil
	})
}
