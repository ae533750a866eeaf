package conveyor_test

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
)

// parsePackage parses the files of a folder that are, or are not, tests.
func parsePackage(t *testing.T, folder string, tests bool) (*token.FileSet, []*ast.File) {
	t.Helper()
	fset := token.NewFileSet()
	names, err := fs.Glob(os.DirFS(folder), "*.go")
	require.NoError(t, err)
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") != tests {
			continue
		}
		file, err := parser.ParseFile(fset, folder+"/"+name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, file)
	}
	require.NotEmpty(t, files)
	return fset, files
}

// undocumented lists the exported identifiers of a package without a comment of their own. A function's, a method's
// and a type's comment starts with its name. Constants, variables and the methods of an interface may also have a line
// comment, or be told of by the comment of what they are part of; fields are left to their types.
func undocumented(p *doc.Package) (missing []string) {
	lacks := func(name, comment string) {
		if !strings.HasPrefix(comment, name+" ") {
			missing = append(missing, p.Name+"."+name)
		}
	}
	funcs := func(receiver string, list []*doc.Func) {
		for _, f := range list {
			if !strings.HasPrefix(f.Doc, f.Name+" ") {
				missing = append(missing, p.Name+"."+receiver+f.Name)
			}
		}
	}
	values := func(list []*doc.Value) {
		for _, v := range list {
			for _, spec := range v.Decl.Specs {
				s := spec.(*ast.ValueSpec)
				for _, name := range s.Names {
					if name.IsExported() && s.Doc == nil && s.Comment == nil && v.Doc == "" {
						missing = append(missing, p.Name+"."+name.Name)
					}
				}
			}
		}
	}
	if p.Doc == "" {
		missing = append(missing, "package "+p.Name)
	}
	values(p.Consts)
	values(p.Vars)
	funcs("", p.Funcs)
	for _, typ := range p.Types {
		lacks(typ.Name, typ.Doc)
		values(typ.Consts)
		values(typ.Vars)
		funcs("", typ.Funcs)
		funcs(typ.Name+".", typ.Methods)
		ast.Inspect(typ.Decl, func(n ast.Node) bool {
			i, ok := n.(*ast.InterfaceType)
			if !ok {
				return true
			}
			for _, m := range i.Methods.List {
				if len(m.Names) > 0 && m.Names[0].IsExported() && m.Doc == nil && m.Comment == nil && !strings.Contains(typ.Doc, "\n"+m.Names[0].Name+" ") {
					missing = append(missing, p.Name+"."+typ.Name+"."+m.Names[0].Name)
				}
			}
			return false
		})
	}
	return missing
}

func TestEveryExportedIdentifierIsDocumented(t *testing.T) {
	for _, folder := range []string{".", "store", "store/memory", "store/file", "store/storetest", "conveyortest"} {
		t.Run(folder, func(t *testing.T) {
			fset, files := parsePackage(t, folder, false)
			p, err := doc.NewFromFiles(fset, files, "conveyor/"+folder)
			require.NoError(t, err)
			require.Empty(t, undocumented(p))
		})
	}
}

func TestUndocumentedIdentifiersAreFound(t *testing.T) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", `// Package p is a sample.
package p

type A struct{}

// B is documented.
//
// Zero is too.
type B interface {
	Zero()
	One()
	// Two is documented.
	Two()
	three()
}

// Wrong name.
type C int

// These are documented together.
const (
	D = 1
	E = 2
)

const F, g = 1, 2

// Start does not begin with its name: it is Do.
func (C) Do() {}

// Done is documented.
func (C) Done() {}

func NewC() C { return 0 }

