package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/image"
	"gantry/linux/safepath"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// view is a place in a container's files: a root that nothing leads out of, and a path within.
type view struct {
	root *os.File
	path string
	rw   bool
}

func (v *view) close() { _ = v.root.Close() } // a handle

// open returns the container's view of a path. A running container's is what its process sees; that of another is its
// own file system, or the volume or bind source that the path lies in.
func (s *Service) open(ctx context.Context, c *Container, name string) (*view, error) {
	rec := c.Record()
	trailing := strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.")
	clean := path.Clean("/" + name)
	v := &view{path: clean, rw: !rec.Host.ReadonlyRootfs}
	below := -1
	for i := range rec.Mounts {
		d := rec.Mounts[i].Destination
		if (clean == d || strings.HasPrefix(clean, d+"/")) && (below < 0 || len(d) > len(rec.Mounts[below].Destination)) {
			below = i
		}
	}
	if below >= 0 {
		v.rw = rec.Mounts[below].RW
	}
	var err error
	switch {
	case rec.State.alive():
		if v.root, err = safepath.ProcessRoot(rec.Pid); err != nil {
			return nil, fmt.Errorf("open the file system of container %s: %w", rec.ID, err)
		}
	case below >= 0 && rec.Mounts[below].Type != mount.TypeTmpfs:
		m := &rec.Mounts[below]
		source := m.Source
		if m.Type == mount.TypeVolume {
			if source, err = s.volumes.Path(m.Name); err != nil {
				return nil, err
			}
		}
		if v.root, err = os.Open(source); err != nil {
			return nil, err
		}
		v.path = "/" + strings.TrimPrefix(strings.TrimPrefix(clean, m.Destination), "/")
	default:
		if v.root, err = s.snapshots.Mount(ctx, rec.ID, false); err != nil {
			return nil, fmt.Errorf("open the file system of container %s: %w", rec.ID, err)
		}
	}
	if trailing && v.path != "/" {
		v.path += "/"
	}
	return v, nil
}

// Stat describes a path in the container.
func (s *Service) Stat(ctx context.Context, ref, name string) (archive.PathStat, error) {
	c, err := s.Get(ref)
	if err != nil {
		return archive.PathStat{}, err
	}
	v, err := s.open(ctx, c, name)
	if err != nil {
		return archive.PathStat{}, err
	}
	defer v.close()
	return archive.Stat(v.root, v.path)
}

// CopyFrom writes a path of the container as a tar. described is called with what it is before the first byte.
func (s *Service) CopyFrom(ctx context.Context, ref, name string, w io.Writer, described func(archive.PathStat)) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	v, err := s.open(ctx, c, name)
	if err != nil {
		return err
	}
	defer v.close()
	st, err := archive.Stat(v.root, v.path)
	if err != nil {
		return err
	}
	described(st)
	rec := c.Record()
	s.publish(&rec, "archive-path", nil)
	o := archive.TarOptions{}
	if strings.HasSuffix(name, "/.") { // docker's names then begin with "./"
		o.Name = "."
	} else if v.path == "/" && path.Clean("/"+name) != "/" { // the root of a volume has the name it is mounted under
		o.Name = path.Base(name)
	}
	return archive.Tar(ctx, v.root, v.path, w, o)
}

// CopyToOptions shape CopyTo.
type CopyToOptions struct {
	NoOverwriteDirNonDir bool // refuse to replace a folder by a file or a file by a folder
	CopyUIDGID           bool // give everything to the container's user, if it has one, instead of the owners that the archive names
}

// CopyTo unpacks a tar into a folder of the container.
func (s *Service) CopyTo(ctx context.Context, ref, name string, r io.Reader, o CopyToOptions) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	rec := c.Record()
	extract := archive.ExtractOptions{NoOverwriteDirNonDir: o.NoOverwriteDirNonDir}
	if o.CopyUIDGID && rec.Config.User != "" { // before the target is opened: there must be only one writable mount of a snapshot
		if extract.Owner, err = s.ownerIn(ctx, c, rec.Config.User); err != nil {
			return err
		}
	}
	v, err := s.open(ctx, c, name)
	if err != nil {
		return err
	}
	defer v.close()
	if !v.rw {
		return errdefs.New(errdefs.Forbidden, "container rootfs is marked read-only")
	}
	if err := archive.Extract(ctx, v.root, v.path, r, extract); err != nil {
		return err
	}
	s.publish(&rec, "extract-to-dir", nil)
	return nil
}

