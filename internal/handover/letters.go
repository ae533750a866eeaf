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
	ID  string
	Rec *record.Letter // nil if it cannot be read
	Rev store.Revision
	Err error // why it cannot be read
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
}

// seen is what a Postbox knows of a letter.
type seen struct {
	since time.Time
	pause time.Duration // after which it is tried again; 0 if it was not tried
	again time.Time
	round int
}

// How long a letter waits that could not be applied: at first, and at most.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// together bounds the letters that are applied at the same time.
const together = 32

// Look applies the letters that are there. Of one resource it applies the oldest one alone: the next one follows at the next look. It
// returns when it must look again, although nothing has changed; the zero time means that there is no letter.
func (p *Postbox) Look(ctx context.Context, round int) (next time.Time, err error) {
	all, err := p.oldest(ctx, round)
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	var mu sync.Mutex // guards next and the letters that are known
	var group errgroup.Group
	group.SetLimit(together)
	for _, l := range all {
		s := p.known[l.ID]
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
			letter, err := p.read(ctx, l.ID)
			if letter != nil && err == nil {
				err = p.Apply(ctx, letter)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, ErrNotYet):
				s.pause = min(max(2*s.pause, firstPause), longestPause)
				s.again = time.Now().Add(s.pause)
				sooner(s.again)
				return nil
			case err == nil && l.more:
				sooner(now) // the next one of the resource
			}
			return err
		})
	}
	return next, group.Wait()
}

// first is the oldest letter for a resource.
type first struct {
	ID      string
	key     record.Key
	created record.Time
	more    bool // there is another one
}

// oldest returns the oldest letter for each resource, the oldest of them first. A letter that cannot be read is for a resource of its own.
func (p *Postbox) oldest(ctx context.Context, round int) (all []first, err error) {
	of := map[record.Key]int{}
	if p.known == nil {
		p.known = map[string]*seen{}
	}
	for r, err := range p.Ledger.Store.List(ctx, store.Query{Prefix: record.LetterPrefix}) {
		if err != nil {
			return nil, err
		}
		id := r.Key[len(record.LetterPrefix):]
		l, rec := first{ID: id, key: record.Key{Type: "?", Name: id}}, new(record.Letter)
		if record.Decode(r, rec) == nil {
			l.key, l.created = rec.Key(), rec.Created
		}
		s := p.known[id]
		if s == nil {
			s = &seen{since: time.Now()}
			p.known[id] = s
		}
		s.round = round
		i, other := of[l.key]
		switch {
		case !other:
			of[l.key] = len(all)
			all = append(all, l)
		case cmp.Or(cmp.Compare(l.created, all[i].created), cmp.Compare(l.ID, all[i].ID)) < 0:
			l.more = true
			all[i] = l
		default:
			all[i].more = true
		}
	}
	for id, s := range p.known {
		if s.round != round {
			delete(p.known, id)
		}
	}
	slices.SortFunc(all, func(a, b first) int { return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// read reads a letter. It returns nil if there is none any more.
func (p *Postbox) read(ctx context.Context, id string) (*Letter, error) {
	r, err := p.Ledger.Store.Get(ctx, record.LetterKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := &Letter{ID: id, Rec: new(record.Letter), Rev: r.Revision}
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
