package documents_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// soundPipeline and soundResource have every field of their documents.
const (
	soundPipeline = `{"name":"p","resource":"r","description":"d","version":"1","steps":[{"id":"a","name":"A","driver":"d","with":{"x":1},` +
		`"retry":{"maxAttempts":1,"initial":"1s","max":"2s","multiplier":1.5,"jitter":0.5},"timeout":"1s","continueOnError":true},` +
		`{"id":"b","driver":"d","after":["a"]}],"finally":[{"id":"f","driver":"d"}],"onChange":"queue","maxRuns":1,"timeout":"1h0m0s","resync":"2h0m0s",` +
		`"retry":{"maxAttempts":1,"initial":"1s","max":"2s","multiplier":1.5,"jitter":0.5},"metadata":{"k":"v"}}`
	soundResource = `{"id":"x","name":"a","resource":"r","pipeline":"p","metadata":{"k":"v"},"version":1,"generation":2,` +
		`"status":{"phase":"failed","observedGeneration":1,"run":"y","message":"m"},"createdAt":"2024-02-03T04:05:06Z",` +
		`"updatedAt":"2024-02-03T04:05:07Z","updatedBy":"ada","deletedAt":"2024-02-03T04:05:08Z","spec":{"x":[1]}}`
)

// documentKinds are the documents, with what reads them and writes them back.
var documentKinds = []struct {
	name  string
	sound string
	read  func(doc string) (any, error)
	shape reflect.Type
}{
	{"pipeline", soundPipeline, func(doc string) (any, error) { return parsePipeline(doc) }, reflect.TypeFor[conveyor.PipelineSpec]()},
	{"resource", soundResource, func(doc string) (any, error) { return parseResource(doc) }, reflect.TypeFor[conveyor.Object]()},
}

func TestHostileSoundDocumentsHaveEveryFieldAndComeBack(t *testing.T) {
	for _, kind := range documentKinds {
		value, err := kind.read(kind.sound)
		require.NoError(t, err)
		text, err := json.Marshal(value)
		require.NoError(t, err)
		require.Equal(t, jsonSorted(t, kind.sound), jsonSorted(t, string(text)))
		for _, name := range fieldsOfShape(kind.shape) {
			require.Contains(t, kind.sound, `"`+name+`":`, "the %s has no %s", kind.name, name)
		}
	}
}

func jsonSorted(t *testing.T, text string) string {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal([]byte(text), &v))
	return string(rig.JSON(v))
}

// fieldsOfShape lists the JSON fields of a struct and of the structs in it.
func fieldsOfShape(shape reflect.Type) (names []string) {
	for shape.Kind() == reflect.Slice || shape.Kind() == reflect.Pointer {
		shape = shape.Elem()
	}
	if shape.Kind() != reflect.Struct || shape == reflect.TypeFor[time.Time]() {
		return nil
	}
	for _, f := range reflect.VisibleFields(shape) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" || f.Anonymous {
			continue
		}
		names = append(append(names, name), fieldsOfShape(f.Type)...)
	}
	return names
}

// TestHostileFieldsAreRefusedWithTheirPlace changes one field of a sound document at a time.
func TestHostileFieldsAreRefusedWithTheirPlace(t *testing.T) {
	for _, kind := range documentKinds {
		for at := range kind.sound {
			name, value := fieldAt(kind.sound, at)
			if name == "" || name == "k" || name == "x" { // the last two are the author's own
				continue
			}
			end := at + len(name) + 3 + len(value)
			with := func(text string) string { return kind.sound[:at] + text + kind.sound[end:] }
			own := `"` + name + `":` + value
			for _, c := range []struct {
				name, text, says string
			}{
				{"comes twice", own + "," + own, "comes twice"},
				{"comes twice, once under an escape", own + `,"\u00` + fmt.Sprintf("%x", name[0]) + name[1:] + `":` + value, "comes twice"},
				{"comes twice, in another case", own + `,"` + strings.ToUpper(name) + `":` + value, "Case matters"},
				{"in capitals", `"` + strings.ToUpper(name) + `":` + value, "Case matters"},
				{"with a capital", `"` + strings.ToUpper(name[:1]) + name[1:] + `":` + value, "Case matters"},
				{"with a long s, which folds to s", `"` + strings.Replace(name, "s", "ſ", 1) + `":` + value, "Case matters"},
				{"with a Kelvin sign, which folds to k", `"` + strings.Replace(name, "k", "\u212a", 1) + `":` + value, "Case matters"},
				{"with a letter that looks the same", `"` + strings.Replace(name, "e", "\u0435", 1) + `":` + value, "unknown field"},
				{"with a space", `"` + name + ` ":` + value, "unknown field"},
				{"with a zero", `"` + name + `\u0000":` + value, "unknown field"},
				{"with a zero-width space", `"` + name + "\u200b" + `":` + value, "unknown field"},
				{"with half of a character", `"` + name + `\ud800":` + value, "half of a character"},
				{"the prototype", `"__proto__":{},` + own, "unknown field"},
				{"a list instead", `"` + name + `":[[]]`, ""},
				{"an object instead", `"` + name + `":{"a":{}}`, ""},
				{"a boolean instead", `"` + name + `":true`, "is a boolean"},
				{"a huge number instead", `"` + name + `":1e400`, ""},
			} {
				doc := with(c.text)
				anyJSON := name == "with" || name == "spec" || name == "metadata" && kind.name == "resource" && c.name == "an object instead"
				if c.text == own || anyJSON && strings.HasSuffix(c.name, "instead") || name == "continueOnError" && c.says == "is a boolean" {
					continue
				}
				_, err := kind.read(doc)
				require.Error(t, err, doc)
				requireFair(t, []byte(doc), err)
				found := false
				for _, f := range faultsOf(err) {
					found = found || f.Line == 1 && f.Column > at && f.Column <= at+len(c.text)+1 && strings.Contains(f.Problem, c.says)
				}
				require.True(t, found, "%s of a %s, %s: %v\n%s", name, kind.name, c.name, err, doc)
			}
		}
	}
}

