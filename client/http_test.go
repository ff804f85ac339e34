package client

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadHead(t *testing.T) {
	for _, c := range []struct {
		name, in string
		status   int
		header   Header
		wantErr  string
	}{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX: \r\n\r\n", 200, Header{"content-type": "a/b", "x": ""}, ""},
		{"no reason", "HTTP/1.1 204\r\n\r\n", 204, Header{}, ""},
		{"continue first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n", 404, Header{}, ""},
		{"upgrade", "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n", 101, Header{"connection": "Upgrade"}, ""},
		{"bare line ends", "HTTP/1.1 200 OK\nA: b\n\n", 200, Header{"a": "b"}, ""},
		{"old protocol", "HTTP/1.0 200 OK\r\n\r\n", 200, Header{"connection": "close"}, ""},
		{"not HTTP", "SSH-2.0-x\r\n\r\n", 0, nil, "malformed HTTP status line"},
		{"bad status", "HTTP/1.1 2x0 OK\r\n\r\n", 0, nil, "malformed HTTP status line"},
		{"bad field", "HTTP/1.1 200 OK\r\nnothing\r\n\r\n", 0, nil, "malformed HTTP header line"},
		{"cut", "HTTP/1.1 200 OK\r\nA: b", 0, nil, "unexpected EOF"},
		{"empty", "", 0, nil, "EOF"},
		{"too long", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxHeaderBytes) + "\r\n\r\n", 0, nil, "HTTP header too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, h, err := readHead(bufio.NewReaderSize(strings.NewReader(c.in), 16))
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Fatalf("error %v, want %q", err, c.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if status != c.status || len(h) != len(c.header) {
				t.Fatalf("got %d %v, want %d %v", status, h, c.status, c.header)
			}
			for k, v := range c.header {
				if h[k] != v {
					t.Errorf("header %s = %q, want %q", k, h[k], v)
				}
			}
		})
	}
}

func TestChunked(t *testing.T) {
	var buf bytes.Buffer
	data := strings.Repeat("0123456789abcdef", 10000)
	if err := writeChunked(&buf, iotest.OneByteReader(strings.NewReader(data[:100]))); err != nil {
		t.Fatal(err)
	}
	if err := writeChunked(&buf, strings.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	buf.WriteString("next")
	br := bufio.NewReader(&buf)
	for _, want := range []string{data[:100], data} {
		got, err := io.ReadAll(&chunkedReader{br: br})
		if err != nil || string(got) != want {
			t.Fatalf("read %d bytes, %v; want %d", len(got), err, len(want))
		}
	}
	if rest, _ := io.ReadAll(br); string(rest) != "next" {
		t.Errorf("after the body: %q", rest)
	}
	for in, want := range map[string]string{
		"5;ext=1\r\nhello\r\n0\r\nTrailer: x\r\n\r\n": "",
		"x\r\n":                "malformed chunk size",
		"-1\r\n":               "malformed chunk size",
		"5\r\nhel":             "unexpected EOF",
		"5\r\nhelloX\r\n":      "malformed chunk",
		"5\r\nhello\r\n":       "unexpected EOF",
		"ffffffffffffffff\r\n": "malformed chunk size",
	} {
		_, err := io.ReadAll(&chunkedReader{br: bufio.NewReader(strings.NewReader(in))})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: error %v, want %q", in, err, want)
		}
	}
	failing := io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errors.New("disk")))
	var be *bodyError
	if err := writeChunked(io.Discard, failing); !errors.As(err, &be) || be.Error() != "disk" {
		t.Errorf("failing source: %v", err)
	}
}

// TestAtEnd checks that a connection is found reusable when only the end mark of a body is unread.
func TestAtEnd(t *testing.T) {
	for in, want := range map[string]bool{
		"2\r\n{}\r\n0\r\n\r\n": true, "2\r\n{}\r\n": false, "2\r\n{}\r\n3\r\nabc\r\n0\r\n\r\n": false, "2\r\n{}\r\n0\r\nT: x\r\n\r\n": false,
	} {
		c := &chunkedReader{br: bufio.NewReader(strings.NewReader(in))}
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		if got := c.atEnd(); got != want {
			t.Errorf("%q: atEnd %v, want %v", in, got, want)
		}
	}
}

func TestResponseBody(t *testing.T) {
	for _, c := range []struct {
		method   string
		status   int
		h        Header
		want     string
		reusable bool
	}{
		{"GET", 200, Header{"content-length": "3"}, "abc", true},
		{"GET", 200, Header{}, "abcdef", false},
		{"HEAD", 200, Header{"content-length": "3"}, "", true},
		{"POST", 204, Header{}, "", true},
		{"POST", 304, Header{"connection": "close"}, "", false},
	} {
		r, reusable, err := responseBody(c.method, c.status, c.h, bufio.NewReader(strings.NewReader("abcdef")))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != c.want || reusable != c.reusable {
			t.Errorf("%s %d %v: %q, %v, %v", c.method, c.status, c.h, b, reusable, err)
		}
	}
	if _, _, err := responseBody("GET", 200, Header{"content-length": "-1"}, nil); err == nil {
		t.Error("a negative length was accepted")
	}
	r, _, err := responseBody("GET", 200, Header{"content-length": "9"}, bufio.NewReader(strings.NewReader("abc")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short body: %v", err)
	}
}

func frame(stream byte, data string) string {
	b := make([]byte, 8, 8+len(data))
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(data)))
	return string(append(b, data...))
}

func TestDemux(t *testing.T) {
	var out, errw bytes.Buffer
	big := strings.Repeat("x", 100<<10)
	in := frame(1, "a") + frame(2, "b") + frame(1, "") + frame(1, big) + frame(0, "c")
	if err := Demux(&out, &errw, iotest.HalfReader(strings.NewReader(in))); err != nil {
		t.Fatal(err)
	}
	if out.String() != "a"+big+"c" || errw.String() != "b" {
		t.Errorf("stdout %d bytes, stderr %q", out.Len(), errw.String())
	}
	for in, want := range map[string]string{
		frame(3, "bad"):           "error from daemon in stream: bad",
		frame(9, ""):              "unrecognized input header: 9",
		frame(1, "abc")[:9]:       "unexpected EOF",
		frame(1, "abc")[:4]:       "unexpected EOF",
		frame(1, "ok") + "\x01xx": "unexpected EOF",
	} {
		if err := Demux(io.Discard, io.Discard, strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 x\r\n\r\nHTTP/1.1 404 y\r\nContent-Length: 3\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, in []byte) {
		br := bufio.NewReader(bytes.NewReader(in))
		status, h, err := readHead(br)
		if err != nil {
			return
		}
		if status < 100 || status > 999 {
			t.Fatalf("status %d", status)
		}
		r, _, err := responseBody("GET", status, h, br)
		if err != nil {
			return
		}
		if n, _ := io.Copy(io.Discard, r); n > int64(len(in)) {
			t.Fatalf("%d bytes out of %d", n, len(in))
		}
	})
}

func FuzzDemux(f *testing.F) {
	f.Add([]byte(frame(1, "a") + frame(2, "b")))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		_ = Demux(&out, &out, bytes.NewReader(in))
		if out.Len() > len(in) {
			t.Fatal("more out than in")
		}
	})
}
