package system

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// certify writes a certificate, which is its own authority, and its key.
func certify(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestTLS attaches and execs over TLS, whose connections cannot be handed to the supervisor as they are.
func TestTLS(t *testing.T) {
	cert, key := certify(t)
	e := own(t, "tls", "-H", "tcp://127.0.0.1:0", "--tlsverify", "--tlscacert", cert, "--tlscert", cert, "--tlskey", key)
	addresses := regexp.MustCompile(`API listen on (127\.0\.0\.1:\d+)`).FindAllStringSubmatch(e.D.LogTail(20), -1)
	if len(addresses) == 0 {
		t.Fatal("no TCP address in the log")
	}
	address := addresses[len(addresses)-1] // of the newest start: the test may be repeated
	secure := []string{"-H", "tcp://" + address[1], "--tlsverify", "--tlscacert", cert, "--tlscert", cert, "--tlskey", key}
	with := func(args ...string) []string { return append(secure[:len(secure):len(secure)], args...) }

	e.Is("hi", with("run", "--rm", image, "echo", "hi")...)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	if r := e.DoInput(big, with("run", "--rm", "-i", image, "cat")...); r.Code != 0 || r.Stdout != big {
		t.Errorf("code %d, %d bytes back of %d: %s", r.Code, len(r.Stdout), len(big), r.Stderr)
	}
	id := e.Sleeper()
	if r := e.DoInput("in", with("exec", "-i", id, "sh", "-c", "cat; echo err >&2; exit 7")...); r.Code != 7 || r.Stdout != "in" || r.Stderr != "err\n" {
		t.Errorf("exec: %v", r)
	}
	session := e.Terminal(with("exec", "-it", id, "sh")...)
	session.Type("echo $((6*7))\n")
	session.Expect("42")
	session.Type("exit 3\n")
	if code := session.Wait(); code != 3 {
		t.Errorf("terminal: exit code %d", code)
	}

	e.Fails(1, "certificate required|bad certificate", "-H", "tcp://"+address[1], "--tlsverify", "--tlscacert", cert, "ps")
	e.Fails(1, "HTTP", "-H", "tcp://"+address[1], "ps") // without TLS
}