func (c *C) String() string { return "" }
`, parser.ParseComments)
	require.NoError(t, err)
	p, err := doc.NewFromFiles(fset, []*ast.File{file}, "p")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"p.A", "p.B.One", "p.C", "p.F", "p.C.Do", "p.NewC", "p.C.String"}, undocumented(p))
}

func TestEveryVerbHasAnExampleWithOutput(t *testing.T) {
	fset, files := parsePackage(t, ".", false)
	p, err := doc.NewFromFiles(fset, files, "conveyor")
	require.NoError(t, err)
	_, tests := parsePackage(t, ".", true)
	checked := map[string]bool{}
	for _, example := range doc.Examples(tests...) {
		checked[example.Name] = example.Output != ""
	}
	var wanted []string
	for _, f := range p.Funcs {
		wanted = append(wanted, f.Name)
	}
	for _, typ := range p.Types {
		for _, f := range typ.Funcs {
			wanted = append(wanted, f.Name)
		}
		for _, m := range typ.Methods {
			if typ.Name == "Engine" || typ.Name == "Request" {
				wanted = append(wanted, typ.Name+"_"+m.Name)
			}
		}
	}
	require.Contains(t, wanted, "Engine_Apply")
	wanted = append(wanted, "", "DriverFunc", "PipelineSpec_Validate", "Object_Decode", "Run_Err")
	for _, name := range wanted {
		require.Truef(t, checked[name], "%s has no example with output", fmt.Sprintf("Example%s", name))
	}
}

// TestReadmeShowsTheQuickstart keeps the program that a newcomer reads the one that is built and run.
func TestReadmeShowsTheQuickstart(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	program, err := os.ReadFile("examples/quickstart/main.go")
	require.NoError(t, err)
	require.Contains(t, string(readme), "```go\n"+string(program)+"```\n")
}

// TestReadmeShowsOneGraphThreeTimes holds the graph of the README to the example that is run, and its document and its picture
// to the graph.
func TestReadmeShowsOneGraphThreeTimes(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(readme), "With `After` it is a graph")
	require.True(t, found)
	block := func(language string) string {
		_, text, found := strings.Cut(section, "```"+language+"\n")
		require.True(t, found)
		text, _, _ = strings.Cut(text, "```\n")
		return text
	}
	examples, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	require.Contains(t, string(examples), "func ExampleAtOnce() {\n"+regexp.MustCompile(`(?m)^`).ReplaceAllString(strings.TrimSpace(block("go")), "\t")+"\n")
	spec, err := conveyor.ParsePipeline(strings.NewReader(block("json")))
	require.NoError(t, err)
	var picture strings.Builder
	require.NoError(t, spec.Mermaid(&picture))
	require.Equal(t, block("mermaid"), picture.String())
	_, example, found := strings.Cut(string(examples), "func ExampleAtOnce() {")
	require.True(t, found)
	example, _, _ = strings.Cut(example, "\n}\n")
	require.Contains(t, strings.ReplaceAll(example, "\n\t// ", "\n"), picture.String()[:picture.Len()-1])
}

// TestReadmeShowsHowToOperate holds the programs of the section to an example that is run.
func TestReadmeShowsHowToOperate(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	examples, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	_, example, found := strings.Cut(string(examples), "func Example_operating() {\n")
	require.True(t, found)
	_, section, found := strings.Cut(string(readme), "## Operating\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(section, -1)
	require.Len(t, blocks, 2)
	for _, block := range blocks {
		require.Contains(t, example, regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(block[1], "\t$1"))
	}
}

// TestReadmeNamesTestsThatExist holds every promise of the README to a test.
func TestReadmeNamesTestsThatExist(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var files []string
	for _, folder := range []string{".", "tests/*", "store/file", "histories"} {
		found, err := filepath.Glob(folder + "/*_test.go")
		require.NoError(t, err)
		files = append(files, found...)
	}
	tests := map[string]bool{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
			tests[string(found[1])] = true
		}
	}
	_, table, found := strings.Cut(string(readme), "## What is guaranteed")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n## ")
	table, _, _ = strings.Cut(strings.TrimSpace(table), "\n\n")
	for _, row := range strings.Split(table, "\n")[2:] {
		names := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(row, -1)
		require.NotEmpty(t, names, row)
		for _, name := range names {
			require.True(t, tests[name[1]], "%s: no such test", name[1])
		}
	}
}

// TestReadmeNamesATestOfEveryRule: each numbered rule of the design has tests named after it, and a line of the table.
func TestReadmeNamesATestOfEveryRule(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	const rules = 17
	for n := 1; n <= rules; n++ {
		require.Regexp(t, fmt.Sprintf("`TestRule%02d[A-Z]", n), string(readme), "rule %d", n)
	}
}

