package member

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const usual = 30 * time.Second // the lease of most tests

// line is the way of an engine to the store. A test can cut it, hold it up, or have it lose answers.
type line struct {
	store.Store

	mu     sync.Mutex // guards what follows
	cut    bool
	held   chan struct{} // the calls wait until it is closed; nil for no hold
	commit func(ops []store.Op, do func() (store.Revision, error)) (store.Revision, error)
}

func (l *line) set(change func(l *line)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

// hold has all calls wait until the returned function is called.
func (l *line) hold() (release func()) {
	held := make(chan struct{})
	l.set(func(l *line) { l.held = held })
	return func() {
		l.set(func(l *line) { l.held = nil })
		close(held)
	}
}

func (l *line) pass() error {
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	if held != nil {
		<-held
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return store.ErrUnavailable
	}
	return nil
}

func (l *line) Get(ctx context.Context, key string) (store.Record, error) {
	if err := l.pass(); err != nil {
		return store.Record{}, err
	}
	return l.Store.Get(ctx, key)
}

func (l *line) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		if err := l.pass(); err != nil {
			yield(store.Record{}, err)
			return
		}
		l.Store.List(ctx, q)(yield)
	}
}

func (l *line) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := l.pass(); err != nil {
		return 0, err
	}
	l.mu.Lock()
	commit := l.commit
	l.mu.Unlock()
	do := func() (store.Revision, error) { return l.Store.Commit(ctx, ops...) }
	if commit == nil {
		return do()
	}
	return commit(ops, do)
}

// engine is a member with its line, and what it was told.
type engine struct {
	*Member
	*line
	t     *testing.T
	began time.Time
	end   context.CancelFunc
	done  chan struct{} // closed when Run has returned

	mu   sync.Mutex // guards told
	told []string   // "what@seconds"
}

func (e *engine) note(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.told = append(e.told, fmt.Sprintf("%s@%d", what, time.Since(e.began)/time.Second))
}

func (e *engine) Fenced()                { e.note("fenced") }
func (e *engine) Renewed()               { e.note("renewed") }
func (e *engine) Dead(id string)         { e.note("dead " + id) }
func (e *engine) Lost()                  { e.note("lost") }
func (e *engine) Seen([]Peer)            {}
func (e *engine) Load() record.Heartbeat { return record.Heartbeat{Drivers: []string{"d"}, Free: 2} }

// notes returns what the engine was told since the last call.
func (e *engine) notes() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	told := e.told
	e.told = nil
	return told
}

// onRecord returns the record of an engine.
func onRecord(t *testing.T, st store.Store, id string) record.Engine {
	t.Helper()
	rec, _, err := ledger.Load[record.Engine](t.Context(), ledger.New(st), record.EngineKey(id))
	require.NoError(t, err)
	return *rec
}

// world is a shared store and the engines on it.
type world struct {
	t     *testing.T
	disk  *memory.Shared
	began time.Time
}

func newWorld(t *testing.T) *world { return &world{t, memory.NewShared(), time.Now()} }

// join returns when the engine has renewed its lease and looked at the others for the first time.
func (w *world) join(id string, lease time.Duration) *engine {
	w.t.Helper()
	e := &engine{line: &line{Store: w.disk.Join()}, t: w.t, began: w.began, done: make(chan struct{})}
	m, err := Join(w.t.Context(), ledger.New(e.line), id, record.Engine{Started: 1, Format: record.Version, Lease: lease}, e)
	require.NoError(w.t, err)
	e.Member = m
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	e.end = cancel
	go func() {
		defer close(e.done)
		m.Run(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-e.done
	})
	synctest.Wait()
	return e
}

// kill ends an engine as the end of its process does.
func (e *engine) kill() {
	e.end()
	<-e.done
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func inBubble(t *testing.T, name string, test func(t *testing.T, w *world)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
	})
}

func TestEngines06AnEngineThatIsKilledIsMarkedAfterItsLease(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		a, b, c := w.join("a", usual), w.join("b", usual), w.join("c", usual)
		after(time.Minute)
		require.Empty(t, slices.Concat(a.notes(), b.notes(), c.notes()), "all live")
		b.kill()
		after(usual)
		require.Zero(t, onRecord(t, w.disk, "b").Dead, "not before a whole lease")
		after(usual/3 + 1)
		require.NotZero(t, onRecord(t, w.disk, "b").Dead)
		require.Contains(t, []string{"a", "c"}, onRecord(t, w.disk, "b").By)
		after(usual / 3) // the one whose mark came second learns it when it looks again
		for _, e := range []*engine{a, c} {
			told := e.notes()
			require.Len(t, told, 1, "once")
			require.True(t, strings.HasPrefix(told[0], "dead b@"))
			require.False(t, e.Member.Fenced())
		}
	})
}

