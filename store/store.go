// Package store is the contract between Conveyor and the place where it keeps its records.
//
// A store is an ordered map from string keys to byte values. There is one way to write: [Store.Commit] applies a list
// of conditional operations, either all of them or none. Only the engine knows what the records mean, so a store is
// small. Package memory is the reference store. Package file is the durable store. Package storetest checks any store
// against the contract that is written here.
//
// A store has one owner, or is shared. A store with one owner returns [ErrLocked] to everybody else. A shared store can be
// opened by many processes at the same time, and implements [Watcher]. What this package says of all calls of a store is
// then true of the calls of all processes together.
package store

import (
	"context"
	"errors"
	"iter"
)

// Revision is the number of a commit. The first commit that writes has a revision greater than zero. Every later commit
// that writes has a greater revision than all commits before it, over the whole store and also after the store was
// opened again. Revisions can have gaps. Zero means "no revision".
//
// No two commits that write ever have the same revision, also not after a failover or after a backup was restored. A
// caller that finds a record with a revision it has seen before can therefore use what it has read then.
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
	// case, as soon as the time has passed that [Limits].Unknown states. If the error also wraps ErrClosed, the records can
	// be read once the store has been opened again.
	ErrUnknown = errors.New("store: outcome of the commit unknown")
	// ErrUnavailable reports that what keeps the records cannot be reached now, such as a server that restarts. Nothing
	// was written, and the same call can succeed later. A store returns ErrUnavailable only after it has tried for a while.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrGap reports that a store does not know any more what was changed since a revision. Everything must be listed anew.
	ErrGap = errors.New("store: changes are not known any more")
)

// Store keeps records. All its methods can be called concurrently.
//
// A key is a non-empty string of at most [MaxKey] bytes. Keys are ordered by their bytes. A value has at most
// [MaxValue] bytes and can be empty. A store does not distinguish a nil value from an empty one. A store that accepts less
// says so (see [Limited]).
//
// Commits become visible in the order of their revisions. A caller that has seen a revision, in a record, as the result of
// Commit or in a [Change], sees in each call that begins later all commits with smaller revisions, and that commit too.
type Store interface {
	// Get returns the record of key.
	//
	// Get sees every commit that returned nil before Get was called. The caller owns the returned value and can change
	// it.
	//
	// Get returns ErrNotFound if no record has the key, ErrClosed after Close, ErrCorrupt if the record is damaged,
	// ErrUnavailable if the records cannot be reached now, and the cause of ctx if ctx has ended. It returns ErrUnknown if a
	// commit has returned ErrUnknown and the store does not know yet whether the commit has happened.
	Get(ctx context.Context, key string) (Record, error)

	// List returns the records that q selects, in the order of their keys.
	//
	// The sequence can be ranged over more than once. Each range starts anew. A range sees every commit that returned
	// nil before the range began. Of a commit that is made during the range, the range sees all, some or none of the
	// records. In every case each key comes at most once, in order, with a value that a commit wrote. The body of the
	// range can call any method of the store, including Commit. The caller owns the values.
	//
	// An error is the last element that the sequence yields, together with a zero Record. The error is ErrClosed,
	// ErrCorrupt, ErrUnavailable or ErrUnknown under the same conditions as for Get, or the cause of ctx if ctx ends during
	// the range. If ctx ends after the last record, the range ends without an error.
	List(ctx context.Context, q Query) iter.Seq2[Record, error]

	// Commit applies ops, either all or none of them, and returns the revision that the written records now have.
	//
	// When Commit returns a nil error, every Get and List that begins later sees the writes. The writes survive
	// everything that the store claims to survive. For a durable store, this is a crash of the process and of the
	// machine.
	//
	// When Commit returns an error other than ErrUnknown, nothing was written, and nothing of it is written later. Commit
	// returns ErrConflict if a condition did not hold, ErrClosed after Close, and ErrUnavailable if the records cannot be
	// reached now. It returns ErrUnknown if the writes may or may not have happened and the store could not find out; also
	// then either all or none of them have happened or happen later. For a malformed op and for ops that pass the limits of
	// the store, it returns an error that wraps none of the errors above (see [CheckOps] and [Limits.Check]).
	//
	// If ctx has ended before the commit begins, nothing is written and Commit returns the cause of ctx. A commit that has
	// begun is finished even if ctx ends. Commit can therefore return later than ctx ends; [Limits].Commit is by how much.
	//
	// Concurrent commits behave as if they had come one after the other. Commit keeps no reference to the values in
	// ops. If there are no ops, or only Checks, nothing is written, and Commit returns a revision that is not smaller than
	// that of any commit that had returned before, and smaller than that of every commit that begins afterwards.
	Commit(ctx context.Context, ops ...Op) (Revision, error)

	// Close releases the store. It waits for calls that have begun. It does not wait for the body of a range, which can
	// itself call Close. Every later call returns ErrClosed. A sequence that is being ranged over and has records left
	// yields ErrClosed. A second Close returns nil.
	Close() error
}

// Watcher is the interface of a shared store: one that several processes can have open at the same time. An engine
// treats a store that implements Watcher as shared, and every other store as its own. A store that is made of a shared store
// must therefore implement Watcher too, to be shared.
//
// On a shared store, an engine begins the keys of the records that come and go, such as heartbeats, with a tilde. All other records stay
// for as long as a run is kept. A store can keep the two apart.
type Watcher interface {
	// Watch yields what commits change in the records whose keys begin with prefix. It begins after the commit with the
	// revision after, and goes on until ctx ends. Empty means every key, and revision zero means from the first commit on.
	//
	// Each key that a commit with a greater revision than after has written or removed comes at least once, whoever made
	// the commit. The changes come in ascending order of their revisions. A key can come more than once for one change. A
	// store may leave out a change of a key if a later change of the same key comes. When a Change with a revision comes,
	// all changes with smaller revisions have come. A Change without a key changes nothing: it tells that all changes up to
	// and including its revision have come. To go on later, without missing anything, call Watch again with the revision
	// of such a Change, or with one less than the revision of the last Change that has a key.
	//
	// To know all records and every change from then on, take a revision with [Store.Commit] without ops, then List, then
	// Watch after that revision.
	//
	// Watch gives no promise about how soon a change comes. A lost connection is no end: the store connects again, and
	// nothing is missing then. The sequence can be ranged over more than once, and each range starts anew. The body of the
	// range can call any method of the store.
	//
	// An error is the last element that the sequence yields, together with a zero Change. The error is the cause of ctx if
	// ctx ends, ErrClosed after Close, and ErrGap if the store does not know any more what has changed since the revision
	// after.
	Watch(ctx context.Context, prefix string, after Revision) iter.Seq2[Change, error]
}

// Change says that a commit has written or removed a record, or how far a [Watcher] has got.
type Change struct {
	Key      string   // empty if only the revision is told
	Revision Revision // of the commit
}
