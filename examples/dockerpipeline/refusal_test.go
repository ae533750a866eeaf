package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

// answering starts a server that gives each request the same answer, and returns its host:port.
func answering(t *testing.T, status int, header http.Header, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestImagePusherWaitsAsLongAsTheRegistryAsks(t *testing.T) {
	img := generate(t)
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		for _, body := range []string{"", `{"errors": [{"code": "DENIED", "message": "slow down"}]}`} {
			registry := answering(t, status, http.Header{"Retry-After": {"1"}}, body)
			before := time.Now()
			got, _ := runPusher(t, "", BuildSpec{Image: registry + "/app"}, img)
			require.ErrorContains(t, got.err, "the registry asks to wait 1s")
			require.Equal(t, stepAttempts, got.attempts)
			require.GreaterOrEqual(t, time.Since(before), time.Second, "the policy alone would wait a millisecond")
		}
	}
}

func TestRetryAfterHasSecondsOrADate(t *testing.T) {
	for _, test := range []struct {
		name, header string
		want         time.Duration
	}{
		{name: "seconds", header: "120", want: 2 * time.Minute},
		{name: "a date", header: noon.Add(time.Hour).Format(http.TimeFormat), want: time.Hour},
		{name: "a date that has passed", header: noon.Add(-time.Hour).Format(http.TimeFormat), want: 0},
		{name: "a negative number", header: "-5", want: 0},
		{name: "nothing", header: "", want: 0},
		{name: "something else", header: "soon", want: 0},
	} {
		t.Run(test.name, func(t *testing.T) { require.Equal(t, test.want, retryAfter(test.header, noon)) })
	}
}

// setCredentials makes a docker configuration the only place of credentials.
func setCredentials(t *testing.T, document string) (path string) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("DOCKER_CONFIG", filepath.Join(home, "docker"))
	path = filepath.Join(home, "docker", "config.json")
	if document != "" {
		require.NoError(t, writeFiles(filepath.Dir(path), map[string]string{"config.json": document}))
	}
	return path
}

func TestImagePusherSaysWhichCredentialsWereRefused(t *testing.T) {
	img := generate(t)
	const unknown = `{"errors": [{"code": "UNKNOWN", "message": "no"}]}`
	for _, test := range []struct {
		name   string
		status int
		body   string
	}{
		{name: "401", status: http.StatusUnauthorized},
		{name: "401 with a code that says nothing", status: http.StatusUnauthorized, body: unknown},
		{name: "403 with a code that says nothing", status: http.StatusForbidden, body: unknown},
		{name: "no such repository", status: http.StatusNotFound, body: `{"errors": [{"code": "NAME_UNKNOWN", "message": "no such repository"}]}`},
		{name: "no such repository, with a code that says nothing", status: http.StatusNotFound, body: unknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			registry := answering(t, test.status, nil, test.body)
			path := setCredentials(t, "")
			got, _ := runPusher(t, "", BuildSpec{Image: registry + "/app"}, img)
			require.Equal(t, 1, got.attempts)
			require.ErrorContains(t, got.err, "pushed without credentials: there are none for "+registry+" in "+path)
			require.ErrorContains(t, got.err, "docker login")

			path = setCredentials(t, `{"auths": {"`+registry+`": {"auth": "Ym9iOnNlY3JldA=="}}}`) // bob:secret
			got, _ = runPusher(t, "", BuildSpec{Image: registry + "/app"}, img)
			require.Equal(t, 1, got.attempts)
			require.ErrorContains(t, got.err, "bob")
			require.ErrorContains(t, got.err, "with the credentials for "+registry+" in "+path)
			require.NotContains(t, got.err.Error(), "secret")
		})
	}
}

