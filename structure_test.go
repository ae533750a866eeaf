package conveyor_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/conveyor-go/conveyor"

// mayImport lists, for each package of the library, the packages of this module that it may import: those that stand above
// it in the table, and of them only the ones named here. The table has no circle because of its order.
var mayImport = []struct{ name, imports string }{
	{"store", ""},
	{"store/internal/keyrange", "store"},
	{"store/internal/groupcommit", "store"},
	{"store/internal/again", "store"},
	{"store/internal/gate", "store"},
	{"store/memory", "store store/internal/keyrange"},
	{"store/file", "store store/internal/groupcommit store/internal/keyrange"},
	{"store/storetest", "store"},

	{"internal/text", ""},
	{"internal/ids", ""},
	{"internal/clock", ""},
	{"internal/fair", ""},
	{"internal/fault", "internal/text store"},
	{"internal/ring", "internal/fault"},
	{"internal/asynclog", "internal/fair"},
	{"internal/call", "internal/text"},
	{"internal/sched", "internal/fair"},
	{"internal/lease", ""},
	{"internal/document", "internal/fault internal/text"},
	{"internal/retry", "internal/document"},
	{"internal/plan", "internal/document internal/fault internal/retry internal/text"},
	{"internal/chart", "internal/plan internal/text"},
	{"internal/record", "internal/document internal/fault internal/plan internal/text store"},
	{"internal/shortlived", "internal/record store"},
	{"internal/ledger", "internal/fault internal/plan internal/record internal/text store"},
	{"internal/member", "internal/clock internal/ledger internal/lease internal/record store"},
	{"internal/runlog", "internal/clock internal/record internal/text store"},
	{"internal/run", "internal/fault internal/plan internal/record internal/retry internal/text store"},

	{"internal/handover", "internal/fault internal/ledger internal/record internal/run store"},

	{".", "internal/asynclog internal/call internal/chart internal/clock internal/document internal/fault internal/handover internal/ids internal/ledger internal/member internal/plan " +
		"internal/record internal/retry internal/ring internal/run internal/runlog internal/sched internal/shortlived internal/text store"},
	{"conveyortest", ". store store/memory"},

	// Only tests import what follows.
	{"internal/testenv", ""},
	{"internal/baddisk", ""},
	{"internal/invariant", "internal/plan internal/record internal/shortlived store"},
	{"internal/rig", ". internal/invariant internal/record internal/shortlived store store/memory"},
	{"internal/pgserver", ""},
	{"internal/badnet", ""},
	{"internal/load", "internal/testenv store"},
	{"tests/processes", ". internal/invariant internal/record internal/testenv store"},
	{"internal/reliability", ""},
}

// forTests are the packages that no program links: only _test.go files, and each other, import them.
var forTests = []string{"internal/testenv", "internal/baddisk", "internal/badnet", "internal/load", "internal/rig", "internal/invariant", "internal/planted", "internal/pgserver", "internal/reliability", "store/storetest", "tests/processes"}

// goFile is a Go file of this module.
type goFile struct {
	path   string
	folder string // of the package, "." for the root
	test   bool
	tree   *ast.File
}

func (f goFile) imports() (own []string) {
	for _, spec := range f.tree.Imports {
		name, inside := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module)
		if !inside {
			continue
		}
		if name = strings.TrimPrefix(name, "/"); name == "" {
			name = "."
		}
		own = append(own, name)
	}
	return own
}

// goFiles parses the Go files of this module. The nested modules are left out.
func goFiles(t *testing.T) (files []goFile) {
	t.Helper()
	fset := token.NewFileSet()
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			nested, _ := filepath.Glob(filepath.Join(name, "go.mod"))
			if name != "." && len(nested) > 0 || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		tree, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		files = append(files, goFile{
			path: filepath.ToSlash(name), folder: path.Dir(filepath.ToSlash(name)), test: strings.HasSuffix(name, "_test.go"), tree: tree,
		})
		return err
	}))
	require.NotEmpty(t, files)
	return files
}

func TestImportsPointOneWay(t *testing.T) {
	allowed := map[string][]string{}
	for _, row := range mayImport {
		imports := strings.Fields(row.imports)
		for _, name := range imports {
			require.Contains(t, allowed, name, "%s stands below %s in the table, so that there may be a circle", name, row.name)
		}
		allowed[row.name] = imports
	}
	used := map[string]map[string]bool{}
	for _, f := range goFiles(t) {
		if f.test || strings.HasPrefix(f.folder, "examples/") {
			continue
		}
		require.Contains(t, allowed, f.folder, "the package of %s is not in the table", f.path)
		if used[f.folder] == nil {
			used[f.folder] = map[string]bool{}
		}
		for _, name := range f.imports() {
			require.Contains(t, allowed[f.folder], name, "%s must not import it", f.path)
			used[f.folder][name] = true
		}
	}
	for name, imports := range allowed {
		require.True(t, name == "internal/rig" || !strings.HasPrefix(name, "internal/") || !slices.Contains(imports, "."), "%s imports the root", name)
		require.NotContains(t, imports, "internal/rig", "%s imports what is for _test files alone", name)
		require.Contains(t, used, name, "the table has a package that does not exist")
		require.ElementsMatch(t, imports, slices.Collect(maps.Keys(used[name])), "the table says more of %s than is true", name)
	}
}

