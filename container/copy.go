package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/image"
	"gantry/linux/mount"
	"gantry/linux/safepath"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	apimount "github.com/moby/moby/api/types/mount"
)

// view is a place in a container's files: a root that nothing leads out of, and a path within.
type view struct {
	root  *os.File
	path  string
	rw    bool
	close func()
}

// open returns the container's view of a path. A running container's is what its process sees. That of another is made of its own
// file system and what would be mounted in it but tmpfs; until close it cannot start, because there must be only one writable mount of
// a snapshot.
func (s *Service) open(ctx context.Context, c *Container, name string) (_ *view, err error) {
	v := &view{path: path.Clean("/" + name)}
	if strings.HasSuffix(name, "/") && v.path != "/" || strings.HasSuffix(name, "/.") && v.path != "/" {
		v.path += "/"
	}
	if rec := c.Record(); rec.State.alive() {
		v.rw = rec.writable(v.path)
		if v.root, err = safepath.ProcessRoot(rec.Pid); err != nil {
			return nil, fmt.Errorf("open the file system of container %s: %w", rec.ID, err)
		}
		v.close = func() { _ = v.root.Close() } // a handle
		return v, nil
	}
	c.op.Lock()
	rec := c.Record()
	if rec.State.alive() { // meanwhile
		c.op.Unlock()
		return s.open(ctx, c, name)
	}
	tree, err := s.tree(ctx, &rec)
	if err != nil {
		c.op.Unlock()
		return nil, fmt.Errorf("open the file system of container %s: %w", rec.ID, err)
	}
	v.root, v.rw = tree.Root, rec.writable(v.path)
	v.close = func() {
		defer c.op.Unlock()
		if err := errors.Join(tree.Close(), s.unmountVolumes(context.WithoutCancel(ctx), &rec)); err != nil {
			s.log.Warn("cannot close the file system of a container", "container", rec.ID, "error", err)
		}
	}
	return v, nil
}

// writable reports whether a container may write at a path: what is mounted there decides, or its own file system.
func (r *Record) writable(name string) bool {
	clean, rw, depth := path.Clean(name), !r.Host.ReadonlyRootfs, -1
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if d := m.Destination; (clean == d || strings.HasPrefix(clean, d+"/")) && len(d) > depth {
			rw, depth = m.RW, len(d)
		}
	}
	return rw
}

// tree mounts the files of a container that does not run. The caller holds op, and unmounts the volumes at the end.
func (s *Service) tree(ctx context.Context, rec *Record) (_ *mount.Tree, err error) {
	var inner []mount.Inner
	defer func() {
		if err != nil {
			for _, in := range inner {
				_ = in.Mount.Close() // of no use
			}
			err = errors.Join(err, s.unmountVolumes(context.WithoutCancel(ctx), rec))
		}
	}()
	mounts := slices.Clone(rec.Mounts)
	if err := s.mountVolumes(ctx, rec, mounts); err != nil {
		return nil, err
	}
	slices.SortStableFunc(mounts, func(a, b Mount) int {
		return cmp.Compare(strings.Count(a.Destination, "/"), strings.Count(b.Destination, "/"))
	})
	files := s.files(rec)
	for _, f := range [][2]string{{files.ResolvConf, "/etc/resolv.conf"}, {files.Hostname, "/etc/hostname"}, {files.Hosts, "/etc/hosts"}} {
		if rec.mountAt(f[1]) != nil {
			continue
		}
		m, err := mount.Bind(f[0], false)
		if errors.Is(err, os.ErrNotExist) { // never started
			continue
		}
		if err != nil {
			return nil, err
		}
		inner = append(inner, mount.Inner{Mount: m, Target: f[1]})
	}
	for i := range mounts {
		m := &mounts[i]
		if m.Type == apimount.TypeTmpfs {
			continue
		}
		source, err := m.bind()
		if err != nil {
			return nil, err
		}
		inner = append(inner, mount.Inner{Mount: source, Target: m.Destination, ReadOnly: !m.RW})
	}
	root, err := s.snapshots.Mount(ctx, rec.ID, false)
	if err != nil {
		return nil, err
	}
	all := inner
	inner = nil // the tree's
	return mount.NewTree(root, all, rec.Host.ReadonlyRootfs)
}

// bind returns what the mount shows, as a detached mount. A path within a volume is walked inside the volume, whose content is the
// containers' to write.
func (m *Mount) bind() (*os.File, error) {
	recursive := !slices.Contains(m.Flags, "bind")
	if m.Subpath == "" {
		return mount.Bind(m.Source, recursive)
	}
	root, err := os.Open(m.Source)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // a folder's handle
	f, err := safepath.OpenHandle(root, m.Subpath)
	if err != nil {
		return nil, fmt.Errorf("open %s in volume %s: %w", m.Subpath, m.Name, err)
	}
	defer func() { _ = f.Close() }() // a handle
	return mount.BindAt(f, "", recursive)
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
	v, err := s.open(ctx, c, name)
	if err != nil {
		return err
	}
	defer v.close()
	if o.CopyUIDGID && rec.Config.User != "" {
		u, err := lookupUser(v.root, rec.Config.User, nil)
		if err != nil {
			return err
		}
		extract.Owner = &archive.Owner{UID: int(u.UID), GID: int(u.GID)}
	}
	if !v.rw {
		return errdefs.New(errdefs.Forbidden, "container rootfs is marked read-only")
	}
	if err := archive.Extract(ctx, v.root, v.path, r, extract); err != nil {
		return err
	}
	s.publish(&rec, "extract-to-dir", nil)
	return nil
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
	Change          func(dockerspec.DockerOCIImageConfig) (dockerspec.DockerOCIImageConfig, error) // makes the image's configuration of the container's
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
	if cfg, err = o.Change(cfg); err != nil {
		return nil, err
	}
	var parent *image.Image
	if rec.ImageID != "" {
		if parent, err = s.images.Get(ctx, rec.ImageID.String()); err != nil && !notFound(err) {
			return nil, err
		}
	}
	img, err := s.images.Commit(ctx, image.CommitOptions{SnapshotKey: rec.ID, Parent: parent, Config: cfg, Author: o.Author, Comment: o.Comment,
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
