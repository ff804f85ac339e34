package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/oci/document"
)

// maxSpec is how large a specification may be: a hundred times what any has.
const maxSpec = 16 << 20

// ReadSpec reads and checks a config.json, and returns it with its text. Errors are one line that names the field.
func ReadSpec(path string) (*specs.Spec, []byte, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errdefs.New(errdefs.NotFound, "JSON specification file %s not found", path)
	}
	if err != nil {
		return nil, nil, err
	}
	spec, err := ParseSpec(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return spec, data, nil
}

// ParseSpec parses and checks the text of a config.json.
func ParseSpec(data []byte) (*specs.Spec, error) {
	var spec *specs.Spec
	if err := decode(data, &spec); err != nil {
		return nil, err
	}
	if spec == nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "config cannot be null")
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return nil, errdefs.New(errdefs.InvalidParameter, "root.path: it is missing")
	}
	if err := validate(spec); err != nil {
		return nil, err
	}
	return spec, nil
}

// ReadJSON reads a JSON file of a caller's, within the limits of a specification. Errors name the field.
func ReadJSON(path string, into any) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	if err := decode(data, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// DecodeJSON is ReadJSON from a stream.
func DecodeJSON(r io.Reader, into any) error {
	data, err := readAll(r, 4096)
	if err != nil {
		return err
	}
	return decode(data, into)
}

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0) // one that would block is no file
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case st.IsDir():
		return nil, &fs.PathError{Op: "read", Path: path, Err: syscall.EISDIR}
	case st.Size() > maxSpec:
		return nil, errdefs.New(errdefs.InvalidParameter, "%s is larger than %d bytes", path, maxSpec)
	}
	data, err := readAll(f, int(st.Size()))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

func readAll(r io.Reader, size int) ([]byte, error) {
	data := make([]byte, 0, size+512)
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case len(data) > maxSpec:
			return nil, errdefs.New(errdefs.InvalidParameter, "more than %d bytes", maxSpec)
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
	}
}

func decode(data []byte, into any) error {
	err := document.Decode(data, into)
	var syntax *document.SyntaxError
	if errors.As(err, &syntax) {
		line := 1 + bytes.Count(data[:syntax.Offset], []byte{'\n'})
		return errdefs.New(errdefs.InvalidParameter, "not JSON: line %d: %w", line, err)
	}
	return errdefs.With(errdefs.InvalidParameter, err)
}
