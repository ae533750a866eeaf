package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// gitCloner fetches one commit of the repository.
type gitCloner struct {
	work   workspace
	sample string // the folder in which the repository "sample" is made
}

// Clone puts the files of the commit into the work folder. Its output is a [source].
func (g *gitCloner) Clone(ctx context.Context, req *conveyor.Request, build *DockerBuild) (conveyor.Result, error) {
	src := source{URL: publicURL(build.Spec.Repository), Sample: build.Spec.Repository == sampleRepository}
	from := build.Spec.Repository
	if src.Sample {
		from = g.sample
		if err := makeSample(ctx, g.sample, sampleFiles); err != nil {
			return conveyor.Result{}, err
		}
	}
	dir, err := g.work.fill(req, func(dir string) (err error) {
		src.Commit, src.Time, err = fetch(ctx, req.Log, from, build.Spec.Ref, dir)
		return err
	})
	if err != nil {
		return conveyor.Result{}, err
	}
	src.Dir = dir
	req.Log.Info("cloned", "commit", src.Commit)
	return conveyor.DoneWith(src), nil
}

// fetch checks out ref, without its history, in the empty folder dir. It uses git init and git fetch, because git clone
// does not accept a commit as the ref. An error of git is not permanent, because the cause can be the network.
func fetch(ctx context.Context, log *slog.Logger, repository, ref, dir string) (commit string, at int64, err error) {
	if ref == "" {
		ref = "HEAD"
	}
	git := command{dir: dir, env: gitEnv(), log: log}
	for _, args := range [][]string{
		{"init", "--quiet", "--template="},
		{"fetch", "--depth=1", "--no-tags", "--", repository, ref},
		{"checkout", "--quiet", "--detach", "FETCH_HEAD"},
	} {
		if err := git.run(ctx, "git", args...); err != nil {
			return "", 0, err
		}
	}
	out, err := git.output(ctx, "git", "log", "-1", "--format=%H %ct")
	if err != nil {
		return "", 0, err
	}
	commit, seconds, _ := strings.Cut(out, " ")
	if at, err = strconv.ParseInt(seconds, 10, 64); err != nil {
		return "", 0, fmt.Errorf("time of commit %s: %w", commit, err)
	}
	return commit, at, nil
}

// publicURL returns the URL of the repository without user and password. It returns "" for a local path.
func publicURL(repository string) string {
	u, err := url.Parse(repository)
	if err != nil || u.Host == "" {
		return ""
	}
	u.User = nil
	return u.String()
}
