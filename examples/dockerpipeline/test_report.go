package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// A testReport reads what "go test -json" prints, passes the lines of the tests on to a log, and finds out why tests failed.
type testReport struct {
	log     func(line string)
	outputs map[testID]*testOutput // of what has not ended yet
	reasons []string               // one for each test, package or build that failed, in the order in which they failed
	blamed  map[string]bool        // the packages with a reason of a test
	other   excerpt                // the lines that are not events; an older go command prints faults of the code so
}

// A testID names a test. Without a test, it names a package, or the build of a package.
type testID struct{ pkg, test string }

// testEvent is a line of "go test -json"; see "go doc test2json".
type testEvent struct {
	Action, Package, ImportPath, Test, Output string
}

func newTestReport(log func(line string)) *testReport {
	return &testReport{log: log, outputs: map[testID]*testOutput{}, blamed: map[string]bool{}}
}

// add adds a line of the output.
func (r *testReport) add(line string) {
	var e testEvent
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		r.log(line)
		r.other.add(line)
		return
	}
	id := testID{pkg: e.Package + e.ImportPath, test: e.Test}
	switch e.Action {
	case "output", "build-output":
		r.output(id).write(e.Output, r.log)
	case "pass", "skip":
		delete(r.outputs, id)
	case "fail":
		if id.test == "" {
			r.endPackage(id.pkg)
		}
		r.blame(id)
	case "build-fail":
		r.blame(id)
	}
}

func (r *testReport) output(id testID) *testOutput {
	if r.outputs[id] == nil {
		r.outputs[id] = new(testOutput)
	}
	return r.outputs[id]
}

// endPackage blames the tests that were running when their package failed: the process of the tests died in one of them.
func (r *testReport) endPackage(pkg string) {
	for id := range r.outputs {
		if id.pkg == pkg && id.test != "" {
			r.blame(id)
		}
	}
}

// blame adds the output of what has failed to the reasons. A package counts only if none of its tests does, and a test whose
// subtest failed has nothing to say of its own.
func (r *testReport) blame(id testID) {
	own := r.output(id).own()
	delete(r.outputs, id)
	if own.empty() && (id.test == "" || r.blamed[id.pkg]) || id.test == "" && r.blamed[id.pkg] {
		return
	}
	r.blamed[id.pkg] = true
	name := id.pkg
	if id.test != "" {
		name = id.test + " (" + id.pkg + ")"
	}
	r.reasons = append(r.reasons, "\n"+printable(name)+own.String())
}

// reasonBytes is the length of the reasons that are shown together.
const reasonBytes = 6 << 10

// reason returns why the tests failed: the lines of as many failed tests as can be shown together.
func (r *testReport) reason() string {
	if len(r.reasons) == 0 {
		return r.other.String()
	}
	shown, text := 0, ""
	for _, reason := range r.reasons {
		if shown > 0 && len(text)+len(reason) > reasonBytes {
			break
		}
		shown, text = shown+1, text+reason
	}
	if shown < len(r.reasons) {
		return fmt.Sprintf(" %d failures, of which these are the first %d%s", len(r.reasons), shown, text)
	}
	return text
}

// testOutput is the output of a test, a package or a build.
type testOutput struct {
	part    string  // a line that has not ended yet
	said    excerpt // what was said by t.Error and its like, or by a panic
	printed excerpt // the other lines
	saying  bool    // the lines that are indented more than usual belong to said
	dying   bool    // all further lines belong to said
}

var (
	// frame matches the lines that only say which test begins, goes on or has passed.
	frame = regexp.MustCompile(`^(=== (RUN|PAUSE|CONT|NAME) |\s*--- (PASS|SKIP): |PASS$)`)
	// verdict matches the lines that only say that something has failed.
	verdict = regexp.MustCompile(`^(\s*--- FAIL: |FAIL\b|exit status \d)`)
	said    = regexp.MustCompile(`^\s+[^\s:]+\.go:\d+: `)
	dying   = regexp.MustCompile(`^(panic: |fatal error: |WARNING: DATA RACE)`)
)

// write adds a part of the output. It logs each line that has ended, except for frames.
func (o *testOutput) write(text string, log func(string)) {
	o.part += text
	for {
		line, rest, ended := strings.Cut(o.part, "\n")
		if !ended {
			return
		}
		o.part = rest
		if frame.MatchString(line) {
			o.saying = false
			continue
		}
		log(line)
		if !verdict.MatchString(line) {
			o.sort(line)
		}
	}
}

func (o *testOutput) sort(line string) {
	o.dying = o.dying || dying.MatchString(line)
	o.saying = said.MatchString(line) || o.saying && strings.HasPrefix(line, "        ")
	if o.dying || o.saying {
		o.said.add(line)
		return
	}
	o.printed.add(line)
}

// own returns the lines that say most: what a test has said, or else what it has printed.
func (o *testOutput) own() *excerpt {
	if o.part != "" {
		o.sort(o.part)
	}
	if !o.said.empty() {
		return &o.said
	}
	return &o.printed
}
