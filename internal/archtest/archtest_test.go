package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

func TestModule(t *testing.T) {
	packages, fset, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 10 {
		t.Fatalf("only %d packages found", len(packages))
	}
	for _, breach := range Check(packages, fset) {
		t.Error(breach)
	}
}

// The rules find what they are there for.
func TestBreaches(t *testing.T) {
	fset := token.NewFileSet()
	source := func(path, text string) *Package {
		file, err := parser.ParseFile(fset, path+"/x.go", text, 0)
		if err != nil {
			t.Fatal(err)
		}
		p := &Package{Path: path, Imports: map[string]string{}, Files: nil}
		for _, spec := range file.Imports {
			p.Imports[strings.Trim(spec.Path.Value, `"`)] = path + "/x.go"
		}
		if len(file.Decls) > 0 {
			p.Files = map[string]*ast.File{path + "/x.go": file}
		}
		return p
	}
	packages := map[string]*Package{}
	for path, text := range map[string]string{
		"db":         `package db; import "gantry/engine"`,
		"network":    `package network; import "golang.org/x/sys/unix"`,
		"cli":        `package cli; import "gantry/client"`,
		"client":     `package client; import "gantry/linux/fd"`,
		"cmd/gantry": `package main; import "gantry/cli"`,
		"linux/fd":   `package fd; import "golang.org/x/sys/unix"`,
		"volume":     `package volume; import "time"; func init() { time.Sleep(1) }`,
		"helpers":    `package helpers`,
		"engine":     `package engine`,
	} {
		packages[path] = source(path, text)
	}
	got := strings.Join(Check(packages, fset), "\n")
	for _, want := range []string{
		"db/x.go imports gantry/engine: imports only go down", "network/x.go imports golang.org/x/sys/unix", "cmd/gantry links linux", "(cmd/gantry > cli > client > linux/fd)",
		"func init", "time.Sleep", "helpers: no floor is known",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "linux/fd/x.go imports") {
		t.Errorf("linux/* may import x/sys:\n%s", got)
	}
}
