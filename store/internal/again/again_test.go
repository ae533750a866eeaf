package again

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
)

var (
	errPassing = errors.New("passing")
	errRefused = errors.New("refused")
)

func tries() Tries {
	return Tries{
		Longest: 3 * time.Second,
		Passing: func(err error) bool { return !errors.Is(err, errRefused) },
		Final:   func(err error) error { return fmt.Errorf("final: %w", err) },
		Failed:  func(_, err error) error { return err },
	}
}

func TestUntilTriesUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		require.NoError(t, tries().Until(t.Context(), time.Now().Add(time.Minute), func(context.Context) error {
			if n++; n < 10 {
				return errPassing
			}
			return nil
		}))
		require.Equal(t, 10, n)
	})
}

func TestUntilEndsWithTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := tries().Until(t.Context(), began.Add(10*time.Second), func(ctx context.Context) error {
			<-ctx.Done() // an attempt has its own time
			require.LessOrEqual(t, time.Since(began), 10*time.Second)
			return errPassing
		})
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.ErrorIs(t, err, errPassing)
		require.Equal(t, 10*time.Second, time.Since(began))
	})
}

func TestUntilEndsWithWhatDoesNotPass(t *testing.T) {
	err := tries().Until(t.Context(), time.Now().Add(time.Minute), func(context.Context) error { return errRefused })
	require.EqualError(t, err, "final: refused")
	require.NotErrorIs(t, err, store.ErrUnavailable)

	cause := errors.New("cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	err = tries().Until(ctx, time.Now().Add(time.Minute), func(context.Context) error {
		cancel(cause)
		return errPassing
	})
	require.ErrorIs(t, err, cause)
}

func TestPausesGrowUpToTheLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pause
		for n := range 20 {
			began := time.Now()
			p.Next(t.Context())
			most := min(firstPause<<min(n, 10), longestPause)
			require.GreaterOrEqual(t, time.Since(began), most/2)
			require.LessOrEqual(t, time.Since(began), most*3/2)
		}
		p.AtMost(t.Context(), time.Millisecond)
		require.EqualValues(t, time.Millisecond, p)
	})
}