// TestDocsListTheLinesOfTheLog holds docs/log.md to the calls of the engine's logger: each message has a row with its level,
// each row has a call, and a row has the keys that stand in the call.
func TestDocsListTheLinesOfTheLog(t *testing.T) {
	page, err := os.ReadFile("docs/log.md")
	require.NoError(t, err)
	documented := map[string][]string{} // keys by "LEVEL message"
	for _, row := range regexp.MustCompile(`(?m)^\| ([A-Z]+) \| (.*?) \| (.*?) \|`).FindAllStringSubmatch(string(page), -1) {
		documented[row[1]+" "+row[2]] = strings.Fields(strings.ReplaceAll(row[3], "`", ""))
	}
	logged := map[string]bool{"WARN logger is too slow; lines are left out": true} // by internal/asynclog
	_, files := parsePackage(t, ".", false)
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			line, keys := logLine(n)
			if line == "" {
				return true
			}
			logged[line] = true
			require.Contains(t, documented, line, "docs/log.md has no row for it")
			require.Subset(t, documented[line], keys, "the keys of %q", line)
			return true
		})
	}
	for line := range documented {
		require.True(t, logged[line], "docs/log.md has a row for %q, which nothing logs", line)
	}
	require.Greater(t, len(logged), 20)
}

// logLine returns the level and the message of a call of the engine's logger, and the keys that stand in the call. It returns
// an empty line for anything else.
func logLine(n ast.Node) (line string, keys []string) {
	c, ok := n.(*ast.CallExpr)
	if !ok {
		return "", nil
	}
	method, ok := c.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Info", "Warn", "Error"}, method.Sel.Name) || !strings.HasSuffix(types.ExprString(method.X), "log") {
		return "", nil
	}
	args := c.Args[1:]
	if more, ok := args[0].(*ast.CallExpr); ok && types.ExprString(more.Fun) == "append" {
		args = more.Args[1:]
	}
	for i := 0; i < len(args); i += 2 {
		keys = append(keys, literal(args[i]))
	}
	return strings.ToUpper(method.Sel.Name) + " " + literal(c.Args[0]), keys
}

// literal returns the text of a string literal, and an empty text for any other expression.
func literal(e ast.Expr) string {
	l, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	text, _ := strconv.Unquote(l.Value)
	return text
}

// TestDocsListTheErrors holds docs/errors.md to the code: each text that textsOf finds stands in the first column of a table,
// and each text of the first column is one of them.
func TestDocsListTheErrors(t *testing.T) {
	page, err := os.ReadFile("docs/errors.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\| ").FindAllStringSubmatch(string(page), -1) {
		for _, text := range regexp.MustCompile("`(.*?)`").FindAllStringSubmatch(row[1], -1) {
			require.False(t, documented[text[1]], "docs/errors.md lists %q twice", text[1])
			documented[text[1]] = true
		}
	}

	made := map[string]string{ // the file of each text
		(&record.Pause{By: "…", Reason: "…"}).Text(): "internal/record/pause.go",
	}
	for _, folder := range []string{
		".", "internal/document", "internal/fault", "internal/ledger", "internal/plan", "internal/ring", "internal/run", "internal/text",
		"store", "store/file", "store/memory",
	} {
		fset, files := parsePackage(t, folder, false)
		for _, file := range files {
			name := filepath.ToSlash(filepath.Clean(fset.File(file.Pos()).Name()))
			for _, text := range textsOf(name, file) {
				made[text] = name
			}
		}
	}
	require.Greater(t, len(made), 200)
	for text, why := range unseenTexts {
		require.Contains(t, made, text, "it need not be left out any more: %s", why)
		delete(made, text)
	}
	var missing, unknown []string
	for text, file := range made {
		if !documented[text] {
			missing = append(missing, file+": "+text)
		}
	}
	for text := range documented {
		if made[text] == "" {
			unknown = append(unknown, text)
		}
	}
	slices.Sort(missing)
	slices.Sort(unknown)
	require.Empty(t, missing, "docs/errors.md has no row for texts of these files:\n%s", strings.Join(missing, "\n"))
	require.Empty(t, unknown, "docs/errors.md has rows for texts that nothing makes:\n%s", strings.Join(unknown, "\n"))
}

