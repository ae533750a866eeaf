package etcd_test

import (
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/conveyor-go/conveyor/internal/etcdserver"
	"github.com/conveyor-go/conveyor/store/etcd"
)

// theServer is started by the first test that needs it. It ends with the process of the tests.
var theServer struct {
	once sync.Once
	*etcdserver.Cluster
	err error
}

// needServer returns an etcd of one server, which tests share.
func needServer(t testing.TB) *etcdserver.Cluster {
	t.Helper()
	theServer.once.Do(func() {
		theServer.Cluster, theServer.err = etcdserver.New("", 1, etcdserver.Options{Sync: benchmarks()})
	})
	require.NoError(t, theServer.err)
	return theServer.Cluster
}

// newCluster returns an etcd that the test has for itself.
func newCluster(t testing.TB, members int, opts etcdserver.Options) *etcdserver.Cluster {
	t.Helper()
	c, err := etcdserver.New(t.TempDir(), members, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// benchmarks reports whether benchmarks are asked for. They measure the disk. A test does not: nothing here stops the machine.
func benchmarks() bool {
	f := flag.Lookup("test.bench")
	return f != nil && f.Value.String() != ""
}

var noSync = etcdserver.Options{}

var prefixes atomic.Int64

// newPrefix returns options with a prefix that nobody has used.
func newPrefix() etcd.Options { return etcd.Options{Prefix: fmt.Sprintf("tests/%d/", prefixes.Add(1))} }

func open(t testing.TB, opts etcd.Options, endpoints ...string) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), clientv3.Config{Endpoints: endpoints}, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newClient(t testing.TB, endpoints ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}
