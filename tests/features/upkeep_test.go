package features_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// slow is a store that takes a second for each commit that upkeep makes, as soon as it is told so.
type slow struct {
	store.Store
	slow    func(op store.Op) bool
	on      atomic.Bool
	commits atomic.Int64 // slow ones
}

func (s *slow) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	for _, op := range ops {
		if s.on.Load() && s.slow(op) {
			s.commits.Add(1)
			time.Sleep(time.Second)
			break
		}
	}
	return s.Store.Commit(ctx, ops...)
}

// Upkeep stops at once when Shutdown begins, at whatever phase it is, and the next start takes up what is left.
func TestShutdownIsNotHeldUpByUpkeep(t *testing.T) {
	const many = 100
	count := func(t *testing.T, st store.Store, prefix string) (n int) {
		for key := range rig.Dump(t, st) {
			if strings.HasPrefix(key, prefix) {
				n++
			}
		}
		return n
	}
	finishMany := func(e *rig.Engine) {
		for i := range many {
			e.Finish(rig.Object(fmt.Sprint("x", i), 1))
		}
	}
	removes := func(op store.Op) bool { return op.Removes() }
	for _, c := range []struct {
		name   string
		opts   conveyor.Options
		before func(*testing.T, *rig.Engine) // in a life of its own, without limits
		slow   func(store.Op) bool
		listen []conveyor.DriverOption
		begin  func(*rig.Engine) // what begins the upkeep after the start
		rest   string            // the prefix of the keys that upkeep makes fewer
		least  int               // of them, in the end
	}{
		{
			name: "old runs of one resource", opts: conveyor.Options{Retention: conveyor.Retention{Runs: 1}},
			before: func(_ *testing.T, e *rig.Engine) {
				for i := range 40 * many {
					e.Finish(rig.Object("x", i))
				}
			},
			slow: removes, rest: "run/", least: 1,
		},
		{
			name: "old generations of many resources", opts: conveyor.Options{Retention: conveyor.Retention{Revisions: 1}},
			before: func(_ *testing.T, e *rig.Engine) {
				for i := range 40 {
					for name := range many {
						e.Finish(rig.Object(fmt.Sprint("x", name), i))
					}
				}
			},
			slow: removes, rest: "rev/", least: many,
		},
		{
			name: "resyncs that are due",
			before: func(_ *testing.T, e *rig.Engine) {
				e.Save(resyncing(rig.PipelineOf("d"), time.Hour))
				finishMany(e)
				e.Pipeline("d")
			},
			slow: func(op store.Op) bool { return strings.HasPrefix(op.Key(), "rsy/") },
			rest: "rsy/",
		},
		{
			name: "resources to whose type nobody listened",
			before: func(t *testing.T, e *rig.Engine) {
				for i := range many {
					e.MustApply(rig.Loose("loose", fmt.Sprint("x", i), 1))
				}
			},
			slow:   func(op store.Op) bool { return strings.HasPrefix(op.Key(), "unh/") },
			listen: []conveyor.DriverOption{conveyor.Listen("loose")},
			rest:   "unh/",
		},
		{
			name: "checkpoints of a run that has ended",
			before: func(t *testing.T, e *rig.Engine) {
				run := e.Finish(rig.Object("x", 1))
				for i := range 40 * many {
					_, err := e.Store.Store.Commit(t.Context(), store.Put(fmt.Sprintf("ckp/%s/%d", run.ID, i), []byte("1")))
					require.NoError(t, err)
				}
			},
			slow: removes, rest: "ckp/",
		},
		{
			name: "a call of Prune",
			before: func(_ *testing.T, e *rig.Engine) {
				for i := range 40 * many {
					e.Finish(rig.Object("x", i))
				}
			},
			begin: func(e *rig.Engine) {
				go func() {
					pruned, err := e.Prune(context.Background(), conveyor.PruneOptions{Retention: conveyor.Retention{Runs: 1}})
					if err == nil {
						return // in the last life
					}
					if pruned.Runs == 0 {
						panic("it has not said what went")
					}
				}()
			},
			slow: removes, rest: "run/", least: 1,
		},
	} {
		for _, limit := range []time.Duration{0, time.Minute} {
			t.Run(fmt.Sprint(c.name, ", within ", limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					disk := &slow{Store: memory.New(), slow: c.slow}
					life := func(opts conveyor.Options) *rig.Engine {
						e := rig.NewOn(t, disk, opts).MustStart()
						e.Driver("d", new(rig.Recorder), c.listen...)
						if c.begin != nil && disk.on.Load() {
							c.begin(e)
						}
						return e
					}
					listen := c.listen
					c.listen = nil
					e := life(conveyor.Options{})
					e.Pipeline("d")
					synctest.Wait()
					c.before(t, e)
					e.Stop()
					time.Sleep(2 * time.Hour)
					c.listen = listen
					all := count(t, disk, c.rest)
					disk.on.Store(true)

					e = life(c.opts)
					time.Sleep(3500 * time.Millisecond)
					ctx, cancel := context.WithCancel(t.Context())
					if limit > 0 {
						ctx, cancel = context.WithTimeout(t.Context(), limit)
					}
					defer cancel()
					began := time.Now()
					require.NoError(t, e.Shutdown(ctx))
					require.LessOrEqual(t, time.Since(began), 3*time.Second)
					left, commits := count(t, disk, c.rest), disk.commits.Load()
					require.Less(t, left, all)
					require.Greater(t, left, c.least)
					require.NotZero(t, commits)
					time.Sleep(time.Hour)
					require.Equal(t, commits, disk.commits.Load(), "it goes on after Shutdown has returned")

					e = life(c.opts)
					time.Sleep(time.Hour)
					require.Equal(t, c.least, count(t, disk, c.rest))
				})
			})
		}
	}
}

// However slow the removal is and however quick the runs are, no more is kept than the limits say and a few hundred runs.
func TestRetentionKeepsUpWithAnyRate(t *testing.T) {
	for _, resources := range []int{1, 30, 1000} {
		t.Run(fmt.Sprint(resources, " resources"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := &slow{Store: memory.New(), slow: func(op store.Op) bool { return op.Removes() && strings.HasPrefix(op.Key(), "rix/") }}
				disk.on.Store(true)
				e := rig.NewOn(t, disk, conveyor.Options{Workers: 4, Retention: conveyor.Retention{Runs: 1}}).MustStart()
				e.Driver("d", new(rig.Recorder))
				e.Pipeline("d")
				for i := range 3_000 {
					e.Finish(rig.Object(fmt.Sprint("x", i%resources), i))
					if i%500 == 0 {
						n := 0
						for _, err := range disk.List(t.Context(), store.Query{Prefix: "run/"}) {
							require.NoError(t, err)
							n++
						}
						require.Less(t, n, resources+600)
					}
				}
				time.Sleep(time.Hour)
				require.Len(t, rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{})), resources)
			})
		})
	}
}
