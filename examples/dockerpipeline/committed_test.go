package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

// rewritingTest changes all that is built from: the program, a file that the program embeds, the module and the
// repository. It passes.
const rewritingTest = `package main

import (
	"os"
	"os/exec"
	"testing"
)

func TestGreeting(t *testing.T) {
	for name, text := range map[string]string{
		"main.go":      "package main\n\nfunc main() { println(\"rewritten\") }\n",
		"extra.go":     "package main\n\nfunc init() { println(\"added\") }\n",
		"greeting.txt": "rewritten",
		"go.mod":       "module example.com/rewritten\n\ngo 1.21\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"add", "--all"},
		{"-c", "user.name=T", "-c", "user.email=t@example.com", "commit", "--quiet", "--message=Rewrite"},
	} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
}
`

func TestPipelinePublishesWhatWasCommittedWhateverATestWrites(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	repository := newRepository(t, map[string]string{
		"main_test.go": rewritingTest,
		"greeting.txt": "Hello, ",
		"main.go": `package main

import (
	_ "embed"
	"fmt"
	"os"
)

//go:embed greeting.txt
var greeting string

func main() { fmt.Println(greeting + os.Args[1] + "!") }
`,
	})
	registry, data := newRegistry(t), t.TempDir()
	got := start(t.Context(), "-data", data, "-repo", repository, "-image", registry+"/app")
	require.Equal(t, exitSucceeded, got.code, "%s%s", got.out, got.errors)
	reference := got.value(t, "image")
	requireRuns(t, reference)
	config, err := pull(t, reference).ConfigFile()
	require.NoError(t, err)
	require.Equal(t, gitIn(t, repository, "rev-parse", "HEAD"), config.Config.Labels["org.opencontainers.image.revision"])

	clone := filepath.Join(data, "work", got.run(t), "1")
	require.Empty(t, gitIn(t, clone, "status", "--porcelain"))
	require.Equal(t, gitIn(t, repository, "rev-parse", "HEAD"), gitIn(t, clone, "rev-parse", "HEAD"))
	left, err := os.ReadDir(filepath.Dir(clone))
	require.NoError(t, err)
	require.Len(t, left, 3, "the folders of clone, build and image stay, and the copy of the tests is gone")
}

func TestTestRunnerCopiesTheCloneAsItIs(t *testing.T) {
	t.Parallel()
	repository := newRepository(t, map[string]string{"main_test.go": `package main

import (
	"os"
	"testing"
)

func TestGreeting(t *testing.T) {
	if to, err := os.Readlink("link"); err != nil || to != "main.go" {
		t.Fatal(to, err)
	}
	if info, err := os.Stat("tool.sh"); err != nil || info.Mode()&0o100 == 0 {
		t.Fatal(info, err)
	}
}
`, "tool.sh": "#!/bin/sh\n"})
	require.NoError(t, os.Symlink("main.go", filepath.Join(repository, "link")))
	require.NoError(t, os.Chmod(filepath.Join(repository, "tool.sh"), 0o755))
	got := runStep(t, newTestRunner(t), "2", BuildSpec{}, outputs{"1": source{Dir: repository, Sample: true}})
	require.NoError(t, got.err, got.log)
}