// unseenTexts are texts that docs/errors.md leaves out, because nobody outside of the library sees them.
var unseenTexts = map[string]string{
	"conveyor: the letter was answered":                             "the engine has nothing to do any more",
	"conveyor: the run has gone on":                                 "the caller gets the run as it is on record",
	"conveyor: the run belongs to another engine":                   "the engine takes back what it was about to do",
	"step …: …":                                                     "the reason of a run, which says what its step says",
	"a fixed limit":                                                 "internal/text: a part of the texts about limits",
	"more than the limit of … (…)":                                  "the same",
	"…, more than the limit of … (a fixed limit)":                   "the calls of fault.Larger say of what, and which limit",
	"conveyor: the commit of a decision is too large for the store": "runner.go divides the decision instead",
	"conveyor: the run has ended":                                   "runner.go answers with a conflict instead",
	"the file was replaced":                                         "store/file tries again, and then answers that the file is locked",
	"is too long":                                                   "internal/document reports the number of the elements instead",
	"Plan the steps":                                                "internal/plan: the name of the step that plans the others",
}

// filesOfDamage are the files of store/file in which each error is a detail of damage. One row stands for all of them: that of
// store.ErrCorrupt.
var filesOfDamage = []string{
	"store/file/format.go", "store/file/inspect.go", "store/file/page.go", "store/file/record.go", "store/file/tree.go", "store/file/walk.go",
}

// The rules of textsOf.
var (
	// In these calls, the text is the argument with the number.
	makers = map[string]int{"errors.New": 0, "fmt.Errorf": 0, "invalid": 1, "Invalidf": 1, "fault.Invalidf": 1}
	// In these calls, the argument with the number is what is counted, the next one is the limit, and the text is the one of
	// fault.Larger.
	limiters = map[string]int{"tooLarge": 3, "Larger": 3, "fault.Larger": 3}
	// What these calls get is a detail of damage, as in filesOfDamage, or no text.
	damagers = []string{"record.Damaged", "s.corrupt", "regexp.MustCompile"}
	// What is assigned to these fields and variables, or appended to them, is a text.
	textFields = regexp.MustCompile(`\b(Reason|Problem|WaitsFor|problems)$`)
	// What these functions return is a text.
	textFuncs = regexp.MustCompile(`^(Error$|why)`)
	// In the files of these packages, each literal of several words is a text: a problem or a reason.
	textPackages = regexp.MustCompile(`^internal/(document|plan|run|text)/`)

	verb = regexp.MustCompile(`%[-+# 0.*]*[a-zA-Z]`)
	dots = regexp.MustCompile(`…( ?…)*`)
	// A format with one of these words says what is wrong, and does not only wrap.
	predicate = regexp.MustCompile(`\b(is|has|was)\b`)
)

