package main

import (
	"context"
	"debug/buildinfo"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store/file"
)

const lib = "package greet\n"

// severalPrograms is a module with two main packages and none at its root.
var severalPrograms = map[string]string{
	"main.go": lib, "main_test.go": lib,
	"cmd/one/main.go": "package main\n\nfunc main() {}\n",
	"cmd/two/main.go": "package main\n\nimport \"os\"\n\nfunc main() { println(os.Args) }\n",
}

func TestBuilderChoosesTheMainPackage(t *testing.T) {
	t.Parallel()
	const program = "package main\n\nfunc main() {}\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{name: "at the root", files: map[string]string{"cmd/other/main.go": program}, want: "example.com/greet"},
		{name: "the only one", files: map[string]string{"main.go": lib, "main_test.go": lib, "cmd/app/main.go": program}, want: "example.com/greet/cmd/app"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, bin := runBuilder(t, BuildSpec{}, test.files)
			require.NoError(t, got.err)
			info, err := buildinfo.ReadFile(bin.Path)
			require.NoError(t, err)
			require.Equal(t, test.want, info.Path)
		})
	}
}

func TestBuilderSaysWhichMainPackagesThereAre(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	for _, test := range []struct {
		name  string
		spec  BuildSpec
		files map[string]string
		want  string
	}{
		{name: "several", files: severalPrograms,
			want: "the module has these main packages: ./cmd/one ./cmd/two; choose one with -package, as in -package ./cmd/two"},
		{name: "none", files: map[string]string{"main.go": lib, "main_test.go": lib}, want: "the module has no main package"},
		{name: "another package was chosen", files: severalPrograms, spec: BuildSpec{Package: "."},
			want: `"." is package greet; the module has these main packages: ./cmd/one ./cmd/two`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _ := runBuilder(t, test.spec, test.files)
			require.ErrorContains(t, got.err, test.want)
			require.Equal(t, 1, got.attempts)
		})
	}
}

func TestPipelineBuildsTheRefThePackageAndThePlatformOfTheFlags(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	repository := newRepository(t, severalPrograms)
	gitIn(t, repository, "tag", "v1")
	want := gitIn(t, repository, "rev-parse", "HEAD")
	gitIn(t, repository, "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "--quiet", "--allow-empty", "-m", "Later")
	args := []string{"-data", t.TempDir(), "-repo", repository, "-image", newRegistry(t) + "/app:v1"}

	refused := start(t.Context(), args...)
	require.Equal(t, exitFailed, refused.code)
	require.Contains(t, refused.errors, "choose one with -package")

	got := start(t.Context(), append(args, "-ref", "v1", "-package", "./cmd/two", "-platform", "linux/arm/v6")...)
	require.Equal(t, exitSucceeded, got.code, "%s%s", got.out, got.errors)
	img := pull(t, got.value(t, "image"))
	config, err := img.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "linux/arm/v6", config.Platform().String())
	require.Equal(t, want, config.Config.Labels["org.opencontainers.image.revision"])
	info, err := buildinfo.ReadFile(filepath.Join(got.value(t, "layout"), "..", "3", "app"))
	require.NoError(t, err)
	require.Equal(t, "example.com/greet/cmd/two", info.Path)
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	require.Equal(t, []string{"arm", "6"}, []string{settings["GOARCH"], settings["GOARM"]})
}

func TestPipelineKeepsTheNewestRuns(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	a, err := parse([]string{"-data", data}, nil)
	require.NoError(t, err)
	a.wrap = func(conveyor.Driver) conveyor.Driver {
		return conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return conveyor.Done(), nil })
	}
	for range keptRuns + 3 {
		require.NoError(t, a.run(t.Context(), t.Output()))
	}
	st, err := file.Open(t.Context(), filepath.Join(data, storeFile), file.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	e, err := conveyor.New(st, conveyor.Options{})
	require.NoError(t, err)
	kept := 0
	for _, err := range e.Runs(t.Context(), conveyor.RunFilter{}) {
		require.NoError(t, err)
		kept++
	}
	require.LessOrEqual(t, kept, keptRuns+1, "a start removes what is too old before it adds a run of its own")
}