// ownerIn looks a user up in the container's own files.
func (s *Service) ownerIn(ctx context.Context, c *Container, user string) (*archive.Owner, error) {
	v, err := s.open(ctx, c, "/")
	if err != nil {
		return nil, err
	}
	defer v.close()
	u, err := lookupUser(v.root, user, nil)
	if err != nil {
		return nil, err
	}
	return &archive.Owner{UID: int(u.UID), GID: int(u.GID)}, nil
}

// Export writes the container's file system, without mounts, as a tar.
func (s *Service) Export(ctx context.Context, ref string, w io.Writer) error {
	c, err := s.Get(ref)
	if err != nil {
		return err
	}
	rec := c.Record()
	root, err := s.snapshots.Mount(ctx, rec.ID, true)
	if err != nil {
		return fmt.Errorf("export container %s: %w", rec.ID, err)
	}
	defer func() { _ = root.Close() }() // a mount that nothing else holds
	s.publish(&rec, "export", nil)
	return archive.Tar(ctx, root, "/", w, archive.TarOptions{Contents: true})
}

// Changes lists what differs from the image.
func (s *Service) Changes(ctx context.Context, ref string) ([]archive.Change, error) {
	c, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	return s.snapshots.Changes(ctx, c.ID())
}

// CommitOptions shape Commit.
type CommitOptions struct {
	Repo, Tag       string
	Author, Comment string
	Changes         []string
	Pause           bool
	Config          *container.Config // replaces parts of the container's own; may be nil
}

// Commit makes an image of the container's file system and configuration.
func (s *Service) Commit(ctx context.Context, ref string, o CommitOptions) (_ *image.Image, err error) {
	c, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	rec := c.Record()
	if o.Pause && rec.State == Running {
		if err := s.Pause(ctx, rec.ID); err != nil {
			return nil, err
		}
		defer func() {
			if uerr := s.Unpause(context.WithoutCancel(ctx), rec.ID); uerr != nil && !errdefs.Is(uerr, errdefs.Conflict) {
				err = errors.Join(err, uerr)
			}
		}()
	}
	cfg := imageConfig(rec.Config)
	if o.Config != nil {
		own := *o.Config
		mergeImage(&own, &cfg)
		cfg = imageConfig(&own)
	}
	var parent *image.Image
	if rec.ImageID != "" {
		if parent, err = s.images.Get(ctx, rec.ImageID.String()); err != nil && !notFound(err) {
			return nil, err
		}
	}
	img, err := s.images.Commit(ctx, image.CommitOptions{SnapshotKey: rec.ID, Parent: parent, Config: cfg, Changes: o.Changes, Author: o.Author, Comment: o.Comment,
		CreatedBy: strings.Join(append([]string{rec.Path}, rec.Args...), " "), ContainerID: rec.ID, Repo: o.Repo, Tag: o.Tag})
	if err != nil {
		return nil, err
	}
	s.publish(&rec, "commit", map[string]string{"imageID": img.ID.String(), "imageRef": o.Repo})
	return img, nil
}

// imageConfig returns the part of a container's configuration that an image keeps.
func imageConfig(c *container.Config) dockerspec.DockerOCIImageConfig {
	out := dockerspec.DockerOCIImageConfig{}
	out.User, out.Env, out.Entrypoint, out.Cmd = c.User, c.Env, c.Entrypoint, c.Cmd
	out.WorkingDir, out.Labels, out.StopSignal = c.WorkingDir, c.Labels, c.StopSignal
	out.Volumes = c.Volumes
	for p := range c.ExposedPorts {
		if out.ExposedPorts == nil {
			out.ExposedPorts = map[string]struct{}{}
		}
		out.ExposedPorts[p.String()] = struct{}{}
	}
	out.Healthcheck, out.OnBuild, out.Shell = c.Healthcheck, c.OnBuild, c.Shell
	return out
}
