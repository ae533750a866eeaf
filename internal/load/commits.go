package load

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
)

// Commits measures commits of several concurrent callers, as an engine makes them: three puts of 150 to 400 bytes, a condition of a
// put, and a check. One operation is one commit.
func Commits(b *testing.B, s store.Store, callers int) {
	b.Helper()
	pipeline, err := s.Commit(b.Context(), store.Put("pipeline/1", make([]byte, 300)))
	require.NoError(b, err)
	var (
		next  atomic.Int64
		group sync.WaitGroup
		turns = make(chan struct{}, callers)
	)
	for range callers {
		group.Go(func() {
			for range turns {
				n := next.Add(1)
				_, err := s.Commit(b.Context(),
					store.Put(fmt.Sprintf("run/%012d", n), make([]byte, 400)).IfAbsent(),
					store.Put(fmt.Sprintf("step/%012d/1", n), make([]byte, 250)),
					store.Put(fmt.Sprintf("~own/%012d", n), make([]byte, 150)),
					store.Check("pipeline/1", pipeline))
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		turns <- struct{}{}
	}
	close(turns)
	group.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}
