// Package storetest checks a store against the contract of package store, one named subtest for each of its sentences.
//
// A store's own test calls it like this:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, storetest.Harness{
//			Open:   func(t testing.TB) store.Store { ... },
//			Reopen: func(t testing.TB, closed store.Store) store.Store { ... },
//		})
//	}
//
// What no caller can bring about, a crash and a damaged file, is left to the tests of the store.
package storetest

import (
	"slices"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

// Harness says how to get at the store under test. Its functions report their own failures through t.
type Harness struct {
	// Open returns a new and empty store. The suite closes it.
	Open func(t testing.TB) store.Store

	// Reopen opens again what a store returned by Open, or by Reopen, left behind when it was closed. It is nil for a
	// store that claims to survive nothing; the subtests about durability are then left out.
	Reopen func(t testing.TB, closed store.Store) store.Store
}

// Run runs the whole suite, each claim as a subtest on a store of its own.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for _, c := range claims(h) {
		t.Run(c.name, func(t *testing.T) { c.check(t, h) })
	}
}

// claim is one sentence of the contract. Its check takes the interface, so that the tests of the suite itself can see
// it fail.
type claim struct {
	name  string
	check func(t testing.TB, h Harness)
}

// claims returns what a store with this harness promises.
func claims(h Harness) []claim {
	all := slices.Concat(getClaims, listClaims, commitClaims, concurrencyClaims, closeClaims)
	if h.Reopen != nil {
		all = append(all, durabilityClaims...)
	}
	return all
}
