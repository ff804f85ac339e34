package publish

import (
	"net"
	"testing"
	"time"
)

// TestReadable waits for a datagram that was there before.
func TestReadable(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.DialUDP("udp4", nil, c.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	// The poller has told of it before anybody waits: it tells of the next datagram only.
	deadline := time.AfterFunc(5*time.Second, func() { c.Close() })
	defer c.Close()
	if err := readable(c); err != nil || !deadline.Stop() {
		t.Errorf("the datagram was not seen: %v", err)
	}
}
