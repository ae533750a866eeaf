// Package store is the contract between Conveyor and the place where it keeps its records.
//
// A store is an ordered map from string keys to byte values. There is one way to write: [Store.Commit] applies a list
// of conditional operations, either all of them or none. Only the engine knows what the records mean, so a store is
// small. Package memory is the reference store. Package file is the durable store. Package storetest checks any store
// against the contract that is written here.
package store

import (
	"context"
	"errors"
	"iter"
)

// Revision is the number of a commit. The first commit that writes has a revision greater than zero. Every later commit
// that writes has a greater revision than all commits before it, over the whole store and also after the store was
// opened again. Zero means "no revision".
type Revision int64

// Record is one key with its value, as a commit wrote it.
type Record struct {
	Key      string
	Value    []byte
	Revision Revision // the revision of the commit that wrote this value
}

// Query selects records for [Store.List]. The zero value selects all records, in ascending order of their keys.
type Query struct {
	// Prefix limits the list to the keys that begin with Prefix. Empty means every key.
	Prefix string
	// After limits the list to the keys that come after After in the order of the list: to greater keys, or to smaller
	// keys if Reverse is set. The key After is not in the list and need not exist. Empty means that the list begins at
	// its start.
	After string
	// Limit is the largest number of records to return. Zero or less means no limit.
	Limit int
	// Reverse makes the order of the list descending.
	Reverse bool
}

// The conditions that callers of a store branch on. A store wraps such an error and adds the key or the file.
var (
	// ErrNotFound reports that no record has the key.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict reports that a condition of a commit did not hold. Nothing was written.
	ErrConflict = errors.New("store: conflict")
	// ErrClosed reports a call after Close, or a call on a store that has failed and must be opened again. In the
	// second case the error also wraps the cause of the failure.
	ErrClosed = errors.New("store: closed")
	// ErrLocked reports that another owner has the store open.
	ErrLocked = errors.New("store: locked by another owner")
	// ErrCorrupt reports that the stored data is damaged, or was written by another program.
	ErrCorrupt = errors.New("store: corrupt")
	// ErrUnknown reports that a commit may or may not have happened. Reading its records shows which of the two is the
	// case. If the error also wraps ErrClosed, the records can be read once the store has been opened again.
	ErrUnknown = errors.New("store: outcome of the commit unknown")
)

// Store keeps records. All its methods can be called concurrently.
//
// A key is a non-empty string of at most [MaxKey] bytes. Keys are ordered by their bytes. A value has at most
// [MaxValue] bytes and can be empty. A store does not distinguish a nil value from an empty one.
type Store interface {
	// Get returns the record of key.
	//
	// Get sees every commit that returned nil before Get was called. The caller owns the returned value and can change
	// it.
	//
	// Get returns ErrNotFound if no record has the key, ErrClosed after Close, ErrCorrupt if the record is damaged, and
	// the cause of ctx if ctx has ended. It returns ErrUnknown if a commit has returned ErrUnknown and the store does
	// not know yet whether the commit has happened.
	Get(ctx context.Context, key string) (Record, error)

	// List returns the records that q selects, in the order of their keys.
	//
	// The sequence can be ranged over more than once. Each range starts anew. A range sees every commit that returned
	// nil before the range began. Of a commit that is made during the range, the range sees all, some or none of the
	// records. In every case each key comes at most once, in order, with a value that a commit wrote. The body of the
	// range can call any method of the store, including Commit. The caller owns the values.
	//
	// An error is the last element that the sequence yields, together with a zero Record. The error is ErrClosed,
	// ErrCorrupt or ErrUnknown under the same conditions as for Get, or the cause of ctx if ctx ends during the range.
	// If ctx ends after the last record, the range ends without an error.
	List(ctx context.Context, q Query) iter.Seq2[Record, error]

	// Commit applies ops, either all or none of them, and returns the revision that the written records now have.
	//
	// When Commit returns a nil error, every Get and List that begins later sees the writes. The writes survive
	// everything that the store claims to survive. For a durable store, this is a crash of the process and of the
	// machine.
	//
	// When Commit returns an error other than ErrUnknown, nothing was written. Commit returns ErrConflict if a
	// condition did not hold, and ErrClosed after Close. It returns ErrUnknown if the writes may or may not have
	// happened; also then either all or none of them have happened. For a malformed op, it returns an error that wraps
	// none of the errors above (see [CheckOps]). If ctx has ended before the commit begins, nothing is written and
	// Commit returns the cause of ctx. A commit that has begun is finished even if ctx ends.
	//
	// Concurrent commits behave as if they had come one after the other. Commit keeps no reference to the values in
	// ops. If there are no ops, or only Checks, nothing is written and Commit returns the newest revision of the store.
	Commit(ctx context.Context, ops ...Op) (Revision, error)

	// Close releases the store. It waits for calls that have begun. It does not wait for the body of a range, which can
	// itself call Close. Every later call returns ErrClosed. A sequence that is being ranged over and has records left
	// yields ErrClosed. A second Close returns nil.
	Close() error
}

// Watcher is an optional interface of a store that several processes share.
//
// Watch yields the key of each record under prefix that changes after the call, until ctx ends. Watch gives only hints:
// it can yield a key more than once, and can yield a key once for several changes. Only the records say what is stored.
type Watcher interface {
	Watch(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// The limits that every store accepts and enforces.
const (
	MaxKey   = 1 << 10 // bytes in a key
	MaxValue = 8 << 20 // bytes in a value
)
