package etcd_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/etcd"
)

// TestAUserNeedsNoMoreThanThePrefix has servers ask for a password. The user may read and write the keys under the prefix alone.
func TestAUserNeedsNoMoreThanThePrefix(t *testing.T) {
	cluster := newCluster(t, 1, noSync)
	client := newClient(t, cluster.Endpoints()...)
	opts := newPrefix()
	for _, name := range []string{"root", "ada"} {
		_, err := client.UserAdd(t.Context(), name, "secret")
		require.NoError(t, err)
		_, err = client.RoleAdd(t.Context(), name)
		require.NoError(t, err)
		_, err = client.UserGrantRole(t.Context(), name, name)
		require.NoError(t, err)
	}
	_, err := client.RoleGrantPermission(t.Context(), "ada", opts.Prefix, clientv3.GetPrefixRangeEnd(opts.Prefix), clientv3.PermissionType(clientv3.PermReadWrite))
	require.NoError(t, err)
	_, err = client.AuthEnable(t.Context())
	require.NoError(t, err)

	config := clientv3.Config{Endpoints: cluster.Endpoints(), Username: "ada", Password: "secret"}
	s, err := etcd.Open(t.Context(), config, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	first, err := s.Commit(t.Context())
	require.NoError(t, err)
	for i := range 20 {
		_, err := s.Commit(t.Context(), store.Put(fmt.Sprint("k", 10+i), nil).IfAbsent())
		require.NoError(t, err)
	}
	for _, reverse := range []bool{false, true} {
		n := 0
		for _, err := range s.List(t.Context(), store.Query{Reverse: reverse}) {
			require.NoError(t, err)
			n++
		}
		require.Equal(t, 20, n)
	}
	told := 0
	for c, err := range s.Watch(t.Context(), "k", first) {
		require.NoError(t, err)
		if c.Key != "" {
			told++
		}
		if told == 20 {
			break
		}
	}
	_, err = s.Health(t.Context())
	require.NoError(t, err)

	config.Password = "guess"
	_, err = etcd.Open(t.Context(), config, opts)
	require.ErrorContains(t, err, "authentication failed")
	require.NotErrorIs(t, err, store.ErrUnavailable)
	config.Password = "secret"
	_, err = etcd.Open(t.Context(), config, newPrefix())
	require.ErrorContains(t, err, "permission denied")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	_, err = etcd.Open(ctx, config, opts)
	require.ErrorIs(t, err, errStop)
}
