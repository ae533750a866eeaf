package postgres_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
)

// orders starts an engine that applies letters.
func orders(t *testing.T, st store.Store) *conveyor.Engine {
	t.Helper()
	engine, err := conveyor.New(st, conveyor.Options{Letters: true})
	require.NoError(t, err)
	require.NoError(t, engine.Register("cut", new(counted)))
	require.NoError(t, engine.SavePipeline(t.Context(), conveyor.PipelineSpec{Name: "parts", Resource: "part", Steps: []conveyor.Step{{Driver: "cut"}}}))
	require.NoError(t, engine.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, engine.Shutdown(context.Background())) })
	return engine
}

func newPart(name string) *part {
	return &part{Meta: conveyor.Meta{Type: "part", Name: name, Pipeline: "parts"}}
}

// awaitAnswer waits until a letter is answered, and returns the run that it has led to.
func awaitAnswer(t *testing.T, engine *conveyor.Engine, id string) *conveyor.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		l, err := engine.Letter(ctx, id)
		require.NoError(t, err)
		if !l.AnsweredAt.IsZero() {
			require.NoError(t, l.Err)
			run, err := engine.Wait(ctx, l.Run)
			require.NoError(t, err)
			return run
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			require.Fail(t, "the letter is not answered")
		}
	}
}

func TestALetterIsAppliedWhenTheTransactionOfTheCallerCommits(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	st := open(t, server.dsn, opts)
	engine := orders(t, st)
	ctx := conveyor.As(t.Context(), "shop")
	conn, err := pgx.Connect(ctx, server.dsn)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	how := postgres.EnqueueOptions{Schema: opts.Schema, Letter: conveyor.LetterOptions{Carried: map[string]string{"trace": "1"}}}

	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
		require.NoError(t, err)
		id, err := postgres.Enqueue(ctx, tx, newPart("of-"+string(level[:4])), how)
		require.NoError(t, err)
		_, err = st.Commit(ctx, store.Put("meanwhile", nil)) // the transaction holds nothing up
		require.NoError(t, err)
		_, err = engine.Letter(ctx, id)
		require.ErrorIs(t, err, conveyor.ErrNotFound, "it is not committed")
		require.NoError(t, tx.Commit(ctx))
		run := awaitAnswer(t, engine, id)
		require.NoError(t, run.Err())
		require.Equal(t, "shop", run.By)
		require.Equal(t, map[string]string{"trace": "1"}, run.Carried)
	}

	tx, err := conn.Begin(ctx)
	require.NoError(t, err)
	gone, err := postgres.Enqueue(ctx, tx, newPart("gone"), how)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(ctx))
	again := how
	again.Letter.ID, again.NoNotify = "once", true
	for range 2 {
		tx, err := conn.Begin(ctx)
		require.NoError(t, err)
		_, err = postgres.Enqueue(ctx, tx, newPart("once"), again)
		require.NoError(t, err)
		require.NoError(t, tx.Commit(ctx))
		awaitAnswer(t, engine, "once")
	}
	_, err = engine.Letter(ctx, gone)
	require.ErrorIs(t, err, conveyor.ErrNotFound)
	_, err = engine.Get(ctx, conveyor.Key{Type: "part", Name: "gone"})
	require.ErrorIs(t, err, conveyor.ErrNotFound)
}

func TestALetterIsWrittenWithDatabaseSQL(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	engine := orders(t, open(t, server.dsn, opts))
	db, err := sql.Open("pgx", server.dsn)
	require.NoError(t, err)
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	id, err := postgres.EnqueueSQL(t.Context(), tx, newPart("a"), postgres.EnqueueOptions{Schema: opts.Schema})
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	require.NoError(t, awaitAnswer(t, engine, id).Err())
}

func TestALetterThatIsInvalidIsNotWritten(t *testing.T) {
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	open(t, server.dsn, opts)
	conn, err := pgx.Connect(t.Context(), server.dsn)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = postgres.Enqueue(t.Context(), tx, newPart("a/b"), postgres.EnqueueOptions{Schema: opts.Schema})
	require.ErrorIs(t, err, conveyor.ErrInvalid)
	_, err = postgres.Enqueue(t.Context(), tx, newPart("a"), postgres.EnqueueOptions{Schema: "pg_bad"})
	require.ErrorContains(t, err, "Options.Schema")
	_, err = postgres.Enqueue(t.Context(), tx, newPart("a"), postgres.EnqueueOptions{Schema: opts.Schema})
	require.NoError(t, err, "the transaction goes on")
	require.NoError(t, tx.Rollback(t.Context()))
	tx, err = conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = postgres.Enqueue(t.Context(), tx, newPart("a"), postgres.EnqueueOptions{Schema: "missing"})
	require.ErrorContains(t, err, "write letter")
	require.NoError(t, tx.Rollback(t.Context()))
}
