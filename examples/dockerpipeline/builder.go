package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/conveyor-go/conveyor"
)

// builder compiles the clone to one static program for Linux.
type builder struct{ work workspace }

// Build puts the program into the work folder. Its output is a [binary].
func (b *builder) Build(ctx context.Context, req *conveyor.Request, build *DockerBuild) (conveyor.Result, error) {
	src, err := sourceOf(req)
	if err != nil {
		return conveyor.Result{}, err
	}
	bin := binary{OS: "linux", Arch: build.Spec.Arch}
	if bin.Arch == "" {
		bin.Arch = runtime.GOARCH
	}
	dir, err := b.work.fill(req, func(dir string) error {
		golang := command{dir: src.Dir, env: goEnv(src.Sample), log: req.Log}
		return compile(ctx, golang, build.Spec.Package, bin, filepath.Join(dir, "app"))
	})
	if err != nil {
		return conveyor.Result{}, err
	}
	bin.Path = filepath.Join(dir, "app")
	req.Log.Info("built", "platform", bin.OS+"/"+bin.Arch)
	return conveyor.DoneWith(bin), nil
}

func compile(ctx context.Context, golang command, pkg string, target binary, out string) error {
	if err := download(ctx, golang); err != nil {
		return err
	}
	if pkg == "" {
		pkg = "."
	}
	golang.env = slices.Concat(buildEnv(), golang.env, []string{"CGO_ENABLED=0", "GOOS=" + target.OS, "GOARCH=" + target.Arch})
	name, err := golang.output(ctx, "go", "list", "-f", "{{.Name}}", "--", pkg)
	if err != nil {
		return permanentExit(err)
	}
	if name != "main" { // go build would write an archive and exit with 0
		return conveyor.Permanent(fmt.Errorf("%q is package %s; spec.package has to name one main package", pkg, name))
	}
	return permanentExit(golang.run(ctx, "go", "build", "-trimpath", "-o", out, "--", pkg))
}
