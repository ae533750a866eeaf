package etcd_test

import (
	"context"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor/internal/etcdserver"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/etcd"
	"github.com/conveyor-go/conveyor/tests/processes"
)

func TestMain(m *testing.M) {
	etcdserver.Main()
	processes.Main(func(ctx context.Context, place string) (store.Store, error) {
		prefix, endpoints, _ := strings.Cut(place, "\n")
		return etcd.Open(ctx, clientv3.Config{Endpoints: strings.Split(endpoints, "\n")}, etcd.Options{Prefix: prefix})
	})
	testenv.Main(m)
}
