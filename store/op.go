package store

import "fmt"

// Op is one operation of a commit: a write, a removal, or a mere condition. Make one with [Put], [Delete] or [Check];
// the zero Op is refused. An Op is a value: If and IfAbsent return a changed copy.
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

// Put writes value under key, whether or not a record is there.
func Put(key string, value []byte) Op { return Op{kind: opPut, key: key, value: value} }

// Delete removes the record of key. Without a condition, removing what is not there is no fault.
func Delete(key string) Op { return Op{kind: opDelete, key: key} }

// Check writes nothing; the commit fails unless the record of key has the revision. Revision zero stands for "absent".
func Check(key string, rev Revision) Op { return Op{kind: opCheck, key: key}.If(rev) }

// If makes the commit fail with [ErrConflict] unless the record of the op's key has the revision. Revision zero
// stands for "absent", as with IfAbsent.
func (o Op) If(rev Revision) Op {
	if rev == 0 {
		return o.IfAbsent()
	}
	o.condition, o.revision = ifRevision, rev
	return o
}

// IfAbsent makes the commit fail with [ErrConflict] if there is a record with the op's key.
func (o Op) IfAbsent() Op {
	o.condition, o.revision = ifAbsent, 0
	return o
}

// Key returns the key that the op is about.
func (o Op) Key() string { return o.key }

// Value returns what a Put writes, not copied, and nil for the other operations.
func (o Op) Value() []byte { return o.value }

// Writes reports whether the op changes the store: true for a Put and a Delete, false for a Check.
func (o Op) Writes() bool { return o.kind == opPut || o.kind == opDelete }

// Removes reports whether the op is a Delete.
func (o Op) Removes() bool { return o.kind == opDelete }

// Conditional reports whether the op can make its commit fail with [ErrConflict].
func (o Op) Conditional() bool { return o.condition != always }

// Holds reports whether the op's condition is true of a record's current revision, zero standing for "absent".
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

// CheckOps reports the first malformed op: the zero Op, an empty or over-long key, an over-long value, or a second op
// for one key. Every store calls it before it looks at a condition.
func CheckOps(ops []Op) error {
	for i, o := range ops {
		switch {
		case o.kind == 0:
			return fmt.Errorf("store: op %d is the zero Op", i+1)
		case o.key == "":
			return fmt.Errorf("store: op %d: empty key", i+1)
		case len(o.key) > MaxKey:
			return fmt.Errorf("store: op %d: key of %d bytes is longer than %d", i+1, len(o.key), MaxKey)
		case len(o.value) > MaxValue:
			return fmt.Errorf("store: op %d: value of %s has %d bytes, more than %d", i+1, o.key, len(o.value), MaxValue)
		}
	}
	if i := repeated(ops); i >= 0 {
		return fmt.Errorf("store: op %d: second op for key %s", i+1, ops[i].key)
	}
	return nil
}

// repeated returns the index of the first op whose key an earlier op has, or -1.
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
	// For a handful of ops, which is what the engine sends, comparing each with each needs no allocation.
	for i, o := range ops {
		for _, earlier := range ops[:i] {
			if earlier.key == o.key {
				return i
			}
		}
	}
	return -1
}
