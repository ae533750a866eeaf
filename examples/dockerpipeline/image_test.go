package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

const commit = "0123456789012345678901234567890123456789"

// generate runs image-generator on a program that is a shell script.
func generate(t *testing.T) image {
	t.Helper()
	program := filepath.Join(t.TempDir(), "app")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho Hello\n"), 0o700))
	generator := &imageGenerator{work: workspace{root: t.TempDir()}}
	got := runStep(t, generator, "4", BuildSpec{}, given{
		"1": source{Dir: filepath.Dir(program), Commit: commit, Time: 1767225600, URL: "https://example.com/app"},
		"3": binary{Path: program, OS: "linux", Arch: "arm64"},
	})
	require.NoError(t, got.err)
	var img image
	require.NoError(t, json.Unmarshal(got.output, &img))
	return img
}

func openLayout(t *testing.T, img image) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(img.Layout)
	require.NoError(t, err)
	digest, err := v1.NewHash(img.Digest)
	require.NoError(t, err)
	opened, err := index.Image(digest)
	require.NoError(t, err)
	return opened
}

func TestImageGeneratorWritesAnOCIImage(t *testing.T) {
	img := generate(t)
	require.NoFileExists(t, filepath.Join(img.Layout, "layer.tar"))
	opened := openLayout(t, img)
	require.NoError(t, validate.Image(opened))
	manifest, err := opened.Manifest()
	require.NoError(t, err)
	require.Equal(t, types.OCIManifestSchema1, manifest.MediaType)
	require.Equal(t, types.OCIConfigJSON, manifest.Config.MediaType)
	require.Len(t, manifest.Layers, 1)
	require.Equal(t, types.OCILayer, manifest.Layers[0].MediaType)

	config, err := opened.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "linux/arm64", config.Platform().String())
	require.Equal(t, []string{"/app"}, config.Config.Entrypoint)
	require.Equal(t, map[string]string{
		"org.opencontainers.image.revision": commit,
		"org.opencontainers.image.created":  "2026-01-01T00:00:00Z",
		"org.opencontainers.image.source":   "https://example.com/app",
	}, config.Config.Labels)
	require.Equal(t, "#!/bin/sh\necho Hello\n", string(appOf(t, opened)))
}

func TestImageGeneratorGivesEqualInputsEqualDigests(t *testing.T) {
	first, second := generate(t), generate(t)
	require.NotEqual(t, first.Layout, second.Layout)
	require.Equal(t, first.Digest, second.Digest)
}

// appOf takes the program out of an image's only layer.
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

// requireTag asks a registry for the digest of a tag.
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

// requireRuns pulls an image by its reference, and runs its program.
func requireRuns(t *testing.T, reference string) {
	t.Helper()
	app := filepath.Join(t.TempDir(), "app")
	program := appOf(t, pull(t, reference))
	// A process that another test starts while the file is open for writing has it open, too, for a moment, and a program
	// that somebody can write to cannot be run. So none is started meanwhile.
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

func runPusher(t *testing.T, builtIn string, spec BuildSpec, img image) (outcome, publication) {
	t.Helper()
	pusher := &imagePusher{registry: builtIn}
	got := runStep(t, conveyor.For(pusher.Push), "5", spec, given{"4": img})
	var pub publication
	if got.err == nil {
		require.NoError(t, json.Unmarshal(got.output, &pub))
	}
	return got, pub
}

func TestImagePusherPublishesByDigest(t *testing.T) {
	img, builtIn, other := generate(t), newRegistry(t), newRegistry(t)
	for _, test := range []struct{ name, image, want string }{
		{name: "without a registry to the built-in one", image: "team/app:v1", want: builtIn + "/team/app"},
		{name: "to the registry that is named", image: other + "/app:v2", want: other + "/app"},
		{name: "the same once more", image: other + "/app:v2", want: other + "/app"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, pub := runPusher(t, builtIn, BuildSpec{Image: test.image}, img)
			require.NoError(t, got.err)
			require.Equal(t, test.want+"@"+img.Digest, pub.Reference)
			require.Equal(t, "#!/bin/sh\necho Hello\n", string(appOf(t, pull(t, pub.Reference))))
		})
	}
}

func TestImagePusherRetriesWhatMayPass(t *testing.T) {
	img := generate(t)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer broken.Close()
	for _, test := range []struct{ name, registry, want string }{
		{name: "nobody there", registry: unusedAddress(t), want: "connection refused"},
		{name: "a registry that has a bad day", registry: broken.Listener.Addr().String(), want: "503"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _ := runPusher(t, "", BuildSpec{Image: test.registry + "/app"}, img)
			require.ErrorContains(t, got.err, test.want)
			require.Equal(t, stepAttempts, got.attempts)
		})
	}
}

func TestImagePusherTakesARefusalForFinal(t *testing.T) {
	img := generate(t)
	closed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	defer closed.Close()
	for _, test := range []struct{ name, image, want string }{
		{name: "a registry that forbids it", image: closed.Listener.Addr().String() + "/app", want: "403"},
		{name: "a name that is none", image: "UPPER CASE", want: "could not parse reference"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _ := runPusher(t, "", BuildSpec{Image: test.image}, img)
			require.ErrorContains(t, got.err, test.want)
			require.Equal(t, 1, got.attempts)
		})
	}
}

func TestPlainHTTPStaysOnThisMachine(t *testing.T) {
	reached := errors.New("reached")
	transport := plainLoopback{roundTripper(func(*http.Request) (*http.Response, error) { return nil, reached })}
	for _, test := range []struct {
		name, url string
		want      error
	}{
		{name: "http to loopback", url: "http://127.0.0.1:5000/v2/", want: reached},
		{name: "http to loopback by IPv6", url: "http://[::1]:5000/v2/", want: reached},
		{name: "http to localhost", url: "http://localhost:5000/v2/", want: reached},
		{name: "https to anywhere", url: "https://192.168.1.1/v2/", want: reached},
		{name: "http to a private network", url: "http://192.168.1.1:5000/v2/", want: errPlainHTTP},
		{name: "http to a name that only looks like it", url: "http://localhost.example.com/v2/", want: errPlainHTTP},
	} {
		t.Run(test.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, test.url, strings.NewReader(""))
			require.NoError(t, err)
			_, err = transport.RoundTrip(req)
			require.ErrorIs(t, err, test.want)
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
