package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"gantry/tests/harness"
)

// puller pulls the image with nothing here before.
type puller struct {
	name string
	pull func() (cost, error)
}

// images measures what it costs to bring a large image in and out: beside dockerd, containerd and podman, and beside the floor, which is what curl, igzip and tar take for it.
func images(n int) (rows []row, err error) {
	cache := filepath.Join(os.TempDir(), "gantry-bench-image")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	addr, stop, err := harness.StartRegistry(cache, "")
	if err != nil {
		return nil, err
	}
	defer stop()
	f := &fixture{addr: addr}
	if err := f.fill(cache); err != nil {
		return nil, err
	}
	b := &imageBench{fixture: f, dir: filepath.Join(harness.Dir(), "images")}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.dir)
	if err := b.daemons(); err != nil {
		return nil, err
	}
	pullers := []puller{{"gantry", func() (cost, error) { return b.fresh(b.gantry) }}, {"floor", b.floor}, {"dockerd", func() (cost, error) { return b.fresh(b.docker) }}}
	for _, p := range []puller{{"containerd", b.containerd}, {"podman", b.podman}} {
		if _, err := exec.LookPath(p.name); err == nil {
			pullers = append(pullers, p)
		}
	}
	costs := map[string][]cost{}
	for range n {
		for _, p := range pullers {
			c, err := p.pull()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			fmt.Fprintf(os.Stderr, "bench: pull with %s: %.1f s of processors, %.1f s, %d MB\n", p.name, c.cpu.Seconds(), c.wall.Seconds(), c.peak/1000)
			costs[p.name] = append(costs[p.name], c)
		}
	}
	ours := median(costs["gantry"])
	what := fmt.Sprintf("pull and unpack of %d MB gzip, %d layers", f.size>>20, len(f.blobs))
	for _, p := range pullers[1:] {
		theirs := median(costs[p.name])
		ratio, target, met := float64(ours.cpu)/float64(theirs.cpu), "", ""
		switch p.name {
		case "floor":
			target, met = "<= 1.3 x", verdict(ratio <= 1.3)
		case "dockerd":
			target, met = "<= 0.5 x", verdict(ratio <= 0.5)
		}
		rows = append(rows, row{"P12", what + ", processor time, beside " + p.name, seconds(ours.cpu), seconds(theirs.cpu), fmt.Sprintf("%.2f x", ratio), target, met},
			row{"P12", "the same, wall time", seconds(ours.wall), seconds(theirs.wall), fmt.Sprintf("%.2f x", float64(ours.wall)/float64(theirs.wall)), "", ""})
		if p.name == "dockerd" {
			rows = append(rows, row{"P12", "the same, most memory (resident, daemon and children)", kb(ours.peak), kb(theirs.peak), "", "< 100 MB", verdict(ours.peak < 100_000)})
		}
	}
	more, err := b.verbs(n)
	return append(rows, more...), errors.Join(err, b.stop())
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

type imageBench struct {
	*fixture
	dir            string
	gantry, docker *engine
}

func (b *imageBench) daemons() error {
	g, err := harness.NewDaemon(harness.Dir(), "gimages")
	if err != nil {
		return err
	}
	d, err := harness.NewDockerd(harness.Dir(), "dimages")
	if err != nil {
		return err
	}
	b.gantry = &engine{g, harness.Bin("gantry"), []string{"gantryd"}}
	b.docker = &engine{d, "docker", []string{"dockerd", "containerd", "unpigz", "pigz", "igzip"}}
	return nil
}

func (b *imageBench) stop() error { return errors.Join(b.gantry.wipe(), b.docker.wipe()) }

// wipe stops a daemon and removes all that it has.
func (e *engine) wipe() error { return errors.Join(e.Stop(), os.RemoveAll(e.DataRoot())) }

// spend runs a command of the engine.
func (e *engine) spend(args ...string) (cost, error) {
	cmd := exec.Command(e.cli, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.Dir, "DOCKER_HOST=" + e.Host()}
	return spend(cmd, e.exes...)
}

// fresh starts a daemon with nothing and has it pull.
func (b *imageBench) fresh(e *engine) (cost, error) {
	if err := errors.Join(e.wipe(), e.Start()); err != nil {
		return cost{}, err
	}
	time.Sleep(time.Second) // what it does at its start is done
	return e.spend("pull", "-q", b.ref())
}

// floor fetches the layers two at a time and unpacks each with igzip, or what is nearest to it, and tar.
func (b *imageBench) floor() (cost, error) {
	gunzip := "igzip -dc"
	if _, err := exec.LookPath("igzip"); err != nil {
		if gunzip = "pigz -dc"; exec.Command("pigz", "--version").Run() != nil {
			gunzip = "gzip -dc"
		}
	}
	dir := filepath.Join(b.dir, "floor")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cost{}, err
	}
	defer os.RemoveAll(dir)
	repository, _, _ := strings.Cut(imageName, ":")
	one := fmt.Sprintf(`mkdir "%s/$1" && curl -sf "http://%s/v2/%s/blobs/$1" | %s | tar -C "%s/$1" -xpf -`, dir, b.addr, repository, gunzip, dir)
	return spend(exec.Command("sh", "-c", fmt.Sprintf("printf '%%s\\n' %s | xargs -P 2 -I{} sh -c '%s' sh {}", strings.Join(b.blobs, " "), one)))
}

