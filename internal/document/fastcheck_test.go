package document

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestFastCheckAcceptsOnlyWhatHasNoFaults(t *testing.T) {
	limits := Limits{Bytes: 2 << 20, Depth: 32, List: 256}
	for _, c := range []struct {
		name string
		data string
		want bool
	}{
		{"a number", `1`, true},
		{"an object", ` { "a" : [ 1 , { "b" : "x,{\"y\":[" } ] , "c" : null } `, true},
		{"a name in two objects", `[{"a":{"a":1}},{"a":1}]`, true},
		{"a name after an inner object", `{"a":{"b":1},"b":1}`, true},
		{"strings in an array", `["a","a"]`, true},
		{"a string that is also a name", `{"a":"b","b":"a"}`, true},
		{"a name that comes twice", `{"a":1,"b":{"c":1},"a":2}`, false},
		{"a name that comes twice, escaped", `{"a":1,"\u0061":2}`, false},
		{"no JSON", `{"a":1,}`, false},
		{"two values", `1 2`, false},
		{"nothing", ``, false},
		{"invalid UTF-8", "\"\xff\"", false},
		{"nesting at the limit", strings.Repeat("[", 30) + strings.Repeat("]", 30), true},
		{"nesting beyond the limit", strings.Repeat("[", 31) + strings.Repeat("]", 31), false},
		{"many fields", `{` + strings.TrimSuffix(manyFields(64), ",") + `}`, true},
		{"more fields than it remembers", `{` + strings.TrimSuffix(manyFields(65), ",") + `}`, false},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, fastCheck([]byte(c.data), 30)) })
	}
	piece := rapid.SampledFrom([]string{`{`, `}`, `[`, `]`, `,`, `:`, `"a"`, `"b"`, `"\""`, `"\\"`, `1`, ` `, `null`})
	value := rapid.Deferred(func() *rapid.Generator[string] { return jsonValue(4) })
	rapid.Check(t, func(t *rapid.T) {
		data := []byte(rapid.OneOf(value, rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(piece, 0, 20).Draw(t, "pieces"), "")
		})).Draw(t, "data"))
		faults := walk(data, nil, "", limits, 0).faults.List()
		if fastCheck(data, limits.Depth) {
			require.Empty(t, faults, "%s", data)
		}
	})
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.Quote(strconv.Itoa(i)) + ":1,")
	}
	return b.String()
}

// jsonValue makes values whose fields often have the same name.
func jsonValue(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		kind := rapid.IntRange(0, 3).Draw(t, "kind")
		if depth == 0 || kind < 2 {
			return rapid.SampledFrom([]string{`1`, `"a"`, `"\"{,"`, `null`, `""`}).Draw(t, "scalar")
		}
		var members []string
		for range rapid.IntRange(0, 3).Draw(t, "members") {
			member := jsonValue(depth-1).Draw(t, "member")
			if kind == 3 {
				member = rapid.SampledFrom([]string{`"a":`, `"b" : `, `"":`, `"\u0061":`}).Draw(t, "name") + member
			}
			members = append(members, member)
		}
		if kind == 3 {
			return "{" + strings.Join(members, ",") + "}"
		}
		return "[" + strings.Join(members, " , ") + "]"
	})
}

func BenchmarkCheck(b *testing.B) {
	limits := Limits{Bytes: 2 << 20, Depth: 32, List: 256}
	object := []byte(`{"repository":"https://example.com/app.git","image":"app:1","labels":{"team":"a","tier":"b"},"ports":[80,443]}`)
	for name, data := range map[string][]byte{
		"small": object,
		"large": append(append([]byte{'['}, bytes.Repeat(append(object, ','), 1000)...), "1]"...),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if faults := Check("spec", data, limits, 1); len(faults) > 0 {
					b.Fatal(faults)
				}
			}
		})
	}
}
