package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"gantry/errdefs"
	"gantry/image"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// scratch is the name of nothing.
const scratch = "scratch"

// from begins a stage with what its FROM names: an earlier stage, nothing, or an image.
func (b *build) from(ctx context.Context, st *stage, from *instructions.Stage) error {
	name, err := b.scope.From(from.BaseName)
	if err != nil {
		return err
	}
	if name == "" {
		return errdefs.New(errdefs.InvalidParameter, "base name (%s) should not be blank", from.BaseName)
	}
	if earlier := b.earlier(name); earlier != nil {
		st.image = earlier.image
		if st.image == nil { // a stage of nothing may have been told things
			st.State = earlier.State
			return nil
		}
		return st.inherit()
	}
	if name == scratch {
		st.Config.Env = []string{"PATH=" + defaultPath}
		return nil
	}
	platform := b.Platform
	if from.Platform != "" {
		text, err := b.scope.From(from.Platform)
		if err != nil {
			return err
		}
		if platform, err = image.ParsePlatform(text); err != nil {
			return err
		}
	}
	if st.image, err = b.base(ctx, name, platform); err != nil {
		return err
	}
	if err := st.inherit(); err != nil {
		return err
	}
	if len(st.Config.Env) == 0 {
		st.Config.Env = []string{"PATH=" + defaultPath}
	}
	return nil
}

// defaultPath is the PATH of images that say none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// earlier returns the stage of that name; nil if there is none.
func (b *build) earlier(name string) *stage {
	for _, st := range b.stages {
		if st.name != "" && strings.EqualFold(st.name, name) {
			return st
		}
	}
	return nil
}

// inherit takes over a copy of the image's configuration.
func (st *stage) inherit() error {
	raw, err := json.Marshal(st.image.Config.Config)
	if err == nil {
		st.Config = dockerspec.DockerOCIImageConfig{}
		err = json.Unmarshal(raw, &st.Config)
	}
	if err != nil {
		return fmt.Errorf("copy the configuration of image %s: %w", st.image.ID, err)
	}
	st.Author = st.image.Config.Author
	return nil
}

// base returns an image by name, pulled where it is not here, or not for that platform, and held to the image policy in any case.
func (b *build) base(ctx context.Context, name string, platform *ocispec.Platform) (*image.Image, error) {
	i, err := b.images.Get(ctx, name)
	if err != nil && !errdefs.Is(err, errdefs.NotFound) {
		return nil, err
	}
	if i == nil || b.Pull || platform != nil && !matches(i, platform) {
		if _, perr := reference.ParseNormalizedNamed(name); perr != nil {
			return nil, errdefs.With(errdefs.InvalidParameter, perr)
		}
		if i, err = b.images.Pull(ctx, name, image.PullOptions{Platform: platform, Auth: b.Auth(name), Progress: b.Output.Pull}); err != nil {
			return nil, err
		}
	}
	if err := b.hold.Keep(i); err != nil {
		return nil, err
	}
	return i, b.images.Trusted(name, i)
}

func matches(i *image.Image, p *ocispec.Platform) bool {
	return i.Config.OS == p.OS && i.Config.Architecture == p.Architecture && (p.Variant == "" || i.Config.Variant == p.Variant)
}

// copiedFrom returns the image that COPY --from names: a stage by name or number, or an image.
func (b *build) copiedFrom(ctx context.Context, st *stage, name string) (*image.Image, error) {
	from := b.earlier(name)
	if n, err := strconv.Atoi(name); from == nil && err == nil && n >= 0 && n < len(b.stages) {
		from = b.stages[n]
	}
	switch {
	case from == st:
		return nil, errdefs.New(errdefs.InvalidParameter, "invalid from flag value %s: refers to current build block", name)
	case from != nil && from.image == nil:
		return nil, errdefs.New(errdefs.InvalidParameter, "invalid from flag value %s: the stage has no files", name)
	case from != nil:
		return from.image, nil
	case name == scratch:
		return nil, errdefs.New(errdefs.InvalidParameter, "invalid from flag value %s: it has no files", name)
	}
	return b.base(ctx, name, b.Platform)
}

func familiar(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(reference.TagNameOnly(ref))
}

// platformArgs are the variables that say what is built for and on.
func platformArgs(target *ocispec.Platform) map[string]string {
	host := ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	if target == nil {
		target = &host
	}
	args := map[string]string{}
	for prefix, p := range map[string]*ocispec.Platform{"TARGET": target, "BUILD": &host} {
		args[prefix+"PLATFORM"] = strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
		args[prefix+"OS"], args[prefix+"ARCH"], args[prefix+"VARIANT"] = p.OS, p.Architecture, p.Variant
	}
	return args
}
