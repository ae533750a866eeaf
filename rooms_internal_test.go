package conveyor

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store/memory"
)

// plannedSteps is a pipeline that is planned as it stands.
type plannedSteps struct {
	PipelineSpec
	steps []Step
}

func (p plannedSteps) Plan(context.Context, *Object) ([]Step, error) { return p.steps, nil }

func TestAPipelineThatIsDeletedLeavesNothingInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		e, err := New(memory.New(), Options{})
		require.NoError(t, err)
		require.NoError(t, e.Register("d", DriverFunc(func(context.Context, *Request) (Result, error) {
			time.Sleep(time.Minute)
			return Done(), nil
		})))
		require.NoError(t, e.Start(ctx))
		drivers := len(e.sched.drivers)
		var runs []string
		for i := range 100 {
			name := fmt.Sprint("p", i)
			spec := PipelineSpec{Name: name, Resource: "r", MaxRuns: 1}
			require.NoError(t, e.SavePipeline(ctx, plannedSteps{spec, []Step{{Driver: "d"}}}))
			for k := range i % 3 { // none, one at work, or another that waits for room
				run, err := e.Apply(ctx, &Object{Meta: Meta{Type: "r", Name: fmt.Sprint(name, "-", k), Pipeline: name}})
				require.NoError(t, err)
				runs = append(runs, run.ID)
			}
			require.NoError(t, e.DeletePipeline(ctx, name))
		}
		for _, id := range runs {
			_, err := e.Wait(ctx, id)
			require.NoError(t, err)
		}
		synctest.Wait()
		require.Empty(t, e.sched.rooms)
		require.Len(t, e.sched.drivers, drivers)

		again := plannedSteps{PipelineSpec{Name: "p1", Resource: "r", MaxRuns: 2}, []Step{{Driver: "d"}}}
		require.NoError(t, e.SavePipeline(ctx, again))
		run, err := e.Apply(ctx, &Object{Meta: Meta{Type: "r", Name: "again", Pipeline: "p1"}})
		require.NoError(t, err)
		run, err = e.Wait(ctx, run.ID)
		require.NoError(t, err)
		require.NoError(t, run.Err())
		require.Equal(t, 2, e.sched.rooms["p1"].limit)
		require.NoError(t, e.Shutdown(ctx))
	})
}
