package main

import (
	"archive/tar"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"
)

// newRegistry starts a registry and returns its host:port.
func newRegistry(t *testing.T) string {
	t.Helper()
	r, err := startRegistry()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r.Addr()
}

// unusedAddress returns a host:port of this machine on which nobody listens.
func unusedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

// pull fetches an image by its reference from a registry.
func pull(t *testing.T, reference string) v1.Image {
	t.Helper()
	ref, err := name.NewDigest(reference)
	require.NoError(t, err)
	connections := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(connections.CloseIdleConnections)
	img, err := remote.Image(ref, remote.WithTransport(connections), remote.WithContext(t.Context()))
	require.NoError(t, err)
	require.NoError(t, validate.Image(img))
	return img
}

// requireTag checks the digest of a tag in a registry.
func requireTag(t *testing.T, image, digest string) {
	t.Helper()
	tag, err := name.NewTag(image)
	require.NoError(t, err)
	connections := http.DefaultTransport.(*http.Transport).Clone()
	defer connections.CloseIdleConnections()
	got, err := remote.Head(tag, remote.WithTransport(connections), remote.WithContext(t.Context()))
	require.NoError(t, err)
	require.Equal(t, digest, got.Digest.String())
}

// appOf returns the program in the only layer of an image.
func appOf(t *testing.T, img v1.Image) []byte {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 1)
	unpacked, err := layers[0].Uncompressed()
	require.NoError(t, err)
	defer unpacked.Close()
	files := tar.NewReader(unpacked)
	header, err := files.Next()
	require.NoError(t, err)
	require.Equal(t, "app", header.Name)
	require.Equal(t, int64(0o755), header.Mode)
	app, err := io.ReadAll(files)
	require.NoError(t, err)
	_, err = files.Next()
	require.ErrorIs(t, err, io.EOF)
	return app
}

// requireRuns pulls an image by its reference, and runs its program.
func requireRuns(t *testing.T, reference string) {
	t.Helper()
	app := filepath.Join(t.TempDir(), "app")
	program := appOf(t, pull(t, reference))
	// A program that is open for writing cannot be executed. A process that another test starts while the file is open
	// inherits the open file for a moment. The lock keeps other tests from starting a process meanwhile.
	syscall.ForkLock.RLock()
	err := os.WriteFile(app, program, 0o700)
	syscall.ForkLock.RUnlock()
	require.NoError(t, err)
	if runtime.GOOS != "linux" {
		t.Log("the image was pulled, but its program is for Linux and cannot be run here")
		return
	}
	out, err := exec.CommandContext(t.Context(), app, "puller").Output()
	require.NoError(t, err)
	require.Equal(t, "Hello, puller!\n", string(out))
}
