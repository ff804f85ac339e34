package account

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/tests/harness"
)

// api sends one request and wants a status below 400.
func api(d *harness.Daemon, method, path, body string) (string, error) {
	status, answer, err := d.Do(method, path, body)
	if err != nil {
		return "", err
	}
	if status >= 400 {
		return "", fmt.Errorf("%s %s: %d %s", method, path, status, answer)
	}
	return string(answer), nil
}

// cycle is create, start, wait and remove of one container.
func cycle(d *harness.Daemon) error {
	answer, err := api(d, "POST", "/v1.41/containers/create", `{"Image":"`+image+`","Cmd":["true"]}`)
	if err != nil {
		return err
	}
	id := answer[strings.Index(answer, `"Id":"`)+6:][:64]
	if _, err := api(d, "POST", "/v1.41/containers/"+id+"/start", ""); err != nil {
		return err
	}
	if answer, err = api(d, "POST", "/v1.41/containers/"+id+"/wait", ""); err != nil {
		return err
	}
	if !strings.Contains(answer, `"StatusCode":0`) {
		return fmt.Errorf("wait: %s", answer)
	}
	_, err = api(d, "DELETE", "/v1.41/containers/"+id, "")
	return err
}

func TestThousandCycles(t *testing.T) {
	e := harness.New(t, daemon)
	n := 1000
	if harness.Oracle() {
		n = 30
	}
	for range 5 {
		if err := cycle(daemon); err != nil {
			t.Fatal(err)
		}
	}
	before := e.Settled()
	start := time.Now()
	var first time.Duration
	for i := range n {
		if err := cycle(daemon); err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		if i == n/10 {
			first = time.Since(start)
		}
	}
	took := time.Since(start)
	t.Logf("%d cycles: %v each, the first tenth %v each", n, (took / time.Duration(n)).Round(10*time.Microsecond), (first / time.Duration(n/10)).Round(10*time.Microsecond))
	e.SameAs(before)
}

func TestTwoHundredAtOnce(t *testing.T) {
	e := harness.New(t, daemon)
	n, workers := 200, 8
	if harness.Oracle() {
		n = 16
	}
	if err := cycle(daemon); err != nil {
		t.Fatal(err)
	}
	before := e.Settled()
	ids := make([]string, n)
	each := func(what string, f func(i int) error) {
		start := time.Now()
		var wg sync.WaitGroup
		next := make(chan int)
		for range workers {
			wg.Go(func() {
				for i := range next {
					if err := f(i); err != nil {
						t.Errorf("%s %d: %v", what, i, err)
					}
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		wg.Wait()
		t.Logf("%s of %d: %v", what, n, time.Since(start).Round(time.Millisecond))
	}
	each("start", func(i int) error {
		answer, err := api(daemon, "POST", "/v1.41/containers/create", `{"Image":"`+image+`","Cmd":["sleep","1000"]}`)
		if err != nil {
			return err
		}
		ids[i] = answer[strings.Index(answer, `"Id":"`)+6:][:64]
		_, err = api(daemon, "POST", "/v1.41/containers/"+ids[i]+"/start", "")
		return err
	})
	if t.Failed() {
		return
	}
	if got := len(strings.Fields(e.OK("ps", "-q"))); got != n {
		t.Errorf("%d of %d run", got, n)
	}
	addresses := map[string]bool{}
	for addr := range strings.FieldsSeq(e.OK(append([]string{"inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}"}, ids...)...)) {
		addresses[addr] = true
	}
	if len(addresses) != n {
		t.Errorf("%d addresses for %d containers", len(addresses), n)
	}
	each("exec", func(i int) error {
		answer, err := api(daemon, "POST", "/v1.41/containers/"+ids[i]+"/exec", `{"Cmd":["true"]}`)
		if err != nil {
			return err
		}
		_, err = api(daemon, "POST", "/v1.41/exec/"+answer[strings.Index(answer, `"Id":"`)+6:][:64]+"/start", `{"Detach":true}`)
		return err
	})
	each("remove", func(i int) error {
		_, err := api(daemon, "DELETE", "/v1.41/containers/"+ids[i]+"?force=1", "")
		return err
	})
	e.SameAs(before)
}

// Clients that go away in the middle leave nothing: attach, logs -f, events, stats and exec.
func TestClientsThatGo(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.Sleeper()
	e.OK("exec", id, "true")
	before := e.Settled()
	for range 10 {
		for _, args := range [][]string{{"logs", "-f", id}, {"attach", "--no-stdin", id}, {"events"}, {"stats"}, {"wait", id}} {
			s := e.Go(args...)
			time.Sleep(20 * time.Millisecond)
			s.Signal(9)
			s.Wait()
		}
	}
	if harness.Oracle() { // it leaks sockets
		e.SameAs(before, "daemon's descriptors")
		return
	}
	e.SameAs(before)
}

// Failures on the way to a running container leave nothing either.
func TestFailedStarts(t *testing.T) {
	e := harness.New(t, daemon)
	if err := cycle(daemon); err != nil {
		t.Fatal(err)
	}
	before := e.Settled()
	for range 10 {
		for _, args := range [][]string{
			{image, "nosuch"}, {"--network", "container:nosuch", image, "true"}, {"-u", "nosuch", image, "true"}, {"-w", "/etc/passwd/x", image, "true"},
			{"--sysctl", "kernel.nosuch=1", image, "true"}, {"-v", e.Config + ":/etc/passwd/x", image, "true"}, {"--device", "/dev/nosuch", image, "true"},
		} {
			if r := e.Do(append([]string{"run", "--rm"}, args...)...); r.Code == 0 {
				t.Errorf("succeeded: %v", r)
			}
		}
		if harness.Oracle() {
			break
		}
	}
	e.Is("", "ps", "-aq")
	if harness.Oracle() {
		e.SameAs(before, "daemon's descriptors")
		return
	}
	e.SameAs(before)
}

// Output of programs that end at once is complete while many run at a time, attached as `docker run` does it, with and without --rm and a terminal.
func TestOutputUnderLoad(t *testing.T) {
	e := harness.New(t, daemon)
	n := 100
	if harness.Oracle() {
		n = 16
	}
	var wg sync.WaitGroup
	next := make(chan int)
	for range 6 {
		wg.Go(func() {
			for i := range next {
				args := []string{"run"}
				if i%2 == 0 {
					args = append(args, "--rm")
				}
				if i%3 == 0 {
					args = append(args, "-t")
				}
				want := fmt.Sprintf("line %d", i)
				r := e.Do(append(args, image, "sh", "-c", "echo "+want+"; exit 3")...)
				if strings.TrimSpace(r.Stdout) != want || r.Code != 3 {
					t.Errorf("%v", r)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
