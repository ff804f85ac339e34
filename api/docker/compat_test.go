package docker

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/storage"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestShapes holds every response that differs between API versions against testdata/<response>-<version>.json.
func TestShapes(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:aa", Size: 7}
	summaries := func() []image.Summary {
		return []image.Summary{
			{ID: "sha256:1", Created: 1700000000, Size: 10, SharedSize: 4, Containers: 1, RepoTags: []string{"a:1"}, RepoDigests: []string{"a@sha256:aa"}, Descriptor: &d, Labels: map[string]string{"k": "v"}},
			{ID: "sha256:2", ParentID: "sha256:1", Size: 20, SharedSize: -1},
		}
	}
	shapes := map[string]func(v Version) any{
		"info": func(v Version) any {
			return infoFor(v, &system.Info{
				ID: "id", Driver: "overlay2", Labels: []string{}, RegistryConfig: &registry.ServiceConfig{Mirrors: []string{}},
				RuncCommit: system.Commit{ID: "builtin"}, FirewallBackend: &system.FirewallInfo{Driver: "nftables"}, NRI: &system.NRIInfo{},
				Runtimes: map[string]system.RuntimeWithStatus{"runc": {Runtime: system.Runtime{Path: "builtin"}}},
			})
		},
		"images": func(v Version) any { return imagesFor(v, summaries()) },
		"image": func(v Version) any {
			return imageFor(v, &image.InspectResponse{
				ID: "sha256:1", Architecture: "amd64", Os: "linux", Size: 10, Descriptor: &d, RootFS: image.RootFS{Type: "layers", Layers: []string{"sha256:l"}},
				GraphDriver: &storage.DriverData{Name: "overlay2", Data: map[string]string{}},
				Config:      &v1.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"sh"}, Labels: map[string]string{"k": "v"}}},
			}, "")
		},
		"event": func(v Version) any {
			return eventFor(v, events.Message{
				Type: "container", Action: "die", Actor: events.Actor{ID: "c", Attributes: map[string]string{"image": "i", "exitCode": "1"}}, Scope: "local", Time: 1, TimeNano: 2,
			})
		},
		"network": func(v Version) any {
			return networkFor(v, network.Inspect{Network: network.Network{
				Name: "n", ID: "1", Created: at, Scope: "local", Driver: "bridge", EnableIPv4: true, Options: map[string]string{}, Labels: map[string]string{},
				IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")}}},
			}, Containers: map[string]network.EndpointResource{"c": {Name: "one", EndpointID: "e", IPv4Address: netip.MustParsePrefix("10.1.0.2/24")}}})
		},
		"usage": func(v Version) any {
			return usageFor(v, usage{
				layers: 26, images: summaries(), containers: []container.Summary{{ID: "c", SizeRw: 5, State: "exited"}, {ID: "d", SizeRw: 6, State: "running"}},
				volumes: []volume.Volume{{Name: "v", Driver: "local", Scope: "local", UsageData: &volume.UsageData{Size: 9}}}, cache: []build.CacheRecord{},
			})
		},
		"usage-verbose": func(v Version) any {
			return usageFor(v, usage{verbose: v >= 52, layers: 26, images: summaries(), cache: []build.CacheRecord{}})
		},
	}
	for name, shape := range shapes {
		for _, v := range []Version{24, 41, 42, 43, 46, 48, 51, 52, 56} {
			data, err := json.Marshal(shape(v))
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, data, "", "\t"); err != nil {
				t.Fatal(err)
			}
			pretty.WriteByte('\n')
			file := filepath.Join("testdata", fmt.Sprintf("%s-%s.json", name, v))
			if *update {
				if err := os.WriteFile(file, pretty.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(pretty.Bytes(), want) {
				t.Errorf("%s differs:\n%s", file, pretty.Bytes())
			}
		}
	}
}
