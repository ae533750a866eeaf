package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/conveyor-go/conveyor"
)

// keychain finds the credentials that "docker login" or "podman login" has written, and says which ones it has found, so
// that a refusal of the registry can be understood. Each push needs a keychain of its own.
type keychain struct {
	used string // which credentials, and where they come from
}

// Resolve returns the credentials for a registry. Its errors are permanent, because they are faults on this machine.
func (k *keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	places := credentialPlaces()
	auth, err := authn.DefaultKeychain.Resolve(target)
	if err != nil {
		return nil, conveyor.Permanent(fmt.Errorf("credentials for %s, in %s: %w", target.RegistryStr(), present(places), err))
	}
	config, err := auth.Authorization()
	if err != nil {
		return nil, conveyor.Permanent(fmt.Errorf("credentials for %s, in %s: %w", target.RegistryStr(), present(places), err))
	}
	switch {
	case auth == authn.Anonymous:
		k.used = fmt.Sprintf("without credentials: there are none for %s in %s; \"docker login %s\" writes them",
			target.RegistryStr(), strings.Join(places, " or "), target.RegistryStr())
	case config.Username != "":
		k.used = fmt.Sprintf("as user %q, with the credentials for %s in %s", config.Username, target.RegistryStr(), present(places))
	default:
		k.used = fmt.Sprintf("with a token for %s in %s", target.RegistryStr(), present(places))
	}
	return auth, nil
}

// credentialPlaces returns the files in which credentials are looked for. The files of podman count only if there is none of
// docker.
func credentialPlaces() []string {
	folder := os.Getenv("DOCKER_CONFIG")
	home, _ := os.UserHomeDir()
	if folder == "" {
		folder = filepath.Join(home, ".docker")
	}
	docker := filepath.Join(folder, "config.json")
	if exists(docker) {
		return []string{docker}
	}
	places := []string{docker}
	if path := os.Getenv("REGISTRY_AUTH_FILE"); path != "" {
		places = append(places, path)
	}
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); runtime != "" {
		places = append(places, filepath.Join(runtime, "containers", "auth.json"))
	}
	settings := os.Getenv("XDG_CONFIG_HOME")
	if settings == "" {
		settings = filepath.Join(home, ".config")
	}
	return append(places, filepath.Join(settings, "containers", "auth.json"))
}

// present returns the first of the places that exists.
func present(places []string) string {
	for _, place := range places {
		if exists(place) {
			return place
		}
	}
	return strings.Join(places, " or ")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
