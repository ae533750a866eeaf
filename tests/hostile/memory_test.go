package hostile_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store/memory"
)

// What reading a document of n bytes may allocate in all, whatever is in it, on the way to a value or to an error.
const (
	bytesPerByte = 150
	bytesAnyway  = 4 << 20
)

// adversaries are documents that are made to cost much, of about so many bytes: by name, what stands in the place of
// a resource's spec or a pipeline's settings, or the whole document.
func adversaries(n int) map[string]string {
	fill := func(unit string) string { return strings.Repeat(unit, n/len(unit)) }
	distinct := func(format string, each int) string {
		var b strings.Builder
		for i := 0; i < n/each; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	pipeline := func(rest string) string { return `{"name":"p","resource":"r",` + rest + `}` }
	resource := func(rest string) string { return `{"name":"a","resource":"r",` + rest + `}` }
	step := func(rest string) string { return pipeline(`"steps":[{"driver":"d",` + rest + `}]`) }
	return map[string]string{
		"nothing but brackets":            fill("["),
		"nothing but braces":              fill(`{"a":`),
		"nesting that is closed again":    strings.Repeat("[", n/2) + strings.Repeat("]", n/2),
		"nesting up to the limit":         resource(`"spec":[` + strings.TrimSuffix(fill(strings.Repeat("[", 30)+strings.Repeat("]", 30)+","), ",") + `]`),
		"nesting one beyond the limit":    resource(`"spec":[` + strings.TrimSuffix(fill(strings.Repeat("[", 31)+strings.Repeat("]", 31)+","), ",") + `]`),
		"empty objects":                   resource(`"spec":[` + strings.TrimSuffix(fill("{},"), ",") + `]`),
		"empty lists":                     resource(`"spec":[` + strings.TrimSuffix(fill("[],"), ",") + `]`),
		"tiny keys":                       resource(`"spec":{` + distinct(`"%x":1,`, 9) + `}`),
		"tiny keys that come twice":       resource(`"spec":{` + strings.TrimSuffix(fill(`"a":1,`), ",") + `}`),
		"tiny keys that are unknown":      pipeline(distinct(`"%x":1,`, 9)),
		"metadata of tiny keys":           resource(`"metadata":{` + distinct(`"%x":"",`, 10) + `}`),
		"metadata of numbers":             pipeline(`"metadata":{` + distinct(`"%x":1,`, 9) + `}`),
		"metadata of a pipeline":          pipeline(`"steps":[{"driver":"d"}],"metadata":{` + distinct(`"%x":"",`, 10) + `}`),
		"one long key":                    resource(`"spec":{"` + fill("k") + `":1}`),
		"one long key that is unknown":    pipeline(`"` + fill("k") + `":{"a":{"a":{"a":1}}}`),
		"one long key over many values":   resource(`"spec":{"` + fill("k")[:n/2] + `":[` + strings.TrimSuffix(fill("0,")[:n/2], ",") + `]}`),
		"one long key over many faults":   resource(`"spec":{"` + fill("k")[:n/2] + `":{` + strings.TrimSuffix(fill(`"a":1,`)[:n/12*6], ",") + `}}`),
		"a long number":                   resource(`"version":` + fill("9")),
		"a long number in a spec":         resource(`"spec":` + fill("9")),
		"a long exponent":                 resource(`"spec":1e` + fill("9")),
		"a long fraction":                 pipeline(`"retry":{"jitter":0.` + fill("1") + `}`),
		"a multiplier without end":        pipeline(`"retry":{"multiplier":1e999999999}`),
		"many numbers beyond all bounds":  resource(`"spec":[` + strings.TrimSuffix(fill("1e999999999,"), ",") + `]`),
		"escapes":                         resource(`"spec":"` + fill(`\u0000`) + `"`),
		"escapes in a description":        pipeline(`"steps":[{"driver":"d"}],"description":"` + fill(`\u0000`) + `"`),
		"halves of characters":            pipeline(`"steps":[{"driver":"d"}],"description":"` + fill(`\ud800`) + `"`),
		"escapes in keys":                 resource(`"spec":{` + distinct(`"\u0061%x":1,`, 15) + `}`),
		"a long name":                     `{"resource":"r","name":"` + fill("n") + `"}`,
		"a long duration":                 pipeline(`"timeout":"` + fill("1h") + `"`),
		"a long phase":                    resource(`"status":{"phase":"` + fill("p") + `"}`),
		"a long time":                     resource(`"createdAt":"` + fill("2") + `"`),
		"steps that are empty":            pipeline(`"steps":[` + strings.TrimSuffix(fill("{},"), ",") + `]`),
		"steps that are numbers":          pipeline(`"steps":[` + strings.TrimSuffix(fill("1,"), ",") + `]`),
		"steps that are null":             pipeline(`"steps":[` + strings.TrimSuffix(fill("null,"), ",") + `]`),
		"final steps that are empty":      pipeline(`"steps":[{"driver":"d"}],"finally":[` + strings.TrimSuffix(fill("{},"), ",") + `]`),
		"steps in steps":                  pipeline(`"steps":` + fill(`[{"steps":`)),
		"predecessors that are empty":     step(`"after":[` + strings.TrimSuffix(fill(`"",`), ",") + `]`),
		"predecessors that are not there": step(`"after":[` + distinct(`"%x",`, 8) + `]`),
		"settings of tiny keys":           step(`"with":{` + distinct(`"%x":1,`, 9) + `}`),
		"settings of empty lists":         step(`"with":[` + strings.TrimSuffix(fill(`[],`), ",") + `]`),
		"quotes that do not end":          `{"name":"` + fill(`\"`),
		"backslashes":                     `{"name":"` + fill(`\`),
		"white space":                     fill(" "),
		"new lines":                       resource(`"x":1`) + fill("\n"),
		"bytes of zero":                   fill("\x00"),
		"bytes that are no text":          `{"name":"` + fill("\xff"),
		"commas":                          resource(fill(",")),
	}
}

// TestDocumentsAreReadInBoundedMemory reads documents that are made to cost much. What is allocated for one of n bytes
// stays below bytesPerByte times n and bytesAnyway, in sum, so it is less at any moment.
func TestDocumentsAreReadInBoundedMemory(t *testing.T) {
	e, err := conveyor.New(memory.New(), conveyor.Options{})
	require.NoError(t, err)
	size := 1024 * testenv.Bound(t, "CONVEYOR_DOCUMENT_KIB", testenv.Some(t, 64, 128), 16)
	worst, worstName, applied := 0.0, "", 0
	for name, doc := range adversaries(size) {
		data := []byte(doc)
		for kind, read := range map[string]func(){
			"pipeline": func() { _, _ = conveyor.ParsePipeline(bytes.NewReader(data)) },
			"resource": func() { _, _ = conveyor.ParseResource(bytes.NewReader(data)) },
			"spec": func() {
				applied++ // another name each time, since the spec before is read too
				_, _ = e.Apply(t.Context(), &conveyor.Object{Meta: conveyor.Meta{Name: fmt.Sprint("a", applied), Type: "r"}, Spec: data})
			},
			"settings": func() {
				_ = conveyor.PipelineSpec{Name: "p", Resource: "r", Steps: []conveyor.Step{{Driver: "d", With: data}}}.Validate()
			},
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			read()
			runtime.ReadMemStats(&after)
			used := after.TotalAlloc - before.TotalAlloc
			require.Less(t, used, uint64(bytesPerByte*len(data)+bytesAnyway), "%s, as a %s", name, kind)
			if per := float64(used) / float64(len(data)); per > worst && len(data) > size/4 {
				worst, worstName = per, name+", as a "+kind
			}
		}
	}
	testenv.Figure(t, "at most %.0f bytes for each byte of a document (%s)", worst, worstName)
}