func TestEngines06EachEngineIsJudgedByItsOwnLease(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		short, long := w.join("short", 5*time.Second), w.join("long", time.Minute)
		after(10 * time.Minute)
		require.Empty(t, slices.Concat(short.notes(), long.notes()))
		long.kill()
		after(50 * time.Second)
		require.Empty(t, short.notes(), "five seconds are nothing to the other")
		after(20 * time.Second)
		require.Len(t, short.notes(), 1)

		short.kill()
		again := w.join("again", time.Minute)
		after(20 * time.Second)
		require.Equal(t, "again", onRecord(t, w.disk, "short").By)
		require.Len(t, again.notes(), 2, "the other one was marked before")
	})
}

// TestEngines06AMarkConflictsWithARenewal: the observer has waited for a lease, and is held up on its way to the store; the other
// engine renews its lease meanwhile.
func TestEngines06AMarkConflictsWithARenewal(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		a, b := w.join("a", usual), w.join("b", usual)
		release := b.hold()
		held, goOn := make(chan struct{}), make(chan struct{})
		a.set(func(l *line) {
			l.commit = func(ops []store.Op, do func() (store.Revision, error)) (store.Revision, error) {
				if ops[0].Key() == record.EngineKey("b") {
					close(held)
					<-goOn
				}
				return do()
			}
		})
		<-held
		require.Equal(t, []string{"fenced@20"}, b.notes())
		require.True(t, b.Member.Fenced())
		release()
		after(time.Second)
		require.Len(t, b.notes(), 1)
		require.False(t, b.Member.Fenced())
		close(goOn)
		synctest.Wait()
		require.Zero(t, onRecord(t, w.disk, "b").Dead)
		require.Empty(t, a.notes())
		a.set(func(l *line) { l.commit = nil })
		after(5 * time.Minute)
		require.Empty(t, slices.Concat(a.notes(), b.notes()))
	})
}

// TestEngines06AStoreThatWasAwayKillsNobody: the store is away for three leases, again and again, and nobody can renew.
func TestEngines06AStoreThatWasAwayKillsNobody(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		all := []*engine{w.join("a", usual), w.join("b", usual), w.join("c", 12*time.Second)}
		for range 6 {
			for _, e := range all {
				e.set(func(l *line) { l.cut = true })
			}
			after(3 * usual)
			for _, e := range all {
				require.True(t, e.Member.Fenced())
				e.set(func(l *line) { l.cut = false })
			}
			after(3 * usual)
			for _, e := range all {
				told := e.notes()
				require.Len(t, told, 2)
				require.True(t, strings.HasPrefix(told[0], "fenced@") && strings.HasPrefix(told[1], "renewed@"))
				require.Zero(t, onRecord(t, w.disk, e.ID).Dead)
			}
		}
	})
}

// TestEngines06AnObserverThatWasPausedCountsAnew: the observer stands still for three leases, as a process that is stopped, while
// the other renews its lease; then the other is silent for half a lease.
func TestEngines06AnObserverThatWasPausedCountsAnew(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		a, b, c := w.join("a", usual), w.join("b", usual), w.join("c", usual)
		release := a.hold() // c is the engine that marks a
		after(3 * usual)
		require.Equal(t, []string{"fenced@20"}, a.notes())
		require.NotZero(t, onRecord(t, w.disk, "a").Dead)
		release()
		synctest.Wait()
		require.Equal(t, []string{"lost@90"}, a.notes(), "it learns it from its first renewal")
		<-a.done
		require.True(t, a.Member.Fenced())
		require.Len(t, b.notes(), 1)
		require.Len(t, c.notes(), 1)

		again := w.join("again", usual)
		after(usual)
		release = again.hold()
		after(usual / 2) // more than a third, and not enough to be marked
		lineOfB := b.hold()
		release()
		after(usual - time.Second)
		require.Zero(t, onRecord(t, w.disk, "b").Dead)
		lineOfB()
		after(usual)
		require.Zero(t, onRecord(t, w.disk, "b").Dead)
	})
}

