package faults

import (
	"math/rand/v2"
	"testing"
	"time"

	"gantry/registry/registrytest"
	"gantry/tests/harness"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// chunk is the registry client's: what one of its streams fetches at a time where there are several.
const chunk = 8 << 20

// A pull whose daemon is killed again and again, at any time, goes on where it was, and ends with the right image; what was there before goes on working.
func TestPullKilledAtRandom(t *testing.T) {
	kills := *kills
	if *full {
		kills = max(kills, 200)
	}
	empty(t)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Base(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := daemon.Stop(); err != nil {
			t.Error(err)
		}
	}()
	e := &harness.Env{T: t, D: daemon, Config: t.TempDir()}
	reg := registrytest.New()
	t.Cleanup(reg.Close)
	var layers [][]byte
	var size int64
	for i, n := range []int{20 << 20, 6 << 20, 3 << 20, 100} {
		layers = append(layers, harness.Layer(file("f", noise(n, byte(20+i)))))
		size += int64(len(layers[i]))
	}
	reg.AddImage("app", "1", ocispec.Platform{OS: "linux", Architecture: "amd64"}, layers...)
	name := reg.Host() + "/app:1"
	begun := time.Now()
	reg.Break(registrytest.Fault{Method: "GET", Path: "/blobs/", Do: registrytest.Drip(64<<10, 3*time.Millisecond)})
	e.OK("pull", name)
	length := time.Since(begun)
	e.OK("rmi", name)
	t.Logf("a pull takes %v", length)
	var twice, most int64
	before, since := reg.Sent(), 0 // the last image was whole
	for n := 0; n < kills; n++ {
		s := e.Go("pull", name)
		time.Sleep(time.Duration(rand.Int64N(int64(length))))
		daemon.Kill()
		s.Wait()
		if since++; n%25 == 24 {
			t.Logf("%d kills", n+1)
		}
		start := time.Now()
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("ready after %v", took)
		}
		if wrong := sound(e, false); wrong != "" {
			t.Errorf("after kill %d: %s", n, wrong)
		}
		if r := e.Do("image", "inspect", name); r.Code != 0 && n+1 < kills && rand.IntN(3) > 0 {
			continue // it is killed again before it has ended
		} else if r.Code != 0 {
			e.OK("pull", name)
		}
		again := reg.Sent() - before - size
		twice += again
		most = max(most, again/int64(since))
		if again >= int64(since)*chunk {
			t.Errorf("after %d kills %d bytes had come twice", since, again)
		}
		if wrong := sound(e, n+1 >= kills); wrong != "" {
			t.Errorf("after kill %d, whole: %s", n, wrong)
		}
		e.Is("hi", "run", "--rm", harness.Image, "echo", "hi")
		e.OK("rmi", name)
		before, since = reg.Sent(), 0
	}
	t.Logf("%d kills: %d bytes of %d came twice for each kill, at most %d", kills, twice/int64(kills), size, most)
}
