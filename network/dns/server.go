package dns

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	ttl         = 600 // seconds, as Docker's
	udpSize     = 4096
	plainSize   = 512 // what a UDP client without EDNS takes
	tcpIdle     = 10 * time.Second
	concurrency = 100 // forwarded queries of one sandbox at a time
	tcpClients  = 16
)

// View is what one sandbox resolves.
type View struct {
	Zones    []*Zone
	Hosts    map[string][]netip.Addr // names of this sandbox only
	Links    map[string]string       // likewise: other words for names of the zones
	Upstream []netip.AddrPort        // servers for all other names; nil: the Forwarder's
	Internal bool                    // no other names: the sandbox must not reach the world
}

// Server answers the queries of one sandbox.
type Server struct {
	forwarder *Forwarder
	view      atomic.Pointer[View]
	udp       net.PacketConn
	tcp       net.Listener
	busy      chan struct{}
	clients   chan struct{}
	stop      chan struct{}
	wait      sync.WaitGroup
}

// Serve answers what arrives at the sockets, which were opened in the sandbox's namespace, until Close.
func Serve(f *Forwarder, udp net.PacketConn, tcp net.Listener, v View) *Server {
	s := &Server{
		forwarder: f, udp: udp, tcp: tcp,
		busy: make(chan struct{}, concurrency), clients: make(chan struct{}, tcpClients), stop: make(chan struct{}),
	}
	s.Set(v)
	s.wait.Go(s.serveUDP)
	s.wait.Go(s.serveTCP)
	return s
}

// Set changes what the server knows.
func (s *Server) Set(v View) { s.view.Store(&v) }

// Close closes the sockets and waits for the answers under way.
func (s *Server) Close() {
	close(s.stop)
	_ = s.udp.Close()
	_ = s.tcp.Close()
	s.wait.Wait()
}

func (s *Server) serveUDP() {
	b := make([]byte, udpSize)
	for {
		n, from, err := s.udp.ReadFrom(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		answer, forward := s.Answer(b[:n], false)
		if answer != nil {
			_, _ = s.udp.WriteTo(answer, from) // UDP: the client asks again
		}
		if !forward {
			continue
		}
		query := append([]byte(nil), b[:n]...)
		select {
		case s.busy <- struct{}{}:
			s.wait.Go(func() {
				defer func() { <-s.busy }()
				if answer := s.forward(query, false); answer != nil {
					_, _ = s.udp.WriteTo(answer, from)
				}
			})
		default: // too many at once: the client asks again
		}
	}
}

func (s *Server) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case <-s.stop:
				return
			case <-time.After(100 * time.Millisecond):
				continue
			}
		}
		select {
		case s.clients <- struct{}{}:
			s.wait.Go(func() {
				defer func() { <-s.clients }()
				s.client(c)
			})
		default:
			_ = c.Close()
		}
	}
}

// client serves one TCP connection: messages with their length in two bytes before each (RFC 1035 4.2.2).
func (s *Server) client(c net.Conn) {
	defer c.Close()
	ended := make(chan struct{})
	defer close(ended)
	s.wait.Go(func() {
		select {
		case <-s.stop:
			_ = c.Close()
		case <-ended:
		}
	})
	for {
		_ = c.SetDeadline(time.Now().Add(tcpIdle))
		query, err := readTCP(c)
		if err != nil {
			return
		}
		answer, forward := s.Answer(query, true)
		if forward {
			answer = s.forward(query, true)
		}
		if answer == nil || writeTCP(c, answer) != nil {
			return
		}
	}
}

