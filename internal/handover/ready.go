// Package handover finds the runs that an engine on a shared store can make its own: those without an owner, and those of an
// engine that is marked dead. It must not know what a run does next, and it keeps nothing between two calls.
package handover

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"strings"

	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Search is a look at the runs that have no owner.
type Search struct {
	Ledger  *ledger.Ledger
	Now     record.Time
	Drivers []string // that are registered
	// Serves returns how many runs of a lane the engine can begin now. A lane for which it returns 0 is passed over whole.
	Serves func(ctx context.Context, lane string) (room int, err error)
	// Known reports whether a run waits in the engine already, and whether it waits for something that somebody must correct, so
	// that it needs no room.
	Known func(run string) (known, blocked bool)
	// Urgent is the key after which the look at what needs no worker begins.
	Urgent string
	// Others is how many other engines look at the same runs. An engine that has others begins at a random one of the first runs
	// of a lane, so that not all want the same.
	Others int
	// Damaged is called for a key that nobody can have made.
	Damaged func(err error)

	few []store.Record // all entries, if there are few; nil otherwise
}

// Entry is an entry of the index of the runs that have no owner.
type Entry struct {
	record.Ready
	Key string
	Rev store.Revision // of the entry, which who finds that it is for nothing removes
}

// Result is what a look has found.
type Result struct {
	Urgent []Entry // need no worker; a page of them
	// UrgentNext is the key after which the next look at them must begin, so that none is passed over. It is empty if there are no more.
	UrgentNext string
	Entries    []Entry     // as many as were asked for, and one of each lane besides
	Next       record.Time // when the first of the others is due; 0 if none is
	Left       bool        // there are entries that are due and were not returned
}

// page is how many entries of a lane are looked at.
const page = 32

// fewEntries is how many entries are so few that they are read at once. Mostly there is none, or there are a few.
const fewEntries = 15

// Look returns the entries that are due. Of those that need a worker it returns n, one of each lane in turn. Besides, it returns one
// of each lane of which the engine knows none, so that each lane has one that waits for a worker.
func (s *Search) Look(ctx context.Context, n int) (r Result, err error) {
	if err := s.readFew(ctx); err != nil || s.few != nil && len(s.few) == 0 {
		return r, err
	}
	if err := s.urgent(ctx, &r); err != nil {
		return r, err
	}
	var lanes [][]Entry
	prefixes := []string{record.ReadyOf(record.Ready{})}
	for _, driver := range s.Drivers {
		prefixes = append(prefixes, record.ReadyOf(record.Ready{Driver: driver}))
	}
	for _, prefix := range prefixes {
		begun := prefix != prefixes[0]
		for after := ""; ; {
			lane, err := s.nextLane(ctx, prefix, after)
			if err != nil {
				return r, err
			}
			if lane == "" {
				break
			}
			after = prefix + lane + "/~" // after all entries of the lane
			if !begun && lane == record.Urgent {
				continue
			}
			room, err := s.room(ctx, begun, lane)
			if err != nil {
				return r, err
			}
			if room == 0 {
				continue
			}
			entries, known, err := s.lane(ctx, &r, prefix+lane+"/", min(room, page), s.Others)
			if err != nil {
				return r, err
			}
			if !known && len(entries) > 0 {
				r.Entries, entries = append(r.Entries, entries[0]), entries[1:]
			}
			if len(entries) > 0 {
				lanes = append(lanes, entries)
			}
		}
	}
	for round := 0; ; round++ {
		some := false
		for _, lane := range lanes {
			if round >= len(lane) {
				continue
			}
			if len(r.Entries) >= n {
				r.Left = true
				return r, nil
			}
			r.Entries, some = append(r.Entries, lane[round]), true
		}
		if !some {
			return r, nil
		}
	}
}

// readFew reads all entries, if there are few.
func (s *Search) readFew(ctx context.Context) error {
	all := []store.Record{}
	for found, err := range s.Ledger.Store.List(ctx, store.Query{Prefix: record.ReadyPrefix, Limit: fewEntries + 1}) {
		if err != nil {
			return err
		}
		all = append(all, found)
	}
	if s.few = all; len(all) > fewEntries {
		s.few = nil
	}
	return nil
}

