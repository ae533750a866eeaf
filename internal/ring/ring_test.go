package ring

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/fault"
)

func TestReadersGetEveryItemInOrderOrAGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 5).Draw(t, "size")
		r := New[int64](size)
		published, at := int64(0), int64(1)
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				for range rapid.IntRange(0, 7).Draw(t, "n") {
					published++
					r.Publish(published)
				}
			},
			"read": func(t *rapid.T) {
				if at > published {
					t.Skip()
				}
				item, err := r.Await(context.Background(), at)
				if at <= published-int64(size) {
					require.ErrorIs(t, err, fault.Gap)
					at = r.Oldest()
					return
				}
				require.NoError(t, err)
				require.Equal(t, at, item)
				at++
			},
			"": func(t *rapid.T) {
				require.Equal(t, published+1, r.Next())
				require.Equal(t, max(published-int64(size)+1, 1), r.Oldest())
			},
		})
	})
}

func TestAwaitWaitsForTheItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New[string](2)
		got := make(chan string)
		for range 3 {
			go func() {
				item, err := r.Await(t.Context(), 1)
				require.NoError(t, err)
				got <- item
			}()
		}
		synctest.Wait()
		r.Publish("a")
		for range 3 {
			require.Equal(t, "a", <-got)
		}
	})
}

func TestAwaitEndsWithTheRingOrTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New[string](2)
		r.Publish("a")
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		ended, closed := make(chan error), make(chan error)
		go func() { _, err := r.Await(ctx, 2); ended <- err }()
		go func() { _, err := r.Await(t.Context(), 2); closed <- err }()
		synctest.Wait()
		cancel(why)
		require.ErrorIs(t, <-ended, why)
		r.Close()
		require.ErrorIs(t, <-closed, fault.Closed)
		r.Publish("b")
		require.EqualValues(t, 2, r.Next(), "nothing is published after the end")
		item, err := r.Await(t.Context(), 1)
		require.NoError(t, err, "what was published before the end can be read")
		require.Equal(t, "a", item)
	})
}
