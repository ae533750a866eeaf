package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

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
	platform, err := parsePlatform(build.Spec.Platform)
	if err != nil {
		return conveyor.Result{}, conveyor.Permanent(fmt.Errorf("platform: %w", err))
	}
	dir, err := b.work.fill(req, func(dir string) error {
		golang := command{dir: src.Dir, env: goEnv(src.Sample), log: req.Log}
		return compile(ctx, golang, build.Spec.Package, platform, filepath.Join(dir, "app"))
	})
	if err != nil {
		return conveyor.Result{}, err
	}
	req.Log.Info("built", "platform", platform.String())
	return conveyor.DoneWith(binary{Path: filepath.Join(dir, "app"), Platform: platform}), nil
}

func compile(ctx context.Context, golang command, pkg string, target v1.Platform, out string) error {
	if err := download(ctx, golang); err != nil {
		return err
	}
	golang.env = slices.Concat(buildEnv(), golang.env, platformEnv(target))
	pkg, err := mainPackage(ctx, golang, pkg)
	if err != nil {
		return err
	}
	return permanentExit(golang.run(ctx, "go", "build", "-trimpath", "-o", out, "--", pkg))
}
