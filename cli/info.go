package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/pflag"

	"gantry/client"
)

// clientInfo is what info says of this program.
type clientInfo struct {
	Debug bool
	clientVersion
	Plugins  []string
	Warnings []string
}

// infoView is what info's templates see.
type infoView struct {
	*system.Info `json:",omitempty"`
	ServerErrors []string    `json:",omitempty"`
	ClientInfo   *clientInfo `json:",omitempty"`
}

func infoCommand() *command {
	return &command{
		name: "info", aliases: "system info, info", use: "[OPTIONS]", short: "Display system-wide information",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.StringP("format", "f", "", inspectFormatHelp)
			return func(ctx context.Context, _ []string) error { return a.info(ctx, *text) }
		},
	}
}

func (a *app) info(ctx context.Context, text string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	view := infoView{ClientInfo: &clientInfo{Debug: a.global.debug, Plugins: []string{}, clientVersion: clientVersion{
		Version: Version, APIVersion: client.MaxAPIVersion, DefaultAPIVersion: client.MaxAPIVersion, GitCommit: Commit, GoVersion: runtime.Version(),
		Os: runtime.GOOS, Arch: runtime.GOARCH, BuildTime: readableTime(BuiltAt), Context: "default",
	}}}
	var raw json.RawMessage
	serverErr := c.Call(ctx, client.Request{Method: "GET", Path: "/info"}, &raw)
	if serverErr == nil {
		view.Info = &system.Info{}
		if err := json.Unmarshal(raw, view.Info); err != nil {
			return fmt.Errorf("decode info: %w", err)
		}
	} else {
		view.ServerErrors = []string{serverErr.Error()}
	}
	if text != "" {
		if err := a.formatInfo(text, view); err != nil {
			return err
		}
		return serverErr
	}
	writeInfo(a.out, a.err, view)
	if serverErr != nil {
		fmt.Fprintf(a.err, "ERROR: %v\n", serverErr)
		return &exitError{code: 1, msg: "errors pretty printing info"}
	}
	return nil
}

func (a *app) formatInfo(text string, view infoView) error {
	if text == "json" {
		text = "{{json .}}"
	}
	t, err := parseTemplate(text)
	if err != nil {
		return &exitError{code: 64, msg: "template parsing error: " + err.Error(), err: err}
	}
	if view.Info == nil {
		view.Info = &system.Info{}
	}
	var out strings.Builder
	if err := t.Execute(&out, view); err != nil {
		return fmt.Errorf("failed to execute template: %w", err)
	}
	fmt.Fprintln(a.out, out.String())
	return nil
}

func writeInfo(w, errw io.Writer, view infoView) {
	fmt.Fprintf(w, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %t\n\nServer:\n", view.ClientInfo.Version, view.ClientInfo.Context, view.ClientInfo.Debug)
	if view.Info == nil {
		return
	}
	i := view.Info
	fmt.Fprintf(w, " Containers: %d\n  Running: %d\n  Paused: %d\n  Stopped: %d\n Images: %d\n", i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, " %s: %s\n", name, value)
		}
	}
	line("Server Version", i.ServerVersion)
	line("Storage Driver", i.Driver)
	for _, s := range i.DriverStatus {
		fmt.Fprintf(w, "  %s: %s\n", s[0], s[1])
	}
	line("Logging Driver", i.LoggingDriver)
	line("Cgroup Driver", i.CgroupDriver)
	line("Cgroup Version", i.CgroupVersion)
	fmt.Fprintf(w, " Plugins:\n  Volume: %s\n  Network: %s\n", strings.Join(i.Plugins.Volume, " "), strings.Join(i.Plugins.Network, " "))
	if len(i.Plugins.Authorization) > 0 {
		fmt.Fprintf(w, "  Authorization: %s\n", strings.Join(i.Plugins.Authorization, " "))
	}
	fmt.Fprintf(w, "  Log: %s\n", strings.Join(i.Plugins.Log, " "))
	if len(i.CDISpecDirs) > 0 {
		fmt.Fprintf(w, " CDI spec directories:\n  %s\n", strings.Join(i.CDISpecDirs, "\n  "))
	}
	state := string(i.Swarm.LocalNodeState)
	if state == "" {
		state = "inactive"
	}
	fmt.Fprintf(w, " Swarm: %s\n", state)
	if len(i.Runtimes) > 0 {
		var names []string
		for n := range i.Runtimes {
			names = append(names, n)
		}
		sort.Strings(names)
		fmt.Fprintf(w, " Runtimes: %s\n Default Runtime: %s\n", strings.Join(names, " "), i.DefaultRuntime)
	}
	if i.OSType == "linux" {
		fmt.Fprintf(w, " Init Binary: %s\n containerd version: %s\n runc version: %s\n init version: %s\n", i.InitBinary, i.ContainerdCommit.ID, i.RuncCommit.ID, i.InitCommit.ID)
		writeSecurity(w, i.SecurityOptions)
	}
	writeMachine(w, i, line)
	for _, s := range i.Warnings {
		fmt.Fprintln(errw, s)
	}
}

