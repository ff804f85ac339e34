package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"gantry/archive"
)

// The image that is pulled, pushed and so on: files of this machine's own /usr, in layers that are compressed as usual.
const (
	imageLayers  = 10
	imageEntries = 34_000
	imageBytes   = 695 << 20 // of files
	imageName    = "bench/large:1"
	changeBytes  = 200 << 20 // of the change that is committed

	manifestType = "application/vnd.docker.distribution.manifest.v2+json"
)

// fixture is that image in a registry of its own, which is kept from run to run.
type fixture struct {
	addr   string   // of the registry
	blobs  []string // digests of the layers
	size   int64    // bytes of the layers as they are compressed
	change string   // file of changeBytes
}

func (f *fixture) ref() string { return f.addr + "/" + imageName }

// fill gives the registry the image, unless it has it, and reads what it is.
func (f *fixture) fill(dir string) error {
	f.change = filepath.Join(dir, "change")
	url := "http://" + f.addr + "/v2/" + strings.Replace(imageName, ":", "/manifests/", 1)
	here, err := f.read(url)
	if _, missing := os.Stat(f.change); err != nil || here && missing == nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "bench: making the image, which is kept in", dir)
	if err := f.make(); err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	_, err = f.read(url)
	return err
}

// layer is what a manifest says of one.
type layer struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

func (f *fixture) read(url string) (here bool, err error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Accept", manifestType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, nil
	}
	var m struct{ Layers []layer }
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		return false, err
	}
	f.blobs, f.size = nil, 0
	for _, l := range m.Layers {
		f.blobs = append(f.blobs, l.Digest)
		f.size += l.Size
	}
	return true, nil
}

// make writes layers until there are enough files, at an even pace of bytes, and sends them.
func (f *fixture) make() error {
	change, err := os.Create(f.change)
	if err != nil {
		return err
	}
	defer change.Close()
	var layers []layer
	var diffIDs []string
	var files []string
	entries, size := 0, int64(0)
	flush := func() error {
		l, diffID, err := f.layer(files, change)
		layers, diffIDs, files = append(layers, l), append(diffIDs, diffID), nil
		return err
	}
	for _, root := range []string{"/usr/bin", "/usr/sbin", "/usr/lib/x86_64-linux-gnu", "/usr/lib/gcc", "/usr/include", "/usr/share"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || entries == imageEntries {
				return filepath.SkipAll
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Mode().IsRegular() {
				if (size+info.Size())*imageEntries > imageBytes*int64(entries+3000) {
					return nil // too large for now
				}
				size += info.Size()
			} else if !d.IsDir() && info.Mode().Type() != fs.ModeSymlink {
				return nil
			}
			entries++
			files = append(files, path)
			if entries%(imageEntries/imageLayers) == 0 {
				return flush()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(files) > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/none"}}, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	if err != nil {
		return err
	}
	c, err := f.blob(config)
	if err != nil {
		return err
	}
	c.MediaType = "application/vnd.docker.container.image.v1+json"
	data, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": c, "layers": layers})
	if err != nil {
		return err
	}
	return f.put(strings.Replace(imageName, ":", "/manifests/", 1), manifestType, data)
}

// layer makes a layer of files and sends it; what it is when it is not compressed goes to change, too, until that is large enough.
func (f *fixture) layer(files []string, change *os.File) (layer, string, error) {
	var packed bytes.Buffer
	z, err := archive.Packing{Kind: archive.Gzip, Level: 6}.Writer(&packed)
	if err != nil {
		return layer{}, "", err
	}
	sum := sha256.New()
	tw := tar.NewWriter(io.MultiWriter(z, sum, &filler{change}))
	for _, path := range files {
		if err := add(tw, path); err != nil {
			return layer{}, "", err
		}
	}
	if err := errors.Join(tw.Close(), z.Close()); err != nil {
		return layer{}, "", err
	}
	l, err := f.blob(packed.Bytes())
	l.MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	return l, fmt.Sprintf("sha256:%x", sum.Sum(nil)), err
}

// filler takes changeBytes and no more.
type filler struct{ f *os.File }

func (w *filler) Write(p []byte) (int, error) {
	at, err := w.f.Seek(0, io.SeekCurrent)
	if err == nil && at < changeBytes {
		_, err = w.f.Write(p[:min(int64(len(p)), changeBytes-at)])
	}
	return len(p), err
}

func add(tw *tar.Writer, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	link := ""
	if info.Mode().Type() == fs.ModeSymlink {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = strings.TrimPrefix(path, "/")
	if err := tw.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(tw, file)
	return err
}

// blob sends a blob.
func (f *fixture) blob(data []byte) (layer, error) {
	l := layer{Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(data)), Size: int64(len(data))}
	repository, _, _ := strings.Cut(imageName, ":")
	resp, err := http.Post("http://"+f.addr+"/v2/"+repository+"/blobs/uploads/", "", nil)
	if err != nil {
		return l, err
	}
	resp.Body.Close()
	location, err := resp.Location()
	if err != nil {
		return l, err
	}
	q := location.Query()
	q.Set("digest", l.Digest)
	location.RawQuery = q.Encode()
	return l, send(location.String(), "application/octet-stream", data)
}

func (f *fixture) put(path, mediaType string, data []byte) error {
	return send("http://"+f.addr+"/v2/"+path, mediaType, data)
}

func send(url, mediaType string, data []byte) error {
	req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("PUT %s: %s: %s", url, resp.Status, text)
	}
	return nil
}
