package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/image"

	"github.com/moby/moby/api/types/container"
)

// A step of a build runs in a container that belongs to the build: prune leaves it alone, and it ends with the daemon.

// CreateStep makes the container of a step on an image that the build has held to the policy.
func (s *Service) CreateStep(ctx context.Context, on *image.Image, c *container.Config, h *container.HostConfig) (id string, err error) {
	id, _, err = s.Create(ctx, Config{Config: c, Host: h, Step: on})
	return id, err
}

// RunStep runs a step's container to its end and gives output to whoever wants it, from one goroutine. What it returned then is for KeepStep or RemoveStep.
func (s *Service) RunStep(ctx context.Context, id string, output func(stderr bool, data []byte)) (code int, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("make a socket pair: %w", err)
	}
	own, other := os.NewFile(uintptr(pair[0]), "step"), os.NewFile(uintptr(pair[1]), "step")
	defer func() { _ = own.Close() }() // read to its end, or of no use
	if err := s.Attach(ctx, id, other, nil, AttachOptions{Stdout: true, Stderr: true, Stream: true}); err != nil {
		return 0, err
	}
	read := make(chan error, 1)
	go func() { read <- frames(own, output) }()
	if err := s.Start(ctx, id); err != nil {
		_ = own.Close() // nothing will come
		return 0, errors.Join(err, <-read)
	}
	code, err = s.Wait(ctx, id, WaitNotRunning, func() {})
	if err != nil {
		_ = own.Close()
		<-read
		return 0, err
	}
	return code, <-read
}

// frames reads the supervisor's frames to their end: a head of 8 bytes (1 for stdout or 2 for stderr, three zeros, length in network order), and then the data.
func frames(r io.Reader, output func(stderr bool, data []byte)) error {
	var head [8]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fmt.Errorf("read the output: %w", err)
		}
		for left := int(binary.BigEndian.Uint32(head[4:])); left > 0; {
			n, err := r.Read(buf[:min(left, len(buf))])
			if err != nil {
				if errors.Is(err, os.ErrClosed) {
					return nil
				}
				return fmt.Errorf("read the output: %w", err)
			}
			output(head[0] == 2, buf[:n])
			left -= n
		}
	}
}

// KeepStep makes a step's container, which has ended, one like others.
func (s *Service) KeepStep(id string) error {
	c, err := s.Get(id)
	if err != nil {
		return err
	}
	c.op.Lock() // the end of its run is on record then
	defer c.op.Unlock()
	return s.save(c.update(func(r *Record) { r.Step = false }))
}

// RemoveStep ends and removes a step's container; there need not be one.
func (s *Service) RemoveStep(ctx context.Context, id string) error {
	c, err := s.Get(id)
	if err == nil {
		err = s.remove(ctx, c, RemoveOptions{Force: true, Volumes: true})
	}
	if errdefs.Is(err, errdefs.NotFound) {
		return nil
	}
	return err
}

// StepOwner resolves "user[:group]" of COPY --chown in the account files of a root file system. A group that is not named is called like the user.
func (s *Service) StepOwner(root *os.File, name string) (archive.Owner, error) {
	user, group, _ := strings.Cut(name, ":")
	if group == "" {
		group = user
	}
	u, err := lookupUser(root, user+":"+group, nil)
	return archive.Owner{UID: int(u.UID), GID: int(u.GID)}, err
}
