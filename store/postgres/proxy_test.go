package postgres_test

import (
	"net"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/badnet"
)

// proxy stands between a store and the server.
type proxy struct {
	*badnet.Proxy
	dsn string // of the server, through the proxy
}

func newProxy(t testing.TB, s server) *proxy {
	t.Helper()
	config, err := pgx.ParseConfig(s.dsn)
	require.NoError(t, err)
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	p := badnet.New(t, network, address)
	host, port, err := net.SplitHostPort(p.Address)
	require.NoError(t, err)
	return &proxy{p, s.with(t, "host="+host+" port="+port+" sslmode=disable")}
}