// fieldAt returns the name and the value of the field that begins at a place of a document, if one does.
func fieldAt(doc string, at int) (name, value string) {
	if doc[at] != '"' || at == 0 || doc[at-1] != '{' && doc[at-1] != ',' {
		return "", ""
	}
	end := strings.IndexByte(doc[at+1:], '"') + at + 1
	if doc[end+1] != ':' {
		return "", ""
	}
	var first json.RawMessage
	if json.NewDecoder(strings.NewReader(doc[end+2:])).Decode(&first) != nil {
		return "", ""
	}
	return doc[at+1 : end], string(first)
}

func TestHostileMetadataKeysAreTheAuthorsOwn(t *testing.T) {
	for _, kind := range documentKinds {
		with := func(labels string) string {
			return strings.Replace(kind.sound, `"metadata":{"k":"v"}`, `"metadata":`+labels, 1)
		}
		value, err := kind.read(with(`{"k":"1","K":"2","\u212a":"3","":"4","../x":"5","\u0000":"6","__proto__":"7","é":"8","e\u0301":"9"}`))
		require.NoError(t, err)
		text := string(rig.JSON(value))
		for _, key := range []string{"k", "K", "\u212a", "", "../x", `\u0000`, "__proto__", "é", "e\u0301"} {
			require.Contains(t, text, `"`+key+`":"`)
		}
		for _, labels := range []string{`{"k":"1","k":"1"}`, `{"k":"1","\u006b":"2"}`, `{"":"1","":"1"}`} {
			_, err = kind.read(with(labels))
			require.ErrorContains(t, err, "comes twice", labels)
			require.ErrorContains(t, err, "metadata.")
		}
		for _, labels := range []string{`{"\ud800":"1"}`, `{"k":"\udc00\ud800"}`, `{"a\ud83dz":"1","a\ude00z":"2"}`} {
			_, err = kind.read(with(labels))
			require.ErrorIs(t, err, conveyor.ErrInvalid)
			require.ErrorContains(t, err, "half of a character", labels)
		}
		_, err = kind.read(with(`{"k":"\ud83d\ude00 \\ud800 \ufffd"}`))
		require.NoError(t, err, "whole characters, a backslash, and the replacement character itself")
	}
}

