// Package load has writers and a watch at work on the handles of a store while something happens to its server. Only tests import it.
package load

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
)

// Load is what writers do to a store: they count by compare-and-set, and write keys of their own.
type Load struct {
	commits atomic.Int64  // that were acknowledged
	counted atomic.Int64  // those of them that were increments
	written [][]string    // keys that were acknowledged, by writer
	errs    []error       // of each writer, the error that ended it
	stop    chan struct{} // closed to end the writers
	all     sync.WaitGroup
}

const writers = 8

// Start starts writers, each on one of the handles.
func Start(t testing.TB, handles ...store.Store) *Load {
	t.Helper()
	_, err := handles[0].Commit(t.Context(), store.Put("count", []byte("0")))
	require.NoError(t, err)
	l := &Load{written: make([][]string, writers), errs: make([]error, writers), stop: make(chan struct{})}
	for w := range writers {
		l.all.Go(func() { l.errs[w] = l.write(context.WithoutCancel(t.Context()), handles[w%len(handles)], w) })
	}
	return l
}

func (l *Load) write(ctx context.Context, s store.Store, w int) error {
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return nil
		default:
		}
		rec, err := s.Get(ctx, "count")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(rec.Value))
		if err != nil {
			return err
		}
		key := fmt.Sprintf("w%d/%d", w, i)
		if _, err = s.Commit(ctx, store.Put(key, []byte(key)).IfAbsent()); err != nil { // a conflict would be with itself
			return err
		}
		l.written[w] = append(l.written[w], key)
		l.commits.Add(1)
		switch _, err = s.Commit(ctx, store.Put("count", []byte(strconv.Itoa(n+1))).If(rec.Revision)); {
		case err == nil:
			l.counted.Add(1)
			l.commits.Add(1)
		case !errors.Is(err, store.ErrConflict):
			return err
		}
	}
}

// Await waits until n more commits have been acknowledged.
func (l *Load) Await(t testing.TB, n int64) {
	t.Helper()
	n += l.commits.Load()
	require.Eventually(t, func() bool { return l.commits.Load() >= n }, time.Minute, time.Millisecond)
}

// End ends the writers and checks that nothing acknowledged is lost and that nothing has happened twice.
func (l *Load) End(t testing.TB, s store.Store) {
	t.Helper()
	close(l.stop)
	l.all.Wait()
	for w := range writers {
		require.NoError(t, l.errs[w], "writer %d", w)
		found := 0
		for rec, err := range s.List(t.Context(), store.Query{Prefix: fmt.Sprintf("w%d/", w)}) {
			require.NoError(t, err)
			require.Equal(t, rec.Key, string(rec.Value))
			found++
		}
		require.Len(t, l.written[w], found, "writer %d", w)
	}
	rec, err := s.Get(t.Context(), "count")
	require.NoError(t, err)
	require.Equal(t, strconv.FormatInt(l.counted.Load(), 10), string(rec.Value))
	testenv.Figure(t, "%d commits acknowledged, 0 lost, 0 twice", l.commits.Load())
}

// Watched takes note of the keys that a watch tells.
type Watched struct {
	keys  map[string]bool
	err   error
	begun chan struct{} // closed by the first change, and at the end
	done  sync.WaitGroup
}

// Shared is a handle of a shared store.
type Shared interface {
	store.Store
	store.Watcher
}

// Watch watches from the newest revision on until the key "end" comes.
func Watch(t testing.TB, s Shared) *Watched {
	t.Helper()
	from, err := s.Commit(t.Context())
	require.NoError(t, err)
	w := &Watched{keys: map[string]bool{}, begun: make(chan struct{})}
	first := sync.OnceFunc(func() { close(w.begun) })
	w.done.Go(func() {
		defer first()
		for c, err := range s.Watch(t.Context(), "", from) {
			if err != nil {
				w.err = err
				return
			}
			w.keys[c.Key] = true
			first()
			if c.Key == "end" {
				return
			}
		}
	})
	return w
}

// Await waits until the watch has told of something.
func (w *Watched) Await() { <-w.begun }

// End ends the watch and checks that it has missed nothing that is on record.
func (w *Watched) End(t testing.TB, s store.Store) {
	t.Helper()
	_, err := s.Commit(t.Context(), store.Put("end", nil))
	require.NoError(t, err)
	w.done.Wait()
	require.NoError(t, w.err)
	for rec, err := range s.List(t.Context(), store.Query{}) {
		require.NoError(t, err)
		require.True(t, w.keys[rec.Key], "the watch has missed %s", rec.Key)
	}
}
