package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// mainPackage returns the main package to build. That is wanted, if it is not empty, and else the package at the root of the
// module or the only main package of the module. If there is no such package, the error says which ones there are.
func mainPackage(ctx context.Context, golang command, wanted string) (string, error) {
	if wanted != "" {
		return wanted, checkMain(ctx, golang, wanted)
	}
	found, err := mainPackages(ctx, golang)
	if err != nil {
		return "", err
	}
	for _, pkg := range found {
		if pkg == "." || len(found) == 1 {
			return pkg, nil
		}
	}
	return "", conveyor.Permanent(choice(found))
}

// checkMain returns a permanent error if a package is not a main package. go build would write an archive and exit with 0.
func checkMain(ctx context.Context, golang command, pkg string) error {
	name, err := golang.output(ctx, "go", "list", "-f", "{{.Name}}", "--", pkg)
	if err != nil {
		return permanentExit(err)
	}
	if name == "main" {
		return nil
	}
	found, err := mainPackages(ctx, golang)
	if err != nil {
		return err
	}
	return conveyor.Permanent(fmt.Errorf("%q is package %s; %w", pkg, name, choice(found)))
}

// mainPackages returns the main packages of the module, as paths that begin with a dot.
func mainPackages(ctx context.Context, golang command) (found []string, err error) {
	const format = `{{if and .Module (eq .Name "main")}}{{.Module.Path}} {{.ImportPath}}{{end}}`
	// With -e, a package with a fault hides no other package; go build says what the fault is.
	list, err := golang.output(ctx, "go", "list", "-e", "-f", format, "./...")
	if err != nil {
		return nil, permanentExit(err)
	}
	for line := range strings.Lines(list) {
		module, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		found = append(found, "."+strings.TrimPrefix(path, module))
	}
	return found, nil
}

// choice returns an error that says how to choose one of the main packages of a module.
func choice(found []string) error {
	if len(found) == 0 {
		return fmt.Errorf("the module has no main package, and therefore no program that an image could have; " +
			"choose another repository with -repo")
	}
	return fmt.Errorf("the module has these main packages: %s; choose one with -package, as in -package %s",
		strings.Join(found, " "), found[len(found)-1])
}