// entries lists the entries whose keys begin with a prefix and come after a key.
func (s *Search) entries(ctx context.Context, prefix, after string) iter.Seq2[store.Record, error] {
	if s.few == nil {
		return s.Ledger.Store.List(ctx, store.Query{Prefix: prefix, After: after})
	}
	return func(yield func(store.Record, error) bool) {
		for _, found := range s.few {
			if strings.HasPrefix(found.Key, prefix) && found.Key > after && !yield(found, nil) {
				return
			}
		}
	}
}

// room returns how many runs of a lane the engine can go on with. A run that has begun stands where its driver is named.
func (s *Search) room(ctx context.Context, begun bool, lane string) (int, error) {
	if begun {
		return page, nil
	}
	return s.Serves(ctx, lane)
}

// nextLane returns the lane of the first entry under a prefix after a key, and nothing if there is none.
func (s *Search) nextLane(ctx context.Context, prefix, after string) (lane string, err error) {
	for r, err := range s.entries(ctx, prefix, after) {
		if err != nil {
			return "", err
		}
		e, err := record.ParseReadyKey(r.Key)
		if err != nil {
			s.Damaged(err)
			continue
		}
		return e.Lane, nil
	}
	return "", nil
}

// urgent finds what needs no worker: a page, from where the last look has ended.
func (s *Search) urgent(ctx context.Context, r *Result) error {
	for found, err := range s.entries(ctx, record.ReadyOf(record.Ready{Lane: record.Urgent}), s.Urgent) {
		if err != nil {
			return err
		}
		e, err := record.ParseReadyKey(found.Key)
		switch {
		case err != nil:
			s.Damaged(err)
		case e.Due > s.Now:
			if e.Due != record.Never && (r.Next == 0 || e.Due < r.Next) {
				r.Next = e.Due
			}
			return nil
		case len(r.Urgent) == page:
			r.UrgentNext = r.Urgent[page-1].Key
			return nil
		default:
			r.Urgent = append(r.Urgent, Entry{e, found.Key, found.Revision})
		}
	}
	return nil
}

// waits reports whether a run waits in the engine already, and needs room. If it does, known is set.
func (s *Search) waits(run string, known *bool) bool {
	is, blocked := s.Known(run)
	*known = *known || is && !blocked
	return is && !blocked
}

// isBlocked reports whether a run waits in the engine for something that somebody must correct.
func (s *Search) isBlocked(run string) bool {
	is, blocked := s.Known(run)
	return is && blocked
}

// lane returns the entries under a prefix that are due, at most as many as there is room for, and from a random place on if others
// look at them too. It reports whether the engine knows the run of one of them.
func (s *Search) lane(ctx context.Context, r *Result, prefix string, room, others int) (entries []Entry, known bool, err error) {
	for found, err := range s.entries(ctx, prefix, "") {
		if err != nil {
			return nil, false, err
		}
		e, err := record.ParseReadyKey(found.Key)
		switch {
		case err != nil:
			s.Damaged(err)
			continue
		case e.Due > s.Now:
			if e.Due != record.Never && (r.Next == 0 || e.Due < r.Next) {
				r.Next = e.Due
			}
		case s.waits(e.Run, &known):
			if room > 1 {
				room--
				continue
			}
			r.Left = true
		case s.isBlocked(e.Run):
			continue
		case len(entries) == min(room+others, page):
			r.Left = true
		default:
			entries = append(entries, Entry{e, found.Key, found.Revision})
			continue
		}
		break
	}
	if others > 0 && len(entries) > 1 {
		first := rand.IntN(min(len(entries), others+1))
		entries = append(entries[first:len(entries):len(entries)], entries[:first]...)
	}
	return entries[:min(len(entries), room)], known, nil
}

// Discard removes an entry that is for nothing, because its run is owned, is over, or needs something else. A release may have put
// it again meanwhile; then it stays.
func Discard(ctx context.Context, l *ledger.Ledger, e Entry) error {
	_, err := l.Commit(ctx, []store.Op{store.Delete(e.Key).If(e.Rev)})
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}
