package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/pflag"

	"gantry/client"
)

// clientVersion is what version says of this program; names and order are docker's.
type clientVersion struct {
	Platform          *system.PlatformInfo `json:"Platform,omitempty"`
	Version           string               `json:"Version,omitempty"`
	APIVersion        string               `json:"ApiVersion,omitempty"`
	DefaultAPIVersion string               `json:"DefaultAPIVersion,omitempty"`
	GitCommit         string               `json:"GitCommit,omitempty"`
	GoVersion         string               `json:"GoVersion,omitempty"`
	Os                string               `json:"Os,omitempty"`
	Arch              string               `json:"Arch,omitempty"`
	BuildTime         string               `json:"BuildTime,omitempty"`
	Context           string               `json:"Context"`
}

type versions struct {
	Client clientVersion
	Server *system.VersionResponse
}

// ServerOK reports whether the server answered.
func (v versions) ServerOK() bool { return v.Server != nil }

func versionCommand() *command {
	return &command{
		name: "version", use: "[OPTIONS]", short: "Show the version information",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.StringP("format", "f", "", inspectFormatHelp)
			return func(ctx context.Context, _ []string) error { return a.version(ctx, *text) }
		},
	}
}

func (a *app) version(ctx context.Context, text string) error {
	var tmpl *template.Template
	if text != "" {
		if text == "json" {
			text = "{{json .}}"
		}
		var err error
		if tmpl, err = template.New("version").Funcs(funcs()).Parse(text); err != nil {
			return &exitError{code: 64, msg: "template parsing error: " + err.Error(), err: err}
		}
	}
	v := versions{Client: clientVersion{
		Version: Version, APIVersion: client.MaxAPIVersion, DefaultAPIVersion: client.MaxAPIVersion, GitCommit: Commit, GoVersion: runtime.Version(),
		Os: runtime.GOOS, Arch: runtime.GOARCH, BuildTime: readableTime(BuiltAt), Context: "default",
	}}
	c, err := a.client()
	if err != nil {
		return err
	}
	server, serverErr := c.ServerVersion(ctx)
	if serverErr == nil {
		v.Server = &server
		v.Client.APIVersion = c.Version()
	}
	if tmpl == nil {
		writeVersions(a.out, v)
	} else {
		var out strings.Builder
		err := tmpl.Execute(&out, v)
		fmt.Fprintln(a.out, out.String())
		if err != nil && serverErr == nil {
			return err
		}
	}
	return serverErr
}

func readableTime(s string) string {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.Format(time.ANSIC)
	}
	return s
}

func writeVersions(out io.Writer, v versions) {
	var page bytes.Buffer
	w := tabwriter.NewWriter(&page, 20, 1, 1, ' ', 0)
	defer func() {
		_ = w.Flush() // a buffer takes everything
		_, _ = page.WriteTo(out)
	}()
	cl := v.Client
	api := cl.APIVersion
	if api != cl.DefaultAPIVersion {
		api += " (downgraded from " + cl.DefaultAPIVersion + ")"
	}
	fmt.Fprintf(w, "Client:\n Version:\t%s\n API version:\t%s\n Go version:\t%s\n Git commit:\t%s\n Built:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n",
		cl.Version, api, cl.GoVersion, cl.GitCommit, cl.BuildTime, cl.Os, cl.Arch, cl.Context)
	if v.Server == nil {
		return
	}
	s := v.Server
	name := ""
	if s.Platform.Name != "" {
		name = " " + s.Platform.Name
	}
	fmt.Fprintf(w, "\nServer:%s\n", name)
	for _, comp := range components(s) {
		fmt.Fprintf(w, " %s:\n  Version:\t%s\n", comp.Name, comp.Version)
		d := comp.Details
		if comp.Name == "Engine" {
			fmt.Fprintf(w, "  API version:\t%s (minimum version %s)\n  Go version:\t%s\n  Git commit:\t%s\n  Built:\t%s\n  OS/Arch:\t%s/%s\n  Experimental:\t%s\n",
				d["ApiVersion"], d["MinAPIVersion"], d["GoVersion"], d["GitCommit"], readableTime(d["BuildTime"]), d["Os"], d["Arch"], d["Experimental"])
			continue
		}
		keys := make([]string, 0, len(d))
		for k := range d {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			fmt.Fprintf(w, "  %s:\t%s\n", k, d[k])
		}
	}
}

// components are the parts of a server; one that does not list them is one Engine.
func components(s *system.VersionResponse) []system.ComponentVersion {
	if len(s.Components) > 0 {
		return s.Components
	}
	return []system.ComponentVersion{{Name: "Engine", Version: s.Version, Details: map[string]string{
		"ApiVersion": s.APIVersion, "MinAPIVersion": s.MinAPIVersion, "GitCommit": s.GitCommit, "GoVersion": s.GoVersion, "Os": s.Os,
		"Arch": s.Arch, "BuildTime": s.BuildTime, "Experimental": yesNo(s.Experimental),
	}}}
}
