package histories_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
)

// stream is what one watcher was told, without a break: where it went away and came back, it did so with the cursor of
// the last event that it had.
type stream struct {
	who   string
	key   string // whose events alone it watches; empty for all
	start bool   // it has watched since before anything could happen
	end   bool   // it has ended with ErrClosed, so that nothing comes after its last event

	mu     sync.Mutex // guards what follows
	events []conveyor.Event
}

func (s *stream) add(e conveyor.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// pick returns one of the events so far that a watcher of a resource, or of all, would be given.
func (s *stream) pick(w *world, key string) (e conveyor.Event, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := ofResource(s.events, key)
	if len(events) == 0 {
		return e, false
	}
	return events[w.n(len(events))], true
}

func ofResource(events []conveyor.Event, key string) []conveyor.Event {
	if key == "" {
		return events
	}
	var some []conveyor.Event
	for _, e := range events {
		if e.Resource.Name == key {
			some = append(some, e)
		}
	}
	return some
}

// watchAll has watchers come and go in a life of the engine. The first of them watches all of it.
func (w *world) watchAll(l *life) {
	l.all = w.stream(l, "the first", "", true)
	l.join.Go(w.watcher(l, l.all, l.engine.Watch(context.Background(), conveyor.WatchOptions{}), false))
	one := w.key()
	first := w.stream(l, "the first of "+one, one, true)
	l.join.Go(w.watcher(l, first, l.engine.Watch(context.Background(), optionsOf(one, "")), false))
	for i := range 3 {
		key := ""
		if w.n(2) == 0 {
			key = w.key()
		}
		slow := i == 2
		l.join.Go(func() { w.comeAndGo(l, fmt.Sprint("late ", i), key, slow) })
	}
	if n := len(w.lives); n > 0 {
		if e, ok := w.lives[n-1].all.pick(w, ""); ok {
			w.expectGap(l, e.Cursor)
			l.join.Go(func() {
				w.nap(20 * time.Millisecond) // until there are as many events in this life as there were in that
				w.expectGap(l, e.Cursor)
			})
		}
	}
}

func optionsOf(key string, since conveyor.Cursor) conveyor.WatchOptions {
	o := conveyor.WatchOptions{Since: since}
	if key != "" {
		o.Resource = conveyor.Key{Type: kind, Name: key}
	}
	return o
}

func (w *world) stream(l *life, who, key string, start bool) *stream {
	s := &stream{who: fmt.Sprintf("%s, in life %d", who, l.n), key: key, start: start}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams = append(l.streams, s)
	return s
}

// watcher follows a stream to its end.
func (w *world) watcher(l *life, s *stream, events iter.Seq2[conveyor.Event, error], slow bool) func() {
	return func() { w.endWith(l, s, w.follow(l, s, events, 0, slow)) }
}

// follow takes events as they come, at most so many if that is not 0.
func (w *world) follow(l *life, s *stream, events iter.Seq2[conveyor.Event, error], most int, slow bool) error {
	for e, err := range w.corrupted(events, s) {
		if err != nil {
			return err
		}
		s.add(e)
		w.tally.count("watch: an event")
		if e.Kind == conveyor.EventRun && e.State.Final() {
			w.hasEnded(e.Run, e.State)
		}
		if slow {
			w.nap(2 * time.Millisecond)
		}
		if most--; most == 0 {
			return nil
		}
	}
	return errors.New("the stream ended without a reason")
}

func (w *world) endWith(l *life, s *stream, err error) {
	switch {
	case errors.Is(err, conveyor.ErrClosed):
		s.end = true
	case errors.Is(err, conveyor.ErrGap):
		w.tally.count("watch: ErrGap after falling behind")
	default:
		w.fault("stream of %s: %v", s.who, err)
	}
}

// comeAndGo watches from some moment on, goes away, comes back with its last cursor, and begins anew after a gap.
func (w *world) comeAndGo(l *life, who, key string, slow bool) {
	w.nap(time.Duration(w.n(20)) * time.Millisecond)
	s := w.stream(l, who, key, false)
	var since conveyor.Cursor
	if e, ok := l.all.pick(w, key); ok && w.n(2) == 0 {
		since = e.Cursor
		s.add(e) // what comes is what came after this one
		w.tally.count("watch: since an earlier event")
	}
	for {
		err := w.follow(l, s, l.engine.Watch(context.Background(), optionsOf(key, since)), 1+w.n(40), slow)
		switch {
		case err == nil:
			s.mu.Lock()
			since = s.events[len(s.events)-1].Cursor
			s.mu.Unlock()
			w.tally.count("watch: gone and come back")
			w.nap(time.Duration(w.n(10)) * time.Millisecond)
			continue
		case errors.Is(err, conveyor.ErrGap):
			w.endWith(l, s, err)
			s, since = w.stream(l, who, key, false), ""
			continue
		}
		w.endWith(l, s, err)
		return
	}
}

// expectGap watches since an event of another life.
func (w *world) expectGap(l *life, since conveyor.Cursor) {
	n := 0
	for _, err := range l.engine.Watch(context.Background(), conveyor.WatchOptions{Since: since}) {
		if n++; !errors.Is(err, conveyor.ErrGap) {
			w.fault("a cursor of another life gives %v", err)
			return
		}
		w.tally.count("watch: ErrGap for a cursor of another life")
	}
	if n != 1 {
		w.fault("a cursor of another life gives %d elements", n)
	}
}

// corrupted does to a stream what is planted.
func (w *world) corrupted(events iter.Seq2[conveyor.Event, error], s *stream) iter.Seq2[conveyor.Event, error] {
	late := strings.HasPrefix(s.who, "late")
	if w.plant != silence && !(late && slices.Contains([]plant{droppedEvent, swappedEvents, repeatedEvent}, w.plant)) {
		return events
	}
	return func(yield func(conveyor.Event, error) bool) {
		var kept *conveyor.Event
		for e, err := range events {
			strike := err == nil && w.odds(100)
			switch {
			case w.plant == silence && err == nil && digest(string(e.Cursor))%50 == 0:
				continue
			case w.plant == droppedEvent && strike:
				continue
			case w.plant == swappedEvents && strike && kept == nil:
				kept = &e
				continue
			case w.plant == repeatedEvent && strike && !yield(e, nil):
				return
			}
			if err != nil && kept != nil && !yield(*kept, nil) {
				return
			}
			if !yield(e, err) {
				return
			}
			if err == nil && kept != nil && !yield(*kept, nil) {
				return
			}
			kept = nil
		}
	}
}

func digest(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

// compareStreams holds the streams of a life against one another, and against what else is known.
func (w *world) compareStreams(l *life) {
	for _, s := range l.streams {
		at := map[conveyor.Cursor]bool{}
		for _, e := range s.events {
			if at[e.Cursor] {
				w.fault("stream of %s: cursor %s comes twice", s.who, e.Cursor)
			}
			at[e.Cursor] = true
		}
		for _, all := range l.streams {
			if all != s && all.key == "" {
				if problem := disagreement(s, all); problem != "" {
					w.fault("stream of %s, compared with that of %s: %s", s.who, all.who, problem)
				}
			}
		}
	}
	if !l.all.end {
		return // it has fallen behind
	}
	w.requireOrderOfRuns(l)
	w.requireEvents(l)
}

// disagreement says how two streams cannot both be parts of the same one, without a gap. The other one is of all events.
func disagreement(s, other *stream) string {
	mine, theirs := s.events, ofResource(other.events, s.key)
	at := map[conveyor.Cursor]int{}
	for j, e := range theirs {
		at[e.Cursor] = j
	}
	i := slices.IndexFunc(mine, func(e conveyor.Event) bool { _, ok := at[e.Cursor]; return ok })
	if i < 0 {
		if len(mine) > 0 && len(theirs) > 0 && (s.start && other.start || s.end && other.end) {
			return "they have nothing in common"
		}
		return ""
	}
	j := at[mine[i].Cursor]
	switch {
	case i > 0 && (j > 0 || other.start), j > 0 && s.start:
		return fmt.Sprintf("before %s there are %d events, and %d", mine[i].Cursor, i, j)
	}
	for ; i < len(mine) && j < len(theirs); i, j = i+1, j+1 {
		if mine[i] != theirs[j] {
			return fmt.Sprintf("%+v stands where %+v does", mine[i], theirs[j])
		}
	}
	if i < len(mine) && other.end || j < len(theirs) && s.end {
		return fmt.Sprintf("at the end there are %d more, and %d", len(mine)-i, len(theirs)-j)
	}
	return ""
}

// requireOrderOfRuns checks that the events of each run come in the order in which they happen, and that they agree
// with what is on record.
func (w *world) requireOrderOfRuns(l *life) {
	over := map[string]bool{}
	seen := map[string]conveyor.State{}
	steps := map[string]conveyor.State{}
	gone := map[string]int{} // resources, by key, that were to be deleted and must be
	for _, e := range l.all.events {
		if over[e.Run] {
			w.fault("life %d: %+v comes after the end of its run", l.n, e)
		}
		step := e.Run + "/" + e.Step
		switch e.Kind {
		case conveyor.EventResource:
			if e.Reason == "deleted" {
				gone[e.Resource.Name]--
			}
		case conveyor.EventStep:
			if last := steps[step]; last.Final() || last == e.State {
				w.fault("life %d: %+v comes after %s", l.n, e, last)
			}
			if last := seen[e.Run]; last == conveyor.StateQueued {
				w.fault("life %d: %+v comes before its run has begun", l.n, e)
			}
			steps[step] = e.State
		case conveyor.EventRun:
			if e.State <= seen[e.Run] {
				w.fault("life %d: %+v comes after %s", l.n, e, seen[e.Run])
			}
			seen[e.Run], over[e.Run] = e.State, e.State.Final()
			r := w.final[e.Run]
			if e.State.Final() && r != nil {
				if r.State != e.State {
					w.fault("life %d: %+v, and on record it is %s", l.n, e, r.State)
				}
				if r.Cause == conveyor.CauseDeleted && r.State == conveyor.StateSucceeded {
					gone[e.Resource.Name]++
				}
			}
		}
	}
	for key, n := range gone {
		if n != 0 && w.exact {
			w.fault("life %d: of the deletions of %s, %d have no event", l.n, key, n)
		}
	}
	for _, c := range w.calls {
		made := c.Life == l.n && c.Answer == done && (c.What == apply || c.What == create || c.What == trigger || c.What == remove)
		if made && !w.unsettled(l, c.Key) && !l.before[c.Ran.ID] && seen[c.Ran.ID] == 0 && steps[c.Ran.ID] == 0 {
			w.fault("life %d: no event tells of the run of %s", l.n, c)
		}
	}
}

// unsettled says that some call that may have changed a resource in a life was not answered before the end of it, so
// that what it has done may have no event, though another call has seen it.
func (w *world) unsettled(l *life, key string) bool {
	return slices.ContainsFunc(w.calls, func(c *call) bool {
		return c.Life == l.n && c.Key == key && c.What != get && c.What != list && (c.Answer == unknown || c.To > l.closed)
	})
}

// requireEvents checks that each change of a resource that was acknowledged has an event, and nothing else has one.
func (w *world) requireEvents(l *life) {
	type change struct {
		id string
		n  int64
	}
	events, unsure := map[string]int{}, map[string]int{}
	changes := map[string]map[change]bool{}
	for _, e := range l.all.events {
		if e.Kind == conveyor.EventResource && e.Reason == "" {
			events[e.Resource.Name]++
		}
	}
	for _, c := range w.calls {
		if c.Life != l.n {
			continue
		}
		if changes[c.Key] == nil {
			changes[c.Key] = map[change]bool{}
		}
		was := l.found[c.Key]
		switch {
		case c.What == cancel || c.What == get || c.What == list:
		case c.Answer == unknown || c.Answer == done && c.To > l.closed:
			unsure[c.Key]++ // or it was answered when the engine had been shut down already
		case c.Answer != done:
		case (c.What == apply || c.What == create) && (was == nil || was.ID != c.Got.ID || was.Version < c.Got.Version):
			changes[c.Key][change{c.Got.ID, c.Got.Version}] = true
		case c.What == remove && (was == nil || was.Deleted == 0 || was.Run != c.Ran.ID):
			changes[c.Key][change{c.Ran.ID, 0}] = true
		}
	}
	for _, key := range w.keys {
		if n, want := events[key], len(changes[key]); n < want-unsure[key] || n > want+unsure[key] {
			w.fault("life %d: %d events tell of changes of %s, and %d were acknowledged, %d were not", l.n, n, key, want, unsure[key])
		}
	}
}
