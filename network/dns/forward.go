package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	askTimeout = 4 * time.Second // for each server
	resolvConf = "/etc/resolv.conf"
	resolvSize = 64 << 10 // bytes read of it
)

// Forwarder asks other servers, from the host's namespace. Without servers of its own it asks those that the host's
// resolv.conf names at the time.
type Forwarder struct {
	servers []netip.AddrPort

	mu    sync.Mutex // guards all below
	stamp time.Time  // of resolv.conf when it was read
	host  []netip.AddrPort
}

// NewForwarder returns one that asks these servers; nil: the host's.
func NewForwarder(servers []netip.Addr) *Forwarder {
	return &Forwarder{servers: Ports(servers)}
}

// Ports gives the servers the port of DNS.
func Ports(servers []netip.Addr) []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range servers {
		all = append(all, netip.AddrPortFrom(a, 53))
	}
	return all
}

// Ask passes the query on to one server after another until one answers.
func (f *Forwarder) Ask(query []byte, servers []netip.AddrPort, tcp bool, stop <-chan struct{}) ([]byte, error) {
	if len(servers) == 0 {
		servers = f.servers
	}
	if len(servers) == 0 {
		servers = f.ofHost()
	}
	network := "udp"
	if tcp {
		network = "tcp"
	}
	err := errors.New("no DNS server is known")
	for _, server := range servers {
		var answer []byte
		if answer, err = ask(network, server, query, stop); err == nil {
			return answer, nil
		}
		select {
		case <-stop:
			return nil, err
		default:
		}
	}
	return nil, err
}

func ask(network string, server netip.AddrPort, query []byte, stop <-chan struct{}) ([]byte, error) {
	if len(query) < 12 {
		return nil, errors.New("query is too short")
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout) // bounded by stop, below
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-stop:
			_ = c.SetDeadline(time.Now())
		case <-ended:
		}
	}()
	if err := c.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return nil, err
	}
	if network == "tcp" {
		if err := writeTCP(c, query); err != nil {
			return nil, err
		}
		answer, err := readTCP(c)
		if err == nil && !answers(query, answer) {
			err = errors.New("not an answer to the query")
		}
		return answer, err
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	b := make([]byte, udpSize)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if answers(query, b[:n]) { // others are late or forged
			return b[:n], nil
		}
	}
}

// answers compares ID and direction.
func answers(query, answer []byte) bool {
	const response = 0x80
	return len(answer) >= 12 && binary.BigEndian.Uint16(query) == binary.BigEndian.Uint16(answer) && answer[2]&response != 0
}

// ofHost returns the servers in the host's resolv.conf, read again when it changed.
func (f *Forwarder) ofHost() []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(resolvConf)
	if err != nil {
		return f.host
	}
	if info.ModTime().Equal(f.stamp) {
		return f.host
	}
	file, err := os.Open(resolvConf)
	if err != nil {
		return f.host
	}
	defer file.Close()
	b := make([]byte, min(info.Size(), resolvSize))
	n, err := file.Read(b)
	if err != nil {
		return f.host
	}
	f.stamp, f.host = info.ModTime(), Ports(ParseResolvConf(string(b[:n])).Servers)
	return f.host
}

// ResolvConf is what a resolv.conf says.
type ResolvConf struct {
	Servers []netip.Addr
	Search  []string
	Options []string
}

// ParseResolvConf reads a resolv.conf; what it does not understand it leaves out, as resolvers do.
func ParseResolvConf(text string) ResolvConf {
	var c ResolvConf
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil {
				c.Servers = append(c.Servers, a)
			}
		case "search", "domain":
			c.Search = words[1:]
		case "options":
			c.Options = append(c.Options, words[1:]...)
		}
	}
	return c
}
