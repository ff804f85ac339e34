package rdt

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Stats is a group in the JSON form that the callers of a runtime's events command read.
type Stats struct {
	L3CacheInfo       *L3CacheInfo `json:"l3_cache_info,omitempty"`
	L3CacheSchemaRoot string       `json:"l3_cache_schema_root,omitempty"`
	L3CacheSchema     string       `json:"l3_cache_schema,omitempty"`
	MemBwInfo         *MemBwInfo   `json:"mem_bw_info,omitempty"`
	MemBwSchemaRoot   string       `json:"mem_bw_schema_root,omitempty"`
	MemBwSchema       string       `json:"mem_bw_schema,omitempty"`
	Schemata          []string     `json:"schemata,omitempty"`
	MBM               []Bandwidth  `json:"mbm_stats,omitempty"`
	CMT               []Occupancy  `json:"cmt_stats,omitempty"`
}

// L3CacheInfo is what the machine's cache can be divided into.
type L3CacheInfo struct {
	CbmMask    string `json:"cbm_mask,omitempty"`
	MinCbmBits uint64 `json:"min_cbm_bits,omitempty"`
	NumClosids uint64 `json:"num_closids,omitempty"`
}

// MemBwInfo is what the machine's memory bandwidth can be divided into.
type MemBwInfo struct {
	BandwidthGran uint64 `json:"bandwidth_gran,omitempty"`
	DelayLinear   uint64 `json:"delay_linear,omitempty"`
	MinBandwidth  uint64 `json:"min_bandwidth,omitempty"`
	NumClosids    uint64 `json:"num_closids,omitempty"`
}

// Bandwidth is the memory traffic of one part of the machine, in bytes.
type Bandwidth struct {
	Total uint64 `json:"mbm_total_bytes,omitempty"`
	Local uint64 `json:"mbm_local_bytes,omitempty"`
}

// Occupancy is the use of one cache, in bytes.
type Occupancy struct {
	LLC uint64 `json:"llc_occupancy,omitempty"`
}

func text(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

func count(path string) uint64 {
	n, _ := strconv.ParseUint(text(path), 10, 64) // "Unavailable", and what is not there, is 0
	return n
}

// schema returns the line of schemata that is about a resource.
func schema(lines []string, resource string) string {
	for _, l := range lines {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, resource) {
			return l
		}
	}
	return ""
}

// Stats reads the group's schemata and what is measured: of the container's own group of measurement, or of all that are in the group.
func (g *Group) Stats() (Stats, error) {
	body, err := os.ReadFile(filepath.Join(g.dir(), "schemata"))
	if err != nil {
		return Stats{}, fmt.Errorf("read group %s of Intel RDT: %w", g.Closid, err)
	}
	var s Stats
	for l := range strings.Lines(string(body)) {
		s.Schemata = append(s.Schemata, strings.TrimSpace(l))
	}
	all := strings.Split(text(filepath.Join(g.fs.root, "schemata")), "\n")
	info := func(name string) string { return filepath.Join(g.fs.root, "info", name) }
	if g.fs.exists("info/L3") {
		s.L3CacheInfo = &L3CacheInfo{CbmMask: text(info("L3/cbm_mask")), MinCbmBits: count(info("L3/min_cbm_bits")), NumClosids: count(info("L3/num_closids"))}
		s.L3CacheSchemaRoot, s.L3CacheSchema = schema(all, "L3"), schema(s.Schemata, "L3")
	}
	if g.fs.exists("info/MB") {
		s.MemBwInfo = &MemBwInfo{
			BandwidthGran: count(info("MB/bandwidth_gran")), DelayLinear: count(info("MB/delay_linear")), MinBandwidth: count(info("MB/min_bandwidth")), NumClosids: count(info("MB/num_closids")),
		}
		s.MemBwSchemaRoot, s.MemBwSchema = schema(all, "MB"), schema(s.Schemata, "MB")
	}
	dir := g.dir()
	if g.Monitor != "" {
		dir = g.monitor()
	}
	s.measure(filepath.Join(dir, "mon_data"), strings.Fields(text(info("L3_MON/mon_features"))))
	return s, nil
}

// measure reads the counters of each part of the machine, in the order of their numbers.
func (s *Stats) measure(dir string, features []string) {
	entries, _ := os.ReadDir(dir) // a machine that measures has it
	var parts []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "mon_L3_") {
			parts = append(parts, e.Name())
		}
	}
	slices.SortFunc(parts, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	has := func(name string) bool { return slices.Contains(features, name) }
	for _, p := range parts {
		at := func(name string) uint64 { return count(filepath.Join(dir, p, name)) }
		if has("mbm_total_bytes") || has("mbm_local_bytes") {
			s.MBM = append(s.MBM, Bandwidth{at("mbm_total_bytes"), at("mbm_local_bytes")})
		}
		if has("llc_occupancy") {
			s.CMT = append(s.CMT, Occupancy{at("llc_occupancy")})
		}
	}
}
