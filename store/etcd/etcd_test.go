package etcd_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor/internal/badnet"
	"github.com/conveyor-go/conveyor/internal/load"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/etcd"
	"github.com/conveyor-go/conveyor/store/storetest"
)

// handle is a store of the suite with what is needed to open it again.
type handle struct {
	*etcd.Store
	opts etcd.Options
}

// harness returns the functions of the suite for stores that open opens.
func harness(client *clientv3.Client, set func(*etcd.Options), open func(t testing.TB, opts etcd.Options) *etcd.Store) storetest.Harness {
	again := func(t testing.TB, s store.Store) store.Store {
		opts := s.(*handle).opts
		return &handle{open(t, opts), opts}
	}
	return storetest.Harness{
		Open: func(t testing.TB) store.Store {
			opts := newPrefix()
			set(&opts)
			return &handle{open(t, opts), opts}
		},
		Reopen: again,
		Join:   again,
		Forget: func(t testing.TB, s store.Store) {
			newest, err := s.Commit(t.Context())
			require.NoError(t, err)
			_, err = client.Compact(t.Context(), int64(newest))
			require.NoError(t, err)
		},
	}
}

// TestStoreKeepsTheContract has all handles use one client, through a proxy that can lose answers.
func TestStoreKeepsTheContract(t *testing.T) {
	server := newCluster(t, 1, noSync) // whose history is compacted
	direct := newClient(t, server.Endpoints()...)
	p := badnet.New(t, "tcp", server.Members[0].Endpoint)
	client := newClient(t, p.Address)
	h := harness(direct, func(*etcd.Options) {}, func(t testing.TB, opts etcd.Options) *etcd.Store {
		s, err := etcd.OpenClient(t.Context(), client, opts)
		require.NoError(t, err)
		etcd.SettleSoon(s)
		return s
	})
	h.Lose = func(testing.TB, store.Store) (heal func()) { return p.Lose() }
	storetest.Run(t, h)
}

func TestStoreKeepsTheContractOnClientsOfItsOwn(t *testing.T) {
	testenv.Rare(t)
	server := newCluster(t, 1, noSync)
	storetest.Run(t, harness(newClient(t, server.Endpoints()...), func(*etcd.Options) {}, func(t testing.TB, opts etcd.Options) *etcd.Store {
		return open(t, opts, server.Endpoints()...)
	}))
}

func TestStoreKeepsTheContractOnThreeServers(t *testing.T) {
	testenv.Rare(t)
	cluster := newCluster(t, 3, noSync)
	storetest.Run(t, harness(newClient(t, cluster.Endpoints()...), func(*etcd.Options) {}, func(t testing.TB, opts etcd.Options) *etcd.Store {
		return open(t, opts, cluster.Endpoints()...)
	}))
}

func TestStoreKeepsTheContractOnOlderServers(t *testing.T) {
	testenv.Rare(t)
	server := newCluster(t, 1, noSync)
	storetest.Run(t, harness(newClient(t, server.Endpoints()...), func(*etcd.Options) {}, func(t testing.TB, opts etcd.Options) *etcd.Store {
		s := open(t, opts, server.Endpoints()...)
		etcd.NoStreams(s)
		return s
	}))
}

func TestStoresOfTwoPrefixesAreApart(t *testing.T) {
	server := needServer(t)
	outer := newPrefix()
	inner := etcd.Options{Prefix: outer.Prefix[:len(outer.Prefix)-1] + "0/"} // it sorts directly behind
	a, b := open(t, outer, server.Endpoints()...), open(t, inner, server.Endpoints()...)
	for i, s := range []*etcd.Store{a, b} {
		_, err := s.Commit(t.Context(), store.Put("key", []byte{byte(i)}).IfAbsent(), store.Put("\xff\xff", nil))
		require.NoError(t, err)
	}
	for i, s := range []*etcd.Store{a, b} {
		for _, reverse := range []bool{false, true} {
			n := 0
			for rec, err := range s.List(t.Context(), store.Query{Reverse: reverse}) {
				require.NoError(t, err)
				n++
				if rec.Key == "key" {
					require.Equal(t, []byte{byte(i)}, rec.Value)
				}
			}
			require.Equal(t, 2, n)
		}
	}
}

// TestHistoryIsCompacted has a handle compact while a watch goes on.
func TestHistoryIsCompacted(t *testing.T) {
	server := newCluster(t, 1, noSync)
	opts := newPrefix()
	s := open(t, opts, server.Endpoints()...)
	watch := load.Watch(t, open(t, opts, server.Endpoints()...))
	first, err := s.Commit(t.Context(), store.Put("first", nil))
	require.NoError(t, err)
	watch.Await() // before anything is compacted
	etcd.CompactEvery(s, 20*time.Millisecond)
	var gap error
	for n := 0; gap == nil; n++ {
		require.Less(t, n, 10_000)
		_, err := s.Commit(t.Context(), store.Put(fmt.Sprint("k", n), nil))
		require.NoError(t, err)
		for c, err := range s.Watch(t.Context(), "", first) {
			if gap = err; err == nil {
				require.Equal(t, "k0", c.Key)
			}
			break
		}
	}
	require.ErrorIs(t, gap, store.ErrGap)
	_, err = s.Commit(t.Context(), store.Delete("first")) // of which the other watch has not been told
	require.NoError(t, err)
	watch.End(t, s)
}
