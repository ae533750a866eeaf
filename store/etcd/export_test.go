package etcd

import "time"

// SettleSoon has a handle state that its commits do not happen long after ErrUnknown. The servers of the tests are not stopped meanwhile.
func SettleSoon(s *Store) { s.limits.Unknown = time.Millisecond }

// Between is between.
func Between(low, high string) (string, bool) { return between(low, high) }

// GiveUpSoon has a handle find out for a short time only what came of a commit.
func GiveUpSoon(s *Store) { s.grace = 200 * time.Millisecond }

// BeImpatient has a handle try for a short time only.
func BeImpatient(s *Store, patience time.Duration) { s.opts.Patience = patience }

// NoStreams has a handle think that its servers are old.
func NoStreams(s *Store) { s.noStreams.Store(true) }

// CompactEvery has a handle compact what is older than twice a time.
func CompactEvery(s *Store, every time.Duration) { s.gate.Go(func() { s.compactNowAndThen(every) }) }
