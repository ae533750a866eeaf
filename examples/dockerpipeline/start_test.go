package main

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// result is the result of a start of the program.
type result struct {
	code        int
	out, errors string
}

// start runs the program in this process.
func start(ctx context.Context, args ...string) result {
	var out, errors bytes.Buffer
	code := run(ctx, args, &out, &errors)
	return result{code: code, out: out.String(), errors: errors.String()}
}

// value returns the rest of the output line that begins with word.
func (r result) value(t *testing.T, word string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + word + ` (.*)$`).FindStringSubmatch(r.out)
	require.NotNil(t, found, "no line begins with %q in:\n%s%s", word, r.out, r.errors)
	return found[1]
}

func (r result) run(t *testing.T) string {
	t.Helper()
	return strings.TrimSuffix(strings.Fields(r.value(t, "docker-resource/build-app-1: run"))[0], ",")
}