func TestEngines07AnEngineStopsAfterTwoThirdsOfItsLease(t *testing.T) {
	for _, c := range []struct {
		name    string
		trouble func(e *engine) (heal func())
	}{
		{"the store is away", func(e *engine) func() {
			e.set(func(l *line) { l.cut = true })
			return func() { e.set(func(l *line) { l.cut = false }) }
		}},
		{"the store does not answer", func(e *engine) func() { return e.hold() }},
		{"the answers are lost", func(e *engine) func() {
			e.set(func(l *line) {
				l.commit = func(_ []store.Op, do func() (store.Revision, error)) (store.Revision, error) {
					_, _ = do()
					return 0, fmt.Errorf("%w: the line is bad", store.ErrUnavailable) // a store must not say so, and still nothing breaks
				}
			})
			return func() { e.set(func(l *line) { l.commit = nil }) }
		}},
	} {
		inBubble(t, c.name, func(t *testing.T, w *world) {
			e := w.join("a", usual)
			after(usual)
			heal := c.trouble(e)
			after(2*usual/3 - time.Second)
			require.False(t, e.Member.Fenced())
			require.Empty(t, e.notes())
			after(time.Second)
			require.True(t, e.Member.Fenced())
			require.Equal(t, []string{"fenced@50"}, e.notes())
			after(time.Hour)
			require.Empty(t, e.notes(), "once")
			heal()
			after(usual)
			require.False(t, e.Member.Fenced())
			require.Len(t, e.notes(), 1)
		})
	}
}

// TestEngines07WhatCountsIsTheBeginningOfARenewal: each renewal takes eight seconds to be answered.
func TestEngines07WhatCountsIsTheBeginningOfARenewal(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		e := w.join("a", 2*usual)
		slow := func(_ []store.Op, do func() (store.Revision, error)) (store.Revision, error) {
			time.Sleep(8 * time.Second)
			return do()
		}
		e.set(func(l *line) { l.commit = slow })
		after(usual)
		var began time.Duration
		e.set(func(l *line) {
			l.commit = func(ops []store.Op, do func() (store.Revision, error)) (store.Revision, error) {
				if began == 0 {
					began = time.Since(w.began)
					return slow(ops, do)
				}
				return 0, store.ErrUnavailable
			}
		})
		after(2 * usual)
		require.Equal(t, []string{fmt.Sprintf("fenced@%d", (began+4*usual/3)/time.Second)}, e.notes())
	})
}

// TestEngines07AMachineThatSleptStops: the monotonic clock stands still while the time of day goes on.
func TestEngines07AMachineThatSleptStops(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		e := w.join("a", usual)
		after(usual)
		clock.Set(time.Hour)
		defer clock.Set(-time.Hour)
		require.True(t, e.Member.Fenced(), "at once")
		after(usual)
		require.False(t, e.Member.Fenced(), "it goes on after a renewal: nobody has marked it")
	})
}

// TestEngines07ClocksThatDifferMakeNobodyDead: the clock of the machine is set by ten minutes again and again.
func TestEngines07ClocksThatDifferMakeNobodyDead(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		a, b := w.join("a", usual), w.join("b", usual)
		for _, by := range []time.Duration{10 * time.Minute, -20 * time.Minute, 10 * time.Minute} {
			clock.Set(by)
			after(2 * usual)
		}
		for _, e := range []*engine{a, b} {
			require.Zero(t, onRecord(t, w.disk, e.ID).Dead)
			require.False(t, e.Member.Fenced())
		}
	})
}

// TestEngines17ALostAnswerOfARenewalIsSettled: the answers of renewals get lost, in each way.
func TestEngines17ALostAnswerOfARenewalIsSettled(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(do func() (store.Revision, error)) (store.Revision, error)
	}{
		{"it has happened", func(do func() (store.Revision, error)) (store.Revision, error) {
			_, _ = do()
			return 0, store.ErrUnknown
		}},
		{"it has not", func(func() (store.Revision, error)) (store.Revision, error) { return 0, store.ErrUnknown }},
		{"it happens a second later", func(do func() (store.Revision, error)) (store.Revision, error) {
			time.AfterFunc(time.Second, func() { _, _ = do() })
			return 0, store.ErrUnknown
		}},
	} {
		inBubble(t, c.name, func(t *testing.T, w *world) {
			a, b := w.join("a", usual), w.join("b", usual)
			n := 0
			a.set(func(l *line) {
				l.commit = func(_ []store.Op, do func() (store.Revision, error)) (store.Revision, error) {
					if n++; n%2 == 0 {
						return do()
					}
					return c.lose(do)
				}
			})
			after(time.Hour)
			require.Empty(t, slices.Concat(a.notes(), b.notes()))
			require.Greater(t, n, 100)
		})
	}
}

