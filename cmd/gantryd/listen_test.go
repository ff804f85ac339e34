package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_TEST_WAIT") != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	if os.Getenv("GANTRY_TEST_LISTEN_FDS") != "" {
		all, err := listenFDs(os.Getenv("GANTRY_TEST_LISTEN_FDS"), os.Getenv, os.Getpid())
		for _, l := range all {
			fmt.Println(l.Addr())
		}
		if err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	if path := os.Getenv("GANTRY_TEST_LISTEN"); path != "" { // and leave a child that has the socket
		l, err := net.Listen("unix", path)
		if err != nil {
			os.Exit(1)
		}
		f, err := l.(*net.UnixListener).File()
		if err != nil {
			os.Exit(1)
		}
		child := exec.Command("/bin/sleep", "600")
		child.ExtraFiles = []*os.File{f}
		if err := child.Start(); err != nil {
			os.Exit(1)
		}
		fmt.Println(child.Process.Pid)
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The socket of a daemon that was killed is replaced, though a child of it may still have it open; that of one that lives is not.
func TestSocketOfKilledDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GANTRY_TEST_LISTEN="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(child, syscall.SIGKILL) }()
	c, log := &config{}, slog.New(slog.DiscardHandler)
	if l, err := c.listenUnix(t.Context(), path, log); err == nil {
		t.Error("the socket of a living daemon was replaced", l.Close())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if conn, err := net.Dial("unix", path); err != nil {
		t.Fatalf("nothing has the socket: %v", err)
	} else {
		_ = conn.Close()
	}
	l, err := c.listenUnix(t.Context(), path, log)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestSocketActivation(t *testing.T) {
	dir := t.TempDir()
	var files []*os.File
	for _, name := range []string{"a", "b"} {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		f, err := l.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		files = append(files, f)
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for which, want := range map[string]string{"*": a + "\n" + b, "4": b, "first": a, "nope": `no socket activation file descriptor matches "nope"`} {
		c := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
		c.Env = append(os.Environ(), "GANTRY_TEST_LISTEN_FDS="+which, "LISTEN_FDS=2", "LISTEN_FDNAMES=first:second")
		c.ExtraFiles = files
		out, err := c.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: %q %v, want %q", which, out, err, want)
		}
	}
	if _, err := listenFDs("", none, os.Getpid()); err == nil || !strings.Contains(err.Error(), "no sockets found via socket activation") {
		t.Errorf("without sockets: %v", err)
	}
}

func listenAll(t *testing.T, args ...string) ([]*listener, error) {
	t.Helper()
	c, err := load("gantryd", append([]string{"--config-file="}, args...), none, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.listen(t.Context(), slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		for _, l := range all {
			if err := l.close(); err != nil {
				t.Error(err)
			}
		}
	})
	return all, err
}

func TestUnixSockets(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("long", 30), strings.Repeat("name", 20)+".sock")
	short := filepath.Join(dir, "s")
	if err := os.WriteFile(short, nil, 0o600); err != nil { // stale: nobody answers
		t.Fatal(err)
	}
	if _, err := listenAll(t, "-H", "unix://"+short, "-H", "unix://"+long, "-G", "0"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{short, long} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o660 || info.Mode().Type() != os.ModeSocket {
			t.Errorf("%v %v", info, err)
		}
	}
	if _, err := listenAll(t, "-H", "unix://"+short); err == nil || !strings.Contains(err.Error(), "another daemon answers on it") {
		t.Errorf("a second daemon: %v", err)
	}
	if _, err := listenAll(t, "-H", "unix://"+filepath.Join(dir, "x"), "-G", "no-such-group-anywhere"); err == nil || !strings.Contains(err.Error(), "group no-such-group-anywhere not found") {
		t.Errorf("group: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("the socket of a failed start is left")
	}
}

// certify writes a self-signed certificate, which is its own authority, and its key.
func certify(t *testing.T, dir string) (cert, key string, pair tls.Certificate) {
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
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pair, err = tls.LoadX509KeyPair(cert, key); err != nil {
		t.Fatal(err)
	}
	return cert, key, pair
}

func TestTLS(t *testing.T) {
	cert, key, pair := certify(t, t.TempDir())
	all, err := listenAll(t, "-H", "tcp://127.0.0.1:0", "--tlsverify", "--tlscacert", cert, "--tlscert", cert, "--tlskey", key)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") }), ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = server.Serve(all[0]) }()
	defer func() { _ = server.Close() }()
	pool := x509.NewCertPool()
	data, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(data) {
		t.Fatal(err)
	}
	get := func(scheme string, certificates ...tls.Certificate) (string, error) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certificates}, DisableKeepAlives: true}}
		response, err := client.Get(scheme + "://" + all[0].Addr().String()) //nolint:noctx // on loopback
		if err != nil {
			return "", err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	if body, err := get("https", pair); err != nil || body != "in" {
		t.Errorf("with certificate: %q %v", body, err)
	}
	if body, err := get("https"); err == nil {
		t.Errorf("without certificate: %q", body)
	}
	if body, err := get("http"); err == nil && body == "in" {
		t.Error("without TLS")
	}
	if _, err := listenAll(t, "-H", "tcp://127.0.0.1:0", "--tlsverify", "--tlscert", cert, "--tlskey", key); err == nil || !strings.Contains(err.Error(), "--tlsverify needs --tlscacert") {
		t.Errorf("without CA: %v", err)
	}
}