// TestHostileTextAroundADocumentIsRefused puts something before or behind a sound document, or writes it another way.
func TestHostileTextAroundADocumentIsRefused(t *testing.T) {
	encoded := func(order binary.AppendByteOrder, mark bool, doc string) string {
		units := utf16.Encode([]rune(doc))
		if mark {
			units = append([]uint16{0xfeff}, units...)
		}
		var out []byte
		for _, u := range units {
			out = order.AppendUint16(out, u)
		}
		return string(out)
	}
	wide := func(order binary.AppendByteOrder, doc string) string {
		var out []byte
		for _, r := range doc {
			out = order.AppendUint32(out, uint32(r))
		}
		return string(out)
	}
	zipped := func(doc string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(doc))
		_ = w.Close()
		return b.String()
	}
	for _, kind := range documentKinds {
		n := len(kind.sound)
		for _, c := range []struct {
			name, doc    string
			line, column int
		}{
			{"the document again", kind.sound + kind.sound, 1, n + 1},
			{"the document again, on a line of its own", kind.sound + "\n" + kind.sound, 2, 1},
			{"an empty object", kind.sound + " {}", 1, n + 2},
			{"a number", kind.sound + "\r\n\t1", 2, 2},
			{"null", kind.sound + "null", 1, n + 1},
			{"a bracket", kind.sound + "}", 1, n + 1},
			{"a comma", kind.sound + ",", 1, n + 1},
			{"a semicolon", kind.sound + ";", 1, n + 1},
			{"a comment", kind.sound + "// done", 1, n + 1},
			{"a zero", kind.sound + "\x00", 1, n + 1},
			{"many zeros", kind.sound + strings.Repeat("\x00", 4096), 1, n + 1},
			{"the end of a file of DOS", kind.sound + "\x1a", 1, n + 1},
			{"a form feed", kind.sound + "\f", 1, n + 1},
			{"a no-break space", kind.sound + "\u00a0", 1, n + 1},
			{"a line separator", kind.sound + "\u2028", 1, n + 1},
			{"a byte order mark behind", kind.sound + "\ufeff", 1, n + 1},
			{"a byte order mark before", "\ufeff" + kind.sound, 1, 1},
			{"a zero before", "\x00" + kind.sound, 1, 1},
			{"a record separator before", "\x1e" + kind.sound + "\n", 1, 1},
			{"a byte that is no text behind", kind.sound + "\xff", 1, n + 1},
			{"a prefix against hijacking", ")]}'\n" + kind.sound, 1, 1},
			{"a list of one", "[" + kind.sound + "]", 1, 1},
			{"the document in a text", string(rig.JSON(kind.sound)), 1, 1},
			{"UTF-16, little end first", encoded(binary.LittleEndian, false, kind.sound), 1, 2},
			{"UTF-16, big end first", encoded(binary.BigEndian, false, kind.sound), 1, 1},
			{"UTF-16, little end first, with a mark", encoded(binary.LittleEndian, true, kind.sound), 1, 1},
			{"UTF-16, big end first, with a mark", encoded(binary.BigEndian, true, kind.sound), 1, 1},
			{"UTF-32, little end first", wide(binary.LittleEndian, kind.sound), 1, 2},
			{"UTF-32, big end first", wide(binary.BigEndian, kind.sound), 1, 1},
			{"gzip", zipped(kind.sound), 1, 2},
			{"YAML", "name: a\nresource: r\n", 1, 2},
			{"YAML that begins as YAML may", "---\nname: a\n", 1, 2},
			{"XML", "<name>a</name>", 1, 1},
			{"JSON5", strings.Replace(kind.sound, `"name"`, "name", 1), 1, strings.Index(kind.sound, `"name"`) + 1},
			{"single quotes", strings.ReplaceAll(kind.sound, `"`, "'"), 1, 2},
			{"a number in octal", strings.Replace(kind.sound, `"x":`, `"x":0`, 1), 1, strings.Index(kind.sound, `"x":`) + 6},
			{"a number with a sign", strings.Replace(kind.sound, `"x":`, `"x":+`, 1), 1, strings.Index(kind.sound, `"x":`) + 5},
			{"not a number", strings.Replace(kind.sound, `"k":"v"`, `"k":NaN`, 1), 1, strings.Index(kind.sound, `"k":`) + 5},
			{"infinity", strings.Replace(kind.sound, `"k":"v"`, `"k":-Infinity`, 1), 1, strings.Index(kind.sound, `"k":`) + 6},
		} {
			value, err := kind.read(c.doc)
			require.Error(t, err, "%s: %v", c.name, value)
			require.ErrorIs(t, err, conveyor.ErrInvalid, c.name)
			all := faultsOf(err)
			require.Equal(t, []int{c.line, c.column}, []int{all[0].Line, all[0].Column}, "%s, in a %s: %v", c.name, kind.name, err)
		}
		for _, space := range []string{" ", "\n", "\r\n", "\t \n"} {
			_, err := kind.read(space + kind.sound + space)
			require.NoError(t, err, "%q", space)
		}
	}
}

