package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"gantry/db"
	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The database is an index of the blobs: beside them lies an OCI index with the images and their names, from which a lost database is filled again.
const (
	parentAnnotation = "gantry.image.parent"
	indexAnnotation  = "gantry.image.index" // digest of the index that the name stands for
	maxIndex         = 64 << 20             // bytes
)

// filled has one record, "images", once the database has been filled from what was on disk.
const filled db.Bucket[bool] = "image-store"

// writeIndex writes the OCI index. A failure is only logged: the database has it all. The caller holds mu.
func (s *Service) writeIndex() {
	if s.rehearses {
		return
	}
	list := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	byID := map[digest.Digest][]string{}
	for name, id := range s.names {
		byID[id] = append(byID[id], name)
	}
	for id, e := range s.images {
		names := byID[id]
		if len(names) == 0 {
			names = []string{""}
		}
		slices.Sort(names)
		for _, name := range names {
			d := e.image.Manifest
			d.Annotations = map[string]string{}
			index := e.index
			if name != "" {
				d.Annotations["io.containerd.image.name"] = name
				index = s.indexes[name]
			}
			if index.Digest != "" {
				d.Annotations[indexAnnotation] = index.Digest.String()
			}
			if e.image.Parent != "" {
				d.Annotations[parentAnnotation] = e.image.Parent.String()
			}
			list.Manifests = append(list.Manifests, d)
		}
	}
	data, err := json.Marshal(list)
	if err == nil {
		err = s.content.WriteFile("index.json", data)
	}
	if err != nil {
		s.log.Error("write image index", "error", err)
	}
}

// rebuild fills a new database from the OCI index and the blobs, if there are any.
func (s *Service) rebuild(ctx context.Context) error {
	var done bool
	err := s.o.DB.View(func(tx *db.Tx) (err error) {
		done, err = filled.Get(tx, "images")
		return err
	})
	if done || err != nil && !errdefs.Is(err, errdefs.NotFound) {
		return err
	}
	data, err := s.content.ReadFile("index.json", maxIndex)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rebuild image records: %w", err)
	}
	found := map[digest.Digest]record{}
	names := map[string]nameRecord{}
	if err == nil {
		s.recover(ctx, data, found, names)
	}
	return s.o.DB.Update(func(tx *db.Tx) error {
		for id, r := range found {
			if err := records.Put(tx, id.String(), r); err != nil {
				return err
			}
		}
		for name, r := range names {
			if err := nameRecords.Put(tx, name, r); err != nil {
				return err
			}
		}
		return filled.Put(tx, "images", true)
	})
}

// recover finds the images of an index whose blobs and layers are all here.
func (s *Service) recover(ctx context.Context, data []byte, found map[digest.Digest]record, names map[string]nameRecord) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		s.log.Error("image index is damaged", "error", err)
		return
	}
	for _, d := range index.Manifests {
		id, r, err := s.recoverOne(ctx, d)
		if err != nil {
			s.log.Error("image cannot be recovered", "manifest", d.Digest, "error", err)
			continue
		}
		index := s.recoverIndex(digest.Digest(d.Annotations[indexAnnotation]))
		if name := d.Annotations["io.containerd.image.name"]; name != "" {
			names[name] = nameRecord{id, index}
		} else {
			r.Index = index
		}
		found[id] = r
	}
}

func (s *Service) recoverOne(ctx context.Context, d ocispec.Descriptor) (digest.Digest, record, error) {
	data, err := s.content.ReadAll(d.Digest, maxManifest)
	if err != nil {
		return "", record{}, err
	}
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return "", record{}, err
	}
	if !s.complete(m) {
		return "", record{}, errdefs.New(errdefs.NotFound, "a blob is gone")
	}
	r := record{Manifest: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, Parent: digest.Digest(d.Annotations[parentAnnotation])}
	e, err := s.decode(m.Config.Digest, r)
	if err != nil {
		return "", record{}, err
	}
	r.Size, err = s.size(ctx, e.image.DiffIDs)
	return m.Config.Digest, r, err
}