// textsOf returns the texts of the errors and of the reasons that a file makes, in the form of the first column of
// docs/errors.md.
func textsOf(name string, file *ast.File) (texts []string) {
	if slices.Contains(filesOfDamage, name) {
		return nil
	}
	add := func(field, format string) {
		if text := shownText(format); text != "" {
			texts = append(texts, field+text)
		}
	}
	words := func(e ast.Expr) {
		if format := template(file, e); len(strings.Fields(verb.ReplaceAllString(format, ""))) > 1 {
			add("", format)
		}
	}
	var visit func(n ast.Node) bool
	visit = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			called := types.ExprString(n.Fun)
			if slices.Contains(damagers, called) {
				return false
			}
			if called == "fmt.Sprintf" && textPackages.MatchString(name) {
				words(n)
				for _, arg := range n.Args[1:] {
					ast.Inspect(arg, visit)
				}
				return false
			}
			if i, ok := limiters[called]; ok {
				problem := fault.Larger("", 0, 0, template(file, n.Args[i]), limitName(n.Args[i+1])).Problem
				add(shownField(n.Args[0]), strings.ReplaceAll(problem, "0", "…"))
				return false
			}
			if i, ok := makers[called]; ok {
				field := ""
				if i > 0 {
					field = shownField(n.Args[0])
				}
				add(field, filled(file, n.Args[i:]))
				for _, arg := range n.Args[i+1:] {
					ast.Inspect(arg, visit)
				}
				return false
			}
		case *ast.AssignStmt:
			for i, to := range n.Lhs {
				if i < len(n.Rhs) && textFields.MatchString(types.ExprString(to)) {
					words(n.Rhs[i])
				}
			}
		case *ast.KeyValueExpr:
			if textFields.MatchString(types.ExprString(n.Key)) {
				words(n.Value)
			}
		case *ast.FuncDecl:
			if textFuncs.MatchString(n.Name.Name) {
				ast.Inspect(n, func(n ast.Node) bool {
					if r, ok := n.(*ast.ReturnStmt); ok {
						for _, result := range r.Results {
							words(result)
						}
					}
					return true
				})
			}
		case *ast.ImportSpec, *ast.Field: // paths, and tags of fields
			return false
		case *ast.BinaryExpr, *ast.BasicLit:
			if textPackages.MatchString(name) {
				words(n.(ast.Expr))
				_, joined := n.(*ast.BinaryExpr)
				return joined && n.(*ast.BinaryExpr).Op != token.ADD
			}
		}
		return true
	}
	ast.Inspect(file, visit)
	return texts
}

// template returns the text that an expression makes, with a verb for each part that is not a literal or a constant of the file.
func template(file *ast.File, e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		return literal(e)
	case *ast.BinaryExpr:
		return template(file, e.X) + template(file, e.Y)
	case *ast.CallExpr:
		switch called := types.ExprString(e.Fun); called {
		case "fmt.Sprintf":
			return filled(file, e.Args)
		case "MoreThan", "text.MoreThan":
			return strings.Replace(text.MoreThan(0, limitName(e.Args[1])), "0", "%d", 1)
		case "text.Plain":
			return template(file, e.Args[0])
		case "append":
			return template(file, e.Args[1])
		}
	case *ast.Ident:
		if o := file.Scope.Lookup(e.Name); o != nil && o.Kind == ast.Con {
			if spec := o.Decl.(*ast.ValueSpec); len(spec.Values) == len(spec.Names) {
				return template(file, spec.Values[slices.IndexFunc(spec.Names, func(n *ast.Ident) bool { return n.Name == e.Name })])
			}
		}
	}
	return "%v"
}

// filled returns the format of a call, the first of its arguments, with what is known of the arguments behind it.
func filled(file *ast.File, args []ast.Expr) string {
	i := 0
	return verb.ReplaceAllStringFunc(template(file, args[0]), func(verb string) string {
		if i++; i < len(args) {
			if call, ok := args[i].(*ast.CallExpr); ok && strings.HasSuffix(types.ExprString(call.Fun), "MoreThan") {
				return template(file, call)
			}
		}
		return verb
	})
}

// limitName returns the name of a limit that is an argument: a literal, or text.FixedLimit.
func limitName(e ast.Expr) string {
	if name := literal(e); name != "" {
		return name
	}
	return text.FixedLimit
}

// shownField returns the name of a field in front of its problem, if the name is a literal.
func shownField(e ast.Expr) string {
	if name := literal(e); name != "" {
		return name + ": "
	}
	return ""
}

// shownText returns a format as docs/errors.md shows it: without the leading sentinel and what stands in front of it, and with …
// in the place of verbs. It returns an empty text for a format that says nothing of its own: one without a letter, or one that
// only wraps, because it ends with an error and does not say with is, has or was what is wrong.
func shownText(format string) string {
	if _, after, found := strings.Cut(format, "%w: "); found {
		format = after
	} else if strings.HasSuffix(format, ": %w") && !predicate.MatchString(format) {
		return ""
	}
	text := strings.TrimSpace(dots.ReplaceAllString(verb.ReplaceAllString(format, "…"), "…"))
	if !strings.ContainsFunc(text, unicode.IsLetter) {
		return ""
	}
	return text
}
