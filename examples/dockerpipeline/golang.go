package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/version"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// goEnv returns an environment in which the workspace and the flags of the user of this program do not affect the code
// that is built. GOFLAGS has the default value, because an empty GOFLAGS means the value that "go env -w" wrote. The
// sample needs nothing from the network, so goEnv turns the network off for it.
func goEnv(sample bool) []string {
	env := []string{"GOWORK=off", "GOFLAGS=-buildvcs=auto", "GO111MODULE=on"}
	if sample {
		env = append(env, "GOPROXY=off", "GOTOOLCHAIN=local")
	}
	return env
}

// buildEnv returns an environment that takes away what could change the program that is built: every variable of the go
// command, such as GOAMD64, GOEXPERIMENT or GOFIPS140, and everything that "go env -w" wrote. Git, which the go command asks
// for the commit, has no settings of the user either. What remains says where modules and caches are, and how much memory and
// how many processors the go command may use.
func buildEnv() []string {
	env := append(gitEnv(), "GOENV=off")
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "GO") && !slices.Contains(ofModules, name) && !slices.Contains(ofTheMachine, name) || strings.HasPrefix(name, "CGO_") {
			env = append(env, name+"=") // to the go command, empty means not set
		}
	}
	for name, value := range writtenGoEnv() {
		if slices.Contains(ofModules, name) && os.Getenv(name) == "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// ofModules are the variables of the go command that say where modules, caches and the toolchain are.
var ofModules = []string{
	"GOROOT", "GOPATH", "GOMODCACHE", "GOCACHE", "GOCACHEPROG", "GOTMPDIR", "GOTOOLCHAIN",
	"GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOVCS", "GOAUTH",
}

// ofTheMachine are the variables that limit what the go command takes of the machine.
var ofTheMachine = []string{"GOGC", "GOMAXPROCS", "GOMEMLIMIT"}

// writtenGoEnv returns what "go env -w" wrote. A file that cannot be read has nothing in it for the go command either.
func writtenGoEnv() map[string]string {
	path := os.Getenv("GOENV")
	if path == "" {
		folder, err := os.UserConfigDir()
		if err != nil {
			return nil
		}
		path = filepath.Join(folder, "go", "env")
	}
	text, _ := os.ReadFile(path)
	written := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, found := strings.Cut(strings.TrimRight(line, "\r\n"), "="); found {
			written[name] = value
		}
	}
	return written
}

// download fetches the toolchain and the modules that the clone depends on. It is separate from the work on them, so that a
// failure of the network can be told from a failure of the code. A retry can help against a failure of the network only.
func download(ctx context.Context, golang command) error {
	if !exists(filepath.Join(golang.dir, "go.mod")) {
		return conveyor.Permanent(errors.New("the repository has no go.mod at its root"))
	}
	if _, err := golang.output(ctx, "go", "version"); err != nil { // fetches the toolchain that go.mod asks for
		return err
	}
	vendored, err := usesVendor(ctx, golang)
	if err != nil {
		return err
	}
	if vendored || !exists(filepath.Join(golang.dir, "go.sum")) {
		return nil
	}
	return golang.run(ctx, "go", "mod", "download")
}

// usesVendor reports whether Go takes the modules from the folder vendor. It does so only if go.mod names Go 1.14 or later.
func usesVendor(ctx context.Context, golang command) (bool, error) {
	if !exists(filepath.Join(golang.dir, "vendor", "modules.txt")) {
		return false, nil
	}
	golang.env = append(slices.Clone(golang.env), "GOTOOLCHAIN=local") // needs no network
	text, err := golang.output(ctx, "go", "mod", "edit", "-json")
	if err != nil {
		return false, permanentExit(err)
	}
	var mod struct{ Go string }
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return false, conveyor.Permanent(fmt.Errorf("go mod edit: %w", err))
	}
	return version.Compare("go"+mod.Go, "go1.14") >= 0, nil
}
