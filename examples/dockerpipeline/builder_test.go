package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/testenv"
)

func runBuilder(t *testing.T, spec BuildSpec, files map[string]string) (outcome, binary) {
	t.Helper()
	b := &builder{work: workspace{root: t.TempDir()}}
	src := source{Dir: newRepository(t, files), Sample: true}
	got := runStep(t, conveyor.For(b.Build), "3", spec, outputs{"1": src})
	var bin binary
	if got.err == nil {
		require.NoError(t, json.Unmarshal(got.output, &bin))
	}
	return got, bin
}

func TestBuilderMakesAStaticProgram(t *testing.T) {
	setHostileEnv(t)
	t.Setenv("CGO_ENABLED", "1")
	got, bin := runBuilder(t, BuildSpec{}, nil)
	require.NoError(t, got.err)
	require.Equal(t, runtime.GOARCH, bin.Platform.Architecture)
	program, err := elf.Open(bin.Path)
	require.NoError(t, err)
	defer program.Close()
	for _, part := range program.Progs {
		require.NotEqual(t, elf.PT_INTERP, part.Type, "no dynamic linker is asked for")
	}
	if runtime.GOOS != "linux" {
		testenv.Skip(t, "needs Linux, which the program is built for")
	}
	out, err := exec.CommandContext(t.Context(), bin.Path, "builder").Output()
	require.NoError(t, err)
	require.Equal(t, "Hello, builder!\n", string(out))
}

func TestBuilderBuildsForAnotherArchitecture(t *testing.T) {
	t.Parallel()
	arch, machine := "arm64", elf.EM_AARCH64
	if runtime.GOARCH == arch {
		arch, machine = "amd64", elf.EM_X86_64
	}
	got, bin := runBuilder(t, BuildSpec{Platform: "linux/" + arch, Package: "./cmd/app"}, map[string]string{
		"cmd/app/main.go": "package main\n\nfunc main() {}\n",
	})
	require.NoError(t, got.err)
	require.Equal(t, "app", filepath.Base(bin.Path))
	program, err := elf.Open(bin.Path)
	require.NoError(t, err)
	defer program.Close()
	require.Equal(t, machine, program.Machine)
}

// TestBuilderIsNotChangedByTheSettingsOfTheUser builds once without settings and once with settings that change a program.
func TestBuilderIsNotChangedByTheSettingsOfTheUser(t *testing.T) {
	testenv.Rare(t)
	keepGoCaches(t)
	t.Setenv("GOENV", "off")
	build := func() []byte {
		got, bin := runBuilder(t, BuildSpec{Platform: "linux/amd64"}, nil)
		require.NoError(t, got.err)
		program, err := os.ReadFile(bin.Path)
		require.NoError(t, err)
		return program
	}
	plain := build()

	written := filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(written, []byte("GOAMD64=v3\nGO_EXTLINK_ENABLED=0\nGOFIPS140=latest\n"), 0o600))
	for _, test := range []struct{ name, variable, value string }{
		{name: "a newer processor", variable: "GOAMD64", value: "v3"},
		{name: "an experiment", variable: "GOEXPERIMENT", value: "nogreenteagc"},
		{name: "a cryptographic module", variable: "GOFIPS140", value: "latest"},
		{name: "another linker", variable: "GO_EXTLINK_ENABLED", value: "0"},
		{name: "settings of go env", variable: "GOENV", value: written},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(test.variable, test.value)
			require.True(t, bytes.Equal(plain, build()))
		})
	}
	t.Run("settings of git", func(t *testing.T) {
		setHostileGit(t)
		require.True(t, bytes.Equal(plain, build()))
	})
}

func TestBuildEnvKeepsWhatLeadsToModules(t *testing.T) {
	written := filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(written, []byte("GOPROXY=https://written.example.com\nGOPRIVATE=example.com\nGOARM=5\n"), 0o600))
	t.Setenv("GOENV", written)
	t.Setenv("GOPROXY", "https://set.example.com")
	t.Setenv("GOPRIVATE", "")
	env := buildEnv()
	require.Contains(t, env, "GOPRIVATE=example.com")
	require.NotContains(t, env, "GOPROXY=https://written.example.com")
	require.NotContains(t, env, "GOPROXY=")
	require.NotContains(t, env, "GOARM=5")
}

func TestBuilderTakesFaultsOfTheCodeForFinal(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	for _, test := range []struct {
		name  string
		spec  BuildSpec
		files map[string]string
		want  string
	}{
		{name: "code that does not compile", files: map[string]string{"main.go": "package main\n\nfunc main() { x }\n"}, want: "go build: exit status 1"},
		{name: "a package that is no program", files: map[string]string{"lib/lib.go": "package lib\n"}, spec: BuildSpec{Package: "./lib"}, want: `"./lib" is package lib`},
		{name: "a package that is not there", spec: BuildSpec{Package: "./absent"}, want: "go list: exit status 1"},
		{name: "an option for a package", spec: BuildSpec{Package: "-toolexec=true"}, want: "go list: exit status 1"},
		{name: "an unknown architecture", spec: BuildSpec{Platform: "linux/z80"}, want: "unsupported GOOS/GOARCH"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _ := runBuilder(t, test.spec, test.files)
			require.ErrorContains(t, got.err, test.want)
			require.Equal(t, 1, got.attempts)
		})
	}
}
