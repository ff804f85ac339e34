package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"gantry/errdefs"
	"gantry/network"
)

// maxResolvConf bounds what is read of the host's resolv.conf, in bytes.
const maxResolvConf = 1 << 20

type hostEntry struct {
	name    string
	address netip.Addr
}

const (
	resolvHeader = "# Made by gantry for this container; a change lasts until its next start.\n"
	resolverLine = "nameserver 127.0.0.11\n" // of the resolver inside
)

// resolveHosts reads name:address entries; an address may be in brackets, or host-gateway.
func (s *Service) resolveHosts(ctx context.Context, extra []string) ([]hostEntry, error) {
	entries := make([]hostEntry, 0, len(extra))
	for _, e := range extra {
		name, text, _ := strings.Cut(e, ":")
		text = strings.Trim(text, "[]")
		var address netip.Addr
		if text == "host-gateway" {
			if address = s.gateway(ctx); !address.IsValid() {
				return nil, errdefs.New(errdefs.InvalidParameter, "unable to derive the IP value for host-gateway")
			}
		} else {
			var err error
			if address, err = netip.ParseAddr(text); err != nil {
				return nil, errdefs.New(errdefs.InvalidParameter, "invalid IP address in add-host: %q", text)
			}
		}
		entries = append(entries, hostEntry{name, address})
	}
	return entries, nil
}

func (s *Service) writeFiles(c Config, ns *network.Namespace, hosts []hostEntry) error {
	files := FilesIn(c.Dir)
	hostname := c.Hostname
	if err := rewrite(files.Hostname, hostname+"\n"); err != nil {
		return err
	}
	var content string
	if ns.File == nil && len(c.ExtraHosts) == 0 { // the host's network: its own names
		body, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		content = string(body)
	} else {
		content = hostsFile(c, ns.Endpoints, hosts)
	}
	if err := rewrite(files.Hosts, content); err != nil {
		return err
	}
	host, err := hostResolvConf()
	if err != nil {
		return err
	}
	return rewrite(files.ResolvConf, resolvConf(host, c, ns.File != nil, ns.Resolver))
}

// rewrite changes the content of a file in place: a container that has it mounted sees the change.
func rewrite(name, content string) error { return os.WriteFile(name, []byte(content), 0o644) }

// hostsFile returns the content of /etc/hosts.
func hostsFile(c Config, endpoints []network.Endpoint, extra []hostEntry) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	for _, h := range extra {
		fmt.Fprintf(&b, "%s\t%s\n", h.address, h.name)
	}
	for _, l := range c.Linked {
		fmt.Fprintf(&b, "%s\t%s\n", l.Address, strings.Join(l.Names, " "))
	}
	names := c.Hostname
	if c.Domainname != "" {
		names = c.Hostname + "." + c.Domainname + " " + c.Hostname
	}
	for _, e := range endpoints {
		if e.IPv4.IsValid() {
			fmt.Fprintf(&b, "%s\t%s\n", e.IPv4.Addr(), names)
		}
		if e.IPv6.IsValid() {
			fmt.Fprintf(&b, "%s\t%s\n", e.IPv6.Addr(), names)
		}
	}
	return b.String()
}

// resolver is the content of a resolv.conf(5).
type resolver struct {
	servers []netip.Addr
	search  []string
	options []string
}

// hostResolvConf reads the host's resolv.conf, or that of systemd-resolved where the former only names its stub.
func hostResolvConf() (resolver, error) {
	r, err := readResolvConf("/etc/resolv.conf")
	if err != nil {
		return r, err
	}
	if len(r.servers) == 1 && r.servers[0] == netip.MustParseAddr("127.0.0.53") {
		if full, err := readResolvConf("/run/systemd/resolve/resolv.conf"); err == nil && len(full.servers) > 0 {
			return full, nil
		}
	}
	return r, nil
}

func readResolvConf(name string) (resolver, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return resolver{}, nil
	}
	if err != nil {
		return resolver{}, err
	}
	defer func() { _ = f.Close() }() // read only
	return parseResolvConf(bufio.NewScanner(f)), nil
}

func parseResolvConf(lines *bufio.Scanner) resolver {
	var r resolver
	for size := 0; lines.Scan() && size < maxResolvConf; size += len(lines.Bytes()) {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				r.servers = append(r.servers, a)
			}
		case "search", "domain":
			r.search = fields[1:]
		case "options":
			r.options = append(r.options, fields[1:]...)
		}
	}
	return r
}

// resolvConf returns the content of the sandbox's resolv.conf: what the user asked for, else the host's without the
// servers that only the host can reach.
func resolvConf(host resolver, c Config, ownNetwork bool, inside netip.Addr) string {
	r := host
	if ownNetwork {
		r.servers = nil
		for _, a := range host.servers {
			if !a.IsLoopback() {
				r.servers = append(r.servers, a)
			}
		}
	}
	if len(c.DNS) > 0 {
		r.servers = c.DNS
	}
	if len(c.DNSSearch) > 0 {
		r.search = c.DNSSearch
		if len(c.DNSSearch) == 1 && c.DNSSearch[0] == "." {
			r.search = nil
		}
	}
	if len(c.DNSOptions) > 0 {
		r.options = c.DNSOptions
	}
	var b strings.Builder
	b.WriteString(resolvHeader)
	if inside.IsValid() {
		r.servers = []netip.Addr{inside}
		r.options = append(append([]string(nil), r.options...), "ndots:0")
	}
	for _, a := range r.servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(r.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search, " "))
	}
	if len(r.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	}
	return b.String()
}
