package crash_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

// faultKind is what happens to the store at a commit, or at a read.
type faultKind string

const (
	diesBefore    faultKind = "dies before the commit"
	diesAfter     faultKind = "dies after the commit"
	refuses       faultKind = "refuses the commit"
	unknownUndone faultKind = "does not know, and has not committed"
	unknownDone   faultKind = "does not know, and has committed"

	diesReading  faultKind = "dies at the read"
	failsReading faultKind = "fails the read"
	failsHalfway faultKind = "fails the read after the first record" // of a list; other reads are not counted
)

type mishap struct {
	kind faultKind
	at   int // which of the commits, or of the reads that can go wrong like that; 0 for none
}

// mortal is a store that goes wrong at one commit, or one read. When it has died it answers nothing but errors: the engine on it
// is a process that is no more.
type mortal struct {
	store.Store
	fault mishap
	die   func() // called when it dies, with mu held, so that whoever gets an ErrDied finds all else dead too

	mu     sync.Mutex // guards what follows
	seen   int        // calls of the kind that goes wrong
	struck bool
	dead   bool
}

func (m *mortal) isDead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

func (m *mortal) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	m.die()
}

// strikes tells a call whether it is the one that goes wrong, and how. It takes the kinds of going wrong that the call
// knows.
func (m *mortal) strikes(kinds ...faultKind) (faultKind, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return "", rig.ErrDied
	}
	if !slices.Contains(kinds, m.fault.kind) {
		return "", nil
	}
	if m.seen++; m.seen != m.fault.at {
		return "", nil
	}
	m.struck = true
	return m.fault.kind, nil
}

var errBadDay = errors.New("the disk is having a bad day")

// shared is a mortal store that is shared.
type shared struct{ *mortal }

// Watch implements [store.Watcher].
func (s shared) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for c, err := range s.Store.(store.Watcher).Watch(ctx, prefix, after) {
			if s.isDead() {
				yield(store.Change{}, rig.ErrDied)
				return
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

func (m *mortal) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if len(ops) == 0 || strings.HasPrefix(ops[0].Key(), "~hbt/") { // a heartbeat, of which there are many, and nothing follows from one
		if m.isDead() {
			return 0, rig.ErrDied
		}
		return m.Store.Commit(ctx, ops...)
	}
	kind, err := m.strikes(diesBefore, diesAfter, refuses, unknownUndone, unknownDone)
	if err != nil {
		return 0, err
	}
	switch kind {
	case diesBefore:
		m.kill()
		return 0, rig.ErrDied
	case refuses:
		return 0, errBadDay
	case unknownUndone:
		return 0, fmt.Errorf("%w: no", store.ErrUnknown)
	}
	rev, err := m.Store.Commit(ctx, ops...)
	switch {
	case kind == diesAfter:
		m.kill()
		return 0, rig.ErrDied
	case m.isDead(): // it happened, and nobody is there to hear of it
		return 0, rig.ErrDied
	case kind == unknownDone && err == nil:
		return 0, fmt.Errorf("%w: yes", store.ErrUnknown)
	}
	return rev, err
}

func (m *mortal) Get(ctx context.Context, key string) (store.Record, error) {
	switch kind, err := m.strikes(diesReading, failsReading); {
	case err != nil:
		return store.Record{}, err
	case kind == diesReading:
		m.kill()
		return store.Record{}, rig.ErrDied
	case kind == failsReading:
		return store.Record{}, errBadDay
	}
	return m.Store.Get(ctx, key)
}

func (m *mortal) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		kind, err := m.strikes(diesReading, failsReading, failsHalfway)
		switch {
		case kind == diesReading:
			m.kill()
			err = rig.ErrDied
		case kind == failsReading:
			err = errBadDay
		}
		if err != nil {
			yield(store.Record{}, err)
			return
		}
		for r, err := range m.Store.List(ctx, q) {
			if err == nil && m.isDead() {
				err = rig.ErrDied
			}
			if !yield(r, err) || err != nil {
				return
			}
			if kind == failsHalfway {
				yield(store.Record{}, errBadDay)
				return
			}
		}
	}
}

// disk keeps records between the lives of a process.
type disk struct {
	name string
	// insert returns a function that closes the store, if it is open, and opens it again.
	insert func(t testing.TB) (reopen func() store.Store)
	faults []faultKind // tried at each commit and read
	deaths []faultKind // tried at each commit
	second []faultKind // tried at each commit and read of the life after a death
}

var disks = []disk{
	{"memory", func(testing.TB) func() store.Store {
		st := memory.New()
		return func() store.Store { return st }
	},
		[]faultKind{diesBefore, diesAfter, refuses, unknownUndone, unknownDone, diesReading, failsReading, failsHalfway},
		[]faultKind{diesBefore, diesAfter},
		[]faultKind{diesBefore, diesAfter, unknownDone, diesReading}},
	// Where a commit does not happen, or a read, a file is left as by a death after the commit before it. It takes the time of a
	// disk to find that out twice.
	{"file", func(t testing.TB) func() store.Store {
		path := filepath.Join(t.TempDir(), "records")
		var st *file.Store
		shut := func() {
			if st != nil {
				require.NoError(t, st.Close())
			}
		}
		t.Cleanup(shut)
		return func() store.Store {
			shut()
			var err error
			st, err = file.Open(context.Background(), path, file.Options{})
			require.NoError(t, err)
			return st
		}
	}, []faultKind{diesBefore, diesAfter, unknownDone}, []faultKind{diesAfter}, []faultKind{diesAfter}},
	// The next life begins with another engine, which waits until the lease of the dead one is over.
	{"shared", func(testing.TB) func() store.Store {
		st := memory.NewShared()
		return func() store.Store { return st.Join() }
	}, []faultKind{diesBefore, diesAfter, refuses, unknownUndone, unknownDone}, []faultKind{diesBefore, diesAfter}, []faultKind{diesAfter, unknownDone}},
}

// downtime passes between two lives.
const downtime = 400 * time.Millisecond
