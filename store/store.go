// Package store is the contract between Conveyor and the place where it keeps its records.
//
// A store is an ordered map from string keys to byte values with one way to write: [Store.Commit], which applies a
// list of conditional operations wholly or not at all. Everything that the records mean belongs to the engine, so
// that a store stays a page of code. Package memory is the reference, package file the durable one, and package
// storetest checks any store against the sentences written here.
package store

import (
	"context"
	"errors"
	"iter"
)

// Revision numbers a commit. The first commit that writes has a revision greater than zero, and every later one has
// a greater revision than all before it, over the whole store and also after a reopen. Zero means "no revision".
type Revision int64

// Record is one key with its value, as some commit wrote it.
type Record struct {
	Key      string
	Value    []byte
	Revision Revision // of the commit that wrote this value
}

// Query selects records for [Store.List]. The zero value selects all of them, in ascending order of their keys.
type Query struct {
	// Prefix limits the list to the keys that begin with it. Empty means every key.
	Prefix string
	// After limits the list to the keys that come after it in the order of the list: greater ones, or smaller ones
	// when Reverse is set. The key itself is left out and need not exist. Empty means from the start.
	After string
	// Limit is the largest number of records to return. Zero or less means no limit.
	Limit int
	// Reverse lists in descending order of the keys.
	Reverse bool
}

// The conditions that callers of a store branch on. A store wraps them with the key or the file they are about.
var (
	// ErrNotFound reports that no record has the key.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict reports that a condition of a commit did not hold, so that nothing was written.
	ErrConflict = errors.New("store: conflict")
	// ErrClosed reports a call on a store after Close, or on one that has failed in a way that only opening it again
	// can mend. The error wraps the cause of that.
	ErrClosed = errors.New("store: closed")
	// ErrLocked reports that another owner has the store open.
	ErrLocked = errors.New("store: locked by another owner")
	// ErrCorrupt reports that what is stored is damaged, or was written by something else.
	ErrCorrupt = errors.New("store: corrupt")
	// ErrUnknown reports that a commit may or may not have happened; reading its records back tells which. If it comes
	// with ErrClosed, that can be done once the store has been opened again.
	ErrUnknown = errors.New("store: outcome of the commit unknown")
)

// Store keeps records. All its methods may be called concurrently.
//
// Keys are non-empty strings of at most [MaxKey] bytes and are ordered by their bytes. Values may be empty; a store
// does not tell nil from empty. The largest value is [MaxValue] bytes.
type Store interface {
	// Get returns the record of key.
	//
	// It sees every commit that returned nil before Get was called. It returns ErrNotFound if no record has the
	// key, ErrClosed after Close, ErrCorrupt if the record is damaged, ErrUnknown if a commit has returned ErrUnknown
	// and the store cannot yet tell what came of it, and the cause of ctx if ctx has ended. The caller owns the
	// returned value and may change it.
	Get(ctx context.Context, key string) (Record, error)

	// List returns the records that q selects, in the order of their keys.
	//
	// The sequence may be ranged over more than once; each time it starts anew. It sees every commit that returned
	// nil before the range began; of a commit made while it runs it may see all, some or none of the records, but
	// each key comes at most once, in order, with a value that some commit wrote. The body of the range may call any
	// method of the store, Commit too. An error is the last thing that the sequence yields, with a zero Record:
	// ErrClosed, ErrCorrupt, ErrUnknown as for Get, or the cause of ctx if it ends on the way; a context that ends
	// after the last record is not noticed. The caller owns the values.
	List(ctx context.Context, q Query) iter.Seq2[Record, error]

	// Commit applies ops, all or none of them, and returns the revision that the written records now have.
	//
	// When it returns nil, every Get and List that begins later sees the writes, and they survive whatever the store
	// claims to survive: for a durable store, a crash of the process and of the machine. When it returns an error
	// other than ErrUnknown, nothing was written. ErrConflict: a condition did not hold. ErrUnknown: the writes may
	// or may not have happened, but wholly or not at all. ErrClosed: after Close. A malformed op (an empty or
	// over-long key, an over-long value, two ops for one key, the zero Op) is refused with an error that wraps none
	// of the sentinels. If ctx has ended before the commit begins, nothing is written and its cause is returned; a
	// commit that has begun is finished.
	//
	// Concurrent commits behave as if they had come one after the other. Commit keeps no reference to the values in
	// ops. Without any ops, or with Checks alone, nothing is written, and the returned revision is the store's newest.
	Commit(ctx context.Context, ops ...Op) (Revision, error)

	// Close releases the store. It waits for calls that have begun, but not for the body of a range, which may itself
	// call Close. Later calls return ErrClosed; so do sequences that are still being ranged over and have records
	// left. Closing twice is fine and returns nil.
	Close() error
}

// Watcher is an optional ability of a store that several processes share.
//
// Watch yields the key of each record under prefix that changes after the call, until ctx ends. It is a hint: keys
// may be repeated or folded together, and only the records are the truth.
type Watcher interface {
	Watch(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// The limits that every store accepts and enforces.
const (
	MaxKey   = 1 << 10 // bytes in a key
	MaxValue = 8 << 20 // bytes in a value
)