func TestImagePusherTakesABrokenConfigurationForFinal(t *testing.T) {
	img := generate(t)
	for _, test := range []struct{ name, document string }{
		{name: "that is no JSON", document: "{"},
		{name: "with a helper that is not there", document: `{"credsStore": "absent-helper"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := setCredentials(t, test.document)
			got, _ := runPusher(t, "", BuildSpec{Image: newRegistry(t) + "/app"}, img)
			require.ErrorContains(t, got.err, "credentials for ")
			require.ErrorContains(t, got.err, path)
			require.Equal(t, 1, got.attempts)
		})
	}
}

func TestGitClonerTakesAClosedRepositoryForFinal(t *testing.T) {
	keepGoCaches(t)
	t.Setenv("HOME", t.TempDir())
	basic := http.Header{"Www-Authenticate": {`Basic realm="git"`}}
	for _, test := range []struct {
		name, repository, ref, want string
		attempts                    int
	}{
		{name: "no such repository", repository: "http://" + answering(t, 404, nil, "") + "/app", want: "not found", attempts: 1},
		{name: "no credentials", repository: "http://" + answering(t, 401, basic, "") + "/app", want: "it looks for them in the URL", attempts: 1},
		{name: "forbidden", repository: "http://" + answering(t, 403, nil, "") + "/app", want: "it looks for them in the URL", attempts: 1},
		{name: "a folder without a repository", repository: t.TempDir(), want: "does not appear to be a git repository", attempts: 1},
		{name: "no such branch", repository: newRepository(t, nil), ref: "absent", want: "couldn't find remote ref", attempts: 1},
		{name: "no such commit", repository: newRepository(t, nil), ref: commit, want: "not our ref", attempts: 1},
		{name: "a bad day", repository: "http://" + answering(t, 503, nil, "") + "/app", want: "503", attempts: stepAttempts},
		{name: "nobody there", repository: "http://" + unusedAddress(t) + "/app", want: "exit status 128", attempts: stepAttempts},
	} {
		t.Run(test.name, func(t *testing.T) {
			cloner := &gitCloner{work: workspace{root: t.TempDir()}}
			got := runStep(t, conveyor.For(cloner.Clone), "1", BuildSpec{Repository: test.repository, Ref: test.ref}, nil)
			require.ErrorContains(t, got.err, test.want)
			require.Equal(t, test.attempts, got.attempts)
		})
	}
}

func TestDownloadIsRetriedWhereverModulesComeFrom(t *testing.T) {
	t.Setenv("GOPROXY", "http://"+unusedAddress(t))
	t.Setenv("GOTOOLCHAIN", "auto")
	t.Setenv("GOMODCACHE", t.TempDir())
	vendored := func(version string) map[string]string {
		return map[string]string{
			"go.mod":                        "module example.com/greet\n\n" + version + "\nrequire example.com/dep v1.0.0\n",
			"go.sum":                        "example.com/dep v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nexample.com/dep v1.0.0/go.mod h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
			"dep.go":                        "package main\n\nimport _ \"example.com/dep\"\n",
			"vendor/modules.txt":            "# example.com/dep v1.0.0\n## explicit\nexample.com/dep\n",
			"vendor/example.com/dep/dep.go": "package dep\n",
		}
	}
	for _, test := range []struct {
		name     string
		files    map[string]string
		attempts int
		fails    bool
	}{
		{name: "vendor that Go does not use", files: vendored("go 1.13\n"), attempts: stepAttempts, fails: true},
		{name: "vendor without a version of Go", files: vendored(""), attempts: stepAttempts, fails: true},
		{name: "vendor that Go uses", files: vendored("go 1.21\n"), attempts: 1},
		{name: "a toolchain", files: map[string]string{"go.mod": "module example.com/greet\n\ngo 1.999.0\n"}, attempts: stepAttempts, fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			repository := newRepository(t, test.files)
			got := runStep(t, newTestRunner(t), "2", BuildSpec{}, outputs{"1": source{Dir: repository}})
			require.Equal(t, test.fails, got.err != nil, "%v", got.err)
			require.Equal(t, test.attempts, got.attempts, "%v", got.err)
			b := &builder{work: workspace{root: filepath.Join(t.TempDir(), "work")}}
			got = runStep(t, conveyor.For(b.Build), "3", BuildSpec{}, outputs{"1": source{Dir: repository}})
			require.Equal(t, test.fails, got.err != nil, "%v", got.err)
			require.Equal(t, test.attempts, got.attempts, "%v", got.err)
		})
	}
}
