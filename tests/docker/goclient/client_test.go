package goclient

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"gantry/tests/harness"
)

func connect(t *testing.T) (context.Context, *client.Client) {
	t.Helper()
	c, err := daemon.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx, c
}

func TestVersionNegotiation(t *testing.T) {
	harness.New(t, daemon)
	ctx, c := connect(t)
	ping, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil {
		t.Fatal(err)
	}
	if ping.APIVersion == "" || ping.OSType != "linux" || c.ClientVersion() == "" {
		t.Errorf("%+v, client speaks %s", ping, c.ClientVersion())
	}
	if !harness.Oracle() && c.ClientVersion() != client.MaxAPIVersion {
		t.Errorf("client speaks %s, its newest is %s", c.ClientVersion(), client.MaxAPIVersion)
	}
}

func TestContainerLife(t *testing.T) {
	harness.New(t, daemon)
	ctx, c := connect(t)
	created, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{Name: "life", Config: &container.Config{
		Image: image, Cmd: []string{"sh", "-c", "cat; echo error >&2; exit 6"}, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true}})
	if err != nil {
		t.Fatal(err)
	}
	attached, err := c.ContainerAttach(ctx, created.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	wait := c.ContainerWait(ctx, created.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if _, err := c.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(attached.Conn, "input\n"); err != nil {
		t.Fatal(err)
	}
	if err := attached.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, &stderr, attached.Reader); err != nil {
		t.Fatal(err)
	}
	if stdout.String() != "input\n" || stderr.String() != "error\n" {
		t.Errorf("%q %q", stdout.String(), stderr.String())
	}
	select {
	case r := <-wait.Result:
		if r.StatusCode != 6 {
			t.Errorf("%+v", r)
		}
	case err := <-wait.Error:
		t.Fatal(err)
	}
	inspected, err := c.ContainerInspect(ctx, "life", client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if inspected.Container.State.ExitCode != 6 || inspected.Container.Name != "/life" {
		t.Errorf("%+v", inspected.Container.State)
	}
	if _, err := c.ContainerStart(ctx, "nosuch", client.ContainerStartOptions{}); err == nil || !strings.Contains(err.Error(), "No such container: nosuch") {
		t.Errorf("%v", err)
	}
}

// WaitConditionRemoved and AutoRemove, as `docker run --rm` uses them.
func TestAutoRemove(t *testing.T) {
	harness.New(t, daemon)
	ctx, c := connect(t)
	created, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &container.Config{Image: image, Cmd: []string{"sh", "-c", "exit 5"}}, HostConfig: &container.HostConfig{AutoRemove: true}})
	if err != nil {
		t.Fatal(err)
	}
	wait := c.ContainerWait(ctx, created.ID, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	if _, err := c.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-wait.Result:
		if r.StatusCode != 5 {
			t.Errorf("%+v", r)
		}
	case err := <-wait.Error:
		t.Fatal(err)
	}
	if _, err := c.ContainerInspect(ctx, created.ID, client.ContainerInspectOptions{}); err == nil {
		t.Error("it is still there after the wait for its removal")
	}
}

func TestExec(t *testing.T) {
	e := harness.New(t, daemon)
	ctx, c := connect(t)
	id := e.Sleeper()
	made, err := c.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"sh", "-c", "cat; exit 4"}, AttachStdin: true, AttachStdout: true, AttachStderr: true})
	if err != nil {
		t.Fatal(err)
	}
	attached, err := c.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	if _, err := io.WriteString(attached.Conn, "abc"); err != nil {
		t.Fatal(err)
	}
	if err := attached.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, io.Discard, attached.Reader); err != nil {
		t.Fatal(err)
	}
	e.Eventually(5*time.Second, func() error {
		state, err := c.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
		if err != nil {
			return err
		}
		if state.Running || state.ExitCode != 4 || state.ContainerID != id {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	if stdout.String() != "abc" {
		t.Errorf("%q", stdout.String())
	}
}

func TestEvents(t *testing.T) {
	e := harness.New(t, daemon)
	ctx, c := connect(t)
	ctx, cancel := context.WithCancel(ctx)
	events := c.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.Add("type", "container")})
	time.Sleep(100 * time.Millisecond)
	e.Run("--name", "ev", image, "true")
	var actions []string
	for !strings.Contains(strings.Join(actions, " "), "destroy") {
		select {
		case m := <-events.Messages:
			if m.Actor.Attributes["name"] != "ev" || m.Actor.Attributes["image"] != image || len(m.Actor.ID) != 64 || m.TimeNano == 0 {
				t.Errorf("%+v", m)
			}
			actions = append(actions, string(m.Action))
		case err := <-events.Err:
			t.Fatal(err)
		}
	}
	cancel()
	if got := strings.Join(actions, " "); got != "create attach start die destroy" {
		t.Errorf("events %s", got)
	}
}

func TestCopyFromContainer(t *testing.T) {
	e := harness.New(t, daemon)
	ctx, c := connect(t)
	id := e.Sleeper()
	stat, err := c.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: "/bin/busybox"})
	if err != nil || stat.Stat.Name != "busybox" || stat.Stat.Size == 0 {
		t.Fatalf("%+v, %v", stat, err)
	}
	if _, err := c.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: "/nosuch"}); err == nil {
		t.Error("no error")
	}
}

func TestStreams(t *testing.T) {
	e := harness.New(t, daemon)
	ctx, c := connect(t)
	id := e.Sleeper()
	stats, err := c.ContainerStats(ctx, id, client.ContainerStatsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Body.Close()
	buf := make([]byte, 100)
	if n, err := stats.Body.Read(buf); n == 0 || buf[0] != '{' {
		t.Errorf("%q, %v", buf[:n], err)
	}
}
