package engines_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// survivor is one of the engines among which the runs of a dead one are divided.
type survivor struct {
	*conveyor.Engine
	*odd
	dead  atomic.Bool
	taken atomic.Int64              // runs that it has taken over
	last  atomic.Pointer[time.Time] // when it has taken the newest ones
	dying atomic.Int64              // it dies when it has taken so many; 0 for never
}

func startSurvivor(t *testing.T, disk *memory.Shared, drivers map[string]rig.Func) *survivor {
	s := new(survivor)
	s.Engine, s.odd = oddEngine(t, disk, conveyor.Options{}, drivers)
	alive := func(string) error {
		if s.dead.Load() {
			return rig.ErrDied
		}
		return nil
	}
	s.onGet(alive)
	s.onList(alive)
	s.onCommit(func(ops []store.Op) error {
		var put int64
		takeover := false
		for _, op := range ops {
			if strings.HasPrefix(op.Key(), "~own/") && op.Removes() {
				takeover = true
			} else if strings.HasPrefix(op.Key(), "~own/") {
				put++
			}
		}
		if takeover && put > 0 {
			now, n := time.Now(), s.taken.Add(put)
			s.last.Store(&now)
			if dying := s.dying.Load(); dying > 0 && n > dying {
				s.dead.Store(true)
			}
		}
		return alive("")
	})
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() {
		within := time.Minute
		if s.dead.Load() {
			within = time.Nanosecond
		}
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return s
}

// owned counts the runs by whether their owner is live.
func owned(t *testing.T, disk *memory.Shared) (live, dead int) {
	marked := map[string]bool{}
	for r, err := range disk.List(t.Context(), store.Query{Prefix: "eng/"}) {
		require.NoError(t, err)
		marked[strings.TrimPrefix(r.Key, "eng/")] = strings.Contains(string(r.Value), `"dead":`)
	}
	for r, err := range disk.List(t.Context(), store.Query{Prefix: "~own/"}) {
		require.NoError(t, err)
		engine, _, _ := strings.Cut(strings.TrimPrefix(r.Key, "~own/"), "/")
		if gone, known := marked[engine]; known && !gone {
			live++
		} else {
			dead++
		}
	}
	return live, dead
}

// TestEngines06VeryManyWaitingRunsAreTakenOverInTime kills an engine that has very many runs which wait for a time. Three others divide
// them among each other. Then one of the three dies, and another one in the middle of taking its runs over. All is done within two leases
// of each death.
func TestEngines06VeryManyWaitingRunsAreTakenOverInTime(t *testing.T) {
	runs := testenv.Some(t, 500, 100_000)
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		var calls atomic.Int64
		due := time.Now().Add(30 * lease)
		waits := map[string]rig.Func{"a": func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			if left := time.Until(due); left > 0 {
				return conveyor.RequeueAfter(left), nil
			}
			calls.Add(1)
			return conveyor.Done(), nil
		}}
		first := startSurvivor(t, disk, waits)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		for i := range runs {
			_, err := first.Apply(t.Context(), rig.Object(fmt.Sprint("x", i), 1))
			require.NoError(t, err)
		}
		time.Sleep(2 * lease) // the first engine has begun all of them
		var others []*survivor
		for range 3 {
			others = append(others, startSurvivor(t, disk, waits))
		}
		time.Sleep(5 * lease)
		live, dead := owned(t, disk)
		require.Equal(t, []int{runs, 0}, []int{live, dead})
		stats, err := first.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, runs, stats.Runs[conveyor.StateWaiting], "they are the first one's")

		before := rig.HeapInUse()
		for _, o := range others {
			o.reads.Store(0)
		}
		killed := time.Now()
		first.dead.Store(true)
		time.Sleep(2 * lease)
		live, dead = owned(t, disk)
		require.Equal(t, []int{runs, 0}, []int{live, dead}, "all of them have an owner that is live, within two leases")
		heap := float64(rig.HeapInUse()) - float64(before)
		var reads int64
		var took time.Duration
		for _, o := range others {
			require.Greater(t, o.taken.Load(), int64(runs/4), "the runs are divided evenly")
			reads += o.reads.Load()
			took = max(took, o.last.Load().Sub(killed))
		}

		share := others[0].taken.Load()
		others[1].dying.Store(others[1].taken.Load() + share/4)
		killed = time.Now()
		others[0].dead.Store(true)
		for !others[1].dead.Load() {
			require.Less(t, time.Since(killed), 2*lease)
			time.Sleep(lease / 20)
		}
		again := time.Now()
		time.Sleep(2 * lease)
		tookAgain := others[2].last.Load().Sub(again)
		live, dead = owned(t, disk)
		require.Equal(t, []int{runs, 0}, []int{live, dead}, "all of them, within two leases of the second death")
		stats, err = others[2].Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, runs, stats.Unfinished)

		time.Sleep(time.Until(due) + 2*lease)
		require.EqualValues(t, runs, calls.Load(), "each is called once more when its time has come")
		rig.RequireAtRest(t, disk)
		testenv.Figure(t, "%d waiting runs of a killed engine taken over in %.2f leases by 3 others, with %.1f reads and %.0f bytes of memory a run; "+
			"after the death of one of them, and of a second one in the middle, in %.2f leases",
			runs, took.Seconds()/lease.Seconds(), float64(reads)/float64(runs), heap/float64(runs), tookAgain.Seconds()/lease.Seconds())
	})
}

// TestEngines06WhatIsAskedDuringALongTakeoverIsDone sends signals to runs while they are taken over, which takes long. The first of them go on
// and wait for something else before the last of them are taken over.
func TestEngines06WhatIsAskedDuringALongTakeoverIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const runs, asked = 600, 20
		disk := memory.NewShared()
		var told sync.Map // runs
		drivers := map[string]rig.Func{"s": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if _, again := told.Load(req.Run); again {
				return conveyor.Done(), nil
			}
			var payload string
			if got, err := req.Signal(&payload); err != nil || !got {
				return conveyor.Await("go", 100*time.Hour), err
			}
			told.Store(req.Run, true)
			return conveyor.RequeueAfter(5 * lease), nil
		}}
		first := startSurvivor(t, disk, drivers)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("s")))
		var ids []string
		for i := range runs {
			run, err := first.Apply(t.Context(), rig.Object(fmt.Sprint("x", i), 1))
			require.NoError(t, err)
			ids = append(ids, run.ID)
		}
		time.Sleep(2 * lease)
		second, o := startOdd(t, disk, conveyor.Options{}, drivers)
		client, _ := oddEngine(t, disk, conveyor.Options{}, nil)
		time.Sleep(5 * lease)
		o.onCommit(func(ops []store.Op) error {
			if len(ops) > 100 { // a part of the takeover
				time.Sleep(lease / 10)
			}
			return nil
		})
		first.dead.Store(true)
		time.Sleep(lease + lease/2) // it has begun
		for _, id := range ids[:asked] {
			time.Sleep(lease / 20)
			require.NoError(t, client.Signal(t.Context(), id, "go", "now"))
		}
		for _, id := range ids[:asked] {
			require.NoError(t, untilEnded(t, second, id, 20*lease).Err())
		}
		require.NoError(t, client.Shutdown(t.Context()))
	})
}
