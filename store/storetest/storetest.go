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
	if h.Reopen != nil {
		all = append(all, durabilityClaims...)
	}
	return all
}
