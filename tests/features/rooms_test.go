package features_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// plannedSteps is a pipeline that is planned as it stands.
type plannedSteps struct {
	conveyor.PipelineSpec
	steps []conveyor.Step
}

func (p *plannedSteps) Plan(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
	return p.steps, nil
}

func TestAPipelineThatIsDeletedLeavesNothingInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Minute)))
		planned := func(name string, most int) *plannedSteps {
			spec := conveyor.PipelineSpec{Name: name, Resource: "r", MaxRuns: most}
			return &plannedSteps{spec, []conveyor.Step{{Driver: "d"}}}
		}
		slots := e.MustStats().Slots
		var runs []string
		var planners []weak.Pointer[plannedSteps]
		for i := range 100 {
			name := fmt.Sprint("p", i)
			p := planned(name, 1)
			planners = append(planners, weak.Make(p))
			require.NoError(t, e.SavePipeline(ctx, p))
			for k := range i % 3 { // none, one at work, or another that waits for room
				runs = append(runs, e.MustApply(rig.Along(name, fmt.Sprint(name, "-", k))).ID)
			}
			require.NoError(t, e.DeletePipeline(ctx, name))
		}
		require.NotEmpty(t, e.MustStats().Pipelines, "with runs at work")
		for _, id := range runs {
			e.Ended(id)
		}
		synctest.Wait()
		require.Empty(t, e.MustStats().Pipelines)
		require.Equal(t, slots, e.MustStats().Slots)
		runtime.GC()
		for i, p := range planners {
			require.Nil(t, p.Value(), "the planner of pipeline %d is held", i)
		}

		require.NoError(t, e.SavePipeline(ctx, planned("p1", 2)))
		require.NoError(t, e.Finish(rig.Along("p1", "again")).Err())
		require.Equal(t, 2, e.MustStats().Pipelines["p1"].Limit)
	})
}

// TestPipelinesThatAreDeletedHoldNoMemory compares an engine that has saved and deleted many pipelines with one that is new
// on the same records.
func TestPipelinesThatAreDeletedHoldNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 5_000
		e := rig.New(t, conveyor.Options{}).MustStart()
		for i := range many {
			name := strings.Repeat("p", 200) + fmt.Sprint(i)
			e.Save(rig.AtMost(rig.Named(name, rig.PipelineOf("d")), 1))
			require.NoError(t, e.DeletePipeline(t.Context(), name))
		}
		held := int64(rig.HeapInUse())
		e.Engine = e.Reborn(conveyor.Options{}).MustStart().Engine
		held -= int64(rig.HeapInUse())
		t.Logf("%d bytes of heap for each pipeline", held/many)
		require.Less(t, held/many, int64(150))
	})
}
