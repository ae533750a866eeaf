package postgres_test

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// proxy stands between a store and the server. It can cut the connections that go through it.
type proxy struct {
	dsn      string
	network  string
	address  string
	listener net.Listener

	lossy    atomic.Bool // connections break now and then
	vanishes atomic.Bool // the server is away from its next answer on, which does not arrive

	mu    sync.Mutex // guards the fields below
	pairs map[*pair]bool
	away  bool // new connections are refused
}

// pair is a connection through the proxy.
type pair struct{ client, server net.Conn }

func newProxy(t testing.TB, s server) *proxy {
	t.Helper()
	config, err := pgx.ParseConfig(s.dsn)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: listener, pairs: map[*pair]bool{}}
	p.network, p.address = pgconn.NetworkAddress(config.Host, config.Port)
	host, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	p.dsn = s.with(t, "host="+host+" port="+port+" sslmode=disable")
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.carry(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
		all.Wait()
	})
	return p
}

func (p *proxy) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial(p.network, p.address)
	if err != nil {
		return
	}
	defer server.Close()
	c := &pair{client: client, server: server}
	p.mu.Lock()
	p.pairs[c] = true
	away := p.away
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.pairs, c)
		p.mu.Unlock()
	}()
	if away {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(requests{p, c}, client)
		_ = server.Close()
	})
	_, _ = io.Copy(answers{p, c}, server)
	_ = client.Close()
	both.Wait()
}

// breaks says whether a connection breaks at the next piece of data.
func (p *proxy) breaks() bool { return p.lossy.Load() && rand.N(60) == 0 }

// answers is where the answers of the server go. When the connection breaks here, the server has done what it was asked for.
type answers struct {
	p *proxy
	c *pair
}

func (a answers) Write(data []byte) (int, error) {
	if a.p.vanishes.Swap(false) {
		a.p.setAway(true)
	}
	if a.p.breaks() {
		return 0, io.ErrClosedPipe
	}
	return a.c.client.Write(data)
}

// requests is where the requests of the client go. When the connection breaks here, they do not arrive, or only after the client
// knows of the break.
type requests struct {
	p *proxy
	c *pair
}

func (r requests) Write(data []byte) (int, error) {
	if r.p.breaks() {
		_ = r.c.client.Close()
		if rand.N(2) == 0 {
			time.Sleep(rand.N(50 * time.Millisecond))
			_, _ = r.c.server.Write(data)
			time.Sleep(20 * time.Millisecond) // the server reads no further once the connection is closed
		}
		return 0, io.ErrClosedPipe
	}
	return r.c.server.Write(data)
}

// cut closes all connections, on both sides.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		_ = c.client.Close()
		_ = c.server.Close()
	}
}

// lose makes connections break now and then.
func (p *proxy) lose() (heal func()) {
	p.lossy.Store(true)
	return func() {
		p.lossy.Store(false)
		p.cut()
	}
}

// setAway refuses all connections, or no longer does.
func (p *proxy) setAway(away bool) {
	p.mu.Lock()
	p.away = away
	p.mu.Unlock()
	if away {
		p.cut()
	}
}
