package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// machine describes the machine on which the figures were measured.
type machine struct {
	date       time.Time
	goVersion  string
	os         string // with the version of the kernel
	processor  string
	cores      int
	fileSystem string // the file system of the temporary data
	modules    []string
}

func describeMachine(dir string) machine {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return machine{
		date:       time.Now().UTC(),
		goVersion:  runtime.Version(),
		os:         strings.TrimSpace(runtime.GOOS + "/" + runtime.GOARCH + " " + kernel()),
		processor:  processor(),
		cores:      runtime.GOMAXPROCS(0),
		fileSystem: fileSystem(dir),
		modules:    modules(),
	}
}

// modules returns the modules that the program was built with, with their versions.
func modules() (list []string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, m := range info.Deps {
		version := m.Version
		if m.Replace != nil || version == "" || strings.HasPrefix(m.Path, "github.com/conveyor-go/") {
			version = "of this repository"
		}
		list = append(list, m.Path+" "+version)
	}
	return list
}

// versionOf returns the version of a module, or "" if the module is unknown.
func (m machine) versionOf(module string) string {
	for _, line := range m.modules {
		if path, version, _ := strings.Cut(line, " "); path == module {
			return version
		}
	}
	return ""
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores (GOMAXPROCS), %s, %s, temporary data on %s, %s",
		orUnknown(m.processor), m.cores, m.os, m.goVersion, orUnknown(m.fileSystem), m.date.Format("2006-01-02 15:04 MST"))
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
