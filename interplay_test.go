package conveyor_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

func TestRule08RunEndsOnceWhateverWakesItAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("a line")
			return conveyor.Done(), nil
		}))
		e.pipeline("d")
		e.finish(object("x", nil))
		before := dump(t, e.store)
		time.Sleep(time.Minute)
		require.Equal(t, before, dump(t, e.store))
	})
}
