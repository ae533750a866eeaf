package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

func runPusher(t *testing.T, builtIn string, spec BuildSpec, img image) (outcome, publication) {
	t.Helper()
	pusher := &imagePusher{registry: builtIn}
	got := runStep(t, conveyor.For(pusher.Push), "5", spec, outputs{"4": img})
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
