package etcd_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor/internal/badnet"
	"github.com/conveyor-go/conveyor/internal/etcdserver"
	"github.com/conveyor-go/conveyor/internal/load"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/etcd"
)

func TestAServerThatRestartsLosesNothingAcknowledged(t *testing.T) {
	cluster := newCluster(t, 1, noSync)
	opts := newPrefix()
	a, b := open(t, opts, cluster.Endpoints()...), open(t, opts, cluster.Endpoints()...)
	watch := load.Watch(t, b)
	l := load.Start(t, a, b)
	for n := range testenv.Some(t, 1, 2) {
		l.Await(t, 30)
		if n%2 == 0 {
			require.NoError(t, cluster.Members[0].Kill())
		} else {
			require.NoError(t, cluster.Members[0].Stop())
		}
		require.NoError(t, cluster.Members[0].Start())
	}
	l.Await(t, 30)
	l.End(t, b)
	watch.End(t, a)
}

// TestThreeServersLoseNothingAcknowledged has the leader killed or stopped, and any server stopped in its tracks, one at a time.
func TestThreeServersLoseNothingAcknowledged(t *testing.T) {
	testenv.NeedKill(t)
	cluster := newCluster(t, 3, noSync)
	opts := newPrefix()
	a, b := open(t, opts, cluster.Endpoints()...), open(t, opts, cluster.Endpoints()...)
	watch := load.Watch(t, b)
	l := load.Start(t, a, b)
	for n := range testenv.Some(t, 2, 3) {
		l.Await(t, 30)
		switch n % 3 {
		case 0:
			leader := leaderOf(t, a, cluster)
			require.NoError(t, leader.Kill())
			l.Await(t, 10) // the other two go on
			require.NoError(t, leader.Start())
		case 1:
			leader := leaderOf(t, a, cluster)
			require.NoError(t, leader.Pause())
			l.Await(t, 10)
			require.NoError(t, leader.Resume())
		case 2:
			require.NoError(t, cluster.Members[n%len(cluster.Members)].Stop())
			l.Await(t, 10)
			require.NoError(t, cluster.Members[n%len(cluster.Members)].Start())
		}
	}
	l.Await(t, 30)
	l.End(t, b)
	watch.End(t, a)
}

// leaderOf returns the server that is the leader, once there is one.
func leaderOf(t testing.TB, s *etcd.Store, cluster *etcdserver.Cluster) (leader *etcdserver.Member) {
	t.Helper()
	require.Eventually(t, func() bool {
		h, err := s.Health(t.Context())
		for i, server := range h.Servers {
			if err == nil && server.Leader {
				leader = cluster.Members[i]
			}
		}
		return leader != nil
	}, time.Minute, 10*time.Millisecond)
	return leader
}

// TestACommitWhoseAnswerIsLost has the server vanish after it has carried out a commit and before its answer arrives.
func TestACommitWhoseAnswerIsLost(t *testing.T) {
	server := needServer(t)
	p := badnet.New(t, "tcp", server.Members[0].Endpoint)
	opts := newPrefix()
	s, direct := open(t, opts, p.Address), open(t, opts, server.Endpoints()...)
	_, err := s.Commit(t.Context(), store.Put("before", nil))
	require.NoError(t, err)
	etcd.GiveUpSoon(s)
	etcd.BeImpatient(s, 500*time.Millisecond)

	unmute := p.Mute()
	lost := make(chan error)
	go func() {
		_, err := s.Commit(t.Context(), store.Put("lost", nil).IfAbsent())
		lost <- err
	}()
	require.Eventually(t, func() bool {
		_, err = direct.Get(t.Context(), "lost")
		return err == nil
	}, time.Minute, time.Millisecond)
	p.SetAway(true)
	unmute()
	err = <-lost
	require.ErrorIs(t, err, store.ErrUnknown)
	require.NotErrorIs(t, err, store.ErrUnavailable)

	_, err = s.Get(t.Context(), "lost")
	require.ErrorIs(t, err, store.ErrUnknown)
	for _, err := range s.List(t.Context(), store.Query{}) {
		require.ErrorIs(t, err, store.ErrUnknown)
	}
	_, err = s.Commit(t.Context(), store.Check("lost", 0))
	require.ErrorIs(t, err, store.ErrUnknown)
	_, err = s.Commit(t.Context(), store.Put("next", nil))
	require.ErrorIs(t, err, store.ErrUnavailable)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	_, err = s.Get(ctx, "lost")
	require.ErrorIs(t, err, errStop)

	p.SetAway(false)
	require.Eventually(t, func() bool {
		_, err := s.Get(t.Context(), "lost")
		return err == nil
	}, time.Minute, time.Millisecond)
	_, err = s.Commit(t.Context(), store.Put("lost", nil).IfAbsent())
	require.ErrorIs(t, err, store.ErrConflict)
	_, err = s.Commit(t.Context(), store.Put("next", nil))
	require.NoError(t, err)
}

