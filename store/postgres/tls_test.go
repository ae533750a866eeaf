package postgres_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/load"
	"github.com/conveyor-go/conveyor/internal/pgserver"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/postgres"
)

// secureAddress is one of this machine that no other server has.
const secureAddress = "127.0.0.77"

// TestAStoreOverTLS connects to a server that accepts nothing else over the network.
func TestAStoreOverTLS(t *testing.T) {
	testenv.NeedLinux(t) // elsewhere there are fewer addresses
	needCluster(t)       // whether there is one
	c, err := pgserver.New("")
	require.NoError(t, err)
	data := filepath.Join(c.Dir, "data")
	certificate, key := selfSigned(t)
	for name, content := range map[string][]byte{
		"server.crt": certificate, "server.key": key,
		"pg_hba.conf": []byte("local all all trust\nhostssl all all 127.0.0.0/8 trust\n"),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(data, name), content, 0o600))
		out, err := exec.Command("chown", "--reference="+data, filepath.Join(data, name)).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	require.NoError(t, c.Start("fsync=off", "ssl=on", "listen_addresses="+secureAddress))
	defer func() { require.NoError(t, c.Stop(false)) }()

	root := filepath.Join(t.TempDir(), "root.crt")
	require.NoError(t, os.WriteFile(root, certificate, 0o600))
	dsn := "host=" + secureAddress + " port=5432 user=conveyor dbname=postgres application_name=secure sslmode="
	opts := ownSchema(t, dsn+"verify-full sslrootcert="+root)
	s := open(t, dsn+"verify-full sslrootcert="+root, opts)
	seen := load.Watch(t, s)
	_, err = s.Commit(t.Context(), store.Put("a", nil))
	require.NoError(t, err)
	seen.End(t, s)
	var plain, secure int
	require.NoError(t, connect(t, c.DSN()).QueryRow(t.Context(), `select count(*) filter (where not ssl), count(*) filter (where ssl)
		from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'secure'`).Scan(&plain, &secure))
	require.Zero(t, plain)
	require.Greater(t, secure, 1, "the connection that listens is one of them")

	other, _ := selfSigned(t)
	require.NoError(t, os.WriteFile(root, other, 0o600))
	opts.Patience = 2 * time.Second
	_, err = postgres.Open(t.Context(), dsn+"verify-full sslrootcert="+root, opts)
	require.ErrorContains(t, err, "certificate", "of somebody else")
	_, err = postgres.Open(t.Context(), dsn+"disable", opts)
	require.ErrorContains(t, err, "no encryption")
	require.NoError(t, s.Close())
}

func selfSigned(t *testing.T) (certificate, key []byte) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(secureAddress)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}
