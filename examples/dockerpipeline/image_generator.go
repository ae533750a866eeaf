package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/conveyor-go/conveyor"
)

// imageGenerator puts the program into an OCI image. It does not need docker, because an image is a few JSON documents and
// a tar archive.
type imageGenerator struct{ work workspace }

// Generate writes an OCI image layout to the work folder. Its output is an [image].
func (g *imageGenerator) Generate(_ context.Context, req *conveyor.Request, build *DockerBuild) (conveyor.Result, error) {
	src, err := sourceOf(req)
	if err != nil {
		return conveyor.Result{}, err
	}
	bin, err := binaryOf(req)
	if err != nil {
		return conveyor.Result{}, err
	}
	tag, err := parseImage(build.Spec.Image, "localhost")
	if err != nil {
		return conveyor.Result{}, conveyor.Permanent(err)
	}
	var digest v1.Hash
	dir, err := g.work.fill(req, func(dir string) (err error) {
		digest, err = writeImage(src, bin, tag.TagStr(), dir)
		return err
	})
	if err != nil {
		return conveyor.Result{}, err
	}
	req.Log.Info("image written", "digest", digest.String())
	return conveyor.DoneWith(image{Layout: dir, Digest: digest.String()}), nil
}

// writeImage makes dir an OCI image layout. The image has one layer with the program at /app. The same commit and the same
// Go toolchain give the same digest, because the only time in the image is the time of the commit. The name of the image in
// the layout is its tag.
func writeImage(src source, bin binary, tag, dir string) (v1.Hash, error) {
	created := time.Unix(src.Time, 0).UTC()
	packed := filepath.Join(dir, "layer.tar")
	if err := writeLayer(packed, bin.Path, created); err != nil {
		return v1.Hash{}, fmt.Errorf("layer: %w", err)
	}
	defer os.Remove(packed) // the layout has the layer in compressed form
	layer, err := tarball.LayerFromFile(packed, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return v1.Hash{}, fmt.Errorf("layer: %w", err)
	}
	img, err := assemble(layer, created, src, bin)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("image: %w", err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("image layout: %w", err)
	}
	named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})
	if err := path.AppendImage(img, layout.WithPlatform(bin.Platform), named); err != nil {
		return v1.Hash{}, fmt.Errorf("image layout: %w", err)
	}
	return img.Digest()
}

func assemble(layer v1.Layer, created time.Time, src source, bin binary) (v1.Image, error) {
	labels := map[string]string{
		"org.opencontainers.image.revision": src.Commit,
		"org.opencontainers.image.created":  created.Format(time.RFC3339),
	}
	if src.URL != "" {
		labels["org.opencontainers.image.source"] = src.URL
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		OS:           bin.Platform.OS,
		Architecture: bin.Platform.Architecture,
		Variant:      bin.Platform.Variant,
		Created:      v1.Time{Time: created},
		Config:       v1.Config{Entrypoint: []string{"/app"}, WorkingDir: "/", Labels: labels},
		RootFS:       v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(img, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "conveyor: image-generator"},
	})
}

// writeLayer writes a tar archive with the program as /app, owned by root. Nothing in the archive depends on the machine.
func writeLayer(path, program string, created time.Time) (err error) {
	in, err := os.Open(program)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := out.Close(); err == nil {
			err = closeErr
		}
	}()
	packer := tar.NewWriter(out)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: "app", Mode: 0o755, Size: info.Size(), ModTime: created}
	if err := packer.WriteHeader(header); err != nil {
		return err
	}
	if _, err := io.Copy(packer, in); err != nil {
		return err
	}
	return packer.Close()
}