var errStop = fmt.Errorf("stop it")

func TestAServerThatIsAwayIsUnavailable(t *testing.T) {
	server := needServer(t)
	p := badnet.New(t, "tcp", server.Members[0].Endpoint)
	opts := newPrefix()
	s := open(t, opts, p.Address)
	_, err := s.Commit(t.Context(), store.Put("a", nil))
	require.NoError(t, err)
	etcd.BeImpatient(s, 300*time.Millisecond)
	p.SetAway(true)
	// The client knows that it has no connection. Otherwise the commit could be sent or not.
	require.Eventually(t, func() bool {
		_, err := s.Get(t.Context(), "a")
		return err != nil
	}, time.Minute, time.Millisecond)
	for range 2 {
		_, err = s.Commit(t.Context(), store.Put("b", nil))
		require.ErrorIs(t, err, store.ErrUnavailable)
		_, err = s.Commit(t.Context(), store.Check("a", 1))
		require.ErrorIs(t, err, store.ErrUnavailable)
		_, err = s.Get(t.Context(), "a")
		require.ErrorIs(t, err, store.ErrUnavailable)
		for _, err := range s.List(t.Context(), store.Query{Reverse: true}) {
			require.ErrorIs(t, err, store.ErrUnavailable)
		}
		_, err = s.Health(t.Context())
		require.ErrorIs(t, err, store.ErrUnavailable)
	}
	p.SetAway(false)
	require.Eventually(t, func() bool {
		_, err := s.Commit(t.Context(), store.Put("b", nil).IfAbsent())
		return err == nil
	}, time.Minute, time.Millisecond)
	opts.Patience = 300 * time.Millisecond
	for _, user := range []string{"", "ada"} { // with whom the client itself waits for a token
		_, err = etcd.Open(t.Context(), clientv3.Config{Endpoints: []string{"127.0.0.1:1"}, Username: user, Password: "secret"}, opts)
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.ErrorContains(t, err, "127.0.0.1:1")
	}
}

// TestALeaseThatEndsHoldsUpNothing takes the markers away from a handle, as etcd does when it has not heard of it for long.
func TestALeaseThatEndsHoldsUpNothing(t *testing.T) {
	server := needServer(t)
	client := newClient(t, server.Endpoints()...)
	opts := newPrefix()
	s := open(t, opts, server.Endpoints()...)
	markers := func() []string { return keysOf(t, client, opts.Prefix+"m/") }
	for n := range 5 {
		commitAtOnce(t, s, fmt.Sprint(n), 8)
		require.NotEmpty(t, markers())
		endLeases(t, client, opts.Prefix)
		require.Empty(t, markers())
	}
	require.Len(t, keysOf(t, client, opts.Prefix+"r/"), 40)
	_, err := s.Commit(t.Context(), store.Put("last", nil))
	require.NoError(t, err)
	require.NotEmpty(t, markers())
	require.NoError(t, s.Close())
	require.Empty(t, markers(), "a handle that is closed leaves its markers behind")
}

// TestALeaseThatHasEndedIsNotedWhenALaneBegins has more commits at once, after the lease has ended, than there were before.
func TestALeaseThatHasEndedIsNotedWhenALaneBegins(t *testing.T) {
	server := needServer(t)
	client := newClient(t, server.Endpoints()...)
	opts := newPrefix()
	s := open(t, opts, server.Endpoints()...)
	_, err := s.Commit(t.Context(), store.Put("first", nil))
	require.NoError(t, err)
	endLeases(t, client, opts.Prefix)
	commitAtOnce(t, s, "then", 32)
}

// commitAtOnce makes n commits at the same time, each of a key of its own.
func commitAtOnce(t *testing.T, s store.Store, prefix string, n int) {
	t.Helper()
	var all sync.WaitGroup
	errs := make([]error, n)
	for i := range errs {
		all.Go(func() { _, errs[i] = s.Commit(t.Context(), store.Put(fmt.Sprintf("%s/%d", prefix, i), nil).IfAbsent()) })
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
}

// endLeases ends the leases to which keys under a prefix belong.
func endLeases(t *testing.T, client *clientv3.Client, prefix string) {
	t.Helper()
	leases, err := client.Leases(t.Context())
	require.NoError(t, err)
	for _, l := range leases.Leases {
		held, err := client.TimeToLive(t.Context(), l.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		if len(held.Keys) > 0 && strings.HasPrefix(string(held.Keys[0]), prefix) {
			_, err = client.Revoke(t.Context(), l.ID)
			require.NoError(t, err)
		}
	}
}

func keysOf(t testing.TB, client *clientv3.Client, prefix string) (keys []string) {
	t.Helper()
	r, err := client.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}
