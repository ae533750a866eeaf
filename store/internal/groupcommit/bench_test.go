package groupcommit_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
)

// BenchmarkCommit measures what the queue costs a commit of three puts and a check, with a store that costs next to
// nothing. One operation is one commit.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct {
		name    string
		options groupcommit.Options
		key     func(caller, op int) string
	}{
		{"any", groupcommit.Options{MaxBytes: 16 << 20}, ownKey},
		{"disjoint", groupcommit.Options{MaxBytes: 16 << 20, Disjoint: true}, ownKey},
		{"disjoint, all for one key", groupcommit.Options{MaxBytes: 16 << 20, Disjoint: true}, oneKey},
	} {
		for _, callers := range []int{1, 64, 512} {
			b.Run(fmt.Sprintf("%s/callers=%d", c.name, callers), func(b *testing.B) {
				groups := 0
				q := groupcommit.New(c.options, func([]*groupcommit.Commit) {
					groups++
					for range 4 {
						runtime.Gosched() // the others come meanwhile
					}
				})
				turns := make(chan struct{}, callers)
				var all sync.WaitGroup
				for caller := range callers {
					ops := []store.Op{
						store.Put(c.key(caller, 0), make([]byte, 150)), store.Put(c.key(caller, 1), nil),
						store.Put(c.key(caller, 2), nil), store.Check("pipeline/one", 1),
					}
					all.Go(func() {
						for range turns {
							_, _ = q.Commit(context.Background(), ops)
						}
					})
				}
				b.ReportAllocs()
				for b.Loop() {
					turns <- struct{}{}
				}
				close(turns)
				all.Wait()
				b.ReportMetric(float64(b.N)/float64(groups), "commits/group")
			})
		}
	}
}

func ownKey(caller, op int) string { return fmt.Sprintf("run/%012d/%d", caller, op) }

func oneKey(caller, op int) string {
	if op == 0 {
		return "run/one"
	}
	return ownKey(caller, op)
}
