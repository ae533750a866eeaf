package main

import (
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/conveyor-go/conveyor"
)

// DockerBuild is the resource that the pipeline reconciles. It says what is built, and under which name it is published.
type DockerBuild struct {
	conveyor.Meta
	Spec BuildSpec `json:"spec"`
}

// BuildSpec is the desired state.
//
// BuildSpec must hold nothing that differs from one start of the program to the next, such as the port of a registry or
// the path of a temporary folder. A different spec is a new generation, and the program would not continue the unfinished
// run of the old generation.
type BuildSpec struct {
	// Repository is an argument for git fetch: a URL or an absolute path. The word "sample" means the built-in repository.
	Repository string `json:"repository"`
	// Ref is a branch, a tag or a commit. Empty means the HEAD of the repository.
	Ref string `json:"ref,omitempty"`
	// Package is the main package to build. Empty means the package at the root of the repository, or the only main package.
	Package string `json:"package,omitempty"`
	// Platform is the platform of the image, as linux/arm64 or linux/arm/v7. Empty means linux and the GOARCH of this machine.
	Platform string `json:"platform,omitempty"`
	// Image is host:port/name:tag. An image without a host is pushed to the built-in registry.
	Image string `json:"image"`
}

const sampleRepository = "sample"

// A source is the output of git-cloner.
type source struct {
	Dir    string `json:"dir"`
	Commit string `json:"commit"`
	Time   int64  `json:"time"`          // of the commit, in Unix seconds
	URL    string `json:"url,omitempty"` // without credentials; empty for a local path
	Sample bool   `json:"sample,omitempty"`
}

// A binary is the output of builder.
type binary struct {
	Path     string      `json:"path"`
	Platform v1.Platform `json:"platform"`
}

// An image is the output of image-generator.
type image struct {
	Layout string `json:"layout"` // folder, an OCI image layout
	Digest string `json:"digest"`
}

// A publication is the output of image-pusher.
type publication struct {
	Reference string `json:"reference"` // host:port/name@sha256:…
}

// input decodes the output of an earlier step. The default id of the earlier step is the id in pipeline.json. A pipeline
// with other ids names the earlier step in "with", as in
// {"id": "test", "driver": "test-runner", "with": {"source": "clone"}}.
func input[T any](req *conveyor.Request, name, step string) (T, error) {
	var out T
	with := map[string]string{name: step}
	if err := req.Settings(&with); err != nil {
		return out, conveyor.Permanent(err)
	}
	if err := req.Output(with[name], &out); err != nil {
		return out, conveyor.Permanent(fmt.Errorf("%s: %w", name, err))
	}
	return out, nil
}

func sourceOf(req *conveyor.Request) (source, error) {
	src, err := input[source](req, "source", "1")
	if err == nil {
		err = checkPresent(src.Dir)
	}
	return src, err
}

func binaryOf(req *conveyor.Request) (binary, error) {
	bin, err := input[binary](req, "binary", "3")
	if err == nil {
		err = checkPresent(bin.Path)
	}
	return bin, err
}

func imageOf(req *conveyor.Request) (image, error) {
	img, err := input[image](req, "image", "4")
	if err == nil {
		err = checkPresent(img.Layout)
	}
	return img, err
}

// checkPresent returns a permanent error if path does not exist. Somebody can have removed the work folder between two
// steps. A retry cannot help, because the steps that filled the work folder are finished and are not called again in
// this run.
func checkPresent(path string) error {
	if _, err := os.Stat(path); err != nil {
		return conveyor.Permanent(fmt.Errorf("the work of an earlier step is gone: %w; start a new run", err))
	}
	return nil
}
