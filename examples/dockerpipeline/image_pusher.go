package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/conveyor-go/conveyor"
)

// imagePusher pushes the image to the registry with which the name of the image begins.
type imagePusher struct {
	// registry is the host:port for names without a registry. It is the built-in registry, whose port changes at each start.
	registry string
}

// Push pushes the image. Its output is a [publication]. Pushing is idempotent: an interrupted push can be repeated, and
// the registry keeps the layers that it has received.
func (p *imagePusher) Push(ctx context.Context, req *conveyor.Request, build *DockerBuild) (conveyor.Result, error) {
	img, err := imageOf(req)
	if err != nil {
		return conveyor.Result{}, err
	}
	tag, err := parseImage(build.Spec.Image, p.registry)
	if err != nil {
		return conveyor.Result{}, conveyor.Permanent(err)
	}
	req.Log.Info("pushing", "image", tag.Name())
	if err := push(ctx, img, tag); err != nil {
		return conveyor.Result{}, err
	}
	ref := tag.Context().Digest(img.Digest).Name()
	req.Log.Info("pushed", "reference", ref)
	return conveyor.DoneWith(publication{Reference: ref}), nil
}

// parseImage parses host:port/name:tag. The default of host:port is registry. The default of tag is "latest".
func parseImage(image, registry string) (name.Tag, error) {
	ref, err := name.ParseReference(image, name.WithDefaultRegistry(registry))
	if err != nil {
		return name.Tag{}, err
	}
	tag, ok := ref.(name.Tag)
	if !ok {
		return name.Tag{}, fmt.Errorf("%s has a digest; what is pushed gets its digest from its content", image)
	}
	return tag, nil
}

func push(ctx context.Context, img image, tag name.Tag) error {
	digest, err := v1.NewHash(img.Digest)
	if err != nil {
		return conveyor.Permanent(err)
	}
	index, err := layout.ImageIndexFromPath(img.Layout)
	if err != nil {
		return conveyor.Permanent(err)
	}
	built, err := index.Image(digest)
	if err != nil {
		return conveyor.Permanent(err)
	}
	connections := http.DefaultTransport.(*http.Transport).Clone()
	defer connections.CloseIdleConnections()
	credentials, waits := new(keychain), &waitRecorder{RoundTripper: plainLoopback{connections}}
	err = remote.Write(tag, built,
		remote.WithContext(ctx),
		remote.WithTransport(waits),
		remote.WithAuthFromKeychain(credentials),
		// The client tries once. The pipeline retries, because its retries are recorded and visible.
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
	)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return judge(err, credentials.used, waits.longest())
}

var errPlainHTTP = errors.New("unencrypted http is for registries on this machine")

// plainLoopback returns an error for unencrypted http to other machines. Without it, the registry client would use
// unencrypted http for all private addresses, and would send credentials with it.
type plainLoopback struct{ http.RoundTripper }

func (t plainLoopback) RoundTrip(req *http.Request) (*http.Response, error) {
	if host := req.URL.Hostname(); req.URL.Scheme == "http" && !isLoopback(host) {
		return nil, fmt.Errorf("%s: %w", host, errPlainHTTP)
	}
	return t.RoundTripper.RoundTrip(req)
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
