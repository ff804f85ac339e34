package docker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
)

// This file is the one place that knows how responses differ between API versions. The services and handlers speak the
// newest; the functions here take off what a version did not have, and add what it still had.

// extra is a JSON object whose members are those of a value and, after them, some more. More wins; objects in both are merged.
type extra struct {
	value any
	more  map[string]any
}

// MarshalJSON encodes the value and its additions as one object. The members of the value keep their order, which is the
// one that people see in `docker inspect`.
func (e extra) MarshalJSON() ([]byte, error) {
	data, err := json.Marshal(e.value)
	if err != nil {
		return nil, err
	}
	object, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	if err := object.merge(e.more, true); err != nil {
		return nil, err
	}
	return object.bytes(), nil
}

// member is one member of an object.
type member struct {
	key   string
	value json.RawMessage
}

// object is a JSON object that keeps the order of its members.
type object []member

// parseObject reads an object that encoding/json wrote.
func parseObject(data []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, fmt.Errorf("JSON value is no object: %w", err)
	}
	var o object
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{key: key.(string)} // the decoder guarantees it
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		o = append(o, m)
	}
	return o, nil
}

// merge adds members, in the order of their names. Where both sides have an object these are merged; where both have
// something else the new one wins if replace is set.
func (o *object) merge(more map[string]any, replace bool) error {
	for _, key := range slices.Sorted(maps.Keys(more)) {
		i := slices.IndexFunc(*o, func(m member) bool { return m.key == key })
		added, isObject := more[key].(map[string]any)
		if i >= 0 && isObject && replace && bytes.HasPrefix((*o)[i].value, []byte("{")) {
			inner, err := parseObject((*o)[i].value)
			if err != nil {
				return err
			}
			if err := inner.merge(added, replace); err != nil {
				return err
			}
			(*o)[i].value = inner.bytes()
			continue
		}
		if i >= 0 && !replace {
			continue
		}
		value, err := json.Marshal(more[key])
		if err != nil {
			return err
		}
		if i < 0 {
			*o = append(*o, member{key, value})
		} else {
			(*o)[i].value = value
		}
	}
	return nil
}

func (o object) bytes() []byte {
	out := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendQuote(out, m.key) // names of Go fields: no escapes
		out = append(append(out, ':'), m.value...)
	}
	return append(out, '}')
}

// infoFor is /info: 1.44 added the runtimes' status, 1.46 containerd, 1.49 the firewall and took the expected commits
// away, 1.48 took away the registries for non-distributable artifacts, 1.50 bridge-nf and added devices, 1.53 NRI.
func infoFor(v Version, info *system.Info) any {
	more := map[string]any{}
	if v < 46 {
		info.Containerd = nil
	}
	if v < 47 {
		more["RegistryConfig"] = map[string]any{"AllowNondistributableArtifactsCIDRs": nil, "AllowNondistributableArtifactsHostnames": nil}
	}
	if v < 49 {
		info.FirewallBackend = nil
		more["ContainerdCommit"] = map[string]any{"Expected": info.ContainerdCommit.ID}
		more["RuncCommit"] = map[string]any{"Expected": info.RuncCommit.ID}
		more["InitCommit"] = map[string]any{"Expected": info.InitCommit.ID}
	}
	if v < 50 {
		info.DiscoveredDevices = nil
		more["BridgeNfIptables"], more["BridgeNfIp6tables"] = false, false
	}
	if v < 53 {
		info.NRI = nil
	}
	if len(more) == 0 {
		return info
	}
	return extra{info, more}
}

// imageSummary is an image of the list as API versions before 1.44 have it.
type imageSummary struct {
	image.Summary
	VirtualSize int64 `json:"VirtualSize"`
}

// imagesFor is /images/json: before 1.51 the containers were not counted there.
func imagesFor(v Version, list []image.Summary) any {
	if v < 51 {
		for i := range list {
			list[i].Containers = -1
		}
	}
	return summariesFor(v, list)
}

