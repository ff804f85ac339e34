package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// This file is a lean HTTP/1.1 client for one server. It exists because net/http costs a short command two goroutines and
// several context switches a connection, and because attach and exec need the raw connection, half-close included.

const (
	maxHeaderBytes = 1 << 20 // most bytes of status line and header fields accepted from the server
	maxErrorBytes  = 1 << 20 // most bytes of an error body read
)

// Header is the header of a response; keys are in lower case and a repeated field keeps its last value.
type Header map[string]string

// conn is one connection to the server. It carries one request at a time.
type conn struct {
	net.Conn
	br     *bufio.Reader
	reused bool // has carried a request before: the server may have closed it meanwhile
}

// rawRequest is a request ready to be written.
type rawRequest struct {
	method string
	path   string // with query
	host   string
	header map[string]string
	body   []byte    // sent with Content-Length when stream is nil
	stream io.Reader // sent in chunks
}

// writeHead appends the request line and header fields to b.
func (r *rawRequest) writeHead(b []byte) []byte {
	b = append(b, r.method...)
	b = append(b, ' ')
	b = append(b, r.path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.host...)
	b = append(b, "\r\n"...)
	for k, v := range r.header {
		b = append(b, k...)
		b = append(b, ": "...)
		b = append(b, v...)
		b = append(b, "\r\n"...)
	}
	switch {
	case r.stream != nil:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case len(r.body) > 0 || r.method == "POST" || r.method == "PUT":
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.body)), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// write sends the request. With a stream it returns when all of it was sent.
func (r *rawRequest) write(c net.Conn) error {
	b := r.writeHead(make([]byte, 0, 512+len(r.body)))
	if r.stream == nil {
		_, err := c.Write(append(b, r.body...))
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	return writeChunked(c, r.stream)
}

// writeChunked copies src to w in the chunked transfer coding of RFC 9112, section 7.1.
func writeChunked(w io.Writer, src io.Reader) error {
	const room = 16 // for the size line, kept in front of the data so that a chunk is one write
	buf := make([]byte, room+64<<10+2)
	for {
		n, err := src.Read(buf[room : len(buf)-2])
		if n > 0 {
			size := strconv.FormatInt(int64(n), 16) + "\r\n"
			start := room - len(size)
			copy(buf[start:], size)
			copy(buf[room+n:], "\r\n")
			if _, werr := w.Write(buf[start : room+n+2]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			_, err = io.WriteString(w, "0\r\n\r\n")
			return err
		}
		if err != nil {
			return &bodyError{err}
		}
	}
}

// bodyError is an error of the reader that gives a request's body, not of the connection.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// readHead reads a response's status line and header fields. A 1xx answer other than 101 is skipped (RFC 9110, section 15.2).
func readHead(br *bufio.Reader) (status int, header Header, err error) {
	for {
		status, header, err = readOneHead(br)
		if err != nil || status >= 200 || status == 101 {
			return status, header, err
		}
	}
}

func readOneHead(br *bufio.Reader) (int, Header, error) {
	room := maxHeaderBytes
	line, err := readLine(br, &room)
	if err != nil {
		return 0, nil, err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(proto, "HTTP/1.") || len(code) != 3 || status < 100 {
		return 0, nil, fmt.Errorf("malformed HTTP status line %q", line)
	}
	header := Header{}
	if proto == "HTTP/1.0" {
		header["connection"] = "close"
	}
	for {
		line, err = readLine(br, &room)
		if err != nil {
			return 0, nil, unexpected(err)
		}
		if line == "" {
			return status, header, nil
		}
		k, v, ok := strings.Cut(line, ":")
		if !ok || k == "" {
			return 0, nil, fmt.Errorf("malformed HTTP header line %q", line)
		}
		header[strings.ToLower(k)] = strings.TrimSpace(v)
	}
}

// readLine reads one line without its end, taking its length from *room.
func readLine(br *bufio.Reader, room *int) (string, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		*room -= len(part)
		if *room < 0 {
			return "", errors.New("HTTP header too long")
		}
		line = append(line, part...)
		if err == nil {
			return strings.TrimRight(string(line), "\r\n"), nil
		}
		if err != bufio.ErrBufferFull {
			if err == io.EOF && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// body is the body of a response. Close gives the connection back when it can be used again.
type body struct {
	r       io.Reader
	done    bool // read to the end of the message: the connection is at the next response
	release func(reuse bool)
}

func (b *body) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	n, err := b.r.Read(p)
	if err == io.EOF {
		b.done = true
	}
	return n, err
}

func (b *body) Close() error {
	if b.release == nil {
		return nil
	}
	release := b.release
	b.release = nil
	if !b.done { // often only the end mark is missing
		if l, ok := b.r.(interface{ atEnd() bool }); ok && l.atEnd() {
			b.done = true
		}
	}
	release(b.done)
	return nil
}

// fixedReader reads a body of known length. The end of the stream before that length is an error.
type fixedReader struct {
	br   *bufio.Reader
	left int64
}

func (f *fixedReader) atEnd() bool { return f.left == 0 }

func (f *fixedReader) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > f.left {
		p = p[:f.left]
	}
	n, err := f.br.Read(p)
	f.left -= int64(n)
	if err == io.EOF && f.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunkedReader decodes the chunked transfer coding.
type chunkedReader struct {
	br   *bufio.Reader
	left int64 // of the current chunk
	in   bool  // inside a chunk: its closing line end is still to come
	end  bool
	err  error
}

// atEnd reports whether nothing but the end mark is left, without waiting for the server.
func (c *chunkedReader) atEnd() bool {
	if c.end {
		return true
	}
	if c.err != nil || c.left > 0 || c.br.Buffered() == 0 {
		return false
	}
	want := "0\r\n\r\n"
	if c.in {
		want = "\r\n" + want
	}
	got, err := c.br.Peek(min(len(want), c.br.Buffered()))
	if err != nil || string(got) != want {
		return false
	}
	c.end = true
	_, err = c.br.Discard(len(want))
	return err == nil
}

func (c *chunkedReader) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.read(p)
	c.err = err
	return n, err
}

func (c *chunkedReader) read(p []byte) (int, error) {
	if c.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.br.Read(p)
	c.left -= int64(n)
	return n, unexpected(err)
}

// next reads the line that starts a chunk, and the trailer after the last one, where it returns io.EOF.
func (c *chunkedReader) next() error {
	room := 4096
	if c.in {
		line, err := readLine(c.br, &room)
		if err != nil {
			return unexpected(err)
		}
		if line != "" {
			return errors.New("malformed chunk: no line end after its data")
		}
		c.in = false
	}
	line, err := readLine(c.br, &room)
	if err != nil {
		return unexpected(err)
	}
	size, _, _ := strings.Cut(line, ";")
	n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 63)
	if err != nil {
		return fmt.Errorf("malformed chunk size %q", size)
	}
	if n > 0 {
		c.left, c.in = int64(n), true
		return nil
	}
	for { // trailer
		line, err := readLine(c.br, &room)
		if err != nil {
			return unexpected(err)
		}
		if line == "" {
			c.end = true
			return io.EOF
		}
	}
}

// responseBody returns the reader of a response's body by RFC 9112, section 6.3, and whether the connection can carry another
// request once the body was read.
func responseBody(method string, status int, h Header, br *bufio.Reader) (r io.Reader, reusable bool, err error) {
	reusable = !strings.EqualFold(h["connection"], "close")
	switch {
	case method == "HEAD" || status == 204 || status == 304 || status < 200:
		return &fixedReader{br: br}, reusable, nil
	case strings.EqualFold(h["transfer-encoding"], "chunked"):
		return &chunkedReader{br: br}, reusable, nil
	case h["content-length"] != "":
		n, err := strconv.ParseInt(h["content-length"], 10, 64)
		if err != nil || n < 0 {
			return nil, false, fmt.Errorf("malformed Content-Length %q", h["content-length"])
		}
		return &fixedReader{br: br, left: n}, reusable, nil
	}
	return br, false, nil
}

// aLongTimeAgo makes every pending and later read and write of a connection fail at once.
var aLongTimeAgo = time.Unix(1, 0)

// guard makes ctx's end interrupt c. The returned function ends the guard; it reports whether ctx had not interrupted c.
func guard(ctx context.Context, c net.Conn) (release func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(aLongTimeAgo) })
}

// withQuery appends q to path.
func withQuery(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
