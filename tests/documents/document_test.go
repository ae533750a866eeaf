package documents_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store/memory"
)

// fault is what a test wants of a FieldError.
type fault struct {
	field        string
	line, column int
	is           error
	says         string // part of the problem
}

// faultsOf lists the FieldErrors that an error is made of.
func faultsOf(err error) (all []*conveyor.FieldError) {
	switch e := err.(type) {
	case nil:
	case *conveyor.FieldError:
		all = append(all, e)
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			all = append(all, faultsOf(part)...)
		}
	case interface{ Unwrap() error }:
		all = faultsOf(e.Unwrap())
	}
	return all
}

// requireFaults requires that an error is made of exactly these faults.
func requireFaults(t *testing.T, err error, want ...fault) {
	t.Helper()
	require.Error(t, err)
	var places, wantPlaces []string
	for _, f := range faultsOf(err) {
		places = append(places, fmt.Sprintf("%q at %d:%d", f.Field, f.Line, f.Column))
	}
	for _, w := range want {
		wantPlaces = append(wantPlaces, fmt.Sprintf("%q at %d:%d", w.field, w.line, w.column))
	}
	require.Equal(t, wantPlaces, places, "%v", err)
	for i, f := range faultsOf(err) {
		require.ErrorIs(t, f, want[i].is)
		require.ErrorIs(t, err, want[i].is)
		require.Contains(t, f.Problem, want[i].says)
	}
}

func parsePipeline(doc string) (conveyor.PipelineSpec, error) {
	return conveyor.ParsePipeline(strings.NewReader(doc))
}

func parseResource(doc string) (*conveyor.Object, error) {
	return conveyor.ParseResource(strings.NewReader(doc))
}

func readTestdata(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return data
}

func TestDocumentsOfConveyorCILoadUnchanged(t *testing.T) {
	text := readTestdata(t, "docker-pipeline.json")
	p, err := conveyor.ParsePipeline(bytes.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, conveyor.PipelineSpec{
		Name: "docker-pipeline", Resource: "docker-resource", Description: "A pipeline to build and publish a docker image",
		Steps: []conveyor.Step{
			{ID: "1", Name: "Clone git repository", Driver: "git-cloner"},
			{ID: "2", Name: "Run tests", Driver: "test-runner"},
			{ID: "3", Name: "Build and Compile", Driver: "builder"},
			{ID: "4", Name: "Generate docker image", Driver: "image-generator"},
			{ID: "5", Name: "Publish to registry", Driver: "image-pusher"},
		},
	}, p)
	again, err := json.Marshal(p)
	require.NoError(t, err)
	require.JSONEq(t, string(text), string(again))

	text = readTestdata(t, "build-app-1.json")
	o, err := conveyor.ParseResource(bytes.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, &conveyor.Object{Meta: conveyor.Meta{Name: "build-app-1", Type: "docker-resource", Pipeline: "docker-pipeline"}}, o)
	again, err = json.Marshal(o)
	require.NoError(t, err)
	require.JSONEq(t, string(text), string(again))
}

func TestDocumentsSavedAndAppliedComeBack(t *testing.T) {
	ctx := t.Context()
	e, err := conveyor.New(memory.New(), conveyor.Options{})
	require.NoError(t, err)
	p, err := conveyor.ParsePipeline(bytes.NewReader(readTestdata(t, "docker-pipeline.json")))
	require.NoError(t, err)
	require.NoError(t, e.SavePipeline(ctx, p))
	saved, err := e.GetPipeline(ctx, p.Name)
	require.NoError(t, err)
	require.Equal(t, p, saved)

	o, err := conveyor.ParseResource(bytes.NewReader(readTestdata(t, "build-app-1.json")))
	require.NoError(t, err)
	_, err = e.Apply(ctx, o)
	require.NoError(t, err)
	// What the engine gives back is a document too.
	stored, err := e.Get(ctx, o.Key())
	require.NoError(t, err)
	text, err := json.Marshal(stored)
	require.NoError(t, err)
	parsed, err := conveyor.ParseResource(bytes.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, stored, parsed)
}

