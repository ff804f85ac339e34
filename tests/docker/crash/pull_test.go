package crash

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"gantry/registry/registrytest"
	"gantry/tests/harness"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A pull goes on where it was when the client was interrupted, and when the daemon was killed.
func TestPullGoesOn(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd keeps nothing when it is killed")
	}
	e := harness.New(t, daemon)
	reg := registrytest.New()
	t.Cleanup(reg.Close)
	body := make([]byte, 24<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(body)
	layer := harness.Layer(harness.Entry{Name: "big", Body: string(body)})
	reg.AddImage("app", "1", ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, layer)
	reg.Break(registrytest.Fault{Method: "GET", Path: "/blobs/", Do: registrytest.Drip(64<<10, 5*time.Millisecond)})
	name := reg.Host() + "/app:1"
	until := func(sent int64) {
		t.Helper()
		e.Eventually(20*time.Second, func() error {
			if now := reg.Sent(); now < sent {
				return fmt.Errorf("%d bytes were sent", now)
			}
			return nil
		})
	}
	pull := e.Terminal("pull", name)
	pull.Expect(`Downloading +[0-9.]+MB/25.17MB`)
	until(6 << 20)
	pull.Signal(syscall.SIGINT)
	pull.Wait()
	before := reg.Sent()
	second := e.Go("pull", name)
	until(before + 6<<20)
	restart(e, nil)
	second.Wait()
	e.OK("pull", name)
	// What a socket held when its connection was closed was sent as well: a megabyte or so for each of three streams, twice.
	if twice := reg.Sent() - int64(len(layer)); twice > 8<<20 {
		t.Errorf("%d bytes were sent twice", twice)
	} else {
		t.Logf("%d of %d bytes were sent twice", twice, len(layer))
	}
	e.OK("rmi", name)
}
