package main

import (
	"fmt"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// instructionSets are the variables that choose the instruction set of a variant, such as linux/arm/v6.
var instructionSets = map[string]string{
	"arm/v5": "GOARM=5", "arm/v6": "GOARM=6", "arm/v7": "GOARM=7", "arm64/v8": "GOARM64=v8.0",
	"amd64/v1": "GOAMD64=v1", "amd64/v2": "GOAMD64=v2", "amd64/v3": "GOAMD64=v3", "amd64/v4": "GOAMD64=v4",
}

// parsePlatform parses os/arch or os/arch/variant. An empty platform is Linux on the architecture of this machine. Whether
// Go knows the architecture is seen when the program is built.
func parsePlatform(platform string) (v1.Platform, error) {
	if platform == "" {
		return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
	}
	p, err := v1.ParsePlatform(platform)
	switch {
	case err != nil:
		return v1.Platform{}, err
	case p.OS != "linux" || p.Architecture == "" || p.OSVersion != "":
		return v1.Platform{}, fmt.Errorf("%q is not linux/ARCH or linux/ARCH/VARIANT", platform)
	case p.Variant != "" && instructionSets[p.Architecture+"/"+p.Variant] == "":
		return v1.Platform{}, fmt.Errorf("%q has an unknown variant", platform)
	}
	return *p, nil
}

// platformEnv returns the environment in which Go builds for a platform.
func platformEnv(p v1.Platform) []string {
	env := []string{"CGO_ENABLED=0", "GOOS=" + p.OS, "GOARCH=" + p.Architecture}
	if set := instructionSets[p.Architecture+"/"+p.Variant]; set != "" {
		env = append(env, set)
	}
	return env
}