func (b *imageBench) podman() (cost, error) {
	root := filepath.Join(b.dir, "podman")
	defer func() {
		_ = exec.Command("podman", "--root", root, "--runroot", root+"-run", "--storage-driver", "overlay", "rmi", "-af").Run()
		_ = os.RemoveAll(root)
		_ = os.RemoveAll(root + "-run")
	}()
	cmd := exec.Command("podman", "--root", root, "--runroot", root+"-run", "--storage-driver", "overlay", "--events-backend", "none", "pull", "-q", "--tls-verify=false", b.ref())
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir}
	return spend(cmd)
}

func (b *imageBench) containerd() (c cost, err error) {
	dir := filepath.Join(b.dir, "containerd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	defer os.RemoveAll(dir)
	config, socket := filepath.Join(dir, "config.toml"), filepath.Join(dir, "s")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n", dir+"/root", dir+"/state", socket, socket+"t")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return c, err
	}
	daemon := exec.Command("containerd", "--config", config, "--log-level", "error")
	if err := daemon.Start(); err != nil {
		return c, err
	}
	defer func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	}()
	if err := harness.Within(20*time.Second, func() error { return exec.Command("ctr", "--address", socket, "version").Run() }); err != nil {
		return c, err
	}
	return spend(exec.Command("ctr", "--address", socket, "image", "pull", "--plain-http", b.ref()), "containerd", "unpigz", "pigz", "igzip")
}

// verbs measures what is done with the image once it is here.
func (b *imageBench) verbs(n int) (rows []row, err error) {
	costs := map[string][]cost{}
	disk := map[*engine]int{}
	keep := func(e *engine, verb string, c cost, err error) error {
		costs[e.Name+verb] = append(costs[e.Name+verb], c)
		return err
	}
	for range n {
		for _, e := range []*engine{b.gantry, b.docker} {
			if err := b.round(e, disk, keep); err != nil {
				return nil, err
			}
		}
	}
	for _, verb := range []string{"push", "save", "load", "commit", "rmi"} {
		ours, theirs := median(costs[b.gantry.Name+verb]), median(costs[b.docker.Name+verb])
		work := map[string]string{"push": "push to an empty registry", "commit": fmt.Sprintf("commit of a change of %d MB", changeBytes>>20)}[verb]
		if work == "" {
			work = verb
		}
		rows = append(rows, row{"P12", work + ", processor time", seconds(ours.cpu), seconds(theirs.cpu), fmt.Sprintf("%.2f x", float64(ours.cpu)/float64(theirs.cpu)), "", ""},
			row{"P12", "the same, wall time", seconds(ours.wall), seconds(theirs.wall), fmt.Sprintf("%.2f x", float64(ours.wall)/float64(theirs.wall)), "", ""})
	}
	return append(rows, row{"P12", "disk that the image takes after the pull", kb(disk[b.gantry]), kb(disk[b.docker]), fmt.Sprintf("%.2f x", float64(disk[b.gantry])/float64(disk[b.docker])), "", ""}), nil
}

// round takes one engine through all verbs, from nothing to nothing.
func (b *imageBench) round(e *engine, disk map[*engine]int, keep func(*engine, string, cost, error) error) error {
	if _, err := b.fresh(e); err != nil {
		return err
	}
	disk[e] = diskUsage(e.DataRoot())
	target := filepath.Join(b.dir, "registry")
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(target)
	addr, stop, err := harness.StartRegistry(target, "")
	if err != nil {
		return err
	}
	defer stop()
	do := func(args ...string) error { _, err := e.spend(args...); return err }
	verb := func(name string, args ...string) error {
		c, err := e.spend(args...)
		return keep(e, name, c, err)
	}
	archive := filepath.Join(b.dir, "saved.tar")
	defer os.Remove(archive)
	for _, step := range []func() error{
		func() error { return do("tag", b.ref(), addr+"/pushed:1") },
		func() error { return verb("push", "push", "-q", addr+"/pushed:1") },
		func() error { return do("create", "--name", "large", "--network", "none", b.ref()) },
		func() error { return do("cp", b.change, "large:/change") },
		func() error { return verb("commit", "commit", "large", "changed") },
		func() error { return do("rm", "large") },
		func() error { return do("rmi", "changed", addr+"/pushed:1") },
		func() error { return verb("save", "save", "-o", archive, b.ref()) },
		func() error { return verb("rmi", "rmi", b.ref()) },
		func() error { return errors.Join(e.wipe(), e.Start()) },
		func() error { time.Sleep(time.Second); return verb("load", "load", "-q", "-i", archive) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return e.wipe()
}