func TestHostileNestingIsRefusedOneLevelBeyondTheLimit(t *testing.T) {
	levels := func(n int) []string {
		return []string{
			strings.Repeat("[", n) + strings.Repeat("]", n),
			strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n),
			strings.Repeat(`[{"a":`, n/2) + strings.Repeat("[", n%2) + strings.Repeat("]", n%2) + strings.Repeat("}]", n/2),
		}
	}
	inSpec := func(value string) (any, error) {
		return parseResource(`{"name":"a","resource":"r","spec":` + value + `}`)
	}
	inSettings := func(value string) (any, error) {
		return parsePipeline(`{"name":"a","resource":"r","steps":[{"driver":"d","with":` + value + `}]}`)
	}
	inFinally := func(value string) (any, error) {
		return parsePipeline(`{"name":"a","resource":"r","steps":[{"driver":"d"}],"finally":[{"driver":"d","with":` + value + `}]}`)
	}
	for i, value := range levels(31) {
		_, err := inSpec(value)
		require.NoError(t, err, i)
	}
	for i, value := range levels(32) {
		_, err := inSpec(value)
		require.ErrorIs(t, err, conveyor.ErrTooLarge, i)
		require.ErrorContains(t, err, "33 levels deep, more than the limit of 32 (Limits.Depth)")
	}
	for _, read := range []func(string) (any, error){inSettings, inFinally} {
		for i, value := range levels(29) {
			_, err := read(value)
			require.NoError(t, err, i)
		}
		for i, value := range levels(30) {
			_, err := read(value)
			require.ErrorIs(t, err, conveyor.ErrTooLarge, i)
		}
	}
	// Brackets in texts are none.
	_, err := inSpec(string(rig.JSON(strings.Repeat(`[{"\`, 500))))
	require.NoError(t, err)
}

func TestHostileNumbersAreRefusedOrKeptAsTheyAreWritten(t *testing.T) {
	in := func(field, number string) error {
		pipeline := map[string]string{
			"maxRuns": `"maxRuns":%s`, "retry.maxAttempts": `"retry":{"maxAttempts":%s}`,
			"retry.multiplier": `"retry":{"multiplier":%s}`, "retry.jitter": `"retry":{"jitter":%s}`,
		}
		if format, ok := pipeline[field]; ok {
			_, err := parsePipeline(`{"name":"p","resource":"r","steps":[{"driver":"d"}],` + fmt.Sprintf(format, number) + `}`)
			return err
		}
		format := map[string]string{
			"version": `"version":%s`, "generation": `"generation":%s`, "status.observedGeneration": `"status":{"observedGeneration":%s}`,
		}[field]
		_, err := parseResource(`{"name":"a","resource":"r",` + fmt.Sprintf(format, number) + `}`)
		return err
	}
	whole := []string{"maxRuns", "retry.maxAttempts", "version", "generation", "status.observedGeneration"}
	fractions := []string{"retry.multiplier", "retry.jitter"}
	for _, number := range []string{
		"9223372036854775808", "-9223372036854775809", "18446744073709551616", "12345678901234567890", "1e400", "-1e400", "1e999999999", "1e-400",
		"1.5", "1.0", "1e2", "0.1e1", strings.Repeat("9", 5000),
	} {
		for _, field := range whole {
			err := in(field, number)
			require.ErrorIs(t, err, conveyor.ErrInvalid, "%s: %.40s", field, number)
			require.Equal(t, field, faultsOf(err)[0].Field)
			require.Contains(t, faultsOf(err)[0].Problem, "does not fit")
			require.Less(t, len(err.Error()), 1<<10)
		}
	}
	for _, field := range fractions {
		for _, number := range []string{"1e400", "-1e400", "1e999999999", "1e39", "-1.5", "-0.5"} {
			err := in(field, number)
			require.ErrorIs(t, err, conveyor.ErrInvalid, "%s: %s", field, number)
			require.Equal(t, field, faultsOf(err)[0].Field)
		}
	}
	for _, field := range append(whole, fractions...) {
		require.NoError(t, in(field, "0"), field)
		require.NoError(t, in(field, "-0"), field)
		require.NoError(t, in(field, "1"), field)
	}
	require.NoError(t, in("generation", "9223372036854775807"))
	require.NoError(t, in("retry.jitter", "1e-400"))

	for _, d := range []string{
		"2562047h47m16.854775808s", "9223372036854775808ns", "1e9s", "1", "-", "1h-1m", "1d", "∞", "1 h", "1h ", "1H", "+-1s", strings.Repeat("1h", 1000) + "x", "0x10s", "1_000s", "１s",
	} {
		for _, field := range []string{"timeout", "resync", "retry.initial"} {
			_, err := parsePipeline(`{"name":"p","resource":"r","steps":[{"driver":"d"}],` + map[string]string{
				"timeout": `"timeout":`, "resync": `"resync":`, "retry.initial": `"retry":{"initial":`,
			}[field] + string(rig.JSON(d)) + strings.Repeat("}", strings.Count(field, ".")) + `}`)
			require.ErrorIs(t, err, conveyor.ErrInvalid, "%.40s", d)
			require.Equal(t, field, faultsOf(err)[0].Field)
			require.Less(t, len(err.Error()), 2<<10)
		}
	}

	// The engine does not read numbers that are the author's own.
	e := rig.New(t, conveyor.Options{})
	for _, number := range []string{
		"1e400", "-1e999999999", "-0", "-0.0", "1.0", "1.10", "1E+2", "9223372036854775808", "0.1000000000000000055511151231257827", strings.Repeat("9", 5000),
	} {
		o, err := parseResource(`{"name":"a","resource":"r","spec":{"n":` + number + `}}`)
		require.NoError(t, err)
		require.Equal(t, `{"n":`+number+`}`, string(o.Spec))
		e.MustApply(o)
		require.Equal(t, `{"n":`+number+`}`, string(e.MustGet(o).Spec))
		text, err := json.Marshal(e.MustGet(o))
		require.NoError(t, err)
		again, err := conveyor.ParseResource(bytes.NewReader(text))
		require.NoError(t, err)
		require.Equal(t, string(o.Spec), string(again.Spec))
	}
}

// hostileNames are no names, of any kind.
var hostileNames = []string{
	"", ".", "..", "../x", "../../etc/passwd", "/etc", "/", "a/b", "a//b", "a/", "a/..", `a\b`, `..\x`, "C:", `C:\x`, "C:x", `\\host\share`, ".hidden", ".plan", "~",
	"~root", "a ", " a", "a\t", "a b", "\u00a0", "a\u00a0", "a\x00", "\x00", "a\nb", "a\r\n", "\x1b[31mred", "a\x7f", "a\u0085", "a\u2028b", "a\u2029", "\u202etxt.exe",
	"a\u200bb", "a\u200d", "\ufeffa", "a\ufffd", "é", "e\u0301", "\u0430", "ａ", "ⅷ", "ı", "İ", "ß", "K\u212a", "名", "\U0001f600", "a%2fb", "%00", "a*", "a?", "a|b", "<a>",
	`"a"`, "'a'", "`a`", "$a", "${a}", "{{.}}", "a;b", "a&b", "a#b", "a:b", "a@b", "a,b", "a=b", "a+b", "(a)", "[a]", "\xff", "\xc0\xaf", "\xed\xa0\x80", "a\xf4\x90\x80\x80",
	strings.Repeat("n", 254), strings.Repeat("../", 200), strings.Repeat("é", 200), strings.Repeat("\x00", 1<<16),
}

// oddNames are names, though other programs trip over them.
var oddNames = []string{
	"con", "CON", "nul.txt", "aux", "a.", "a..", "a..b", "-", "--help", "-rf", "_", "__proto__", "constructor", "null", "true", "0", "-1", "1e400", "undefined", "A", "a",
	"a.b-c_D9", strings.Repeat("n", 253),
}

// TestHostileNamesAreRefusedInDocuments puts them where a document has names.
func TestHostileNamesAreRefusedInDocuments(t *testing.T) {
	places := map[string]struct {
		read   func(string) (any, error)
		format string
		field  string
	}{}
	pipeline := func(place, format string) {
		places[place] = struct {
			read   func(string) (any, error)
			format string
			field  string
		}{documentKinds[0].read, format, place}
	}
	pipeline("name", `{"name":%s,"resource":"r","steps":[{"driver":"d"}]}`)
	pipeline("resource", `{"name":"p","resource":%s,"steps":[{"driver":"d"}]}`)
	pipeline("steps[0].driver", `{"name":"p","resource":"r","steps":[{"driver":%s}]}`)
	pipeline("steps[1].id", `{"name":"p","resource":"r","steps":[{"driver":"d"},{"id":%s,"driver":"d"}]}`)
	pipeline("steps[1].after[0]", `{"name":"p","resource":"r","steps":[{"driver":"d"},{"driver":"d","after":[%s]}]}`)
	pipeline("finally[0].id", `{"name":"p","resource":"r","steps":[{"driver":"d"}],"finally":[{"id":%s,"driver":"d"}]}`)
	pipeline("finally[0].driver", `{"name":"p","resource":"r","steps":[{"driver":"d"}],"finally":[{"driver":%s}]}`)
	for place, format := range map[string]string{
		"resource's name": `{"name":%s,"resource":"r"}`, "resource's resource": `{"name":"a","resource":%s}`,
		"resource's pipeline": `{"name":"a","resource":"r","pipeline":%s}`,
	} {
		p := places[place]
		p.read, p.format, p.field = documentKinds[1].read, format, strings.TrimPrefix(place, "resource's ")
		places[place] = p
	}
	for place, p := range places {
		for _, name := range hostileNames {
			optional := name == "" && (strings.HasSuffix(place, ".id") || strings.HasSuffix(place, "pipeline"))
			if optional || !json.Valid(rig.JSON(name)) {
				continue
			}
			doc := fmt.Sprintf(p.format, rig.JSON(name))
			_, err := p.read(doc)
			require.ErrorIs(t, err, conveyor.ErrInvalid, "%s: %.50q", place, name)
			require.Equal(t, p.field, faultsOf(err)[0].Field, "%.50q: %v", name, err)
			requireFair(t, []byte(doc), err)
			require.Less(t, len(err.Error()), 2<<10)
			for _, c := range err.Error() {
				require.True(t, c >= ' ' && c != 0x7f && c != 0x1b && c != '\u202e', "%s: %.50q: the error has %q", place, name, c)
			}
			raw := fmt.Sprintf(p.format, `"`+name+`"`) // as it is, without escapes
			_, err = p.read(raw)
			require.Error(t, err, "%s: %.50q", place, name)
			requireFair(t, []byte(raw), err)
		}
		for _, name := range oddNames {
			if strings.Contains(place, "after") {
				continue
			}
			_, err := p.read(fmt.Sprintf(p.format, rig.JSON(name)))
			require.NoError(t, err, "%s: %s", place, name)
		}
	}
}

func TestOddNamesAreKeptApart(t *testing.T) {
	e := rig.New(t, conveyor.Options{})
	e.Pipeline("d")
	for _, name := range oddNames {
		e.Save(rig.Named(name, rig.PipelineOf("d")))
		e.MustApply(rig.Object(name, name).Clone())
	}
	for _, name := range oddNames {
		o := e.MustGet(rig.Object(name, nil))
		require.Equal(t, name, o.Name)
		require.Equal(t, string(rig.JSON(name)), string(o.Spec))
		require.Len(t, e.RunsOf(rig.Object(name, nil)), 1)
		p, err := e.GetPipeline(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, name, p.Name)
	}
	require.Len(t, rig.Drain(t, e.List(t.Context(), conveyor.ResourceFilter{})), len(oddNames))
}

// TestHostileNamesAreRefusedByEveryCall gives them to every call that takes a name. Nothing is stored.
func TestHostileNamesAreRefusedByEveryCall(t *testing.T) {
	e := rig.New(t, conveyor.Options{})
	e.Pipeline("d")
	run := e.MustApply(rig.Object("a", 1)).ID
	before := rig.Dump(t, e.Store)
	ctx := t.Context()
	errOf := func(_ any, err error) error { return err }
	for _, name := range hostileNames {
		k := conveyor.Key{Type: "r", Name: name}
		for call, err := range map[string]error{
			"Apply":           errOf(e.Apply(ctx, rig.Object(name, 1))),
			"Apply, type":     errOf(e.Apply(ctx, rig.Loose(name, "a", 1))),
			"Apply, a struct": errOf(e.Apply(ctx, &DockerBuild{Meta: conveyor.Meta{Name: name, Type: "r"}})),
			"Create":          errOf(e.Create(ctx, rig.Object(name, 1))),
			"SavePipeline":    e.SavePipeline(ctx, rig.Named(name, rig.PipelineOf("d"))),
			"Register":        e.Register(name, new(rig.Recorder)),
			"Listen":          e.Register("x", new(rig.Recorder), conveyor.Listen(name)),
			"Signal, name":    e.Signal(ctx, run, name, 1),
			"Validate, After": conveyor.PipelineSpec{Name: "p", Resource: "r", Steps: []conveyor.Step{{Driver: "d"}, {Driver: "d", After: []string{name}}}}.Validate(),
		} {
			require.ErrorIs(t, err, conveyor.ErrInvalid, "%s: %.50q", call, name)
			require.Len(t, faultsOf(err), 1, "%s: %.50q: %v", call, name, err)
			require.NotEmpty(t, faultsOf(err)[0].Field)
			require.Less(t, len(err.Error()), 3<<10)
		}
		if name != "" {
			o := rig.Object("b", 1)
			o.Pipeline = name
			require.ErrorIs(t, errOf(e.Apply(ctx, o)), conveyor.ErrInvalid)
		}
		for call, err := range map[string]error{
			"Get": errOf(e.Get(ctx, k)), "Trigger": errOf(e.Trigger(ctx, k)), "Delete": errOf(e.Delete(ctx, k)),
			"Rollback": errOf(e.Rollback(ctx, k, 1)), "Delete, type": errOf(e.Delete(ctx, conveyor.Key{Type: name, Name: "a"})),
			"GetPipeline": errOf(e.GetPipeline(ctx, name)), "DeletePipeline": e.DeletePipeline(ctx, name),
			"GetRun": errOf(e.GetRun(ctx, name)), "Wait": errOf(e.Wait(ctx, name)), "Cancel": e.Cancel(ctx, name, "x"),
			"Retry": errOf(e.Retry(ctx, name, conveyor.RetryFrom{})), "Signal": e.Signal(ctx, name, "go", 1),
		} {
			require.ErrorIs(t, err, conveyor.ErrNotFound, "%s: %.50q", call, name)
			require.Less(t, len(err.Error()), 2<<10)
		}
	}
	require.Equal(t, before, rig.Dump(t, e.Store))
}

// TestHostileNamesOfADriverOrAPlannerFailTheStep has them come from the program's own code, during a run.
func TestHostileNamesOfADriverOrAPlannerFailTheStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		var name string
		e.Driver("d", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return conveyor.Await(name, 0), nil }))
		e.Pipeline("d")
		f := rig.NewFanOut()
		f.PipelineSpec.Name = "planned"
		var steps []conveyor.Step
		f.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) { return steps, nil }
		e.SavePlanned(f)
		for i, bad := range hostileNames {
			name = bad
			run := e.Finish(rig.Object("a", i))
			require.ErrorIs(t, run.Err(), conveyor.ErrInvalid, "%.50q", bad)
			require.Equal(t, 1, run.Steps[0].Attempt)
			for k, planned := range [][]conveyor.Step{{{Driver: bad}}, {{ID: bad, Driver: "d"}}, {{Driver: "d"}, {Driver: "d", After: []string{bad}}}} {
				if k == 1 && bad == "" {
					continue
				}
				steps = planned
				o := rig.Along("planned", "b")
				o.Spec = rig.JSON(10*i + k)
				run := e.Finish(o)
				require.Equal(t, conveyor.StateFailed, run.State, "%.50q", bad)
				require.Len(t, run.Steps, 1)
			}
		}
	})
}

// hostileTexts are no names, and welcome wherever people write to people.
var hostileTexts = []string{
	"", " ", "a\x00b", "\x1b[2J\x1b]0;title\a", "line\nline\r\n", "\t\v\f\b\x7f", "a\u0085\u00a0\u2028\u2029b", "\u202e\u2066\u2069\u200f", "\ufeff", "\ufffd", "\ufffe\uffff", "\U0010ffff",
	"é e\u0301 ﬁ ｆｉ", "<script>&amp;</script>", `"\u0000\ud800"`, "../../x", "%s%n%d", "${jndi:ldap://x}", "'; DROP TABLE run; --", strings.Repeat("é", 2000),
}

// TestHostileTextsComeBackAsTheyWere sends texts through all that keeps some, and reads them after a restart.
func TestHostileTextsComeBackAsTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		var text string
		drivers := func(e *rig.Engine) {
			e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				var saved, sent, settings string
				if got, err := req.Signal(&sent); err != nil || !got {
					return conveyor.Await("go", 0), errors.Join(err, req.Checkpoint(ctx, text))
				}
				if _, err := req.Restore(&saved); err != nil || saved != text || sent != text {
					return conveyor.Done(), fmt.Errorf("saved %q, sent %q: %w", saved, sent, err)
				}
				if err := req.Settings(&settings); err != nil || settings != text {
					return conveyor.Done(), fmt.Errorf("settings %q: %w", settings, err)
				}
				return conveyor.DoneWith(text), nil
			}))
			e.Driver("skip", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return conveyor.Skip(text), nil }))
			e.Driver("fail", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
				return conveyor.Done(), conveyor.Permanent(errors.New(text))
			}))
			e.Driver("rest", rig.DriverOf(rig.Taking(time.Hour)))
		}
		drivers(e)
		for i, c := range hostileTexts {
			text = c
			p := rig.PipelineOf("d", "skip", "fail")
			p.Description, p.Version, p.Metadata = text, text, map[string]string{text: text}
			p.Steps[0].Name, p.Steps[0].With = text, rig.JSON(text)
			e.Save(p)
			e.Save(rig.Named("q", rig.PipelineOf("rest")))
			o := rig.Object("a", []any{i, text, map[string]string{text: text}})
			o.Metadata = map[string]string{text: text}
			run := e.MustApply(o)
			require.NoError(t, e.Signal(t.Context(), run.ID, "go", text))
			ended := e.Ended(run.ID)
			canceled := e.MustApply(func() *conveyor.Object { o := rig.Along("q", "b"); o.Spec = rig.JSON(i); return o }())
			require.NoError(t, e.Cancel(t.Context(), canceled.ID, text))

			e = e.Reborn(conveyor.Options{})
			drivers(e)
			e.MustStart()
			found, err := e.GetPipeline(t.Context(), "p")
			require.NoError(t, err)
			require.Equal(t, []string{text, text, text, string(rig.JSON(text))},
				[]string{found.Description, found.Version, found.Steps[0].Name, string(found.Steps[0].With)})
			require.Equal(t, p.Metadata, found.Metadata)
			require.Equal(t, o.Metadata, e.MustGet(o).Metadata)
			require.Equal(t, string(o.Spec), string(e.MustGet(o).Spec))
			again := e.MustGetRun(run.ID)
			require.Equal(t, ended.Reason, again.Reason)
			var output string
			require.NoError(t, json.Unmarshal(again.Steps[0].Output, &output))
			require.Equal(t, text, output)
			require.Equal(t, text, again.Steps[1].Reason)
			require.Equal(t, text, again.Steps[2].Reason)
			require.Equal(t, text, again.Steps[2].Attempts[0].Error)
			require.Equal(t, text, e.Ended(canceled.ID).Reason)
		}
	})
}

// TestHostileBytesThatAreNoTextAreRefusedOrReplaced does the same with what is no UTF-8. What is to be kept as it is
// is refused; what is for people alone is kept with the replacement character, from the first moment on.
func TestHostileBytesThatAreNoTextAreRefusedOrReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		for _, text := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80", "é\xe9"} {
			shown := strings.ToValidUTF8(text, "\ufffd")
			for field, change := range map[string]func(*conveyor.PipelineSpec){
				"description":     func(p *conveyor.PipelineSpec) { p.Description = text },
				"version":         func(p *conveyor.PipelineSpec) { p.Version = text },
				"metadata":        func(p *conveyor.PipelineSpec) { p.Metadata = map[string]string{"k": text} },
				"steps[0].name":   func(p *conveyor.PipelineSpec) { p.Steps[0].Name = text },
				"steps[0].with":   func(p *conveyor.PipelineSpec) { p.Steps[0].With = json.RawMessage(`"` + text + `"`) },
				"steps[0].driver": func(p *conveyor.PipelineSpec) { p.Steps[0].Driver = text },
			} {
				p := rig.Named("q", rig.PipelineOf("d"))
				change(&p)
				err := e.SavePipeline(t.Context(), p)
				requireFaults(t, withoutPlaces(err), fault{field, 0, 0, conveyor.ErrInvalid, ""})
			}
			o := rig.Object("x", nil)
			o.Pipeline, o.Metadata = "", map[string]string{text: ""}
			_, err := e.Apply(t.Context(), o)
			requireFaults(t, err, fault{"metadata", 0, 0, conveyor.ErrInvalid, "invalid UTF-8"})
			o.Metadata, o.Spec = nil, json.RawMessage(`{"a":"`+text+`"}`)
			_, err = e.Apply(t.Context(), o)
			requireFaults(t, withoutPlaces(err), fault{"spec", 0, 0, conveyor.ErrInvalid, "invalid UTF-8"})

			raw := json.RawMessage(`"` + text + `"`)
			name := fmt.Sprintf("d%x", text)
			var checkpoint error
			e.Driver(name, rig.DriverOf(rig.InTurn(
				func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					checkpoint = req.Checkpoint(ctx, raw)
					return conveyor.Await("go", 0), nil
				}, rig.Always(conveyor.Skip(text), nil))))
			e.Driver(name+"-out", rig.DriverOf(rig.InTurn(rig.Always(conveyor.Done(), errors.New(text)), rig.Always(conveyor.DoneWith(raw), nil))))
			e.Save(rig.Named("p", rig.PipelineOf(name, name+"-out")))
			run := e.MustApply(rig.Object("a", name))
			synctest.Wait()
			require.ErrorIs(t, checkpoint, conveyor.ErrInvalid)
			require.ErrorIs(t, e.Signal(t.Context(), run.ID, "go", raw), conveyor.ErrInvalid)
			require.NoError(t, e.Signal(t.Context(), run.ID, "go", nil))
			run = e.Ended(run.ID)
			require.ErrorIs(t, run.Err(), conveyor.ErrInvalid, "the output")
			require.Equal(t, shown, run.Steps[0].Reason)
			require.Equal(t, shown, run.Steps[1].Attempts[0].Error)
			require.Equal(t, run, e.MustGetRun(run.ID))

			held := rig.Named("held", rig.PipelineOf("missing"))
			e.Save(held)
			run = e.MustApply(rig.Along("held", fmt.Sprintf("h%x", text)))
			require.NoError(t, e.Cancel(t.Context(), run.ID, text))
			require.Equal(t, shown, e.Ended(run.ID).Reason)
			require.Equal(t, shown, e.MustGetRun(run.ID).Reason)
		}
	})
}

// withoutPlaces forgets the positions of faults.
func withoutPlaces(err error) error {
	for _, f := range faultsOf(err) {
		f.Line, f.Column = 0, 0
	}
	return err
}

// TestHostileValuesAreRefusedWhereverJSONIsTaken gives values that are no document to all that takes any JSON: specs,
// settings, signals, checkpoints and outputs. A field that comes twice is refused in each of them.
func TestHostileValuesAreRefusedWhereverJSONIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Depth: 8, Output: 1000, Spec: 1000}, Retry: conveyor.RetryPolicy{MaxAttempts: 1}}).MustStart()
		var value json.RawMessage
		var checkpoint error
		e.Driver("save", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			checkpoint = req.Checkpoint(ctx, value)
			if got, err := req.Signal(nil); got || err != nil {
				return conveyor.DoneWith(value), err
			}
			return conveyor.Await("go", 0), nil
		}))
		e.Pipeline("save")
		nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
		for i, c := range []struct {
			name, value string
			is          error
		}{
			{"a field that comes twice", `{"a":1,"a":1}`, conveyor.ErrInvalid},
			{"a field that comes twice, deep down", `[{"b":{"a":1,"c":[],"a":2}}]`, conveyor.ErrInvalid},
			{"a field that comes twice, under an escape", `{"a":1,"\u0061":1}`, conveyor.ErrInvalid},
			{"an empty field that comes twice", `{"":1,"":1}`, conveyor.ErrInvalid},
			{"one level too deep", nested(9), conveyor.ErrTooLarge},
			{"many levels too deep", nested(400), conveyor.ErrTooLarge},
			{"one byte too many", `"` + strings.Repeat("x", 999) + `"`, conveyor.ErrTooLarge},
			{"no JSON", `{"a":}`, conveyor.ErrInvalid},
			{"two values", `1 2`, conveyor.ErrInvalid},
			{"a byte order mark", "\ufeff1", conveyor.ErrInvalid},
			{"bytes that are no text", "\"\xff\"", conveyor.ErrInvalid},
			{"a zero", "\x00", conveyor.ErrInvalid},
			{"not a number", "NaN", conveyor.ErrInvalid},
		} {
			value = json.RawMessage(`1`)
			run := e.MustApply(rig.Object("a", i))
			synctest.Wait()
			before := rig.Dump(t, e.Store)
			value = json.RawMessage(c.value)
			require.ErrorIs(t, e.Signal(t.Context(), run.ID, "go", value), c.is, c.name)
			o := rig.Object("b", nil)
			o.Spec = value
			_, err := e.Apply(t.Context(), o)
			require.ErrorIs(t, err, c.is, c.name)
			require.Equal(t, "spec", strings.FieldsFunc(faultsOf(err)[0].Field, func(r rune) bool { return r == '.' || r == '[' })[0])
			p := rig.PipelineOf("save")
			p.Steps[0].With = value
			if !strings.HasPrefix(c.name, "one byte") { // settings are bounded by the document
				require.ErrorIs(t, e.SavePipeline(t.Context(), p), c.is, c.name)
			}
			require.Equal(t, before, rig.Dump(t, e.Store), c.name)
			require.NoError(t, e.Signal(t.Context(), run.ID, "go", 1))
			run = e.Ended(run.ID)
			require.ErrorIs(t, checkpoint, c.is, c.name)
			require.ErrorIs(t, run.Err(), c.is, c.name)
			require.Equal(t, 1, run.Steps[0].Attempt, "the next attempt would return the same")
		}
		for i, accepted := range []string{
			nested(7), `{"a":1,"A":2,"\u212a":3,"k":4}`, `"\ud800"`, `{"\ud800":1}`, `1e400`, `"` + strings.Repeat("x", 998) + `"`, `null`, ` [ 1 , { } ] `, `"\u0000\u2028<&>"`,
		} {
			value = json.RawMessage(accepted)
			var compact bytes.Buffer
			require.NoError(t, json.Compact(&compact, value))
			o := rig.Object("b", nil)
			o.Spec = value
			e.MustApply(o)
			require.Equal(t, compact.String(), string(e.MustGet(o).Spec))
			synctest.Wait() // the driver is called for one resource at a time
			p := rig.PipelineOf("save")
			p.Steps[0].With, p.Version = value, fmt.Sprint(i)
			if nested(7) != accepted { // settings are deeper in their document
				e.Save(p)
			}
			run := e.MustApply(rig.Object("a", 100+i))
			synctest.Wait()
			require.NoError(t, checkpoint)
			require.NoError(t, e.Signal(t.Context(), run.ID, "go", value))
			run = e.Ended(run.ID)
			require.NoError(t, run.Err(), accepted)
			require.Equal(t, compact.String(), string(run.Steps[0].Output))
		}
	})
}

// TestHostileReadersEndInAnError reads documents from what gives them byte by byte, or never ends.
func TestHostileReadersEndInAnError(t *testing.T) {
	_, err := conveyor.ParsePipeline(endless{})
	require.ErrorIs(t, err, conveyor.ErrTooLarge)
	_, err = conveyor.ParseResource(&slow{text: soundResource})
	require.NoError(t, err)
	_, err = conveyor.ParseResource(&slow{text: soundResource, err: store.ErrClosed})
	require.ErrorIs(t, err, store.ErrClosed)
	e, err := conveyor.New(memory.New(), conveyor.Options{})
	require.NoError(t, err)
	require.ErrorIs(t, e.SavePipeline(t.Context(), (*conveyor.PipelineSpec)(nil)), conveyor.ErrInvalid)
}

// slow is a reader that gives a byte at a time, and then its error.
type slow struct {
	text string
	err  error
}

func (s *slow) Read(p []byte) (int, error) {
	if s.text == "" {
		if s.err != nil {
			return 0, s.err
		}
		return 0, io.EOF
	}
	n := copy(p[:1], s.text)
	s.text = s.text[n:]
	return n, nil
}
