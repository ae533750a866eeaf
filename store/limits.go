package store

import (
	"fmt"
	"time"
)

// The limits that every store enforces.
const (
	MaxKey   = 1 << 10 // bytes in a key
	MaxValue = 8 << 20 // bytes in a value
)

// Limits are what a store accepts in one commit, and how long a commit takes at most. Zero means that the store states no
// limit of its own.
type Limits struct {
	Value int // bytes in a value; zero means [MaxValue]
	Ops   int // ops in a commit, the Checks included
	Bytes int // bytes of all keys and values of a commit together, the keys of Deletes and Checks included

	// Commit is the longest time for which a Commit that has begun blocks, whatever its context says. Zero means as long as
	// it takes.
	Commit time.Duration
	// Unknown is how long after Commit has returned [ErrUnknown] the writes can still happen. Zero means that they have
	// happened by then or never do.
	Unknown time.Duration
}

// Limited is an optional interface of a store that accepts less than package store allows, or that states how long a commit
// takes.
type Limited interface {
	// Limits returns the limits of the store. It returns the same values whenever it is called, also after Close, and can be
	// called concurrently.
	Limits() Limits
}

// LimitsOf returns the limits that a store states, and those that every store has.
func LimitsOf(s Store) (l Limits) {
	if limited, ok := s.(Limited); ok {
		l = limited.Limits()
	}
	if l.Value <= 0 || l.Value > MaxValue {
		l.Value = MaxValue
	}
	return l
}

// Check returns an error if a commit of ops passes the limits, and nil otherwise. The error wraps none of the sentinels of this
// package. A store that states limits calls Check after [CheckOps].
func (l Limits) Check(ops []Op) error {
	if l.Ops > 0 && len(ops) > l.Ops {
		return fmt.Errorf("store: commit of %d ops, more than the limit of %d (a limit of this store)", len(ops), l.Ops)
	}
	size := 0
	for i, o := range ops {
		if l.Value > 0 && len(o.value) > l.Value {
			return fmt.Errorf("store: op %d: value of %q has %d bytes, more than the limit of %d (a limit of this store)", i+1, o.key, len(o.value), l.Value)
		}
		size += o.Size()
	}
	if l.Bytes > 0 && size > l.Bytes {
		return fmt.Errorf("store: commit of %d bytes of keys and values, more than the limit of %d (a limit of this store)", size, l.Bytes)
	}
	return nil
}
