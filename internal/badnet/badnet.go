// Package badnet stands between a client and a server, and cuts their connections. Only tests import it.
package badnet

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Proxy passes connections on to a server. It can cut them.
type Proxy struct {
	Address string // where the proxy listens

	network, server string
	lossy           atomic.Bool // connections break now and then
	vanishes        atomic.Bool // the server is away from its next answer on, which does not arrive
	mute            atomic.Bool // answers do not arrive

	mu    sync.Mutex // guards the fields below
	pairs map[*pair]bool
	away  bool // new connections are refused
}

// pair is a connection through the proxy.
type pair struct{ client, server net.Conn }

// New starts a proxy for the server at an address of a network of package net. The proxy ends with the test.
func New(t testing.TB, network, server string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Proxy{Address: listener.Addr().String(), network: network, server: server, pairs: map[*pair]bool{}}
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
		p.Cut()
		all.Wait()
	})
	return p
}

func (p *Proxy) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial(p.network, p.server)
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
func (p *Proxy) breaks() bool { return p.lossy.Load() && rand.N(60) == 0 }

// answers is where the answers of the server go. When the connection breaks here, the server has done what it was asked for.
type answers struct {
	p *Proxy
	c *pair
}

func (a answers) Write(data []byte) (int, error) {
	if a.p.vanishes.Swap(false) {
		a.p.SetAway(true)
	}
	if a.p.mute.Load() {
		return len(data), nil
	}
	if a.p.breaks() {
		return 0, io.ErrClosedPipe
	}
	return a.c.client.Write(data)
}

// requests is where the requests of the client go. When the connection breaks here, they do not arrive, or only after the client
// knows of the break.
type requests struct {
	p *Proxy
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

// Cut closes all connections, on both sides.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		_ = c.client.Close()
		_ = c.server.Close()
	}
}

// Lose makes connections break now and then, in the middle of an answer too, until heal is called.
func (p *Proxy) Lose() (heal func()) {
	p.lossy.Store(true)
	return func() {
		p.lossy.Store(false)
		p.Cut()
	}
}

// SetAway cuts all connections and refuses new ones, or no longer does.
func (p *Proxy) SetAway(away bool) {
	p.mu.Lock()
	p.away = away
	p.mu.Unlock()
	if away {
		p.Cut()
	}
}

// VanishAtNextAnswer makes the server be away from its next answer on, which does not arrive.
func (p *Proxy) VanishAtNextAnswer() { p.vanishes.Store(true) }

// Mute keeps answers from arriving, while requests do. A connection that was muted must be cut.
func (p *Proxy) Mute() (unmute func()) {
	p.mute.Store(true)
	return func() { p.mute.Store(false) }
}