// mayMeasure lists the files that call time.Now to measure how long something takes. The time of day, which is recorded and
// compared with what is recorded, is read in internal/clock alone.
var mayMeasure = []string{"internal/asynclog/asynclog.go", "internal/clock/clock.go", "engines.go", "internal/handover/letters.go", "internal/member/member.go", "logs.go", "scheduler.go", "upkeep.go", "wait.go"}

func TestTheTimeOfDayIsReadInOnePlace(t *testing.T) {
	var found []string
	for _, f := range goFiles(t) {
		if f.test || f.folder != "." && !strings.HasPrefix(f.folder, "internal/") || slices.Contains(forTests, f.folder) {
			continue
		}
		ast.Inspect(f.tree, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Now" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && !slices.Contains(found, f.path) {
					found = append(found, f.path)
				}
			}
			return true
		})
	}
	require.ElementsMatch(t, mayMeasure, found)
}

func TestNoProgramLinksWhatIsForTests(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test || slices.Contains(forTests, f.folder) {
			continue
		}
		for _, name := range f.imports() {
			require.NotContains(t, forTests, name, "imported by %s", f.path)
		}
	}
}

func TestTheRootShowsItsSourcesAndAHandfulOfTests(t *testing.T) {
	sources, tests := 0, 0
	for _, f := range goFiles(t) {
		switch {
		case f.folder != ".":
		case f.test:
			tests++
		default:
			sources++
		}
	}
	require.LessOrEqual(t, sources, 24)
	require.LessOrEqual(t, tests, 6)
}

const (
	manyFields  = 15
	manyMethods = 30
)

// large are the types that have more fields or methods than others, each with the reason.
var large = map[string]string{
	". Engine":                 "its methods are the verbs of the public API",
	". Options":                "a value that programs write",
	". Run":                    "a value that programs read",
	". StepRun":                "a value that programs read",
	". Request":                "a value that drivers read",
	". scheduler":              "the shell in which the parts meet; each of its fields is one part",
	". attempt":                "all that one call needs, in one allocation",
	"store/file Store":         "an open file, with what two locks guard and what its one writer owns",
	"conveyortest Call":        "a value that tests read",
	"internal/plan Plan":       "the rules of order, a method for each question that is asked of them",
	"internal/record Run":      "the fields of the record on disk",
	"internal/record Step":     "the fields of the record on disk",
	"internal/record Resource": "the fields of the record on disk",
	"internal/run Transition":  "one decision as one value, with a method for each rule and for each thing that it says",
	"internal/sched Pool":      "one lock over all that waits, because one event moves a task from one wait to another",
}

func TestNoTypeGrowsWithoutAReason(t *testing.T) {
	fields, methods := map[string]int{}, map[string]int{}
	for _, f := range goFiles(t) {
		if f.test || slices.Contains(forTests, f.folder) || strings.HasPrefix(f.folder, "examples/") {
			continue
		}
		for _, decl := range f.tree.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil {
					methods[f.folder+" "+typeName(d.Recv.List[0].Type)]++
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if s, ok := spec.(*ast.TypeSpec); ok {
						if of, ok := s.Type.(*ast.StructType); ok {
							fields[f.folder+" "+s.Name.Name] = of.Fields.NumFields()
						}
					}
				}
			}
		}
	}
	for name := range large {
		require.True(t, fields[name] > manyFields || methods[name] > manyMethods, "%s is not large any more", name)
	}
	for name, n := range fields {
		require.True(t, n <= manyFields || large[name] != "", "%s has %d fields, and no reason is given", name, n)
	}
	for name, n := range methods {
		require.True(t, n <= manyMethods || large[name] != "", "%s has %d methods, and no reason is given", name, n)
	}
}

// typeName returns the name of the type of a receiver.
func typeName(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return typeName(x.X)
	case *ast.IndexExpr:
		return typeName(x.X)
	case *ast.IndexListExpr:
		return typeName(x.X)
	case *ast.Ident:
		return x.Name
	}
	return ""
}

// TestNothingIsCountedThatShutdownMayWaitForAlready finds the places that add to what Shutdown waits for. A WaitGroup, and
// an errgroup.Group, panic if something is added while somebody waits. Each place must therefore be in a function that
// the pool calls with its lock held, in a phase before the one in which Shutdown waits.
func TestNothingIsCountedThatShutdownMayWaitForAlready(t *testing.T) {
	allowed := []string{"IfBefore", "Begin"} // of sched.Pool
	waited := []string{"workers", "running"} // scheduler.workers and background.running
	found := 0
	for _, f := range goFiles(t) {
		if f.folder != "." || f.test {
			continue
		}
		var within []ast.Node
		ast.Inspect(f.tree, func(n ast.Node) bool {
			if n == nil {
				within = within[:len(within)-1]
				return true
			}
			within = append(within, n)
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || method.Sel.Name != "Go" && method.Sel.Name != "Add" && method.Sel.Name != "TryGo" {
				return true
			}
			of, ok := method.X.(*ast.SelectorExpr)
			if !ok || !slices.Contains(waited, of.Sel.Name) {
				return true
			}
			found++
			guarded := slices.ContainsFunc(within, func(outer ast.Node) bool {
				guard, ok := outer.(*ast.CallExpr)
				if !ok {
					return false
				}
				by, ok := guard.Fun.(*ast.SelectorExpr)
				return ok && slices.Contains(allowed, by.Sel.Name)
			})
			require.True(t, guarded, "%s adds to %s outside of %v", f.path, of.Sel.Name, allowed)
			return true
		})
	}
	require.GreaterOrEqual(t, found, 3)
}
