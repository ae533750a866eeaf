package conveyortest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/conveyortest"
	"github.com/conveyor-go/conveyor/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Build is the resource of the tests.
type Build struct {
	conveyor.Meta
	Spec BuildSpec `json:"spec"`
}

// BuildSpec is what a Build wants.
type BuildSpec struct {
	Repository string `json:"repository"`
}

// Cloner is a driver.
type Cloner struct{}

// Reconcile says that a repository was cloned.
func (Cloner) Reconcile(context.Context, *conveyor.Request) (conveyor.Result, error) {
	return conveyor.DoneWith("/src/app"), nil
}

// app is a build that goes along the pipeline "ci".
func app() *Build {
	return &Build{Meta: conveyor.Meta{Name: "app", Type: "build", Pipeline: "ci"}, Spec: BuildSpec{"https://example.com/app.git"}}
}

// save saves the pipeline "ci" for builds with a step for each of these drivers.
func save(t testing.TB, e *conveyortest.Engine, drivers ...string) {
	t.Helper()
	ci := conveyor.PipelineSpec{Name: "ci", Resource: "build"}
	for _, d := range drivers {
		ci.Steps = append(ci.Steps, conveyor.Step{Driver: d})
	}
	require.NoError(t, e.SavePipeline(t.Context(), ci))
}

// failing is a testing.TB that keeps what a test says as it fails, and its cleanups.
type failing struct {
	testing.TB
	said     []string
	cleanups []func()
}

func (f *failing) Helper()                        {}
func (f *failing) Context() context.Context       { return context.Background() }
func (f *failing) Cleanup(fn func())              { f.cleanups = append(f.cleanups, fn) }
func (f *failing) Errorf(format string, a ...any) { f.said = append(f.said, fmt.Sprintf(format, a...)) }
func (f *failing) Fatalf(format string, a ...any) { f.Errorf(format, a...); panic(f) }

// clean ends the test.
func (f *failing) clean() {
	for len(f.cleanups) > 0 {
		last := len(f.cleanups) - 1
		fn := f.cleanups[last]
		f.cleanups = f.cleanups[:last]
		fn()
	}
}

// during runs fn as a test, and returns what it said as it failed.
func during(fn func(t testing.TB)) []string {
	f := &failing{}
	func() {
		defer func() {
			if v := recover(); v != nil && v != any(f) {
				panic(v)
			}
		}()
		fn(f)
	}()
	f.clean()
	return f.said
}
