package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

// inTest returns a test file of package main with a body for TestGreeting.
func inTest(body string, imports ...string) string {
	text := "package main\n\nimport \"testing\"\n"
	for _, name := range imports {
		text += "import \"" + name + "\"\n"
	}
	return text + "\nfunc TestGreeting(t *testing.T) {\n" + body + "\n}\n"
}

const chatter = "for range 12000 { fmt.Println(\"chatter\") }\n"

func TestTheReasonIsTheLastThingOnTheScreen(t *testing.T) {
	t.Parallel()
	mod := "module example.com/greet\n\ngo 1.22\n"
	loud := "package z\n\nimport (\"fmt\"; \"testing\")\n\nfunc TestLoud(t *testing.T) { for i := range 50 { fmt.Println(i) }; t.Log(\"quiet\") }\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		want  string // the end of what is on the screen, without the spaces at the ends of lines
	}{
		{name: "a test that says why", want: "TestGreeting (example.com/greet)\n      main_test.go:6: THE REASON",
			files: map[string]string{"main_test.go": inTest(`t.Error("THE REASON")`)}},
		{name: "before much noise", want: "TestGreeting (example.com/greet)\n      main_test.go:7: THE REASON",
			files: map[string]string{"main_test.go": inTest("t.Error(\"THE REASON\")\n"+chatter, "fmt")}},
		{name: "after much noise", want: "TestGreeting (example.com/greet)\n      main_test.go:8: THE REASON",
			files: map[string]string{"main_test.go": inTest(chatter+"t.Fatal(\"THE REASON\")", "fmt")}},
		{name: "of several lines", want: "\n      main_test.go:6: one\n          two",
			files: map[string]string{"main_test.go": inTest(`t.Error("one\ntwo")`)}},
		{name: "in a subtest", want: "exit status 1:\nTestGreeting/polite (example.com/greet)\n      main_test.go:6: THE REASON",
			files: map[string]string{"main_test.go": inTest(`t.Run("polite", func(t *testing.T) { t.Error("THE REASON") })`)}},
		{name: "in the first of several packages", want: "TestGreeting (example.com/greet)\n      main_test.go:6: THE REASON",
			files: map[string]string{"main_test.go": inTest(`t.Error("THE REASON")`), "z/z_test.go": loud}},
		{name: "printed", want: "TestGreeting (example.com/greet)\n  THE REASON",
			files: map[string]string{"main_test.go": inTest("fmt.Println(\"THE REASON\")\nt.Fail()", "fmt")}},
		{name: "before the process died", want: "TestGreeting (example.com/greet)\n  THE REASON",
			files: map[string]string{"main_test.go": inTest("fmt.Println(\"THE REASON\")\nos.Exit(3)", "fmt", "os")}},
		{name: "outside of tests", want: "example.com/greet\n  THE REASON",
			files: map[string]string{"main_test.go": "package main\n\nimport (\"fmt\"; \"os\"; \"testing\")\n\nfunc TestMain(*testing.M) { fmt.Println(\"THE REASON\"); os.Exit(1) }\n"}},
		{name: "code that does not compile", want: "main_test.go:6:1: undefined: thereason",
			files: map[string]string{"main_test.go": inTest("thereason()"), "z/z_test.go": loud}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.files["go.mod"] = mod
			got := start(t.Context(), "-data", t.TempDir(), "-repo", newRepository(t, test.files))
			require.Equal(t, exitFailed, got.code)
			screen := strings.TrimSpace(got.errors)
			require.True(t, strings.HasSuffix(screen, test.want), "%s", screen)
			require.Contains(t, screen, "-log 2")
		})
	}
}

func TestAPanicShowsItsWords(t *testing.T) {
	t.Parallel()
	got := runStep(t, newTestRunner(t), "2", BuildSpec{}, outputs{"1": source{Sample: true, Dir: newRepository(t, map[string]string{
		"main_test.go": inTest(`t.Log("before"); panic("THE REASON")`),
	})}})
	require.ErrorContains(t, got.err, "panic: THE REASON")
	require.ErrorContains(t, got.err, "main_test.go:6")
	require.ErrorContains(t, got.err, "TestGreeting (example.com/greet)")
}

func TestManyFailuresAreCounted(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	var body strings.Builder
	for i := range 200 {
		fmt.Fprintf(&body, "t.Run(\"n%d\", func(t *testing.T) { t.Error(\"a fault of some length, so that not all of them fit: %d\") })\n", i, i)
	}
	got := start(t.Context(), "-data", t.TempDir(), "-repo", newRepository(t, map[string]string{"main_test.go": inTest(body.String())}))
	require.Equal(t, exitFailed, got.code)
	require.Regexp(t, `exit status 1: 200 failures, of which these are the first \d+\nTestGreeting/n0 `, got.errors)
	require.Less(t, len(got.errors), 8<<10, "the error was recorded as a whole")
}

func TestLogPrintsTheWholeLogOfAStep(t *testing.T) {
	t.Parallel()
	args := []string{"-data", t.TempDir(), "-repo", newRepository(t, map[string]string{
		"go.mod":       "module example.com/greet\n\ngo 1.22\n",
		"main_test.go": inTest("for i := range 300 { fmt.Println(\"line\", i) }\nt.Error(\"THE REASON\")", "fmt"),
	})}
	nothing := start(t.Context(), append(args, "-log", "2")...)
	require.Equal(t, exitUsage, nothing.code)
	require.Contains(t, nothing.errors, "nothing was built in")

	require.Equal(t, exitFailed, start(t.Context(), args...).code)
	got := start(t.Context(), append(args, "-log", "2")...)
	require.Equal(t, exitSucceeded, got.code, got.errors)
	for i := range 300 {
		require.Contains(t, got.out, fmt.Sprintf("\nline %d\n", i))
	}
	require.Contains(t, got.out, "THE REASON")
	require.NotContains(t, got.out, "=== RUN")

	other := start(t.Context(), append(args, "-log", "7")...)
	require.Equal(t, exitUsage, other.code)
	require.Contains(t, other.errors, `has no step "7"; its steps are 1, 2, 3, 4, 5`)
}