func readTCP(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeTCP(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// Answer answers a query from the view. With forward it must be passed on instead; with neither it is no query and
// gets no answer.
func (s *Server) Answer(query []byte, tcp bool) (answer []byte, forward bool) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil, false
	}
	q, err := p.Question()
	if err != nil || h.OpCode != 0 {
		return reply(h, nil, dnsmessage.RCodeFormatError, nil, 0), false
	}
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return reply(h, nil, dnsmessage.RCodeFormatError, nil, 0), false // several questions: nobody asks so
	}
	limit := plainSize
	if tcp {
		limit = 0xffff
	}
	view := s.view.Load()
	if q.Class != dnsmessage.ClassINET {
		return nil, true
	}
	switch q.Type {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA:
		if addrs, ok := view.lookup(q.Name.String()); ok {
			return reply(h, &q, dnsmessage.RCodeSuccess, records(q, addrs), limit), false
		}
	case dnsmessage.TypePTR:
		if name, ok := view.reverse(q.Name.String()); ok {
			target, err := dnsmessage.NewName(name + ".")
			if err != nil {
				return reply(h, &q, dnsmessage.RCodeServerFailure, nil, limit), false
			}
			r := dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: ttl},
				Body:   &dnsmessage.PTRResource{PTR: target},
			}
			return reply(h, &q, dnsmessage.RCodeSuccess, []dnsmessage.Resource{r}, limit), false
		}
	default: // a known name has no other records
		if _, ok := view.lookup(q.Name.String()); ok {
			return reply(h, &q, dnsmessage.RCodeSuccess, nil, limit), false
		}
	}
	if view.Internal {
		return reply(h, &q, dnsmessage.RCodeNameError, nil, limit), false
	}
	return nil, true
}

func (v *View) lookup(name string) ([]netip.Addr, bool) {
	if addrs, ok := v.Hosts[canonical(name)]; ok {
		return addrs, true
	}
	if target, ok := v.Links[canonical(name)]; ok {
		name = target
	}
	for _, z := range v.Zones {
		if addrs, ok := z.Lookup(name); ok {
			return addrs, true
		}
	}
	return nil, false
}

func (v *View) reverse(name string) (string, bool) {
	a, ok := pointer(canonical(name))
	if !ok {
		return "", false
	}
	for _, z := range v.Zones {
		if name, ok := z.Reverse(a); ok {
			return name, true
		}
	}
	return "", false
}

// pointer decodes 4.3.2.1.in-addr.arpa and the nibbles of ip6.arpa.
func pointer(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 32 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(parts[31-i], 16, 4)
		if err != nil || len(parts[31-i]) != 1 {
			return netip.Addr{}, false
		}
		b[i/2] = b[i/2]<<4 | byte(n)
	}
	return netip.AddrFrom16(b), true
}

// records makes the answers of the question's family, in random order so that clients spread.
func records(q dnsmessage.Question, addrs []netip.Addr) []dnsmessage.Resource {
	var found []dnsmessage.Resource
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: ttl}
	for _, a := range addrs {
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			found = append(found, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			found = append(found, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	return found
}

// reply encodes an answer of at most limit bytes (0: any); what does not fit is left out and marked.
func reply(h dnsmessage.Header, q *dnsmessage.Question, code dnsmessage.RCode, answers []dnsmessage.Resource, limit int) []byte {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true,
			Authoritative: code == dnsmessage.RCodeSuccess, RCode: code,
		},
		Answers: answers,
	}
	if q != nil {
		m.Questions = []dnsmessage.Question{*q}
	}
	for {
		b, err := m.Pack()
		if err != nil {
			return nil
		}
		if limit == 0 || len(b) <= limit || len(m.Answers) == 0 {
			return b
		}
		m.Truncated = true
		m.Answers = m.Answers[:len(m.Answers)*3/4]
	}
}

// forward asks the upstream servers; without an answer it is SERVFAIL.
func (s *Server) forward(query []byte, tcp bool) []byte {
	if answer, err := s.forwarder.Ask(query, s.view.Load().Upstream, tcp, s.stop); err == nil {
		return answer
	}
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	return reply(h, &q, dnsmessage.RCodeServerFailure, nil, plainSize)
}
