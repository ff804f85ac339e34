package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
)

// TLSOptions names the PEM files of a TLS connection; an empty name means none.
type TLSOptions struct {
	CA     string // certificates the server's must be signed by; "": the system's
	Cert   string // the client's certificate
	Key    string // and its key
	Verify bool   // check the server's certificate
}

func (o TLSOptions) config(host string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: !o.Verify, NextProtos: []string{"http/1.1"}}
	if o.CA != "" && o.Verify {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("could not read CA certificate %q: %w", o.CA, err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in CA file %q", o.CA)
		}
	}
	if o.Cert != "" && o.Key != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("could not load X509 key pair: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// startTLS does the handshake over nc, which it closes when that fails.
func startTLS(ctx context.Context, nc net.Conn, address string, o TLSOptions) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	cfg, err := o.config(host)
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", address, err)
	}
	return tc, nil
}
