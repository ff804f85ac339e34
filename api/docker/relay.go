package docker

import (
	"io"
	"net"
)

// relay copies both ways until both directions ended, passing half-closes on, and closes both connections.
func relay(client net.Conn, local *net.UnixConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(local, client) // an error ends the direction as EOF does
		_ = local.CloseWrite()
	}()
	_, _ = io.Copy(client, local)
	if half, ok := client.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = local.CloseRead()
	_ = client.Close()
	<-done
	_ = local.Close()
}
