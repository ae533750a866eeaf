package gate

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
)

func TestCloseWaitsForWhatHasEntered(t *testing.T) {
	g := New()
	var order []string
	require.NoError(t, g.Enter())
	g.Go(func() {
		<-g.Closing.Done()
		order = append(order, "what was started")
	})
	go func() {
		<-g.Closing.Done()
		g.Leave()
	}()
	g.Close(func() { order = append(order, "last") })
	g.Close(func() { order = append(order, "twice") })
	require.Equal(t, []string{"what was started", "last"}, order)
	require.ErrorIs(t, g.Enter(), store.ErrClosed)
}

func TestAliveSaysWhy(t *testing.T) {
	g := New()
	cause := errors.New("cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	require.NoError(t, g.Alive(ctx))
	g.Close(func() {})
	require.ErrorIs(t, g.Alive(ctx), store.ErrClosed)
	cancel(cause)
	require.ErrorIs(t, g.Alive(ctx), cause)
}
