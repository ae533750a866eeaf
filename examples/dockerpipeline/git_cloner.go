package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
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
// does not accept a commit as the ref. Most errors of git are not permanent, because the cause can be the network.
func fetch(ctx context.Context, log *slog.Logger, repository, ref, dir string) (commit string, at int64, err error) {
	if ref == "" {
		ref = "HEAD"
	}
	remote := command{dir: dir, env: fetchEnv(), log: log}
	format, err := objectFormat(ctx, remote, repository, ref)
	if err != nil {
		return "", 0, err
	}
	local := command{dir: dir, env: gitEnv(), log: log}
	if err := local.run(ctx, "git", "init", "--quiet", "--template=", "--object-format="+format); err != nil {
		return "", 0, err
	}
	if err := remote.run(ctx, "git", "fetch", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", repository, ref); err != nil {
		return "", 0, permanentRemote(err)
	}
	if err := local.run(ctx, "git", "checkout", "--quiet", "--detach", "FETCH_HEAD"); err != nil {
		return "", 0, err
	}
	return describe(ctx, local)
}

// objectFormat returns the name of the hash by which the repository names its objects. Only a clone with the same format
// can fetch from the repository. A repository that has nothing to fetch counts as sha1, and git fetch says what is missing.
func objectFormat(ctx context.Context, remote command, repository, ref string) (string, error) {
	remote.env = append(remote.env, "GIT_CEILING_DIRECTORIES="+filepath.Dir(remote.dir)) // the folder is no repository yet
	refs, err := remote.output(ctx, "git", "ls-remote", "--quiet", "--", repository, "HEAD", ref)
	if err != nil {
		return "", permanentRemote(err)
	}
	if object, _, _ := strings.Cut(refs, "\t"); len(object) == hex.EncodedLen(sha256.Size) {
		return "sha256", nil
	}
	return "sha1", nil
}

// describe returns the commit that is checked out, and its time.
func describe(ctx context.Context, clone command) (commit string, at int64, err error) {
	out, err := clone.output(ctx, "git", "log", "-1", "--format=%H %ct")
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
