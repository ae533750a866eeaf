package handover

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Letter is a letter on record that has not been answered.
type Letter struct {
	ID    string
	Rec   *record.Letter // nil if it cannot be read
	Rev   store.Revision
	Err   error     // why it cannot be read
	Since time.Time // when it was seen first
}

// ErrNotYet means that a letter cannot be applied now, and perhaps later.
var ErrNotYet = errors.New("conveyor: the letter cannot be applied yet")

// Postbox finds the letters that an engine is to apply. It keeps in memory which letters could not be applied, and when they are tried
// again. It is used by one goroutine.
type Postbox struct {
	Ledger *ledger.Ledger
	// Mine reports whether a letter for a resource falls to this engine. A letter that has been there for Patience is for any engine.
	Mine     func(record.Key) bool
	Patience time.Duration
	// Apply applies a letter and removes it. It returns [ErrNotYet] if the letter is to be tried again later. After any other error,
	// Look ends. Apply is called concurrently, for different resources.
	Apply func(context.Context, *Letter) error

	known map[string]*seen // by the id of the letter
	looks int
}

// seen is what a Postbox knows of a letter.
type seen struct {
	since time.Time
	pause time.Duration // after which it is tried again; 0 if it was not tried
	again time.Time
	look  int // the newest that has found it
}

// How long a letter waits that could not be applied: at first, and at most.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// together bounds the letters that are applied at the same time.
const together = 32

// Look applies the letters that are there, those of one resource one after the other, the oldest first. It returns when it must look again,
// although nothing has changed; the zero time means that there is no letter.
func (p *Postbox) Look(ctx context.Context) (next time.Time, err error) {
	all, err := p.list(ctx)
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	var mu sync.Mutex // guards next
	var group errgroup.Group
	group.SetLimit(together)
	for _, l := range all {
		s := p.known[l.ids[0].id]
		if !p.Mine(l.key) && now.Sub(s.since) < p.Patience {
			mu.Lock()
			sooner(s.since.Add(p.Patience))
			mu.Unlock()
			continue
		}
		if s.again.After(now) {
			mu.Lock()
			sooner(s.again)
			mu.Unlock()
			continue
		}
		group.Go(func() error {
			for _, of := range l.ids {
				s := p.known[of.id]
				letter, err := p.read(ctx, of.id, s.since)
				if letter != nil && err == nil {
					err = p.Apply(ctx, letter)
				}
				if errors.Is(err, ErrNotYet) {
					s.pause = min(max(2*s.pause, firstPause), longestPause)
					s.again = time.Now().Add(s.pause)
					mu.Lock()
					defer mu.Unlock()
					sooner(s.again)
					return nil
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = group.Wait()
	return next, err
}

// line is the letters for a resource, the oldest first.
type line struct {
	key record.Key
	ids []waiting
}

// waiting is a letter in a line.
type waiting struct {
	id      string
	created record.Time
}

// list returns the letters that are there. A letter that cannot be read is for a resource of its own.
func (p *Postbox) list(ctx context.Context) (all []line, err error) {
	of := map[record.Key]int{}
	p.looks++
	if p.known == nil {
		p.known = map[string]*seen{}
	}
	for r, err := range p.Ledger.Store.List(ctx, store.Query{Prefix: record.LetterPrefix}) {
		if err != nil {
			return nil, err
		}
		l := waiting{id: r.Key[len(record.LetterPrefix):]}
		key, rec := record.Key{Type: "?", Name: l.id}, new(record.Letter)
		if record.Decode(r, rec) == nil {
			key, l.created = rec.Key(), rec.Created
		}
		if p.known[l.id] == nil {
			p.known[l.id] = &seen{since: time.Now()}
		}
		p.known[l.id].look = p.looks
		i, other := of[key]
		if !other {
			i = len(all)
			of[key] = i
			all = append(all, line{key: key})
		}
		all[i].ids = append(all[i].ids, l)
	}
	for id, s := range p.known {
		if s.look != p.looks {
			delete(p.known, id)
		}
	}
	for i := range all {
		slices.SortFunc(all[i].ids, older)
	}
	slices.SortFunc(all, func(a, b line) int { return older(a.ids[0], b.ids[0]) })
	return all, nil
}

// older compares letters by their age, and those of the same age by their ids.
func older(a, b waiting) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.id, b.id))
}

// read reads a letter. It returns nil if there is none any more.
func (p *Postbox) read(ctx context.Context, id string, since time.Time) (*Letter, error) {
	r, err := p.Ledger.Store.Get(ctx, record.LetterKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := &Letter{ID: id, Rec: new(record.Letter), Rev: r.Revision, Since: since}
	if err := record.Decode(r, l.Rec); err != nil {
		l.Rec, l.Err = nil, err
	}
	return l, nil
}

// Answer returns the writes that remove a letter and put what has become of it on record.
func Answer(l *Letter, answer *record.Answered) []store.Op {
	return []store.Op{
		store.Delete(record.LetterKey(l.ID)).If(l.Rev), store.Put(record.AnsweredKey(l.ID), record.Encode(answer)).IfAbsent(),
	}
}
