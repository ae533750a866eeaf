package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
	"github.com/conveyor-go/conveyor/tests/processes"
)

func TestMain(m *testing.M) {
	processes.Main(func(ctx context.Context, place string) (store.Store, error) {
		schema, dsn, _ := strings.Cut(place, "\n")
		return postgres.Open(ctx, dsn, postgres.Options{Schema: schema})
	})
	testenv.Main(m)
}