func TestEngines08AnEngineThatLeavesIsMarkedAtOnce(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		a, b := w.join("a", usual), w.join("b", usual)
		require.NoError(t, a.Leave(t.Context()))
		require.Equal(t, "a", onRecord(t, w.disk, "a").By)
		require.True(t, a.Member.Fenced())
		b.Wake()
		synctest.Wait()
		require.Equal(t, []string{"dead a@0"}, b.notes())
		require.NoError(t, a.Leave(t.Context()), "twice is no error")
		after(time.Hour)
		require.Empty(t, slices.Concat(a.notes(), b.notes()), "no renewal comes after it")

		require.ErrorContains(t, Remove(t.Context(), b.Member.ledger, "b"), "not marked dead")
		for range 2 {
			require.NoError(t, Remove(t.Context(), b.Member.ledger, "a"))
		}
		peers, err := List(t.Context(), b.Member.ledger)
		require.NoError(t, err)
		require.Len(t, peers, 1)
		require.Equal(t, "b", peers[0].ID)
		require.Equal(t, []string{"d"}, peers[0].Heartbeat.Drivers)
		require.Equal(t, 2, peers[0].Heartbeat.Free)
	})
}

// TestEngines07NothingIsOwnedByAnEngineThatWasRemoved: a commit with the condition of Live is refused once the engine is marked, also
// after its records were removed.
func TestEngines07NothingIsOwnedByAnEngineThatWasRemoved(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		a, b := w.join("a", usual), w.join("b", usual)
		owns := func() error {
			_, err := w.disk.Commit(t.Context(), store.Put("own/a/run", nil), a.Live())
			return err
		}
		require.NoError(t, owns())
		a.kill()
		after(2 * usual)
		require.Len(t, b.notes(), 1)
		require.ErrorIs(t, owns(), store.ErrConflict)
		require.NoError(t, Remove(t.Context(), b.Member.ledger, "a"))
		require.ErrorIs(t, owns(), store.ErrConflict)
	})
}

func TestEngines06ADamagedRecordSavesNobodyElse(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		a, b := w.join("a", usual), w.join("b", usual)
		_, err := w.disk.Commit(t.Context(), store.Put(record.EngineKey("damaged"), []byte("{}")), store.Put(record.HeartbeatKey("other"), []byte("1")))
		require.NoError(t, err)
		b.kill()
		after(2 * usual)
		require.Len(t, a.notes(), 1)
		peers, err := List(t.Context(), a.Member.ledger)
		require.ErrorIs(t, err, store.ErrCorrupt)
		require.Len(t, peers, 2)
	})
}

func TestAnIDIsUsedOnce(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		a := w.join("a", usual)
		_, err := Join(t.Context(), a.Member.ledger, "a", record.Engine{Started: 1, Format: 1, Lease: usual}, a)
		require.ErrorIs(t, err, store.ErrConflict)
	})
}

// TestAFenceThatARenewalDoesNotOpenIsTold has the machine sleep while a renewal is under way, whose answer comes afterwards, and then the
// store is away.
func TestAFenceThatARenewalDoesNotOpenIsTold(t *testing.T) {
	inBubble(t, "", func(t *testing.T, w *world) {
		e := w.join("a", usual)
		after(usual)
		slept := false
		e.line.set(func(l *line) {
			l.commit = func(_ []store.Op, do func() (store.Revision, error)) (store.Revision, error) {
				rev, err := do()
				if !slept {
					slept = true
					clock.Set(time.Hour)
					e.line.set(func(l *line) { l.cut = true })
				}
				return rev, err
			}
		})
		defer clock.Set(-time.Hour)
		after(10 * time.Minute)
		require.True(t, e.Member.Fenced())
		require.NotEmpty(t, e.notes(), "the contexts of attempts must end")
	})
}