func TestPipelineDocumentAccepts(t *testing.T) {
	for _, c := range []struct {
		name string
		doc  string
		want string // the document written back
	}{
		{"a version, a null description and null metadata, as Conveyor CI writes them",
			`{"version":"v1","name":"p","resource":"r","description":null,"metadata":null,"steps":[{"id":"1","driver":"d"}]}`,
			`{"version":"v1","name":"p","resource":"r","steps":[{"id":"1","driver":"d"}]}`},
		{"steps without ids, which get their positions",
			`{"name":"p","resource":"r","steps":[{"driver":"d"},{"id":"test","driver":"d"},{"id":"","driver":"d"}]}`,
			`{"name":"p","resource":"r","steps":[{"id":"1","driver":"d"},{"id":"test","driver":"d"},{"id":"3","driver":"d"}]}`},
		{"every field that is carried out",
			`{"name":"p","resource":"r","metadata":{"a":"b"},"onChange":"coalesce","timeout":"90m","retry":{"maxAttempts":-1,"jitter":-1},
			  "steps":[{"id":"x","name":"X","driver":"d","with":{"a":[1,null]},"timeout":"1m30s","retry":{"maxAttempts":5,"initial":"10ms","max":"1s","multiplier":1.5,"jitter":1}}]}`,
			`{"name":"p","resource":"r","metadata":{"a":"b"},"onChange":"coalesce","timeout":"1h30m0s","retry":{"maxAttempts":-1,"jitter":-1},
			  "steps":[{"id":"x","name":"X","driver":"d","with":{"a":[1,null]},"timeout":"1m30s","retry":{"maxAttempts":5,"initial":"10ms","max":"1s","multiplier":1.5,"jitter":1}}]}`},
		{"what is not carried out yet, where it asks for nothing",
			`{"name":"p","resource":"r","finally":[],"resync":"0s","onChange":"","steps":[{"id":"1","driver":"d","continueOnError":false}]}`,
			`{"name":"p","resource":"r","steps":[{"id":"1","driver":"d"}]}`},
		{"an empty after, which is not the same as none",
			`{"name":"p","resource":"r","steps":[{"id":"1","driver":"d"},{"id":"2","driver":"d","after":[]},{"id":"3","driver":"d","after":["1"]}]}`,
			`{"name":"p","resource":"r","steps":[{"id":"1","driver":"d"},{"id":"2","driver":"d","after":[]},{"id":"3","driver":"d","after":["1"]}]}`},
		{"white space around", "\n\t {\"name\":\"p\",\"resource\":\"r\",\"steps\":[{\"driver\":\"d\"}]} \r\n",
			`{"name":"p","resource":"r","steps":[{"id":"1","driver":"d"}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := parsePipeline(c.doc)
			require.NoError(t, err)
			text, err := json.Marshal(p)
			require.NoError(t, err)
			require.JSONEq(t, c.want, string(text))
		})
	}
}

func TestPipelineDocumentRefuses(t *testing.T) {
	invalid, tooLarge := conveyor.ErrInvalid, conveyor.ErrTooLarge
	const head = `{"name":"p","resource":"r",` // 27 bytes, so that what follows is at column 28
	const steps = `"steps":[{"driver":"d"}]`   // 24 bytes
	for _, c := range []struct {
		name string
		doc  string
		want []fault
	}{
		{"nothing", "", []fault{{"", 1, 1, invalid, "not one JSON value"}}},
		{"mere white space", " \n ", []fault{{"", 2, 2, invalid, "not one JSON value"}}},
		{"a text that ends too early", "{\"name\":\n\"p\"", []fault{{"", 2, 4, invalid, "not one JSON value"}}},
		{"a text that ends within a word", `{"name":tru`, []fault{{"", 1, 12, invalid, "not one JSON value"}}},
		{"nothing, with what to do", "", []fault{{"", 1, 1, invalid, "; it is empty"}}},
		{"a byte order mark", "\ufeff{}", []fault{{"", 1, 1, invalid, "not one JSON value"}}},
		{"a byte order mark, with what to do", "\ufeff{}", []fault{{"", 1, 1, invalid, "; it begins with a byte order mark; save it as UTF-8 without one"}}},
		{"UTF-16, the high byte first", "\xfe\xff\x00{\x00}", []fault{{"", 1, 1, invalid, "invalid UTF-8: it is UTF-16; save it as UTF-8"}}},
		{"UTF-16, the low byte first", "\xff\xfe{\x00}\x00", []fault{{"", 1, 1, invalid, "invalid UTF-8: it is UTF-16; save it as UTF-8"}}},
		{"UTF-16 without a mark, the low byte first", "{\x00}\x00", []fault{{"", 1, 2, invalid, "; it is UTF-16; save it as UTF-8"}}},
		{"UTF-16 without a mark, the high byte first", "\x00{\x00}", []fault{{"", 1, 1, invalid, "; it is UTF-16; save it as UTF-8"}}},
		{"a byte order mark within", "{}\ufeff", []fault{{"", 1, 3, invalid, `invalid character '\ufeff' after top-level value; it has a byte order mark here; take it out`}}},
		{"a space that does not break", "{\u00a0}", []fault{{"", 1, 2, invalid, "; it has a white space that JSON does not know (U+00A0); take it out or use a plain space"}}},
		{"a space without a width", "{\u200b}", []fault{{"", 1, 2, invalid, "JSON does not know (U+200B)"}}},
		{"a directive of YAML", "%YAML 1.2\n---\nname: p\n", []fault{{"", 1, 1, invalid, "looks like YAML"}}},
		{"a mapping of YAML", "name: p\nresource: r\n", []fault{{"", 1, 2, invalid, "; it looks like YAML; a document is JSON, so convert it first"}}},
		{"a list of YAML", "- driver: d\n", []fault{{"", 1, 2, invalid, "looks like YAML"}}},
		{"a document of YAML", "---\nname: p\n", []fault{{"", 1, 2, invalid, "looks like YAML"}}},
		{"YAML behind a comment", "# CI\nname: p\n", []fault{{"", 1, 1, invalid, "looks like YAML"}}},
		{"a typographic quote", "{“name”:1}", []fault{{"", 1, 2, invalid, `; it has “ where JSON needs "`}}},
		{"a typographic quote around a value", `{"name":”p”}`, []fault{{"", 1, 9, invalid, `; it has ” where JSON needs "`}}},
		{"a typographic quote, and the decoder's word for it", `{"name":”p”}`, []fault{{"", 1, 9, invalid, "invalid character '”' looking for"}}},
		{"a typographic quote at the end", `{"name":"p”}`, []fault{{"", 1, 15, invalid, `; a text has ” where JSON needs " to end it`}}},
		{"an apostrophe", `{'name':1}`, []fault{{"", 1, 2, invalid, `; it has ' where JSON needs "`}}},
		{"a comment", "{\n  // no\n}", []fault{{"", 2, 3, invalid, "; JSON has no comments; take this one out"}}},
		{"a comment in two marks", "{/* no */}", []fault{{"", 1, 2, invalid, "JSON has no comments"}}},
		{"a comment of a shell", "{\n# no\n}", []fault{{"", 2, 1, invalid, "JSON has no comments"}}},
		{"a trailing comma", `{"name":"p",}`, []fault{{"", 1, 13, invalid, "; JSON has no comma after the last element; take it out"}}},
		{"a trailing comma of a list", "{\"steps\":[1,\n ]}", []fault{{"", 2, 2, invalid, "JSON has no comma after the last element"}}},
		{"trailing data", head + steps + "}\n {}", []fault{{"", 2, 2, invalid, "not one JSON value"}}},
		{"invalid UTF-8", "{\"name\":\n \"\xff\"}", []fault{{"", 2, 3, invalid, "invalid UTF-8"}}},
		{"invalid UTF-8 that is half a character", "{\"name\":\"\xc3\"}", []fault{{"", 1, 10, invalid, "invalid UTF-8"}}},
		{"a control character in a text", "{\"name\":\"a\x01\"}", []fault{{"", 1, 11, invalid, "not one JSON value"}}},
		{"a control character, escaped, in a name", `{"name":"a\u0001","resource":"r",` + steps + `}`, []fault{{"name", 1, 9, invalid, "character"}}},
		{"an array", `[]`, []fault{{"", 1, 1, invalid, "is an array; want an object"}}},
		{"null", ` null`, []fault{{"", 1, 2, invalid, "is null; want an object"}}},
		{"a number", `1`, []fault{{"", 1, 1, invalid, "is a number; want an object"}}},

		{"an empty object", `{}`, []fault{{"name", 1, 1, invalid, "is empty"}, {"resource", 1, 1, invalid, "is empty"}, {"steps", 1, 1, invalid, "has none"}}},
		{"an unknown field", head + `"kind":1,` + steps + `}`, []fault{{"kind", 1, 28, invalid, "unknown field"}}},
		{"an unknown field of a step", "{\"name\":\"p\",\"resource\":\"r\",\n\"steps\":[{\"driver\":\"d\",\"image\":{}}]}",
			[]fault{{"steps[0].image", 2, 24, invalid, "unknown field"}}},
		{"an unknown field of a retry policy", head + `"retry":{"attempts":1},` + steps + `}`, []fault{{"retry.attempts", 1, 37, invalid, "unknown field"}}},
		{"a field in another case", head + `"Steps":[{"Driver":"d"}]}`,
			[]fault{{"Steps", 1, 28, invalid, `did you mean "steps"? Case matters`}}},
		{"a step's field in another case", head + `"steps":[{"DRIVER":"d"}]}`, []fault{{"steps[0].DRIVER", 1, 38, invalid, `did you mean "driver"? Case matters`}}},
		{"a repeated field", head + `"name":"p",` + steps + `}`, []fault{{"name", 1, 28, invalid, "comes twice"}}},
		{"a field repeated under an escape", head + `"n\u0061me":"p",` + steps + `}`, []fault{{"name", 1, 28, invalid, "comes twice"}}},
		{"a field repeated in settings", head + `"steps":[{"driver":"d","with":{"a":[{"b":1,"b":2}]}}]}`,
			[]fault{{"steps[0].with.a[0].b", 1, 71, invalid, "comes twice"}}},

		{"a number for a text", `{"name":1,"resource":"r",` + steps + `}`, []fault{{"name", 1, 9, invalid, "is a number; want a string"}}},
		{"a text for an array", head + `"steps":"x"}`, []fault{{"steps", 1, 36, invalid, "is a string; want an array"}}},
		{"a text for an object", head + `"steps":["x"]}`, []fault{{"steps[0]", 1, 37, invalid, "is a string; want an object"}}},
		{"an object for a text", head + `"timeout":{"a":[1]},` + steps + `}`, []fault{{"timeout", 1, 38, invalid, "is an object; want a string"}}},
		{"a number for metadata", head + `"metadata":{"a":1},` + steps + `}`, []fault{{"metadata.a", 1, 44, invalid, "is a number; want a string"}}},
		{"a text for a boolean", head + `"steps":[{"driver":"d","continueOnError":"no"}]}`,
			[]fault{{"steps[0].continueOnError", 1, 69, invalid, "is a string; want a boolean"}}},

		{"null for a name", `{"name":null,"resource":"r",` + steps + `}`, []fault{{"name", 1, 9, invalid, "is null; want a string"}}},
		{"null for the steps", head + `"steps":null}`, []fault{{"steps", 1, 36, invalid, "is null; want an array"}}},
		{"null for a step", head + `"steps":[{"driver":"d"},null]}`, []fault{{"steps[1]", 1, 52, invalid, "is null; want an object"}}},
		{"null for a retry policy", head + `"retry":null,` + steps + `}`, []fault{{"retry", 1, 36, invalid, "is null; want an object"}}},
		{"null in metadata", head + `"metadata":{"a":null},` + steps + `}`, []fault{{"metadata.a", 1, 44, invalid, "is null; want a string"}}},
		{"null for a version", head + `"version":null,` + steps + `}`, []fault{{"version", 1, 38, invalid, "is null; want a string"}}},

		{"a duration that is none", head + `"timeout":"soon",` + steps + `}`, []fault{{"timeout", 1, 38, invalid, `"soon" is no duration`}}},
		{"an empty duration", head + `"timeout":"",` + steps + `}`, []fault{{"timeout", 1, 38, invalid, `"" is no duration`}}},
		{"a number for a duration", head + `"timeout":90,` + steps + `}`, []fault{{"timeout", 1, 38, invalid, "is a number; want a string"}}},
		{"a negative duration", head + `"timeout":"-1s",` + steps + `}`, []fault{{"timeout", 1, 38, invalid, "-1s is negative"}}},
		{"a duration too long", head + `"timeout":"3000000h",` + steps + `}`, []fault{{"timeout", 1, 38, invalid, "is no duration"}}},
		{"a change policy that is none", head + `"onChange":"Queue",` + steps + `}`, []fault{{"onChange", 1, 39, invalid, `"Queue" is no change policy`}}},
		{"a number that is huge", head + `"retry":{"multiplier":1e999},` + steps + `}`, []fault{{"retry.multiplier", 1, 50, invalid, "1e999 does not fit"}}},
		{"a whole number that is huge", head + `"retry":{"maxAttempts":99999999999999999999},` + steps + `}`,
			[]fault{{"retry.maxAttempts", 1, 51, invalid, "99999999999999999999 does not fit"}}},
		{"a whole number that is a fraction", head + `"retry":{"maxAttempts":1.5},` + steps + `}`, []fault{{"retry.maxAttempts", 1, 51, invalid, "1.5 does not fit"}}},
		{"attempts below -1", head + `"retry":{"maxAttempts":-2},` + steps + `}`, []fault{{"retry.maxAttempts", 1, 51, invalid, "-2 is less than -1"}}},
		{"a multiplier below 1", head + `"retry":{"multiplier":0.5},` + steps + `}`, []fault{{"retry.multiplier", 1, 50, invalid, "0.5 is not 1 or more"}}},
		{"a jitter above 1", head + `"retry":{"jitter":1.01},` + steps + `}`, []fault{{"retry.jitter", 1, 46, invalid, "1.01 is neither"}}},
		{"negative delays", head + `"retry":{"initial":"-1s","max":"-2s"},` + steps + `}`,
			[]fault{{"retry.initial", 1, 47, invalid, "-1s is negative"}, {"retry.max", 1, 59, invalid, "-2s is negative"}}},

		{"an empty name", `{"name":"","resource":"r",` + steps + `}`, []fault{{"name", 1, 9, invalid, "is empty"}}},
		{"a name with a slash", `{"name":"k/1","resource":"r",` + steps + `}`, []fault{{"name", 1, 9, invalid, "character"}}},
		{"a name with a space", `{"name":"a b","resource":"r",` + steps + `}`, []fault{{"name", 1, 9, invalid, "character"}}},
		{"a name with a letter beyond ASCII", `{"name":"é","resource":"r",` + steps + `}`, []fault{{"name", 1, 9, invalid, "character"}}},
		{"a name with a leading dot", `{"name":".a","resource":"..",` + steps + `}`,
			[]fault{{"name", 1, 9, invalid, "starts with a dot"}, {"resource", 1, 25, invalid, "starts with a dot"}}},
		{"a name of 254 bytes", `{"name":"` + strings.Repeat("n", 254) + `","resource":"r",` + steps + `}`, []fault{{"name", 1, 9, invalid, "more than the limit of 253 (a fixed limit)"}}},
		{"a step without a driver", head + `"steps":[{"driver":"d"},{"id":"x"}]}`, []fault{{"steps[1].driver", 1, 52, invalid, "is empty"}}},
		{"a step's bad id", head + `"steps":[{"id":"a/b","driver":"d"}]}`, []fault{{"steps[0].id", 1, 43, invalid, "character"}}},
		{"no steps", head + `"steps":[]}`, []fault{{"steps", 1, 36, invalid, "has none"}}},
		{"equal ids", head + `"steps":[{"id":"x","driver":"d"},{"id":"x","driver":"d"}]}`,
			[]fault{{"steps[1].id", 1, 67, invalid, `"x" is the id of steps[0] too`}}},
		{"an id equal to a later step's position", head + `"steps":[{"id":"2","driver":"d"},{"driver":"d"}]}`,
			[]fault{{"steps[1].id", 1, 61, invalid, `"2" is the id of steps[0] too`}}},
		{"an id equal to an earlier step's position", head + `"steps":[{"driver":"d"},{"id":"1","driver":"d"}]}`,
			[]fault{{"steps[1].id", 1, 58, invalid, `"1" is the id of steps[0] too`}}},

		{"final steps in a graph", head + steps + `,"finally":[{"driver":"d","after":["1"]},{"id":"1","driver":"d"}]}`, []fault{
			{"finally[1].id", 1, 99, invalid, "is the id of steps[0] too"}, {"finally[0].after", 1, 86, invalid, "no meaning here"}}},
		{"a negative resync", head + steps + `,"resync":"-1h"}`, []fault{{"resync", 1, 62, invalid, "-1h0m0s is negative"}}},
		{"a graph with no way in", head + `"steps":[{"id":"a","driver":"d","after":["b"]},{"id":"b","driver":"d","after":["a"]}]}`, []fault{
			{"steps", 1, 36, invalid, `"a", "b" wait for each other`}}},
		{"a ring of which nobody wrote a part", head + `"steps":[{"id":"a","driver":"d","after":["b"]},{"id":"b","driver":"d"}]}`, []fault{
			{"steps", 1, 36, invalid, `the steps "a", "b" wait for each other: "b" has no after, so it comes after "a"`}}},
		{"an after that is null", head + `"steps":[{"id":"a","driver":"d","after":null}]}`, []fault{{"steps[0].after", 1, 68, invalid, "is null; want an array"}}},
		{"an empty after of a final step", head + steps + `,"finally":[{"driver":"d","after":[]}]}`, []fault{{"finally[0].after", 1, 86, invalid, "no meaning here"}}},
		{"an unknown predecessor", head + `"steps":[{"id":"a","driver":"d"},{"driver":"d","after":["x"]}]}`, []fault{{"steps[1].after[0]", 1, 84, invalid, `no step has the id "x"`}}},

		{"nesting of 33", head + `"steps":[{"driver":"d","with":` + strings.Repeat("[", 30) + strings.Repeat("]", 30) + `}]}`,
			[]fault{{"steps[0].with" + strings.Repeat("[0]", 29), 1, 87, tooLarge, "33 levels deep, more than the limit of 32 (Limits.Depth)"}}},
		{"nesting beyond reason", strings.Repeat("[", 20_000), []fault{{"", 1, 33, tooLarge, "33 levels deep, more than the limit of 32 (Limits.Depth)"}}},

		{"faults of all kinds", "{\"name\":\".a\",\"resource\":7,\n\"timeout\":\"x\",\"Retry\":{},\n\"steps\":[{\"driver\":\"d\",\"timeout\":\"-1s\"},\n{\"driver\":1},\n{\"foo\":{\"bar\":1}}],\n\"steps2\":1,\"description\":\"a\",\"description\":\"b\"}", []fault{
			{"resource", 1, 25, invalid, "is a number"}, {"timeout", 2, 11, invalid, "is no duration"}, {"Retry", 2, 15, invalid, "did you mean"},
			{"steps[1].driver", 4, 11, invalid, "is a number"}, {"steps[2].foo", 5, 2, invalid, "unknown"},
			{"steps2", 6, 1, invalid, "unknown"}, {"description", 6, 30, invalid, "twice"},
			{"name", 1, 9, invalid, "dot"}, {"steps[0].timeout", 3, 34, invalid, "negative"}, {"steps[2].driver", 5, 1, invalid, "empty"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := parsePipeline(c.doc)
			requireFaults(t, err, c.want...)
			require.Zero(t, p)
		})
	}
}

func TestResourceDocumentAccepts(t *testing.T) {
	for _, c := range []struct {
		name string
		doc  string
		want *conveyor.Object
	}{
		{"the least", `{"name":"a","resource":"r"}`, &conveyor.Object{Meta: conveyor.Meta{Name: "a", Type: "r"}}},
		{"an id and null metadata, as Conveyor CI writes them", `{"id":"x","name":"a","resource":"r","metadata":null,"spec":{"b":[1.0]}}`,
			&conveyor.Object{Meta: conveyor.Meta{ID: "x", Name: "a", Type: "r"}, Spec: json.RawMessage(`{"b":[1.0]}`)}},
		{"a spec that is no object", `{"name":"a","resource":"r","spec":"text","version":7,"metadata":{"a":""}}`,
			&conveyor.Object{Meta: conveyor.Meta{Name: "a", Type: "r", Version: 7, Metadata: map[string]string{"a": ""}}, Spec: json.RawMessage(`"text"`)}},
		{"a spec with huge numbers", `{"name":"a","resource":"r","spec":1e999999}`,
			&conveyor.Object{Meta: conveyor.Meta{Name: "a", Type: "r"}, Spec: json.RawMessage(`1e999999`)}},
		{"what an engine writes", `{"name":"a","resource":"r","generation":2,"status":{"phase":"running","observedGeneration":1,"run":"x"}}`,
			&conveyor.Object{Meta: conveyor.Meta{Name: "a", Type: "r", Generation: 2, Status: conveyor.Status{Phase: conveyor.StateRunning, ObservedGeneration: 1, Run: "x"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := parseResource(c.doc)
			require.NoError(t, err)
			require.Equal(t, c.want, o)
		})
	}
}

func TestResourceDocumentRefuses(t *testing.T) {
	invalid, tooLarge := conveyor.ErrInvalid, conveyor.ErrTooLarge
	const head = `{"name":"a","resource":"r",` // 27 bytes, so that what follows is at column 28
	for _, c := range []struct {
		name string
		doc  string
		want []fault
	}{
		{"nothing", "", []fault{{"", 1, 1, invalid, "not one JSON value"}}},
		{"an empty object", "\n{}", []fault{{"name", 2, 1, invalid, "is empty"}, {"resource", 2, 1, invalid, "is empty"}}},
		{"an unknown field", head + `"description":null}`, []fault{{"description", 1, 28, invalid, "unknown field"}}},
		{"the Go name of a field", head + `"Type":"r"}`, []fault{{"Type", 1, 28, invalid, "unknown field"}}},
		{"a field in another case", head + `"Spec":{}}`, []fault{{"Spec", 1, 28, invalid, `did you mean "spec"?`}}},
		{"a repeated field", head + `"spec":1,"spec":2}`, []fault{{"spec", 1, 37, invalid, "comes twice"}}},
		{"a field repeated in the spec", head + `"spec":{"a":1,"a":2}}`, []fault{{"spec.a", 1, 42, invalid, "comes twice"}}},
		{"a bad pipeline", head + `"pipeline":"a b"}`, []fault{{"pipeline", 1, 39, invalid, "character"}}},
		{"a negative version", head + `"version":-1}`, []fault{{"version", 1, 38, invalid, "-1 is negative"}}},
		{"a version that is a text", head + `"version":"1"}`, []fault{{"version", 1, 38, invalid, "is a string; want a number"}}},
		{"null for a pipeline", head + `"pipeline":null}`, []fault{{"pipeline", 1, 39, invalid, "is null; want a string"}}},
		{"a time that is none", head + `"createdAt":"now"}`, []fault{{"createdAt", 1, 40, invalid, "now"}}},
		{"a number for a time, and faults after it", head + `"createdAt":1,"version":-1}`,
			[]fault{{"createdAt", 1, 40, invalid, "is a number; want a string"}, {"version", 1, 52, invalid, "negative"}}},
		{"a phase that is none", head + `"status":{"phase":"Running"}}`, []fault{{"status.phase", 1, 46, invalid, `"Running" is no state`}}},
		{"nesting of 33", head + `"spec":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
			[]fault{{"spec" + strings.Repeat("[0]", 31), 1, 66, tooLarge, "33 levels deep, more than the limit of 32 (Limits.Depth)"}}},
		{"nesting beyond reason", head + `"spec":` + strings.Repeat(`{"\"]":`, 20_000) + "1" + strings.Repeat("}", 20_001),
			[]fault{{"", 1, 252, tooLarge, "33 levels deep, more than the limit of 32 (Limits.Depth)"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := parseResource(c.doc)
			requireFaults(t, err, c.want...)
			require.Nil(t, o)
		})
	}
}

func TestDocumentNestingOf32IsAccepted(t *testing.T) {
	_, err := parseResource(`{"name":"a","resource":"r","spec":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`)
	require.NoError(t, err)
	_, err = parsePipeline(`{"name":"a","resource":"r","steps":[{"driver":"d","with":` + strings.Repeat(`{"a":`, 29) + "1" + strings.Repeat("}", 29) + `}]}`)
	require.NoError(t, err)
}

func TestDocumentNamesOf253BytesAreAccepted(t *testing.T) {
	name := strings.Repeat("n", 253)
	_, err := parsePipeline(`{"name":"` + name + `","resource":"` + name + `","steps":[{"id":"` + name + `","driver":"` + name + `"}]}`)
	require.NoError(t, err)
	_, err = parseResource(`{"name":"aZ09.-_","resource":"` + name + `","pipeline":"` + name + `"}`)
	require.NoError(t, err)
}

func TestDocumentSize(t *testing.T) {
	const limit = 2 << 20
	fill := func(doc string) string { return doc + strings.Repeat(" ", limit-len(doc)) }
	pipeline := fill(`{"name":"p","resource":"r","steps":[{"driver":"d"}]}`)
	resource := fill(`{"name":"a","resource":"r"}`)
	_, err := parsePipeline(pipeline)
	require.NoError(t, err)
	_, err = parseResource(resource)
	require.NoError(t, err)

	_, err = parsePipeline(pipeline + " ")
	requireFaults(t, err, fault{"", 0, 0, conveyor.ErrTooLarge, "more than the limit of 2097152 (Limits.Document)"})
	_, err = parseResource(resource + " ")
	requireFaults(t, err, fault{"", 0, 0, conveyor.ErrTooLarge, "more than the limit of 2097152 (Limits.Document)"})
	_, err = conveyor.ParseResource(endless{})
	require.ErrorIs(t, err, conveyor.ErrTooLarge)

	// What counts is the text that would be written, and that has no escapes for HTML.
	_, err = parsePipeline(`{"name":"p","resource":"r","steps":[{"driver":"d"}],"description":"` + strings.Repeat("<", 400<<10) + `"}`)
	require.NoError(t, err)
}

// endless is a reader that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestDocumentSpecSize(t *testing.T) {
	doc := func(n int) string {
		return `{"name":"a","resource":"r","spec":"` + strings.Repeat("<", n-2) + `"}`
	}
	_, err := parseResource(doc(1 << 20))
	require.NoError(t, err)
	_, err = parseResource(doc(1<<20 + 1))
	requireFaults(t, err, fault{"spec", 1, 35, conveyor.ErrTooLarge, "1048577 bytes, more than the limit of 1048576 (Limits.Spec)"})
}

func TestDocumentSteps(t *testing.T) {
	doc := func(n int) string {
		return `{"name":"p","resource":"r","steps":[` + strings.TrimSuffix(strings.Repeat(`{"driver":"d"},`, n), ",") + `]}`
	}
	p, err := parsePipeline(doc(256))
	require.NoError(t, err)
	require.Len(t, p.Steps, 256)
	require.Equal(t, "256", p.Steps[255].ID)
	_, err = parsePipeline(doc(257))
	requireFaults(t, err, fault{"steps", 1, 36, conveyor.ErrTooLarge, "257 steps, more than the limit of 256 (Limits.Steps)"})
}

func TestDocumentWithVeryManyFaultsReportsTheFirstHundred(t *testing.T) {
	_, err := parsePipeline(`{"name":"p","resource":"r","steps":[` + strings.TrimSuffix(strings.Repeat(`{"driver":1},`, 2_000), ",") + `]}`)
	all := faultsOf(err)
	require.Len(t, all, 101)
	require.Equal(t, "steps[99].driver", all[99].Field)
	require.Contains(t, all[100].Problem, "more faults than the 100 listed")
}

// A field with a long name must not be paid for by every value in it: this took minutes once.
func TestDocumentWithALongFieldNameIsReadInOneGo(t *testing.T) {
	name := strings.Repeat("k", 1<<17)
	o, err := parseResource(`{"name":"a","resource":"r","spec":{"` + name + `":[` + strings.Repeat("0,", 1<<14) + `0]}}`)
	require.NoError(t, err)
	require.NotEmpty(t, o.Spec)
	_, err = parseResource(`{"name":"a","resource":"r","spec":{"` + name + `":{"b":1,"b":2}}}`)
	require.Len(t, faultsOf(err), 1)
	require.Less(t, len(err.Error()), 2<<10)
}

func TestDocumentReaderErrorComesThrough(t *testing.T) {
	broken := errors.New("the disk is gone")
	_, err := conveyor.ParsePipeline(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
	_, err = conveyor.ParseResource(iotest.ErrReader(io.ErrUnexpectedEOF))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestFieldErrorText(t *testing.T) {
	_, err := parsePipeline(`{"name":"p","resource":"r","steps":[{"driver":".d"}]}`)
	require.EqualError(t, err, `conveyor: invalid: line 1, column 47: steps[0].driver: ".d" starts with a dot`)
	require.EqualError(t, conveyor.PipelineSpec{Name: "p", Resource: "r"}.Validate(), `conveyor: invalid: steps: has none; a pipeline needs at least one`)
}

func TestValidateReportsEveryFaultWithoutPositions(t *testing.T) {
	p := conveyor.PipelineSpec{
		Resource: "a b", Timeout: -1, OnChange: 77, Resync: -1, Finally: []conveyor.Step{{}},
		Retry: &conveyor.RetryPolicy{Multiplier: math.NaN(), Jitter: math.Inf(1)},
		Steps: []conveyor.Step{{ID: "2"}, {Driver: "d", Timeout: -1, After: []string{"2"}, ContinueOnError: true}},
	}
	requireFaults(t, p.Validate(),
		fault{"name", 0, 0, conveyor.ErrInvalid, "is empty"},
		fault{"resource", 0, 0, conveyor.ErrInvalid, "character"},
		fault{"steps[0].driver", 0, 0, conveyor.ErrInvalid, "is empty"},
		fault{"steps[1].timeout", 0, 0, conveyor.ErrInvalid, "negative"},
		fault{"steps[1].id", 0, 0, conveyor.ErrInvalid, "is the id of steps[0] too"},
		fault{"finally[0].driver", 0, 0, conveyor.ErrInvalid, "is empty"},
		fault{"timeout", 0, 0, conveyor.ErrInvalid, "negative"},
		fault{"resync", 0, 0, conveyor.ErrInvalid, "negative"},
		fault{"onChange", 0, 0, conveyor.ErrInvalid, "77 is no change policy"},
		fault{"retry.multiplier", 0, 0, conveyor.ErrInvalid, "NaN"},
		fault{"retry.jitter", 0, 0, conveyor.ErrInvalid, "+Inf"},
	)
	p = conveyor.PipelineSpec{Name: "p", Resource: "r", Steps: []conveyor.Step{{Driver: "d", With: json.RawMessage("{")}}}
	requireFaults(t, p.Validate(), fault{"steps[0].with", 1, 2, conveyor.ErrInvalid, "not one JSON value"})
	p.Steps[0].With = json.RawMessage(`{"a":1}`)
	require.NoError(t, p.Validate())
	require.Empty(t, p.Steps[0].ID, "Validate changes nothing")
}

// DockerBuild is a program's own resource, with the field names of Conveyor CI's documents.
type DockerBuild struct {
	conveyor.Meta
	Spec struct {
		Repository string `json:"repository"`
	} `json:"spec"`
}

func newDockerBuild() *DockerBuild {
	b := &DockerBuild{Meta: conveyor.Meta{Name: "build-app-1", Type: "docker-resource", Pipeline: "docker-pipeline"}}
	b.Spec.Repository = "..."
	return b
}

func TestStructThatEmbedsMetaMarshalsToTheDocument(t *testing.T) {
	text, err := json.Marshal(newDockerBuild())
	require.NoError(t, err)
	require.Equal(t, `{"name":"build-app-1","resource":"docker-resource","pipeline":"docker-pipeline","spec":{"repository":"..."}}`, string(text))
	o, err := conveyor.ParseResource(bytes.NewReader(text))
	require.NoError(t, err)
	var back DockerBuild
	require.NoError(t, o.Decode(&back))
	require.Equal(t, newDockerBuild(), &back)
}

func TestStructThatEmbedsMetaIsFilledByApply(t *testing.T) {
	ctx := t.Context()
	e, err := conveyor.New(memory.New(), conveyor.Options{})
	require.NoError(t, err)
	p, err := conveyor.ParsePipeline(bytes.NewReader(readTestdata(t, "docker-pipeline.json")))
	require.NoError(t, err)
	require.NoError(t, e.SavePipeline(ctx, p))
	b := newDockerBuild()
	run, err := e.Apply(ctx, b)
	require.NoError(t, err)
	require.NotEmpty(t, b.ID)
	require.Equal(t, int64(1), b.Version)
	require.Equal(t, int64(1), b.Generation)
	require.Equal(t, conveyor.Status{Phase: conveyor.StateQueued, Run: run.ID}, b.Status)
	require.False(t, b.CreatedAt.IsZero())

	o, err := e.Get(ctx, b.Key())
	require.NoError(t, err)
	require.JSONEq(t, `{"repository":"..."}`, string(o.Spec))
	var back DockerBuild
	require.NoError(t, o.Decode(&back))
	require.Equal(t, b, &back)

	// What Apply filled in is a resource that can be applied again, and nothing has changed.
	again, err := e.Apply(ctx, b)
	require.NoError(t, err)
	require.Equal(t, run.ID, again.ID)
	require.Equal(t, int64(1), b.Version)
}

func TestApplyRefusesWhatIsNoResourceAndStoresNothing(t *testing.T) {
	type nested struct {
		conveyor.Meta
		Spec struct {
			Deep any `json:"deep"`
		} `json:"spec"`
	}
	deep := any(1)
	for range 31 {
		deep = []any{deep}
	}
	meta := conveyor.Meta{Name: "a", Type: "r"}
	for _, c := range []struct {
		name string
		res  conveyor.Resource
		want []fault
	}{
		{"a further field of a struct", &struct {
			conveyor.Meta
			Image string `json:"image"`
		}{Meta: meta}, []fault{{"image", 0, 0, conveyor.ErrInvalid, "unknown field"}}},
		{"further fields of a struct, one without a tag, and a bad name", &struct {
			conveyor.Meta
			Image string `json:"image"`
			Spec  any
		}{Meta: conveyor.Meta{Name: "a b", Type: "r"}}, []fault{
			{"image", 0, 0, conveyor.ErrInvalid, "unknown field"}, {"Spec", 0, 0, conveyor.ErrInvalid, `did you mean "spec"?`},
			{"name", 0, 0, conveyor.ErrInvalid, "character"},
		}},
		{"a struct that nests too deep", &nested{Meta: meta, Spec: struct {
			Deep any `json:"deep"`
		}{deep}}, []fault{{"spec.deep" + strings.Repeat("[0]", 30), 0, 0, conveyor.ErrTooLarge, "33 levels deep"}}},
		{"empty names", &conveyor.Object{}, []fault{{"name", 0, 0, conveyor.ErrInvalid, "is empty"}, {"resource", 0, 0, conveyor.ErrInvalid, "is empty"}}},
		{"a name with a slash", &conveyor.Object{Meta: conveyor.Meta{Name: "k/1", Type: "r"}}, []fault{{"name", 0, 0, conveyor.ErrInvalid, "character"}}},
		{"a spec that is no JSON", &conveyor.Object{Meta: meta, Spec: json.RawMessage("{\n1")}, []fault{{"spec", 2, 1, conveyor.ErrInvalid, "not one JSON value"}}},
		{"a spec with a repeated field", &conveyor.Object{Meta: meta, Spec: json.RawMessage(`{"a":1,"a":2}`)}, []fault{{"spec.a", 1, 8, conveyor.ErrInvalid, "comes twice"}}},
		{"a spec over the limit", &conveyor.Object{Meta: meta, Spec: json.RawMessage(strconv.Quote(strings.Repeat("a", 1<<20-1)))},
			[]fault{{"spec", 0, 0, conveyor.ErrTooLarge, "1048577 bytes, more than the limit of 1048576 (Limits.Spec)"}}},
		{"metadata that is no text", &conveyor.Object{Meta: conveyor.Meta{Name: "a", Type: "r", Metadata: map[string]string{"a": "\xff"}}},
			[]fault{{"metadata", 0, 0, conveyor.ErrInvalid, "invalid UTF-8"}}},
		{"a nil object", (*conveyor.Object)(nil), []fault{{"", 0, 0, conveyor.ErrInvalid, "is nil"}}},
		{"nil", nil, []fault{{"", 0, 0, conveyor.ErrInvalid, "is nil"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := memory.New()
			e, err := conveyor.New(st, conveyor.Options{})
			require.NoError(t, err)
			_, err = e.Apply(t.Context(), c.res)
			requireFaults(t, err, c.want...)
			_, err = e.Create(t.Context(), c.res)
			requireFaults(t, err, c.want...)
			require.Empty(t, rig.Dump(t, st))
		})
	}
	t.Run("what cannot be encoded", func(t *testing.T) {
		st := memory.New()
		e, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		_, err = e.Apply(t.Context(), &nested{Meta: meta, Spec: struct {
			Deep any `json:"deep"`
		}{func() {}}})
		require.ErrorIs(t, err, conveyor.ErrInvalid)
		require.Empty(t, rig.Dump(t, st))
	})
}

func TestSizesAreThoseOfTheTextWithoutEscapesForHTML(t *testing.T) {
	e, err := conveyor.New(memory.New(), conveyor.Options{Limits: conveyor.Limits{Document: 1000, Spec: 500}})
	require.NoError(t, err)
	b := &DockerBuild{Meta: conveyor.Meta{Name: "a", Type: "r"}}
	b.Spec.Repository = strings.Repeat("<", 500-len(`{"repository":""}`))
	_, err = e.Apply(t.Context(), b)
	require.NoError(t, err)
	b.Spec.Repository += "<"
	_, err = e.Apply(t.Context(), b)
	requireFaults(t, err, fault{"spec", 0, 0, conveyor.ErrTooLarge, "501 bytes, more than the limit of 500 (Limits.Spec)"})
}

func TestObjectDecode(t *testing.T) {
	o := &conveyor.Object{
		Meta: conveyor.Meta{Name: "a", Type: "r", Metadata: map[string]string{"k": "v"}, Generation: 3},
		Spec: json.RawMessage(`{"repository":"<here>","newer":1}`),
	}
	t.Run("passes over what the struct does not know", func(t *testing.T) {
		var b DockerBuild
		require.NoError(t, o.Decode(&b))
		require.Equal(t, "<here>", b.Spec.Repository)
		require.Equal(t, o.Meta, b.Meta)
	})
	t.Run("shares nothing", func(t *testing.T) {
		var b DockerBuild
		require.NoError(t, o.Decode(&b))
		b.Metadata["k"] = "changed"
		require.Equal(t, "v", o.Metadata["k"])
		var c conveyor.Object
		require.NoError(t, o.Decode(&c))
		require.Equal(t, o, &c)
		c.Spec[0] = 'x'
		require.Equal(t, byte('{'), o.Spec[0])
	})
	t.Run("into a used struct leaves nothing of the old Meta", func(t *testing.T) {
		b := DockerBuild{Meta: conveyor.Meta{Pipeline: "old", Metadata: map[string]string{"old": "old"}}}
		require.NoError(t, o.Decode(&b))
		require.Equal(t, o.Meta, b.Meta)
	})
	t.Run("a spec that does not fit", func(t *testing.T) {
		bad := &conveyor.Object{Meta: o.Meta, Spec: json.RawMessage(`{"repository":1}`)}
		require.ErrorIs(t, bad.Decode(&DockerBuild{}), conveyor.ErrInvalid)
	})
	t.Run("a spec that is no JSON", func(t *testing.T) {
		bad := &conveyor.Object{Meta: o.Meta, Spec: json.RawMessage(`{`)}
		require.ErrorIs(t, bad.Decode(&DockerBuild{}), conveyor.ErrInvalid)
	})
	t.Run("into nil", func(t *testing.T) {
		require.ErrorIs(t, o.Decode(nil), conveyor.ErrInvalid)
		require.ErrorIs(t, o.Decode((*DockerBuild)(nil)), conveyor.ErrInvalid)
	})
}

func TestOptionsListEveryBadOne(t *testing.T) {
	_, err := conveyor.New(nil, conveyor.Options{
		Workers: -1, StepTimeout: -1, ShutdownGrace: -1,
		Retry: conveyor.RetryPolicy{MaxAttempts: -2, Initial: -1, Max: -1, Multiplier: 0.9, Jitter: -0.5},
		Limits: conveyor.Limits{
			Document: -1, Depth: math.MaxInt, Steps: -1, Spec: 4<<20 + 1, Output: -1, ErrorText: math.MinInt, LogLines: -1,
			LogLine: math.MaxInt, Attempts: -1, WatchBuffer: math.MaxInt, Interruptions: -1,
		},
	})
	var fields []string
	for _, f := range faultsOf(err) {
		require.ErrorIs(t, f, conveyor.ErrInvalid)
		fields = append(fields, f.Field)
	}
	require.Equal(t, []string{
		"store", "Workers", "StepTimeout", "ShutdownGrace",
		"Retry.maxAttempts", "Retry.initial", "Retry.max", "Retry.multiplier", "Retry.jitter",
		"Limits.Document", "Limits.Depth", "Limits.Steps", "Limits.Spec", "Limits.Output", "Limits.ErrorText", "Limits.LogLines",
		"Limits.LogLine", "Limits.Attempts", "Limits.WatchBuffer", "Limits.Interruptions",
	}, fields)
	_, err = conveyor.New((*memory.Store)(nil), conveyor.Options{})
	require.ErrorIs(t, err, conveyor.ErrInvalid)
	_, err = conveyor.New(memory.New(), conveyor.Options{Workers: 1<<20 + 1})
	require.ErrorIs(t, err, conveyor.ErrInvalid)
}

func TestRegisterListsEveryBadOption(t *testing.T) {
	e, err := conveyor.New(memory.New(), conveyor.Options{})
	require.NoError(t, err)
	err = e.Register("a b", nil, conveyor.Listen("k/1", ""), conveyor.Concurrency(-1), conveyor.Timeout(-1),
		conveyor.Retry(conveyor.RetryPolicy{Jitter: 2}), nil)
	var fields []string
	for _, f := range faultsOf(err) {
		require.ErrorIs(t, f, conveyor.ErrInvalid)
		fields = append(fields, f.Field)
	}
	require.Equal(t, []string{"driver", "driver", "option", "Listen", "Listen", "Concurrency", "Timeout", "Retry.jitter"}, fields)
	require.ErrorIs(t, e.Register("d", conveyor.DriverFunc(nil)), conveyor.ErrInvalid)
}

// enumeration is what the enumerations have in common.
type enumeration interface {
	fmt.Stringer
	MarshalText() ([]byte, error)
}

func testEnumeration[T interface {
	~uint8
	enumeration
}, P interface {
	*T
	UnmarshalText([]byte) error
}](t *testing.T, what string, names ...string) {
	t.Run(what, func(t *testing.T) {
		require.Equal(t, "unset", T(0).String())
		text, err := T(0).MarshalText()
		require.NoError(t, err)
		require.Empty(t, text)
		for i, name := range names {
			v := T(i + 1)
			require.Equal(t, name, v.String())
			text, err := v.MarshalText()
			require.NoError(t, err)
			require.Equal(t, name, string(text))
			var back T
			require.NoError(t, P(&back).UnmarshalText(text))
			require.Equal(t, v, back)
		}
		beyond := T(len(names) + 1)
		require.Equal(t, fmt.Sprintf("%s(%d)", what, len(names)+1), beyond.String())
		_, err = beyond.MarshalText()
		require.ErrorIs(t, err, conveyor.ErrInvalid)
		kept := T(1)
		for _, bad := range []string{"nonsense", strings.ToUpper(names[0]), "unset", "\x1b[2J\n", strings.Repeat("x", 1<<16)} {
			err := P(&kept).UnmarshalText([]byte(bad))
			require.ErrorIs(t, err, conveyor.ErrInvalid)
			require.ErrorContains(t, err, "is no "+what)
			require.Less(t, len(err.Error()), 1000)
			require.NotContains(t, err.Error(), "\x1b")
			require.ErrorIs(t, json.Unmarshal(rig.JSON(bad), &kept), conveyor.ErrInvalid)
		}
		require.Equal(t, T(1), kept)
	})
}

func TestEnumerations(t *testing.T) {
	testEnumeration[conveyor.State](t, "state", "pending", "queued", "running", "retrying", "waiting", "blocked",
		"succeeded", "failed", "skipped", "canceled", "superseded")
	testEnumeration[conveyor.Cause](t, "cause", "created", "updated", "deleted", "resync", "triggered", "retried")
	testEnumeration[conveyor.ChangePolicy](t, "change policy", "coalesce", "supersede", "queue")
	testEnumeration[conveyor.CallKind](t, "kind of call", "reconcile", "finalize", "plan")
	testEnumeration[conveyor.EventKind](t, "event kind", "resource", "pipeline", "run", "step", "gap", "pause")
	var final []string
	for s := conveyor.StateUnset; s <= conveyor.StateSuperseded; s++ {
		if s.Final() {
			final = append(final, s.String())
		}
	}
	slices.Sort(final)
	require.Equal(t, []string{"canceled", "failed", "skipped", "succeeded", "superseded"}, final)
}

func TestDurationText(t *testing.T) {
	for _, text := range []string{"0s", "1ns", "1m30s", "2562047h47m16.854775807s", "-1h0m0s"} {
		var d conveyor.Duration
		require.NoError(t, d.UnmarshalText([]byte(text)))
		back, err := d.MarshalText()
		require.NoError(t, err)
		require.Equal(t, text, string(back))
		require.Equal(t, text, d.String())
	}
	for _, bad := range []string{"", "soon", "1", "1m 30s", "\x1b[2J", strings.Repeat("1", 1<<16)} {
		d := conveyor.Duration(1)
		err := d.UnmarshalText([]byte(bad))
		require.ErrorIs(t, err, conveyor.ErrInvalid)
		require.ErrorContains(t, err, "is no duration")
		require.Less(t, len(err.Error()), 1000)
		require.NotContains(t, err.Error(), "\x1b")
		require.Equal(t, conveyor.Duration(1), d)
	}
}

func TestSavePipelineKeepsACopy(t *testing.T) {
	ctx := context.Background()
	e, err := conveyor.New(memory.New(), conveyor.Options{})
	require.NoError(t, err)
	p := conveyor.PipelineSpec{Name: "p", Resource: "r", Metadata: map[string]string{"a": "b"}, Retry: &conveyor.RetryPolicy{MaxAttempts: 1},
		Steps: []conveyor.Step{{Driver: "d", With: json.RawMessage(`{"a":1}`), Retry: &conveyor.RetryPolicy{MaxAttempts: 2}}}}
	require.NoError(t, e.SavePipeline(ctx, p))
	require.Empty(t, p.Steps[0].ID, "the program's own value stays as it is")
	saved, err := e.GetPipeline(ctx, "p")
	require.NoError(t, err)
	want := saved
	p.Metadata["a"], p.Retry.MaxAttempts, p.Steps[0].With[0], p.Steps[0].Driver = "c", 9, 'x', "other"
	saved.Metadata["a"], saved.Steps[0].ID = "d", "other"
	again, err := e.GetPipeline(ctx, "p")
	require.NoError(t, err)
	want.Metadata = map[string]string{"a": "b"}
	want.Steps = []conveyor.Step{{ID: "1", Driver: "d", With: json.RawMessage(`{"a":1}`), Retry: &conveyor.RetryPolicy{MaxAttempts: 2}}}
	require.Equal(t, want, again)
}
