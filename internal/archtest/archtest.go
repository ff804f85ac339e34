// Package archtest holds the module against DESIGN.md: which package may import which, and what no package may do.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// floor is the level of each package's first path element; imports go from a higher floor to a lower one, or stay within one element. Two elements on
// one floor do not import each other. The kinds of error, and what programs begin with, are the ground that every floor stands on.
var floor = map[string]int{
	"cmd": 10, "cli": 9, "compose": 8, "client": 7, "api": 6, "engine": 5, "container": 4, "build": 4, "sandbox": 3, "image": 3,
	"content": 2, "network": 2, "shim": 2, "snapshot": 2, "volume": 2, "archive": 1, "db": 1, "logs": 1, "oci": 1, "registry": 1,
	"event": 0, "fsck": 0, "linux": 0, "errdefs": -1, "internal": -1,
}

// never lists packages that a binary must not link, whatever lies between.
var never = []struct{ binary, link, why string }{
	{"cmd/gantry", "linux", "the command line runs against remote daemons and starts in milliseconds"},
	{"cmd/gantry", "build", "BuildKit's parser, with protobuf, is the daemon's alone"},
	{"cmd/gantry-oci", "build", "BuildKit's parser, with protobuf, is the daemon's alone"},
	{"cmd/gantry-shim", "build", "BuildKit's parser, with protobuf, is the daemon's alone"},
	{"cmd/gantryd", "oci", "only the shim starts processes of containers"},
	{"cmd/gantry-shim", "image", "a shim must stay small"},
	{"cmd/gantry-shim", "network", "a shim must stay small"},
	{"cmd/gantry-shim", "db", "a shim must stay small"},
}

// Package is one package of the module, by its directory relative to the root ("" for the root itself).
type Package struct {
	Path    string
	Imports map[string]string // import path to the file that has it; of files that are not tests
	Files   map[string]*ast.File
}

// Load parses every package of the module at root, but tests and what is below testdata and tests.
func Load(root string) (map[string]*Package, *token.FileSet, error) {
	packages := map[string]*Package{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || rel == "tests" || rel == "bin" || rel == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, rel, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		p := packages[dir]
		if p == nil {
			p = &Package{Path: dir, Imports: map[string]string{}, Files: map[string]*ast.File{}}
			packages[dir] = p
		}
		p.Files[rel] = file
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			p.Imports[name] = rel
		}
		return nil
	})
	return packages, fset, err
}

func element(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

// Check returns every breach of the architecture, sorted.
func Check(packages map[string]*Package, fset *token.FileSet) []string {
	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, p := range packages {
		if p.Path == "." || element(p.Path) == "internal" {
			continue
		}
		level, known := floor[element(p.Path)]
		if !known {
			add("%s: no floor is known for %q: put it into internal/archtest and DESIGN.md", p.Path, element(p.Path))
			continue
		}
		for name, file := range p.Imports {
			if strings.HasPrefix(name, "golang.org/x/sys/") && element(p.Path) != "linux" {
				add("%s imports %s: only linux/* does", file, name)
			}
			local, ours := strings.CutPrefix(name, "gantry/")
			if !ours || element(local) == element(p.Path) {
				continue
			}
			target, known := floor[element(local)]
			if !known || target >= level {
				add("%s imports %s: imports only go down (%s is on floor %d, %s on %d)", file, name, element(p.Path), level, element(local), target)
			}
		}
		for _, tree := range p.Files {
			found = append(found, checkFile(tree, fset)...)
		}
	}
	for _, rule := range never {
		if chain := reach(packages, rule.binary, rule.link); chain != nil {
			add("%s links %s: %s (%s)", rule.binary, rule.link, rule.why, strings.Join(chain, " > "))
		}
	}
	sort.Strings(found)
	return found
}

// checkFile looks for what no file may have: init functions and sleeping.
func checkFile(tree *ast.File, fset *token.FileSet) []string {
	var found []string
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Name.Name == "init" && n.Recv == nil {
				found = append(found, fmt.Sprintf("%s: func init: nothing happens by being imported", fset.Position(n.Pos())))
			}
		case *ast.CallExpr:
			selector, ok := n.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == "time" && selector.Sel.Name == "Sleep" {
				found = append(found, fmt.Sprintf("%s: time.Sleep: wait for the event instead", fset.Position(n.Pos())))
			}
		}
		return true
	})
	return found
}

// reach returns the chain of imports from a package to the first one below the element link, or nil.
func reach(packages map[string]*Package, from, link string) []string {
	type step struct {
		path  string
		chain []string
	}
	seen := map[string]bool{from: true}
	for queue := []step{{from, []string{from}}}; len(queue) > 0; queue = queue[1:] {
		p := packages[queue[0].path]
		if p == nil {
			continue
		}
		for name := range p.Imports {
			local, ours := strings.CutPrefix(name, "gantry/")
			if !ours || seen[local] {
				continue
			}
			seen[local] = true
			chain := append(append([]string{}, queue[0].chain...), local)
			if element(local) == link {
				return chain
			}
			queue = append(queue, step{local, chain})
		}
	}
	return nil
}
