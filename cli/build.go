package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/spf13/pflag"

	"gantry/client"
)

func buildCommand() *command {
	return &command{
		name: "build", aliases: "image build, build", use: "[OPTIONS] PATH | -", short: "Build an image from a Dockerfile", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			b := &builder{app: a}
			o := &b.options
			fs.StringVarP(&b.file, "file", "f", "", "Name of the Dockerfile (Default is 'PATH/Dockerfile')")
			fs.StringVar(&b.idFile, "iidfile", "", "Write the image ID to the file")
			fs.VarP(&listValue{values: &o.Tags, check: checkTag}, "tag", "t", "Name and optionally a tag in the 'name:tag' format")
			fs.Var(&listValue{values: &b.args, check: checkEnv(a.lookupEnv)}, "build-arg", "Set build-time variables")
			fs.Var(&listValue{values: &b.labels, check: checkLabel}, "label", "Set metadata for an image")
			fs.StringVar(&o.Target, "target", "", "Set the target build stage to build.")
			fs.StringVar(&o.Platform, "platform", "", "Set platform if server is multi-platform capable")
			fs.BoolVar(&o.NoCache, "no-cache", false, "Do not use cache when building the image")
			fs.BoolVar(&o.Pull, "pull", false, "Always attempt to pull a newer version of the image")
			fs.BoolVarP(&o.Quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
			fs.BoolVar(&o.Remove, "rm", true, "Remove intermediate containers after a successful build")
			fs.BoolVar(&o.ForceRemove, "force-rm", false, "Always remove intermediate containers")
			fs.Var(&listValue{values: &o.CacheFrom}, "cache-from", "Images to consider as cache sources")
			fs.StringVar(&o.NetworkMode, "network", "default", "Set the networking mode for the RUN instructions during build")
			fs.Var(&listValue{values: &o.ExtraHosts}, "add-host", "Add a custom host-to-IP mapping (host:ip)")
			fs.Var(&bytesValue{n: &o.ShmSize}, "shm-size", "Size of '/dev/shm'")
			fs.VarP(&bytesValue{n: &o.Memory}, "memory", "m", "Memory limit")
			fs.Var(&bytesValue{n: &o.MemorySwap, unlimited: true}, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
			fs.Int64VarP(&o.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
			fs.Int64Var(&o.CPUPeriod, "cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
			fs.Int64Var(&o.CPUQuota, "cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
			fs.StringVar(&o.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
			fs.StringVar(&o.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
			fs.StringVar(&o.CgroupParent, "cgroup-parent", "", "Set the parent cgroup for the RUN instructions during build")
			fs.Var(&listValue{values: &o.SecurityOpt}, "security-opt", "Security options")
			var limits []*container.Ulimit
			fs.Var(&ulimitValue{&limits}, "ulimit", "Ulimit options")
			return func(ctx context.Context, args []string) error {
				o.Ulimits = limits
				return b.run(ctx, args[0])
			}
		},
	}
}

// checkTag refuses what is no name for an image.
func checkTag(v string) (string, error) {
	ref, err := parseReference(v)
	if err == nil && ref.digest != "" {
		err = errors.New("an image that is built has no digest yet")
	}
	if err != nil {
		return "", fmt.Errorf("invalid argument %q for \"-t, --tag\" flag: %w", v, err)
	}
	return v, nil
}

// builder is a build that the command line has asked for.
type builder struct {
	*app
	options      client.BuildOptions
	file, idFile string
	args, labels []string
}

// run sends the context that source names, and prints what comes of it.
func (b *builder) run(ctx context.Context, source string) error {
	b.options.BuildArgs = map[string]*string{}
	for _, arg := range b.args {
		name, value, given := strings.Cut(arg, "=")
		b.options.BuildArgs[name] = nil
		if given {
			b.options.BuildArgs[name] = &value
		}
	}
	b.options.Labels = keyValues(b.labels)
	var err error
	if b.options.Auths, err = b.allCredentials(ctx); err != nil {
		return err
	}
	send, err := b.source(source)
	if err != nil {
		return err
	}
	c, err := b.client()
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	var sent counter
	go func() { w.CloseWithError(send(io.MultiWriter(w, &sent))) }()
	stream, err := c.ImageBuild(ctx, r, b.options)
	_ = r.Close() // sent, or nobody wants it any more
	if err != nil {
		return err
	}
	defer stream.Close()
	if !b.options.Quiet {
		fmt.Fprintf(b.out, "Sending build context to Docker daemon  %s\n", units.HumanSizeWithPrecision(float64(sent.Load()), 4))
	}
	return b.print(stream)
}

// print prints the messages of a build. A program of RUN that fails gives the command line its exit code.
func (b *builder) print(stream io.Reader) error {
	var id string
	out := b.out
	var held strings.Builder
	if b.options.Quiet {
		out = &held
	}
	err := b.progress(out, stream, func(aux json.RawMessage) {
		var result struct{ ID string }
		if json.Unmarshal(aux, &result) == nil && result.ID != "" {
			id = result.ID
		}
	})
	var failed *jsonstream.Error
	if errors.As(err, &failed) {
		fmt.Fprint(b.err, held.String())
		return &exitError{code: max(1, failed.Code), msg: failed.Message, err: err}
	}
	if err != nil {
		return err
	}
	if b.options.Quiet {
		id = strings.TrimSpace(held.String())
		fmt.Fprintln(b.out, id)
	}
	if b.idFile == "" {
		return nil
	}
	if id == "" {
		return errors.New("server did not provide an image ID. Cannot write " + b.idFile)
	}
	return os.WriteFile(b.idFile, []byte(id), 0o666)
}
