package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxFile is the largest daemon.json that is read, in bytes.
const maxFile = 1 << 20

// readFile applies daemon.json to the options. A file that is missing is an error only if it was asked for.
func (c *config) readFile(options []option) error {
	f, err := os.Open(c.configFile)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) && !c.fromFlag["config-file"] {
			return nil
		}
		return c.fileError(err)
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return c.fileError(err)
	}
	if len(data) > maxFile {
		return c.fileError(fmt.Errorf("the file is larger than %d bytes", maxFile))
	}
	if err := c.applyFile(data, options); err != nil {
		return c.fileError(err)
	}
	return nil
}

func (c *config) fileError(err error) error {
	return fmt.Errorf("unable to configure the Docker daemon with file %s: %w", c.configFile, err)
}

// applyFile applies the text of a daemon.json. Unknown keys and keys that were also given as flags are errors that list
// all of them, in docker's words.
func (c *config) applyFile(data []byte, options []option) error {
	plain, err := decodeBOM(data)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(plain)) == 0 {
		return nil
	}
	members, err := members(plain)
	if err != nil {
		return err
	}
	byKey := map[string]option{}
	for _, o := range options {
		if o.key != "" {
			byKey[o.key] = o
		}
	}
	var unknown, conflicts []string
	for _, m := range members {
		o, known := byKey[m.key]
		switch {
		case !known:
			unknown = append(unknown, m.key)
		case o.flag != "" && c.fromFlag[o.flag] && m.key != "runtimes": // runtimes from both places are merged
			conflicts = append(conflicts, fmt.Sprintf("%s: (from flag: %s, from file: %s)", m.key, masked(o.value.String()), masked(plainText(m.value))))
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(conflicts) > 0 {
		slices.Sort(conflicts)
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(conflicts, ", "))
	}
	for _, m := range members {
		o := byKey[m.key]
		if err := o.value.decode(m.value); err != nil {
			return fmt.Errorf("%s: %w", m.key, err)
		}
		c.fromFile[m.key] = true
		if o.effect != "" {
			c.notes = append(c.notes, m.key+": "+o.effect)
		}
	}
	if c.fromFile["host-gateway-ip"] && c.fromFile["host-gateway-ips"] {
		return errors.New("host-gateway-ip and host-gateway-ips must not both be specified in the config file")
	}
	return nil
}

type member struct {
	key   string
	value json.RawMessage
}

// members splits the object into its members in order, those of "proxies" among them. A key that comes twice is an
// error: readers disagree about which one counts.
func members(data []byte) ([]member, error) {
	var found []member
	seen := map[string]bool{}
	var collect func(raw []byte) error
	collect = func(raw []byte) error {
		dec := json.NewDecoder(bytes.NewReader(raw))
		start, err := dec.Token()
		if err != nil {
			return fmt.Errorf("invalid JSON: %w", err)
		}
		if start != json.Delim('{') {
			return errors.New("invalid JSON: an object is wanted")
		}
		for dec.More() {
			token, err := dec.Token()
			if err != nil {
				return fmt.Errorf("invalid JSON: %w", err)
			}
			key, _ := token.(string) // an object's keys are strings, or Token fails
			var value json.RawMessage
			if err := dec.Decode(&value); err != nil {
				return fmt.Errorf("invalid JSON: %s: %w", key, err)
			}
			if seen[key] {
				return fmt.Errorf("the key %q is there twice", key)
			}
			seen[key] = true
			if key == "proxies" {
				if err := collect(value); err != nil {
					return err
				}
				continue
			}
			found = append(found, member{key, value})
		}
		if _, err := dec.Token(); err != nil {
			return errors.New("invalid JSON: unexpected end of the object")
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return errors.New("invalid JSON: there is more after the object")
		}
		return nil
	}
	return found, collect(data)
}

// decodeBOM returns UTF-8 without a byte order mark from UTF-8 or UTF-16, as docker reads files of Windows editors.
func decodeBOM(data []byte) ([]byte, error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte{0xef, 0xbb, 0xbf}):
		data = data[3:]
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	}
	if order != nil {
		units := make([]uint16, 0, len(data)/2)
		for i := 2; i+1 < len(data); i += 2 {
			units = append(units, order.Uint16(data[i:]))
		}
		return []byte(string(utf16.Decode(units))), nil
	}
	if !utf8.Valid(data) {
		return nil, errors.New("failed to decode configuration JSON: it is not UTF-8")
	}
	return data, nil
}

// plainText is a JSON value as docker's messages show it: strings without quotes.
func plainText(raw json.RawMessage) string {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return string(raw)
	}
	return fmt.Sprint(v)
}
