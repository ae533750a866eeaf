package etcd_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor/internal/etcdserver"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/etcd"
)

// TestAFullQuotaIsSaidAndNothingIsLost fills the database, and then does what docs/etcd.md says.
func TestAFullQuotaIsSaidAndNothingIsLost(t *testing.T) {
	cluster := newCluster(t, 1, etcdserver.Options{Quota: 16 << 20})
	client := newClient(t, cluster.Endpoints()...)
	s := open(t, newPrefix(), cluster.Endpoints()...)
	var written []store.Revision
	value := make([]byte, 256<<10)
	for {
		rev, err := s.Commit(t.Context(), store.Put("large", value), store.Put(fmt.Sprintf("n%03d", len(written)), nil))
		if err != nil {
			require.ErrorIs(t, err, etcd.ErrFull)
			for _, kind := range []error{store.ErrUnknown, store.ErrUnavailable, store.ErrConflict, store.ErrClosed, store.ErrCorrupt} {
				require.NotErrorIs(t, err, kind)
			}
			break
		}
		written = append(written, rev)
		require.Less(t, len(written), 200)
	}
	h, err := s.Health(t.Context())
	require.NoError(t, err)
	require.True(t, h.Full)
	require.EqualValues(t, 16<<20, h.Servers[0].Quota)

	// Reading goes on, and what failed is not there.
	at := 0
	for rec, err := range s.List(t.Context(), store.Query{Prefix: "n"}) {
		require.NoError(t, err)
		require.Equal(t, store.Record{Key: fmt.Sprintf("n%03d", at), Value: rec.Value, Revision: written[at]}, rec)
		at++
	}
	require.Len(t, written, at)

	_, err = client.Compact(t.Context(), int64(h.Newest))
	require.NoError(t, err)
	_, err = client.Defragment(t.Context(), cluster.Endpoints()[0])
	require.NoError(t, err)
	_, err = client.AlarmDisarm(t.Context(), &clientv3.AlarmMember{})
	require.NoError(t, err)
	_, err = s.Commit(t.Context(), store.Put("large", nil))
	require.NoError(t, err)
	h, err = s.Health(t.Context())
	require.NoError(t, err)
	require.False(t, h.Full)
}

// TestAQuotaThatManyReachAtOnce has many commits under way when the quota is reached. Etcd answers some of them with an error and carries
// them out.
func TestAQuotaThatManyReachAtOnce(t *testing.T) {
	const writers = 48
	cluster := newCluster(t, 1, etcdserver.Options{Quota: 16 << 20})
	s := open(t, newPrefix(), cluster.Endpoints()...)
	value := make([]byte, 32<<10)
	written, failed := make([]int, writers), make([]error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for failed[w] == nil {
				if _, failed[w] = s.Commit(t.Context(), store.Put(fmt.Sprintf("%02d/%05d", w, written[w]), value)); failed[w] == nil {
					written[w]++
				}
			}
		})
	}
	all.Wait()
	acknowledged := 0
	for w, err := range failed {
		require.ErrorIs(t, err, etcd.ErrFull)
		found := 0
		for _, err := range s.List(t.Context(), store.Query{Prefix: fmt.Sprintf("%02d/", w)}) {
			require.NoError(t, err)
			found++
		}
		require.Equal(t, written[w], found, "writer %d", w)
		acknowledged += found
	}
	testenv.Figure(t, "%d writers reach a quota of 16 MiB at once: %d commits acknowledged, 0 lost, 0 more than were acknowledged", writers, acknowledged)
}

func TestServersThatAllowLessAreNamed(t *testing.T) {
	server := needServer(t)
	opts := newPrefix()
	opts.MaxTxnOps, opts.MaxRequestBytes = 1000, 4<<20
	s := open(t, opts, server.Endpoints()...)
	require.Equal(t, 999, store.LimitsOf(s).Ops)
	var ops []store.Op
	for i := range 200 {
		ops = append(ops, store.Put(fmt.Sprint("k", i), nil))
	}
	_, err := s.Commit(t.Context(), ops...)
	require.ErrorContains(t, err, "Options.MaxTxnOps is 1000, and the servers allow less (their --max-txn-ops)")
	_, err = s.Commit(t.Context(), store.Put("large", make([]byte, 2<<20)))
	require.ErrorContains(t, err, "Options.MaxRequestBytes is 4194304, and the servers allow less (their --max-request-bytes)")
	_, err = s.Commit(t.Context(), store.Put("small", nil))
	require.NoError(t, err)
}

func TestOptionsThatAreNotValidAreNamed(t *testing.T) {
	for want, opts := range map[string]etcd.Options{
		"Options.Prefix":          {Prefix: "no slash"},
		"Options.Patience":        {Patience: -1},
		"Options.MaxTxnOps":       {MaxTxnOps: 3},
		"Options.MaxRequestBytes": {MaxRequestBytes: 100},
		"Options.History":         {History: 1},
		"set a smaller MaxTxnOps": {MaxRequestBytes: 64 << 10, MaxTxnOps: 4000},
	} {
		_, err := etcd.Open(t.Context(), clientv3.Config{Endpoints: []string{"127.0.0.1:1"}}, opts)
		require.ErrorContains(t, err, want)
	}
	_, err := etcd.Open(t.Context(), clientv3.Config{}, etcd.Options{})
	require.ErrorContains(t, err, "endpoints")
}

func TestAFormatThatIsNotKnownIsRefused(t *testing.T) {
	server := needServer(t)
	client := newClient(t, server.Endpoints()...)
	opts := newPrefix()
	_, err := client.Put(t.Context(), opts.Prefix+"format", "7")
	require.NoError(t, err)
	_, err = etcd.OpenClient(t.Context(), client, opts)
	require.ErrorIs(t, err, etcd.ErrVersion)
	require.ErrorContains(t, err, "is of format 7")
	_, err = client.Put(t.Context(), opts.Prefix+"format", "what?")
	require.NoError(t, err)
	_, err = etcd.OpenClient(t.Context(), client, opts)
	require.ErrorIs(t, err, store.ErrCorrupt)
}

func TestAClosedClientIsAClosedStore(t *testing.T) {
	server := needServer(t)
	client := newClient(t, server.Endpoints()...)
	s, err := etcd.OpenClient(t.Context(), client, newPrefix())
	require.NoError(t, err)
	require.NoError(t, client.Close())
	_, err = s.Get(t.Context(), "a")
	require.ErrorIs(t, err, store.ErrClosed)
	_, err = s.Commit(t.Context(), store.Put("a", nil))
	require.ErrorIs(t, err, store.ErrClosed)
	for _, err := range s.Watch(t.Context(), "", 0) {
		require.ErrorIs(t, err, store.ErrClosed)
	}
	require.NoError(t, s.Close())
}
