package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// values are the values of the flags.
type values struct {
	repository, ref, pkg, platform, image string // override the resource
	data, resource, pipeline, log, resume string
}

// parse returns the app that the command line describes.
func parse(args []string, help io.Writer) (*app, error) {
	v, err := parseFlags(args, help)
	if errors.Is(err, flag.ErrHelp) {
		return nil, err
	}
	if err != nil {
		return nil, usageError{err}
	}
	a, err := v.app()
	if err != nil {
		return nil, usageError{err}
	}
	return a, nil
}

// parseFlags returns the values of the flags. If the command line asks for the usage, parseFlags writes the usage to help
// and returns flag.ErrHelp.
func parseFlags(args []string, help io.Writer) (values, error) {
	var v values
	flags := flag.NewFlagSet("dockerpipeline", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&v.repository, "repo", "", "git repository to build: a `URL or path` (default: a sample)")
	flags.StringVar(&v.ref, "ref", "", "`branch, tag or commit` to build (default: the HEAD of the repository)")
	flags.StringVar(&v.pkg, "package", "", "main `package` to build, as ./cmd/app (default: the root, or the only one)")
	flags.StringVar(&v.platform, "platform", "", "`platform` of the image, as linux/arm64 or linux/arm/v7 (default: linux on this machine's architecture)")
	flags.StringVar(&v.image, "image", "", "what to push, as `host:port/name:tag` (default: to a registry that this program starts)")
	flags.StringVar(&v.data, "data", "", "`folder` for the state and the work (default: conveyor-dockerpipeline in the user's cache folder)")
	flags.StringVar(&v.resource, "resource", "", "JSON `file` of the resource (default: resource.json of this example)")
	flags.StringVar(&v.pipeline, "pipeline", "", "JSON `file` of the pipeline (default: pipeline.json of this example)")
	flags.StringVar(&v.resume, "resume", "", "`yes or no`: finish or cancel what an earlier start left unfinished (default: yes if it had the same flags)")
	flags.StringVar(&v.log, "log", "", "print the whole log of a `step` of the newest run, by its id, and build nothing")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(help, "Usage: dockerpipeline [flags]")
		flags.SetOutput(help)
		flags.PrintDefaults()
		return v, err
	} else if err != nil {
		return v, err
	}
	if flags.NArg() > 0 {
		return v, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return v, nil
}

// app loads the documents of the pipeline and of the resource. The flags override the values in the resource.
func (v values) app() (*app, error) {
	pipeline, err := loadPipeline(v.pipeline)
	if err != nil {
		return nil, fmt.Errorf("pipeline: %w", err)
	}
	build, err := loadBuild(v.resource)
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	build.Spec = v.over(build.Spec)
	if build.Spec.Repository, err = locate(build.Spec.Repository); err != nil {
		return nil, err
	}
	if _, err := parseImage(build.Spec.Image, "localhost"); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if _, err := parsePlatform(build.Spec.Platform); err != nil {
		return nil, fmt.Errorf("platform: %w", err)
	}
	if v.resume != "" && v.resume != resumeYes && v.resume != resumeNo {
		return nil, fmt.Errorf("-resume: %q is neither yes nor no", v.resume)
	}
	folder, err := dataFolder(v.data)
	if err != nil {
		return nil, err
	}
	return &app{data: folder, pipeline: pipeline, build: build, log: v.log, resume: v.resume}, nil
}

// over returns spec with the values of the flags that are set.
func (v values) over(spec BuildSpec) BuildSpec {
	return BuildSpec{
		Repository: cmp.Or(v.repository, spec.Repository),
		Ref:        cmp.Or(v.ref, spec.Ref),
		Package:    cmp.Or(v.pkg, spec.Package),
		Platform:   cmp.Or(v.platform, spec.Platform),
		Image:      cmp.Or(v.image, spec.Image),
	}
}

func loadPipeline(path string) (conveyor.PipelineSpec, error) {
	document, err := readOr(path, pipelineDocument)
	if err != nil {
		return conveyor.PipelineSpec{}, err
	}
	return conveyor.ParsePipeline(bytes.NewReader(document))
}

// loadBuild reads the resource. ParseResource rejects unknown fields everywhere but in the spec, so loadBuild checks the
// spec itself.
func loadBuild(path string) (*DockerBuild, error) {
	document, err := readOr(path, resourceDocument)
	if err != nil {
		return nil, err
	}
	object, err := conveyor.ParseResource(bytes.NewReader(document))
	if err != nil {
		return nil, err
	}
	build := new(DockerBuild)
	if err := object.Decode(build); err != nil {
		return nil, err
	}
	strict := json.NewDecoder(bytes.NewReader(object.Spec))
	strict.DisallowUnknownFields()
	if err := strict.Decode(new(BuildSpec)); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("spec: %w", err)
	}
	return build, nil
}

// readOr returns the content of the file, or builtIn if path is empty.
func readOr(path string, builtIn []byte) ([]byte, error) {
	if path == "" {
		return builtIn, nil
	}
	return os.ReadFile(path)
}

// locate returns the absolute path of a repository on this machine, so that the path stays valid when the program is
// started again in another folder. It returns the sample and a URL unchanged.
func locate(repository string) (string, error) {
	switch {
	case repository == "":
		return "", errors.New("the resource names no repository")
	case repository == sampleRepository:
		return repository, nil
	}
	if info, err := os.Stat(repository); err == nil && info.IsDir() {
		return filepath.Abs(repository)
	}
	if strings.Contains(repository, ":") { // a URL, or host:path
		return repository, nil
	}
	return "", fmt.Errorf("repository %q is neither a folder nor a URL", repository)
}

// dataFolder returns the absolute path of the data folder. It returns an error if the folder is neither empty nor a data
// folder of this program, because this program removes files in its data folder when it no longer needs them.
func dataFolder(path string) (string, error) {
	if path == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no default for -data: %w", err)
		}
		path = filepath.Join(cache, "conveyor-dockerpipeline")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	ours := func(entry os.DirEntry) bool { return strings.HasPrefix(entry.Name(), storeFile) }
	if len(entries) > 0 && !slices.ContainsFunc(entries, ours) {
		return "", fmt.Errorf("-data: %s is neither empty nor a folder of this program", path)
	}
	return path, nil
}
