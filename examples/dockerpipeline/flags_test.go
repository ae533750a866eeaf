package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	const head = `{"name": "b", "resource": "docker-resource", "pipeline": "docker-pipeline", `
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{name: "an unknown flag", args: []string{"-reop", "x"}, want: "-reop"},
		{name: "an argument", args: []string{"build"}, want: `unexpected argument "build"`},
		{name: "a repository that is not there", args: []string{"-repo", filepath.Join(folder, "absent")}, want: "is neither a folder nor a URL"},
		{name: "an image that is none", args: []string{"-image", "https://example.com/app"}, want: "image: "},
		{name: "an answer that is none", args: []string{"-resume", "maybe"}, want: "neither yes nor no"},
		{name: "a platform that is none", args: []string{"-platform", "arm64"}, want: "platform: "},
		{name: "a platform of another system", args: []string{"-platform", "windows/amd64"}, want: "platform: "},
		{name: "a platform with an unknown variant", args: []string{"-platform", "linux/arm/v9"}, want: "unknown variant"},
		{name: "an image by digest", args: []string{"-image", "app@sha256:" + commit}, want: "image: "},
		{name: "a pipeline file that is not there", args: []string{"-pipeline", filepath.Join(folder, "absent")}, want: "pipeline: open "},
		{name: "a pipeline with a typo", args: []string{"-pipeline", write("typo.json", `{"name": "p", "resource": "r", "step": []}`)}, want: "step: unknown field"},
		{name: "a pipeline with an unknown driver", want: `step 1: there is no driver "cook"`,
			args: []string{"-pipeline", write("cook.json", `{"name": "p", "resource": "r", "steps": [{"driver": "cook"}]}`)}},
		{name: "a pipeline for other resources", want: "pipeline",
			args: []string{"-pipeline", write("other.json", `{"name": "docker-pipeline", "resource": "r", "steps": [{"driver": "builder"}]}`)}},
		{name: "a resource with a typo", args: []string{"-resource", write("resource.json", `{"name": "b", "resorce": "r"}`)}, want: "resorce: unknown field"},
		{name: "a spec with a typo", args: []string{"-resource", write("spec.json", head+`"spec": {"repo": "x", "image": "i"}}`)}, want: `spec: json: unknown field "repo"`},
		{name: "a spec that names no repository", args: []string{"-resource", write("none.json", head+`"spec": {"image": "i"}}`)}, want: "names no repository"},
		{name: "a resource for another pipeline", want: "pipeline",
			args: []string{"-resource", write("another.json", `{"name": "b", "resource": "docker-resource", "pipeline": "another", "spec": {"repository": "sample", "image": "i"}}`)}},
		{name: "a data folder with other things in it", args: []string{"-data", folder}, want: "is neither empty nor a folder of this program"},
		{name: "a data folder that is a file", args: []string{"-data", write("file", "")}, want: "file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{"-data", filepath.Join(t.TempDir(), "data")}, test.args...)
			got := start(t.Context(), args...)
			require.Contains(t, got.errors, test.want)
			require.Contains(t, got.errors, "See dockerpipeline -help.")
			require.Equal(t, exitUsage, got.code)
			require.Empty(t, got.out)
		})
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	t.Parallel()
	got := start(t.Context(), "-help")
	require.Equal(t, exitSucceeded, got.code)
	for _, flag := range []string{"-repo", "-ref", "-package", "-platform", "-image", "-data", "-resource", "-pipeline", "-resume", "-log"} {
		require.Contains(t, got.out, "  "+flag+" ")
	}
}

func TestFlagsOverrideTheResource(t *testing.T) {
	resource := filepath.Join(t.TempDir(), "resource.json")
	require.NoError(t, os.WriteFile(resource, []byte(`{"name": "b", "resource": "docker-resource", "pipeline": "docker-pipeline",
		"spec": {"repository": "sample", "ref": "old", "package": "./old", "platform": "linux/386", "image": "old"}}`), 0o600))
	a, err := parse([]string{"-resource", resource, "-data", t.TempDir()}, nil)
	require.NoError(t, err)
	require.Equal(t, BuildSpec{Repository: "sample", Ref: "old", Package: "./old", Platform: "linux/386", Image: "old"}, a.build.Spec)
	a, err = parse([]string{"-resource", resource, "-data", t.TempDir(), "-repo", "https://example.com/app", "-ref", "v1",
		"-package", "./cmd/app", "-platform", "linux/arm/v6", "-image", "app:v1"}, nil)
	require.NoError(t, err)
	require.Equal(t, BuildSpec{Repository: "https://example.com/app", Ref: "v1", Package: "./cmd/app", Platform: "linux/arm/v6", Image: "app:v1"}, a.build.Spec)
}

func TestDataFolderHasADefault(t *testing.T) {
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	a, err := parse(nil, nil)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(cache, "conveyor-dockerpipeline"), a.data)
}
