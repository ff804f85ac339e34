package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/registry"
	"gantry/registry/registrytest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Whatever a registry does, a blob gets there whole, or there is an error that says where it failed, in bounded time. What is there is not sent again.
func TestHostileUpload(t *testing.T) {
	swallow := func(n int64, times int) registrytest.Fault {
		return registrytest.Fault{Method: "PATCH", Times: times, Do: registrytest.Swallow(n)}
	}
	for _, c := range []struct {
		name   string
		size   int
		faults []registrytest.Fault
		fails  errdefs.Kind // Internal: it does not
		reads  int          // bytes that may be read of the blob; 0: any
	}{
		{name: "small", size: 1000, reads: 1000},
		{name: "empty", size: 0},
		{name: "large", size: 20 * chunk, reads: 20 * chunk},
		{name: "reset in the midst", size: 20 * chunk, faults: []registrytest.Fault{swallow(8*chunk, 1)}},
		{name: "reset three times", size: 20 * chunk, faults: []registrytest.Fault{swallow(5*chunk, 3)}},
		{name: "reset after little, each time", size: 20 * chunk, faults: []registrytest.Fault{swallow(10, 0)}, fails: errdefs.Unavailable},
		{name: "fails at first", size: 20 * chunk, faults: []registrytest.Fault{{Method: "PATCH", Times: 2, Do: registrytest.Status(500, "")}}},
		{name: "small, fails at first", size: 1000, faults: []registrytest.Fault{{Method: "PUT", Times: 2, Do: registrytest.Status(500, "")}}},
		{name: "busy", size: 20 * chunk, faults: []registrytest.Fault{{Method: "POST", Times: 2, Do: registrytest.Status(429, "0")}}},
		{name: "loses the upload", size: 20 * chunk, faults: []registrytest.Fault{swallow(8*chunk, 1), {Method: "GET", Path: "/uploads/", Times: 1, Do: registrytest.Status(404, "")}}},
		{name: "cannot say how far it is", size: 20 * chunk, faults: []registrytest.Fault{swallow(8*chunk, 1), {Method: "GET", Path: "/uploads/", Do: registrytest.Status(405, "")}}},
		{name: "lies how far it is", size: 20 * chunk, faults: []registrytest.Fault{swallow(8*chunk, 1), {Method: "GET", Path: "/uploads/", Times: 1, Do: status("0-99999999999")}}},
		{name: "says less than it has", size: 20 * chunk, faults: []registrytest.Fault{swallow(8*chunk, 1), {Method: "GET", Path: "/uploads/", Times: 1, Do: status("0-99")}}},
		{name: "takes nothing", size: 40 << 20, faults: []registrytest.Fault{{Method: "PATCH", Do: registrytest.Hang()}}, fails: errdefs.Unavailable},
		{name: "never answers", size: 1000, faults: []registrytest.Fault{{Method: "PUT", Do: registrytest.Hang()}}, fails: errdefs.Unavailable},
		{name: "loses the answer", size: 20 * chunk, faults: []registrytest.Fault{{Method: "PUT", Times: 1, Do: registrytest.Swallow(1 << 40)}}},
		{name: "small, loses the answer", size: 1000, faults: []registrytest.Fault{{Method: "PUT", Times: 1, Do: registrytest.Swallow(1 << 40)}}},
		{name: "no place", size: 1000, faults: []registrytest.Fault{{Method: "POST", Do: func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(http.StatusAccepted) }}}, fails: errdefs.InvalidParameter},
		{name: "full", size: 20 * chunk, faults: []registrytest.Fault{{Method: "PATCH", Do: registrytest.Status(507, "7200")}}, fails: errdefs.Unavailable},
		{name: "forbidden", size: 20 * chunk, faults: []registrytest.Fault{{Method: "POST", Do: registrytest.Status(403, "")}}, fails: errdefs.Forbidden},
		{name: "always another digest", size: 20 * chunk, faults: []registrytest.Fault{{Method: "PUT", Do: func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}`)
		}}}, fails: errdefs.InvalidParameter},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			defer reg.Close()
			reg.Break(c.faults...)
			data := noise(c.size)
			d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			var read atomic.Int64
			_, err := repository(t, reg.Host(), registry.Auth{}, quick()).Upload(ctx, d, "", func(offset int64) (io.ReadCloser, error) {
				return io.NopCloser(&counted{bytes.NewReader(data[offset:]), &read}), nil
			})
			if ctx.Err() != nil {
				t.Fatal("it takes too long")
			}
			if c.fails != errdefs.Internal {
				if !errdefs.Is(err, c.fails) || !strings.Contains(err.Error(), d.Digest.String()) || !strings.Contains(err.Error(), reg.Host()) {
					t.Errorf("%v: %v", errdefs.KindOf(err), err)
				}
				return
			}
			if err != nil || !bytes.Equal(reg.Blob("team/app", d.Digest), data) {
				t.Error(err)
			}
			if c.reads > 0 && read.Load() > int64(c.reads) {
				t.Errorf("%d bytes were read", read.Load())
			}
		})
	}
}

// status answers with how much of an upload there is.
func status(span string) registrytest.Behaviour {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Location", r.URL.Path)
		w.Header().Set("Range", span)
		w.WriteHeader(http.StatusNoContent)
	}
}

type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// After a reset, only what the registry has not got is sent.
func TestUploadGoesOn(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	reg.Break(registrytest.Fault{Method: "PATCH", Times: 1, Do: registrytest.Swallow(15 * chunk)})
	data := noise(20 * chunk)
	d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	var from []int64
	_, err := repository(t, reg.Host(), registry.Auth{}, quick()).Upload(t.Context(), d, "", func(offset int64) (io.ReadCloser, error) {
		from = append(from, offset)
		return io.NopCloser(bytes.NewReader(data[offset:])), nil
	})
	if err != nil || len(from) != 2 || from[0] != 0 || from[1] != 15*chunk {
		t.Error(err, from)
	}
}

func TestMount(t *testing.T) {
	reg := registrytest.New()
	defer reg.Close()
	data := noise(1000)
	d := reg.AddBlob("other/app", data)
	r := repository(t, reg.Host(), registry.Auth{}, quick())
	open := func(offset int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data[offset:])), nil }
	if mounted, err := r.Upload(t.Context(), d, "other/app", open); err != nil || !mounted || reg.Blob("team/app", d.Digest) == nil || reg.Count("PUT", "") > 0 {
		t.Error(mounted, err)
	}
	other := reg.AddBlob("other/app", data[:500])
	for _, from := range []string{"nosuch/app", "other/app"} {
		reg.Forget()
		if from == "other/app" { // who may not read there sends it
			reg.Break(registrytest.Fault{Method: "POST", Times: 1, Do: registrytest.Status(403, "")})
		}
		if mounted, err := r.Upload(t.Context(), ocispec.Descriptor{Digest: other.Digest, Size: 500}, from, func(offset int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data[offset:500])), nil
		}); err != nil || mounted || reg.Blob("team/app", other.Digest) == nil {
			t.Error(from, mounted, err)
		}
	}
	broken := errors.New("disk is broken")
	d.Digest = digest.FromString("x")
	if _, err := r.Upload(t.Context(), d, "", func(int64) (io.ReadCloser, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}
