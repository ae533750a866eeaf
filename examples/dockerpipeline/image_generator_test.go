package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
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
	got := runStep(t, conveyor.For(generator.Generate), "4", BuildSpec{Image: "team/app:v1"}, outputs{
		"1": source{Dir: filepath.Dir(program), Commit: commit, Time: 1767225600, URL: "https://example.com/app"},
		"3": binary{Path: program, Platform: v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
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
	require.Equal(t, "linux/arm64/v8", config.Platform().String())
	require.Equal(t, []string{"/app"}, config.Config.Entrypoint)
	require.Equal(t, map[string]string{
		"org.opencontainers.image.revision": commit,
		"org.opencontainers.image.created":  "2026-01-01T00:00:00Z",
		"org.opencontainers.image.source":   "https://example.com/app",
	}, config.Config.Labels)
	require.Equal(t, "#!/bin/sh\necho Hello\n", string(appOf(t, opened)))
}

func TestImageGeneratorNamesTheImageInTheLayout(t *testing.T) {
	index, err := layout.ImageIndexFromPath(generate(t).Layout)
	require.NoError(t, err)
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	require.Len(t, manifest.Manifests, 1)
	require.Equal(t, map[string]string{"org.opencontainers.image.ref.name": "v1"}, manifest.Manifests[0].Annotations)
	require.Equal(t, "linux/arm64/v8", manifest.Manifests[0].Platform.String())
}

func TestImageGeneratorGivesEqualInputsEqualDigests(t *testing.T) {
	first, second := generate(t), generate(t)
	require.NotEqual(t, first.Layout, second.Layout)
	require.Equal(t, first.Digest, second.Digest)
}
