package store

import "fmt"

// Op is one operation of a commit: a write, a removal, or only a condition. Make an Op with [Put], [Delete] or [Check];
// every store refuses the zero Op. An Op is a value: If and IfAbsent return a changed copy.
type Op struct {
	kind      opKind
	key       string
	value     []byte
	condition condition
	revision  Revision
}

type opKind uint8

const (
	opPut opKind = iota + 1
	opDelete
	opCheck
)

type condition uint8

const (
	always condition = iota
	ifRevision
	ifAbsent
)

// Put returns an op that writes value under key. It adds a record or replaces the record of the key. Put does not copy
// the value, which must not change until the commit has returned.
func Put(key string, value []byte) Op { return Op{kind: opPut, key: key, value: value} }

// Delete returns an op that removes the record of key. Without a condition, it is no error if there is no such record.
func Delete(key string) Op { return Op{kind: opDelete, key: key} }

// Check returns an op that writes nothing and makes the commit fail with [ErrConflict] unless the record of key has the
// revision. Revision zero means that there must be no record.
func Check(key string, rev Revision) Op { return Op{kind: opCheck, key: key}.If(rev) }

// If returns a copy of the op that makes the commit fail with [ErrConflict] unless the record of the op's key has the
// revision. Revision zero means that there must be no record, as with IfAbsent.
func (o Op) If(rev Revision) Op {
	if rev == 0 {
		return o.IfAbsent()
	}
	o.condition, o.revision = ifRevision, rev
	return o
}

// IfAbsent returns a copy of the op that makes the commit fail with [ErrConflict] if there is a record with the op's
// key.
func (o Op) IfAbsent() Op {
	o.condition, o.revision = ifAbsent, 0
	return o
}

// Key returns the key of the op.
func (o Op) Key() string { return o.key }

// Value returns the value that a Put writes, and nil for the other operations. It returns the slice that was given to
// Put, not a copy.
func (o Op) Value() []byte { return o.value }

// Writes reports whether the op changes the store: true for a Put and a Delete, false for a Check.
func (o Op) Writes() bool { return o.kind == opPut || o.kind == opDelete }

// Removes reports whether the op is a Delete.
func (o Op) Removes() bool { return o.kind == opDelete }

// Size returns the number of bytes of the key and the value, as [Limits].Bytes counts them.
func (o Op) Size() int { return len(o.key) + len(o.value) }

// Condition returns the condition of the op: the revision that the record of the key must have, where zero means that there must
// be no record. ok is false if the op has no condition.
//
// A store that is made of another store can change the key or the value of an op with it: make the new op with [Put], [Delete]
// or [Check], and give it the condition with If.
func (o Op) Condition() (rev Revision, ok bool) { return o.revision, o.condition != always }

// Conditional reports whether the op can make its commit fail with [ErrConflict].
func (o Op) Conditional() bool { return o.condition != always }

// Holds reports whether the op's condition holds for a record with the current revision. Zero means that there is no
// record. An op without a condition always holds.
func (o Op) Holds(current Revision) bool {
	switch o.condition {
	case ifRevision:
		return current == o.revision
	case ifAbsent:
		return current == 0
	default:
		return true
	}
}

// CheckOps returns an error for the first malformed op, or nil. An op is malformed if it is the zero Op, if its key is
// empty or longer than [MaxKey], if its value is longer than [MaxValue], or if an earlier op has the same key. The
// error wraps none of the sentinels of this package. Every store calls CheckOps before it looks at a condition.
func CheckOps(ops []Op) error {
	for i, o := range ops {
		switch {
		case o.kind == 0:
			return fmt.Errorf("store: op %d is the zero Op", i+1)
		case o.key == "":
			return fmt.Errorf("store: op %d: empty key", i+1)
		case len(o.key) > MaxKey:
			return fmt.Errorf("store: op %d: key of %d bytes, more than the limit of %d (a fixed limit)", i+1, len(o.key), MaxKey)
		case len(o.value) > MaxValue:
			return fmt.Errorf("store: op %d: value of %q has %d bytes, more than the limit of %d (a fixed limit)", i+1, o.key, len(o.value), MaxValue)
		}
	}
	if i := repeated(ops); i >= 0 {
		return fmt.Errorf("store: op %d: second op for key %q", i+1, ops[i].key)
	}
	return nil
}

// repeated returns the index of the first op that has the key of an earlier op, or -1.
func repeated(ops []Op) int {
	if len(ops) > 16 {
		seen := make(map[string]struct{}, len(ops))
		for i, o := range ops {
			if _, ok := seen[o.key]; ok {
				return i
			}
			seen[o.key] = struct{}{}
		}
		return -1
	}
	// For a few ops, as the engine sends them, comparing each op with each other one needs no allocation.
	for i, o := range ops {
		for _, earlier := range ops[:i] {
			if earlier.key == o.key {
				return i
			}
		}
	}
	return -1
}
