package documents_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

// requireFair checks what is true of every refusal: it has a kind, it says where, and what it refuses as no JSON is
// none.
func requireFair(t *testing.T, data []byte, err error) {
	t.Helper()
	require.True(t, errors.Is(err, conveyor.ErrInvalid) || errors.Is(err, conveyor.ErrTooLarge), "%v", err)
	all := faultsOf(err)
	require.NotEmpty(t, all)
	lines := 1 + bytes.Count(data, []byte("\n"))
	notJSON := false
	for _, f := range all {
		require.NotEmpty(t, f.Problem)
		require.LessOrEqual(t, f.Line, lines)
		require.LessOrEqual(t, f.Column, len(data)+1)
		require.True(t, f.Line > 0 || bytes.Contains([]byte(f.Problem), []byte("limit")) || bytes.Contains([]byte(f.Problem), []byte("more faults")), "no place: %v", f)
		require.LessOrEqual(t, len(f.Field), 1<<10)
		require.True(t, utf8.ValidString(f.Error()))
		notJSON = notJSON || bytes.HasPrefix([]byte(f.Problem), []byte("not one JSON value"))
	}
	require.Equal(t, notJSON, utf8.Valid(data) && !json.Valid(data) && !errors.Is(err, conveyor.ErrTooLarge), "%v", err)
}

// hostileSeeds begins with one of each class of what documents are tried with: names that come twice or in another
// case, trailing data, nesting, huge numbers, invalid UTF-8, names like paths, control characters.
func hostileSeeds(f *testing.F, sound string) {
	replaced := func(old, text string) string { return strings.Replace(sound, old, text, 1) }
	for _, seed := range []string{
		sound, replaced(`"name":`, `"name":"x","name":`), replaced(`"name":`, `"Name":`), replaced(`"name":`, `"NAME":"x","name":`),
		replaced(`"resource":`, `"re\u017fource":`), replaced(`{"k":"v"}`, `{"k":"v","K":"w","k":"x"}`), replaced(`{"x":`, `{"x":1,"x":`),
		sound + sound, sound + "\n{}", sound + "\x00", sound + "]", "\ufeff" + sound, "[" + sound + "]", "---\nname: a\n",
		replaced(`{"x":`, strings.Repeat(`[`, 40)), replaced(`{"x":`, `{"x":`+strings.Repeat(`{"a":`, 31)+"1"+strings.Repeat("}", 31)+`,"y":`),
		strings.Repeat(`{"steps":[`, 200), strings.Repeat("[", 20_000),
		replaced(`{"x":`, `{"y":1e400,"x":`), replaced(`"version":1`, `"version":1e400`), replaced(`"version":1`, `"version":9223372036854775808`),
		replaced(`"maxRuns":1`, `"maxRuns":-0`), replaced(`"jitter":0.5`, `"jitter":1e999999999`), replaced(`"1h0m0s"`, `"2562048h"`),
		replaced(`"k":"v"`, "\"k\":\"\xff\""), replaced(`"k":"v"`, `"k":"\ud800"`), replaced(`"k":"v"`, `"\udc00":"v"`), replaced(`{"x":`, `{"\ud83d\ude00":"\ud800","x":`),
		replaced(`"resource":"r"`, `"resource":"../r"`), replaced(`"resource":"r"`, `"resource":"C:\\con"`), replaced(`"resource":"r"`, `"resource":".r"`),
		replaced(`"resource":"r"`, `"resource":"r\u0000"`), replaced(`"k":"v"`, `"\u0000\u001b[2J":"\u202e\u2028"`), replaced(`"k":"v"`, "\"k\":\"\x01\""),
	} {
		f.Add([]byte(seed))
	}
}

// requireFixed requires that what was read is written, read and written again as the same.
func requireFixed(t *testing.T, value any, read func(text []byte) (any, error)) {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	again, err := read(text)
	require.NoError(t, err)
	second, err := json.Marshal(again)
	require.NoError(t, err)
	require.Equal(t, string(text), string(second))
	third, err := read(second)
	require.NoError(t, err)
	require.Equal(t, again, third)
}

func FuzzParsePipeline(f *testing.F) {
	hostileSeeds(f, soundPipeline)
	for _, seed := range []string{
		`{"name":"p","resource":"r","steps":[{"driver":"d"}]}`,
		`{"name":"docker-pipeline","resource":"docker-resource","description":null,"metadata":null,"version":"1","steps":[{"id":"1","name":"Clone","driver":"git-cloner"}]}`,
		`{"name":"p","resource":"r","onChange":"coalesce","timeout":"1h","retry":{"maxAttempts":-1,"initial":"1ms","max":"1s","multiplier":1.5,"jitter":0.1},` +
			`"metadata":{"a":"b"},"steps":[{"id":"a","driver":"d","with":{"x":[1,"<\u2028>",null]},"timeout":"1m","after":[],"continueOnError":false}],"finally":[],"resync":"0s"}`,
		`{"name":"p","resource":"r","steps":[{"driver":"d","with":{"a":1,"a":2}},{"id":"1","Driver":1}]}`,
		`{"name":"p","resource":"r","steps":[{"driver":"d","with":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}]}`,
		"{\"name\":\"\\ud800\",\n\"resource\":\"\xff\"}", "[]", "null", "", "{", "\ufeff{}", "{} {}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := conveyor.ParsePipeline(bytes.NewReader(data))
		if err != nil {
			requireFair(t, data, err)
			return
		}
		require.True(t, json.Valid(data))
		require.NoError(t, p.Validate())
		requireFixed(t, p, func(text []byte) (any, error) { return conveyor.ParsePipeline(bytes.NewReader(text)) })
	})
}

func FuzzParseResource(f *testing.F) {
	hostileSeeds(f, soundResource)
	for _, seed := range []string{
		`{"name":"build-app-1","resource":"docker-resource","pipeline":"docker-pipeline"}`,
		`{"id":"x","name":"a","resource":"r","metadata":null,"version":1,"generation":2,"status":{"phase":"failed","observedGeneration":1,"run":"y","message":"m"},` +
			`"createdAt":"2024-02-03T04:05:06.789Z","updatedAt":"2024-02-03T04:05:06+02:00","deletedAt":"2024-02-03T04:05:06Z","spec":{"a":[1e9,"\u003c",null,{}]}}`,
		`{"name":"a","resource":"r","spec":null,"metadata":{"a":null}}`,
		`{"name":"a","resource":"r","spec":{"":1,"":2}}`,
		"{\"name\":\"a\",\"resource\":\"r\",\"spec\":\"\\ud800\"}", "[]", "null", "", "{", "{} {}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := conveyor.ParseResource(bytes.NewReader(data))
		if err != nil {
			requireFair(t, data, err)
			return
		}
		require.True(t, json.Valid(data))
		requireFixed(t, o, func(text []byte) (any, error) { return conveyor.ParseResource(bytes.NewReader(text)) })
		var decoded conveyor.Object
		require.NoError(t, o.Decode(&decoded))
		require.Equal(t, o.Meta, decoded.Meta)
	})
}
