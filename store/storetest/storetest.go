// Package storetest checks a store against the contract of package store. There is one named subtest for each sentence
// of the contract.
//
// The test of a store calls it like this:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, storetest.Harness{
//			Open:   func(t testing.TB) store.Store { ... },
//			Reopen: func(t testing.TB, closed store.Store) store.Store { ... },
//		})
//	}
//
// A shared store also sets Join, and the suite then makes its concurrent calls over two handles. A store that states limits
// (see [store.Limited]) is tested within them, and one more is refused.
//
// The suite does not test crashes and damaged files, because no caller of a store can cause them. They are left to the
// tests of each store.
package storetest

import (
	"slices"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

// Harness says how to open the store under test. Its functions report their failures through t.
type Harness struct {
	// Open returns a new and empty store. The suite closes the store.
	Open func(t testing.TB) store.Store

	// Reopen opens a store again that Open or Reopen has returned and the suite has closed. It returns a store with the
	// same records, which the suite closes. Reopen is nil for a store that claims to survive nothing. The subtests
	// about durability are left out then.
	Reopen func(t testing.TB, closed store.Store) store.Store

	// Join returns another handle on the records of a store that Open, Reopen or Join has returned. The suite closes the handle.
	// Join is nil for a store that is not shared. The subtests about several handles and about [store.Watcher] are left out
	// then.
	Join func(t testing.TB, s store.Store) store.Store

	// Forget makes a shared store forget which changes were made so far, so that a Watch from an earlier revision ends with
	// [store.ErrGap]. Forget is nil for a store that never does. The subtests about gaps are left out then.
	Forget func(t testing.TB, s store.Store)

	// Lose makes the answers of some commits get lost from now on, as a network does: some of these commits happen, some do
	// not, and some can happen later. heal ends it. Lose is nil for a store that has no way to lose an answer. The subtests
	// about lost answers are left out then.
	Lose func(t testing.TB, s store.Store) (heal func())
}

// Run runs the whole suite. Each claim is a subtest with a store of its own.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for _, c := range claims(h) {
		t.Run(c.name, func(t *testing.T) { c.check(t, h) })
	}
}

// claim is one sentence of the contract with its check. The check takes a testing.TB, so that the tests of the suite
// itself can see the check fail.
type claim struct {
	name  string
	check func(t testing.TB, h Harness)
}

// claims returns the claims that a store with this harness must meet.
func claims(h Harness) []claim {
	all := slices.Concat(getClaims, listClaims, commitClaims, concurrencyClaims, closeClaims)
	all = append(all, limitClaims...)
	if h.Reopen != nil {
		all = append(all, durabilityClaims...)
	}
	if h.Join != nil {
		all = slices.Concat(all, handleClaims, watchClaims)
	}
	if h.Forget != nil {
		all = append(all, gapClaims...)
	}
	if h.Lose != nil {
		all = append(all, lossClaims...)
	}
	return all
}
