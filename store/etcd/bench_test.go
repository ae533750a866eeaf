package etcd_test

import (
	"fmt"
	"testing"

	"github.com/conveyor-go/conveyor/internal/etcdserver"
	"github.com/conveyor-go/conveyor/internal/load"
)

// BenchmarkCommit measures commits of several concurrent callers on one server and on three, all on this machine, which sync.
func BenchmarkCommit(b *testing.B) {
	for _, servers := range []int{1, 3} {
		for _, callers := range []int{1, 64, 512} {
			b.Run(fmt.Sprintf("servers=%d/callers=%d", servers, callers), func(b *testing.B) {
				cluster := newCluster(b, servers, etcdserver.Options{Sync: true, Quota: 8 << 30})
				load.Commits(b, open(b, newPrefix(), cluster.Endpoints()...), callers)
			})
		}
	}
}
