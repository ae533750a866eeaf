package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

var sizes = []int{1_000, 1_000_000}

func BenchmarkGet(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			s, keys := filled(b, n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				if _, err := s.Get(b.Context(), keys[i]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			s, keys := filled(b, n)
			value := make([]byte, 200)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				if _, err := s.Commit(b.Context(), store.Put(keys[i], value), store.Put(keys[(i+1)%n], value)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkInsertThenList inserts a key somewhere in the middle and reads the ten after it.
func BenchmarkInsertThenList(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			s, keys := filled(b, n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				key := fmt.Sprintf("%s/%d", keys[i*7919%n], i)
				if _, err := s.Commit(b.Context(), store.Put(key, nil)); err != nil {
					b.Fatal(err)
				}
				for _, err := range s.List(b.Context(), store.Query{Prefix: "run/", After: key, Limit: 10}) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func filled(b *testing.B, n int) (*memory.Store, []string) {
	b.Helper()
	s, keys, value := memory.New(), make([]string, n), make([]byte, 200)
	for i := range keys {
		keys[i] = fmt.Sprintf("run/%08d", i)
		if _, err := s.Commit(context.Background(), store.Put(keys[i], value)); err != nil {
			b.Fatal(err)
		}
	}
	return s, keys
}
