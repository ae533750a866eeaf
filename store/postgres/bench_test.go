package postgres_test

import (
	"fmt"
	"testing"

	"github.com/conveyor-go/conveyor/internal/load"
	"github.com/conveyor-go/conveyor/store/postgres"
)

// BenchmarkCommit measures commits of several concurrent callers on a server that syncs.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			server := needServer(b)
			s := open(b, server.dsn, newSchema(b, server.dsn))
			before := postgres.Groups(s)
			load.Commits(b, s, callers)
			b.ReportMetric(float64(b.N)/float64(postgres.Groups(s)-before), "commits/group")
		})
	}
}
