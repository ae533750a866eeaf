package fair

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type item struct{ lane string }

func anyone(*item) bool { return true }

func TestQueueGivesBackInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Queue[int]
		var model []int
		n := 0
		t.Repeat(map[string]func(*rapid.T){
			"push many": func(t *rapid.T) {
				for range rapid.IntRange(1, 100).Draw(t, "n") {
					n++
					q.Push(n)
					model = append(model, n)
				}
			},
			"pop many": func(t *rapid.T) {
				for range min(len(model), rapid.IntRange(1, 100).Draw(t, "n")) {
					require.Equal(t, model[0], q.First())
					require.Equal(t, model[0], q.Pop())
					model = model[1:]
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(model), q.Len())
				require.LessOrEqual(t, q.head, 64+q.Len(), "it keeps what is gone")
			},
		})
	})
}

func TestLanesServeEachLaneInTurnAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Lanes[*item]
		model := map[string][]*item{}
		waited := map[string]int{} // others served since the lane was last empty or served
		n := 0
		lanes := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		t.Repeat(map[string]func(*rapid.T){
			"push many": func(t *rapid.T) {
				lane := lanes.Draw(t, "lane")
				for range rapid.IntRange(1, 20).Draw(t, "n") {
					j := &item{lane: lane}
					q.Push(lane, j)
					model[lane] = append(model[lane], j)
					n++
				}
			},
			"pop": func(t *rapid.T) {
				j, ok := q.Pop(anyone)
				if n == 0 {
					require.False(t, ok)
					return
				}
				n--
				require.Same(t, model[j.lane][0], j)
				model[j.lane] = model[j.lane][1:]
				for lane, waiting := range model {
					if lane != j.lane && len(waiting) > 0 {
						waited[lane]++
						require.Less(t, waited[lane], len(model), "lane %s is passed over", lane)
					}
				}
				waited[j.lane] = 0
			},
			"": func(t *rapid.T) { require.Equal(t, n, q.Len()) },
		})
	})
}

func TestLanesForgetTheLanesOfOldPipelines(t *testing.T) {
	var q Lanes[int]
	for i := range 10 * idleLanes {
		q.Push(strconv.Itoa(i), 1)
		q.Push(strconv.Itoa(i), 2)
		for want := range 2 {
			got, ok := q.Pop(func(int) bool { return true })
			require.True(t, ok)
			require.Equal(t, want+1, got)
		}
	}
	require.LessOrEqual(t, len(q.lanes), idleLanes+1)
}

func TestLanesDropWhatIsNotLiveWithoutATurn(t *testing.T) {
	var q Lanes[string]
	for _, item := range []string{"a1", "a2", "b1", "b2"} {
		q.Push(item[:1], item)
	}
	var got []string
	for {
		item, ok := q.Pop(func(item string) bool { return item != "a1" })
		if !ok {
			break
		}
		got = append(got, item)
	}
	require.Equal(t, []string{"a2", "b1", "b2"}, got)
	require.Zero(t, q.Len())
}

func TestLanesKeepTheOrderOfWhatIsKept(t *testing.T) {
	var q Lanes[string]
	for _, item := range []string{"a1", "a2", "b1", "a3", "b2", "c1"} {
		q.Push(item[:1], item)
	}
	q.Keep(func(item string) bool { return item != "a1" && item != "c1" })
	require.Equal(t, 4, q.Len())
	require.Equal(t, []string{"a2", "a3"}, q.Lane("a"))
	require.ElementsMatch(t, []string{"a2", "b1"}, slices.Collect(q.Heads()))
	require.Empty(t, q.Lane("c"))
}

func TestLanesPushOrderedKeepsALaneInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Lanes[int]
		items := rapid.SliceOfN(rapid.IntRange(0, 50), 1, 50).Draw(t, "items")
		for _, item := range items {
			q.PushOrdered("a", item, func(other int) bool { return other > item })
		}
		slices.Sort(items)
		require.Equal(t, items, q.Lane("a"))
	})
}

func BenchmarkLanes(b *testing.B) {
	for _, lanes := range []int{1, 100} {
		b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
			var q Lanes[int]
			names := make([]string, lanes)
			for i := range 1000 {
				names[i%lanes] = fmt.Sprint(i % lanes)
				q.Push(names[i%lanes], i%lanes)
			}
			b.ReportAllocs()
			for b.Loop() {
				item, _ := q.Pop(func(int) bool { return true })
				q.Push(names[item], item)
			}
		})
	}
}
