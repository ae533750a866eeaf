package conveyor_test

import (
	"bytes"
	"encoding/json"
	"errors"
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
		require.True(t, utf8.ValidString(f.Error()))
		notJSON = notJSON || bytes.HasPrefix([]byte(f.Problem), []byte("not one JSON value"))
	}
	require.Equal(t, notJSON, utf8.Valid(data) && !json.Valid(data) && !errors.Is(err, conveyor.ErrTooLarge), "%v", err)
}

func FuzzParsePipeline(f *testing.F) {
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
		text, err := json.Marshal(p)
		require.NoError(t, err)
		again, err := conveyor.ParsePipeline(bytes.NewReader(text))
		require.NoError(t, err)
		second, err := json.Marshal(again)
		require.NoError(t, err)
		require.Equal(t, string(text), string(second))
	})
}

func FuzzParseResource(f *testing.F) {
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
		text, err := json.Marshal(o)
		require.NoError(t, err)
		again, err := conveyor.ParseResource(bytes.NewReader(text))
		require.NoError(t, err)
		second, err := json.Marshal(again)
		require.NoError(t, err)
		require.Equal(t, string(text), string(second))
		var decoded conveyor.Object
		require.NoError(t, o.Decode(&decoded))
		require.Equal(t, o.Meta, decoded.Meta)
	})
}