// writeSecurity prints options such as name=seccomp,profile=builtin.
func writeSecurity(w io.Writer, opts []string) {
	if len(opts) == 0 {
		return
	}
	fmt.Fprintln(w, " Security Options:")
	for _, o := range opts {
		var rest []string
		for _, kv := range strings.Split(o, ",") {
			k, v, ok := strings.Cut(kv, "=")
			switch {
			case !ok:
				fmt.Fprintf(w, "  %s\n", k)
			case k == "name":
				fmt.Fprintf(w, "  %s\n", v)
			default:
				rest = append(rest, fmt.Sprintf("   %s: %s\n", title(k), v))
			}
		}
		fmt.Fprint(w, strings.Join(rest, ""))
	}
}

// writeMachine prints the machine's part and the daemon's configuration.
func writeMachine(w io.Writer, i *system.Info, line func(name, value string)) {
	line("Kernel Version", i.KernelVersion)
	line("Operating System", i.OperatingSystem)
	line("OSType", i.OSType)
	line("Architecture", i.Architecture)
	fmt.Fprintf(w, " CPUs: %d\n Total Memory: %s\n", i.NCPU, units.BytesSize(float64(i.MemTotal)))
	line("Name", i.Name)
	line("ID", i.ID)
	fmt.Fprintf(w, " Docker Root Dir: %s\n Debug Mode: %t\n", i.DockerRootDir, i.Debug)
	if i.Debug {
		fmt.Fprintf(w, "  File Descriptors: %d\n  Goroutines: %d\n  System Time: %s\n  EventsListeners: %d\n", i.NFd, i.NGoroutines, i.SystemTime, i.NEventsListener)
	}
	line("HTTP Proxy", i.HTTPProxy)
	line("HTTPS Proxy", i.HTTPSProxy)
	line("No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		fmt.Fprintf(w, " Labels:\n  %s\n", strings.Join(i.Labels, "\n  "))
	}
	fmt.Fprintf(w, " Experimental: %t\n", i.ExperimentalBuild)
	if r := i.RegistryConfig; r != nil {
		var insecure []string
		for _, x := range r.IndexConfigs {
			if !x.Secure {
				insecure = append(insecure, x.Name)
			}
		}
		sort.Strings(insecure)
		for _, p := range r.InsecureRegistryCIDRs {
			insecure = append(insecure, p.String())
		}
		if len(insecure) > 0 {
			fmt.Fprintf(w, " Insecure Registries:\n  %s\n", strings.Join(insecure, "\n  "))
		}
		if len(r.Mirrors) > 0 {
			fmt.Fprintf(w, " Registry Mirrors:\n  %s\n", strings.Join(r.Mirrors, "\n  "))
		}
	}
	fmt.Fprintf(w, " Live Restore Enabled: %t\n", i.LiveRestoreEnabled)
	if i.ProductLicense != "" {
		fmt.Fprintf(w, " Product License: %s\n", i.ProductLicense)
	}
	if len(i.DefaultAddressPools) > 0 {
		fmt.Fprintln(w, " Default Address Pools:")
		for _, p := range i.DefaultAddressPools {
			fmt.Fprintf(w, "   Base: %s, Size: %d\n", p.Base, p.Size)
		}
	}
	if f := i.FirewallBackend; f != nil {
		fmt.Fprintf(w, " Firewall Backend: %s\n", f.Driver)
		for _, kv := range f.Info {
			fmt.Fprintf(w, "  %s: %s\n", kv[0], kv[1])
		}
	}
	fmt.Fprintln(w)
}
