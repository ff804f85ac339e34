package image

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"gantry/errdefs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// choose returns which of an index's entries serves a platform best; nil is the host's. An entry without a platform serves when nothing else does.
func choose(entries []ocispec.Descriptor, want *ocispec.Platform) (int, bool) {
	if list := ranked(entries, want, fit); len(list) > 0 {
		return list[0], true
	}
	return -1, false
}

// candidates returns the entries of an index that may lead to an image for a platform, best first; nil is the host's. After those that fit come those that a processor runs in
// its mode of 32 bits, and last those that say nothing of a platform.
func candidates(entries []ocispec.Descriptor, want *ocispec.Platform) []int {
	return ranked(entries, want, suits)
}

// ranked returns the entries that score above 0, best first.
func ranked(entries []ocispec.Descriptor, want *ocispec.Platform, score func(*ocispec.Platform, ocispec.Platform) int) []int {
	p := hostPlatform()
	if want != nil {
		p = normalize(*want)
	}
	scores := make([]int, len(entries))
	var list []int
	for i, e := range entries {
		if scores[i] = score(e.Platform, p); scores[i] > 0 && !attestation(e) {
			list = append(list, i)
		}
	}
	slices.SortStableFunc(list, func(a, b int) int { return scores[b] - scores[a] })
	return list
}

// suits is fit, or less for what runs in a mode of 32 bits.
func suits(have *ocispec.Platform, want ocispec.Platform) int {
	if score := fit(have, want); score > 0 {
		return score
	}
	switch h := normalize(*have); {
	case h.OS != want.OS:
		return 0
	case want.Architecture == "amd64" && h.Architecture == "386":
		return 2
	case want.Architecture == "arm64" && want.Variant == "" && h.Architecture == "arm":
		return 2 + int(variantNumber(h.Variant))/2
	default:
		return 0
	}
}

const maxOffered = 20

// offered lists the platforms of an index for an error.
func offered(entries []ocispec.Descriptor) string {
	var names []string
	for _, e := range entries {
		if e.Platform == nil || attestation(e) {
			continue
		}
		if name := fmt.Sprintf("%.100q", formatPlatform(*e.Platform)); len(names) < maxOffered && !slices.Contains(names, strings.Trim(name, `"`)) {
			names = append(names, strings.Trim(name, `"`))
		}
	}
	if len(names) == 0 {
		return "is none"
	}
	return "are " + strings.Join(names, ", ")
}

// fit scores how well an image of platform have serves want; 0 is not at all.
func fit(have *ocispec.Platform, want ocispec.Platform) int {
	if have == nil {
		return 1
	}
	h := normalize(*have)
	if h.OS != want.OS || h.Architecture != want.Architecture {
		return 0
	}
	switch {
	case h.Variant == want.Variant:
		return 100
	case want.Architecture == "arm" && h.Variant <= want.Variant:
		return 10 + int(variantNumber(h.Variant)) // a newer variant runs what was built for an older one
	case want.Variant == "" && h.Variant == "":
		return 100
	case want.Architecture == "amd64" && h.Variant <= want.Variant:
		return 10 + int(variantNumber(h.Variant))
	case want.Architecture == "amd64" && want.Variant == "":
		return 0 // v2 and above may need instructions that the host lacks
	case want.Variant == "":
		return 10
	default:
		return 0
	}
}

func variantNumber(v string) byte {
	if len(v) == 2 && v[0] == 'v' {
		return v[1] - '0'
	}
	return 0
}

// normalize writes a platform in Go's words.
func normalize(p ocispec.Platform) ocispec.Platform {
	p.OS = strings.ToLower(p.OS)
	if p.OS == "" {
		p.OS = runtime.GOOS
	}
	p.Architecture, p.Variant = strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "":
		p.Architecture = runtime.GOARCH
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386", "i686":
		p.Architecture = "386"
	}
	if len(p.Variant) == 1 && p.Variant >= "1" && p.Variant <= "9" && strings.HasPrefix(p.Architecture, "arm") {
		p.Variant = "v" + p.Variant
	}
	switch {
	case p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "": // as containerd has it
		p.Variant = "v7"
	}
	return p
}

// What a platform of one word may be: Go's names, which are OCI's.
var (
	systems       = strings.Fields("aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1 windows zos")             //nolint:gochecknoglobals // a constant
	architectures = strings.Fields("386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc ppc64 ppc64le riscv riscv64 s390 s390x sparc sparc64 wasm") //nolint:gochecknoglobals // a constant
)

// ParsePlatform reads os[/arch[/variant]] or a lone architecture or system, as docker does.
func ParsePlatform(text string) (*ocispec.Platform, error) {
	parts := strings.Split(strings.ToLower(text), "/")
	for _, part := range parts {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			return nil, errdefs.New(errdefs.InvalidParameter, "%q is an invalid component of %q: platform specifier component must match \"^[A-Za-z0-9_.-]+$\"", part, text)
		}
	}
	var p ocispec.Platform
	switch len(parts) {
	case 1:
		if slices.Contains(systems, parts[0]) {
			p.OS = parts[0]
			break
		}
		p.OS, p.Architecture = runtime.GOOS, parts[0]
		if !slices.Contains(architectures, normalize(p).Architecture) {
			return nil, errdefs.New(errdefs.InvalidParameter, "%q: unknown operating system or architecture", text)
		}
	case 2:
		p.OS, p.Architecture = parts[0], parts[1]
	case 3:
		p.OS, p.Architecture, p.Variant = parts[0], parts[1], parts[2]
	default:
		return nil, errdefs.New(errdefs.InvalidParameter, "%q: cannot parse platform specifier", text)
	}
	p = normalize(p)
	return &p, nil
}
