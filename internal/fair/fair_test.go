package fair

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

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

// held is an item with what the model knows of it.
type held struct {
	Item[*held]
	lane string
	rank int
}

func TestLanesServeEachLaneInTurnAndTheLowestRankFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Lanes[*held]
		model := map[string]*[Ranks][]*held{}
		for _, lane := range []string{"a", "b", "c", "d"} {
			model[lane] = new([Ranks][]*held)
		}
		var all []*held
		waited := map[string]int{}        // others served since the lane was last empty or served
		passed := map[string][Ranks]int{} // others of the lane served since the rank was last empty or served
		draw := func(t *rapid.T) *held {
			if len(all) == 0 {
				t.Skip()
			}
			return rapid.SampledFrom(all).Draw(t, "item")
		}
		size := func(lane string) (n int) {
			for _, items := range model[lane] {
				n += len(items)
			}
			return n
		}
		forget := func(h *held) {
			gone := func(other *held) bool { return other == h }
			model[h.lane][h.rank] = slices.DeleteFunc(model[h.lane][h.rank], gone)
			all = slices.DeleteFunc(all, gone)
			if size(h.lane) == 0 {
				waited[h.lane] = 0
			}
			require.False(t, h.Waits())
		}
		push := func(lane string, h *held, rank int) {
			h.Value, h.lane, h.rank = h, lane, rank
			q.Push(lane, rank, &h.Item)
			require.True(t, h.Waits())
			require.Equal(t, rank, h.Rank())
			model[lane][rank] = append(model[lane][rank], h)
			all = append(all, h)
		}
		t.Repeat(map[string]func(*rapid.T){
			"push many": func(t *rapid.T) {
				lane := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "lane")
				rank := rapid.IntRange(0, Ranks-1).Draw(t, "rank")
				for range rapid.IntRange(1, 2*Patience).Draw(t, "n") {
					push(lane, new(held), rank)
				}
			},
			"remove": func(t *rapid.T) {
				h := draw(t)
				q.Remove(&h.Item)
				forget(h)
			},
			"change the rank": func(t *rapid.T) {
				h := draw(t)
				q.Remove(&h.Item)
				forget(h)
				push(h.lane, h, rapid.IntRange(0, Ranks-1).Draw(t, "rank"))
			},
			"pop many": func(t *rapid.T) {
				for range rapid.IntRange(1, 2*Patience).Draw(t, "n") {
					item := q.Pop()
					if len(all) == 0 {
						require.Nil(t, item)
						return
					}
					h := item.Value
					require.Same(t, h, model[h.lane][h.rank][0], "first in, first out")
					counts := passed[h.lane]
					for rank, items := range model[h.lane] {
						switch {
						case rank == h.rank || len(items) == 0:
							counts[rank] = 0
						case rank < h.rank:
							require.GreaterOrEqual(t, counts[h.rank], Patience, "a higher rank goes before a lower one")
						default:
							counts[rank]++
							require.LessOrEqual(t, counts[rank], Patience+1, "rank %d is passed over", rank)
						}
					}
					passed[h.lane] = counts
					forget(h)
					if size(h.lane) == 0 {
						passed[h.lane] = [Ranks]int{}
					}
					for lane := range model {
						if lane != h.lane && size(lane) > 0 {
							waited[lane]++
							require.Less(t, waited[lane], len(model), "lane %s is passed over", lane)
						}
					}
					waited[h.lane] = 0
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(all), q.Len())
				heads := 0
				for lane, ranks := range model {
					before := len(all) > size(lane)
					for rank, items := range ranks {
						if len(items) == 0 {
							if size(lane) == 0 {
								passed[lane] = [Ranks]int{}
							}
						} else {
							before = true
							heads++
						}
						require.Equal(t, before, q.Before(lane, rank))
					}
				}
				for head := range q.Heads() {
					require.Same(t, model[head.lane][head.rank][0], head)
					heads--
				}
				require.Zero(t, heads)
			},
		})
	})
}

func TestLanesForgetTheLanesOfOldPipelines(t *testing.T) {
	var q Lanes[int]
	var items [2]Item[int]
	for i := range 10 * idleLanes {
		for n := range items {
			items[n].Value = n
			q.Push(strconv.Itoa(i), 0, &items[n])
		}
		for want := range items {
			require.Equal(t, want, q.Pop().Value)
		}
	}
	require.Nil(t, q.Pop())
	require.LessOrEqual(t, len(q.lanes), idleLanes)
}

func BenchmarkLanes(b *testing.B) {
	for _, lanes := range []int{1, 100} {
		b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
			var q Lanes[string]
			for i := range 1000 {
				name := strconv.Itoa(i % lanes)
				q.Push(name, i%Ranks, &Item[string]{Value: name})
			}
			b.ReportAllocs()
			for b.Loop() {
				item := q.Pop()
				q.Push(item.Value, item.Rank(), item)
			}
		})
	}
}
