package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// gitEnv returns an environment in which git has no settings but its own. The settings of the user of this program could
// change the files that are checked out (line ends, attributes), add lines to what git prints (log.showSignature), or run
// hooks.
func gitEnv() []string {
	env := []string{
		"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_CONFIG_SYSTEM=" + os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1",
	}
	return slices.Concat(silentGit, env, gitSettings(0,
		"core.hooksPath="+os.DevNull,
		// Without these two, git would read the files in ~/.config/git, with any configuration.
		"core.attributesFile="+os.DevNull,
		"core.excludesFile="+os.DevNull,
	))
}

// fetchEnv returns an environment in which git has the settings of the user. To reach a repository, git needs them: they
// name credentials, proxies and other addresses. The settings still do not reach the clone: no hook runs, and nothing cleans
// up in the background.
func fetchEnv() []string {
	ofUser, err := strconv.Atoi(os.Getenv("GIT_CONFIG_COUNT"))
	if err != nil || ofUser < 0 {
		ofUser = 0
	}
	return slices.Concat(silentGit, gitSettings(ofUser, "core.hooksPath="+os.DevNull, "gc.auto=0", "maintenance.auto=false"))
}

// silentGit makes git ask no questions, because nobody can answer them, and print its messages in English.
var silentGit = []string{"GIT_TERMINAL_PROMPT=0", "LC_ALL=C"}

// gitSettings returns the variables that give git settings after the first n settings of the environment.
func gitSettings(n int, settings ...string) (env []string) {
	for i, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", n+i, name), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n+i, value))
	}
	return append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", n+len(settings)))
}

// ofAnotherRepository are variables that make git use another repository than the repository in its folder, or read that
// repository in another way. A git hook has such variables, and passes them on to the programs that it starts.
var ofAnotherRepository = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INDEX_VERSION", "GIT_COMMON_DIR",
	"GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_NAMESPACE", "GIT_PREFIX",
	"GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_DEFAULT_HASH",
	"GIT_DEFAULT_REF_FORMAT", "GIT_TEMPLATE_DIR", "GIT_ATTR_SOURCE", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS",
	"GIT_INTERNAL_SUPER_PREFIX", "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS",
	"GIT_ICASE_PATHSPECS", "GIT_REFLOG_ACTION", "GIT_EXTERNAL_DIFF", "GIT_NO_LAZY_FETCH",
}

// withoutRepository removes the variables of another repository from an environment.
func withoutRepository(env []string) []string {
	return slices.DeleteFunc(env, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(ofAnotherRepository, name)
	})
}

// git has one exit code for all faults. Only its words tell a fault that cannot pass from a fault of the network. A fault with
// words that are not known here is tried again, which is never wrong.
var (
	noRepository = regexp.MustCompile(`does not appear to be a git repository|[Rr]epository .*not found|does not exist|` +
		`couldn't find remote ref|not our ref|strange pathname`)
	noAccess = regexp.MustCompile(`Authentication failed|could not read (Username|Password)|Permission denied|` +
		`Host key verification failed|returned error: 40[13]`)
)

// permanentRemote makes an error of git permanent if the repository or the ref is not there, or is closed to the user.
func permanentRemote(err error) error {
	switch {
	case !errors.As(err, new(*exec.ExitError)):
		return permanentExit(err)
	case noAccess.MatchString(err.Error()):
		return conveyor.Permanent(fmt.Errorf("git found no credentials that the repository accepts; it looks for them in the URL, "+
			"in its credential helpers and ~/.netrc, and for ssh among the keys of ssh: %w", err))
	case noRepository.MatchString(err.Error()):
		return conveyor.Permanent(err)
	}
	return err
}