// summariesFor are images in lists: until 1.42 one without name is "<none>", until 1.43 there is VirtualSize, and 1.48
// added descriptors.
func summariesFor(v Version, list []image.Summary) any {
	for i := range list {
		summary := &list[i]
		if v < 43 && len(summary.RepoTags) == 0 && len(summary.RepoDigests) == 0 {
			summary.RepoTags, summary.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
		summary.RepoTags, summary.RepoDigests = nonNil(summary.RepoTags), nonNil(summary.RepoDigests)
		if v < 48 {
			summary.Descriptor = nil
		}
	}
	if v >= 44 {
		return nonNil(list)
	}
	older := make([]imageSummary, len(list))
	for i, summary := range list {
		older[i] = imageSummary{summary, summary.Size}
	}
	return older
}

// imageFor is /images/{name}/json: until 1.43 there is VirtualSize and a zero Created, until 1.44 the container the image
// was made from, 1.48 added the descriptor, and before 1.52 empty fields were shown.
func imageFor(v Version, inspect *image.InspectResponse, parent string) any {
	inspect.RepoTags, inspect.RepoDigests = nonNil(inspect.RepoTags), nonNil(inspect.RepoDigests)
	if v < 48 {
		inspect.Descriptor = nil
	}
	if v >= 52 {
		inspect.GraphDriver = nil
		if parent == "" {
			return inspect
		}
		return extra{inspect, map[string]any{"Parent": parent}}
	}
	more := map[string]any{"Parent": parent, "Comment": inspect.Comment, "DockerVersion": "", "Author": inspect.Author}
	if v < 44 {
		more["VirtualSize"] = inspect.Size
		if inspect.Created == "" {
			more["Created"] = "0001-01-01T00:00:00Z"
		}
	}
	config := map[string]any{"Cmd": nil, "Entrypoint": nil, "Env": nil, "Labels": nil, "OnBuild": nil, "User": "", "Volumes": nil, "WorkingDir": ""}
	if v < 50 {
		for _, key := range []string{"AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty"} {
			config[key] = false
		}
		config["Domainname"], config["Hostname"], config["Image"] = "", "", ""
	}
	if v < 45 {
		more["Container"] = ""
		more["ContainerConfig"] = config
	}
	return olderImage{extra{inspect, more}, config}
}

// olderImage also shows the empty fields of the image's Config.
type olderImage struct {
	extra
	config map[string]any
}

// MarshalJSON encodes the image with all fields that the version shows.
func (o olderImage) MarshalJSON() ([]byte, error) {
	data, err := o.extra.MarshalJSON()
	if err != nil {
		return nil, err
	}
	image, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	config := object{}
	i := slices.IndexFunc(image, func(m member) bool { return m.key == "Config" })
	if i < 0 {
		i = len(image)
		image = append(image, member{key: "Config"})
	} else if bytes.HasPrefix(image[i].value, []byte("{")) {
		if config, err = parseObject(image[i].value); err != nil {
			return nil, err
		}
	}
	if err := config.merge(o.config, false); err != nil {
		return nil, err
	}
	image[i].value = config.bytes()
	return image.bytes(), nil
}

// eventFor is a message of /events: before 1.52 it repeats parts in the fields of API 1.21.
func eventFor(v Version, m events.Message) any {
	if v >= 52 {
		return m
	}
	older := olderEvent{Message: m}
	switch m.Type {
	case events.ContainerEventType:
		older.From = m.Actor.Attributes["image"]
		fallthrough
	case events.ImageEventType:
		older.ID, older.Status = m.Actor.ID, string(m.Action)
	default:
		return m
	}
	return older
}

type olderEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

// networkFor is /networks/{id}: 1.48 brought EnableIPv4.
func networkFor(v Version, n network.Inspect) any {
	if v >= 48 {
		return n
	}
	return olderNetwork{n, nil}
}

// networksFor is /networks: before 1.52 its entries had an (empty) list of containers.
func networksFor(v Version, list []network.Inspect) any {
	if v >= 52 {
		summaries := make([]network.Summary, len(list))
		for i, n := range list {
			summaries[i] = network.Summary{Network: n.Network}
		}
		return summaries
	}
	if v >= 48 {
		return list
	}
	older := make([]olderNetwork, len(list))
	for i, n := range list {
		older[i] = olderNetwork{n, nil}
	}
	return older
}

// olderNetwork hides EnableIPv4: the shallower field of that name wins, and is left out when nil.
type olderNetwork struct {
	network.Inspect
	EnableIPv4 *bool `json:"EnableIPv4,omitempty"`
}

// usageFor is /system/df: flat lists before 1.52, from then on both shapes unless the client asked for the new one.
func usageFor(v Version, u usage) any {
	flat := flatUsage{LayersSize: u.layers, Containers: u.containers, Volumes: u.volumes, BuildCache: u.cache}
	if u.images != nil {
		flat.Images = summariesFor(v, slices.Clone(u.images))
	}
	if v < 42 && u.cache != nil {
		flat.BuilderSize = new(int64)
	}
	switch {
	case v < 52:
		return flat
	case u.verbose:
		return u.summary()
	default:
		return struct {
			flatUsage
			system.DiskUsage
		}{flat, u.summary()}
	}
}
