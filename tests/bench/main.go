// Command bench measures gantry beside dockerd, in one run and in turns, and prints what docs/benchmarks.md keeps.
//
//	bench [-n runs] [-many containers] [-runtime | -images] [-write docs/benchmarks.md]
//
// Both daemons run at the same time in namespaces of their own, with data on the same file system. Times are those of whole commands, from
// the start of the process to its end, and the medians of n runs in turns (A B A B). Memory is the proportional set size (PSS) of all processes of the engine,
// without the containers' own.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gantry/tests/harness"
)

func main() {
	n := flag.Int("n", 20, "runs of each command")
	many := flag.Int("many", 1000, "containers for the flatness of P7 and for P10")
	only := flag.Bool("runtime", false, "measure gantry-oci only, beside crun and runc")
	onlyImages := flag.Bool("images", false, "measure images only, beside dockerd, containerd, podman and what curl, igzip and tar take")
	pulls := flag.Int("pulls", 3, "runs of each work on images")
	write := flag.String("write", "", "file to write the table to, in Markdown")
	flag.Parse()
	harness.Inside(func() int {
		var rows []row
		var err error
		for _, part := range []struct {
			wanted bool
			do     func() ([]row, error)
		}{
			{!*only && !*onlyImages, func() ([]row, error) { return measure(*n, *many) }},
			{!*only, func() ([]row, error) { return images(*pulls) }},
			{!*onlyImages, func() ([]row, error) { return runtimes(*n) }},
		} {
			if part.wanted && err == nil {
				var more []row
				more, err = part.do()
				rows = append(rows, more...)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		table := render(rows, *n)
		fmt.Print(table)
		if *write != "" {
			if err := os.WriteFile(*write, []byte(table), 0o644); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				return 1
			}
		}
		return 0
	})
}

// engine is one daemon with its command line.
type engine struct {
	*harness.Daemon
	cli  string
	exes []string // names of its processes' programs
}

type row struct{ id, work, ours, theirs, ratio, target, met string }

func measure(n, many int) ([]row, error) {
	gantry, docker, err := daemons()
	if err != nil {
		return nil, err
	}
	defer stop(gantry, docker)
	dockerCLI, err := exec.LookPath("docker")
	if err != nil {
		return nil, errors.New("the docker command line is not installed")
	}
	docker.cli = dockerCLI
	ours, theirs := command(gantry, gantry.cli), command(docker, dockerCLI)
	oursByDocker := command(gantry, dockerCLI)
	var rows []row
	add := func(id, work string, ours, theirs time.Duration, target string, limit float64) {
		ratio := float64(ours) / float64(theirs)
		rows = append(rows, row{id, work, ms(ours), ms(theirs), fmt.Sprintf("1/%.1f", 1/ratio), target, verdict(ratio <= limit)})
	}

	time.Sleep(2 * time.Second) // both have filled their pools
	rssOurs, rssTheirs := gantry.memory("VmRSS"), docker.memory("VmRSS")

	run := []string{"run", "--rm", harness.Image, "true"}
	a, b, err := turns(n, ours(run...), theirs(run...))
	if err != nil {
		return nil, err
	}
	add("P2", "run --rm, default bridge", a, b, "<= 1/20", 1.0/20)
	floor, _, err := turns(n, exec2("unshare", "--fork", "--pid", "--mount", "--uts", "--ipc", "--net", "--mount-proc", "busybox", "true"), exec2("busybox", "true"))
	if err != nil {
		return nil, err
	}
	rows = append(rows, row{"P2", "the same against the bare floor (unshare of five namespaces, mount of /proc)", ms(a), ms(floor), fmt.Sprintf("%.1f x", float64(a)/float64(floor)), "<= 4 x", verdict(a <= 4*floor)})
	c, d, err := turns(n, oursByDocker(run...), theirs(run...))
	if err != nil {
		return nil, err
	}
	add("P3", "docker run --rm, docker's own command line", c, d, "<= 1/8", 1.0/8)

	start := []string{"run", "-d", "--name", "bench", harness.Image, "sleep", "10000"}
	if err := errors.Join(ours(start...)(), theirs(start...)()); err != nil {
		return nil, err
	}
	execute := []string{"exec", "bench", "true"}
	if a, b, err = turns(n, ours(execute...), theirs(execute...)); err != nil {
		return nil, err
	}
	add("P4", "exec true", a, b, "<= 1/8", 1.0/8)
	remove := []string{"rm", "-f", "bench"}
	if err := errors.Join(ours(remove...)(), theirs(remove...)()); err != nil {
		return nil, err
	}

	time.Sleep(2 * time.Second)
	const crowd = 100
	pssOurs, pssTheirs := gantry.memory("Pss"), docker.memory("Pss")
	idsOurs, startOurs, err := gantry.start(crowd)
	if err != nil {
		return nil, err
	}
	idsTheirs, startTheirs, err := docker.start(crowd)
	if err != nil {
		return nil, err
	}
	time.Sleep(3 * time.Second) // what a start leaves to the background is done
	eachOurs, eachTheirs := (gantry.memory("Pss")-pssOurs)/crowd, (docker.memory("Pss")-pssTheirs)/crowd
	add("P7", "100 containers started, 8 at a time", startOurs, startTheirs, "<= 1/10", 0.1)
	psTheirs, _, err := turns(n, theirs("ps", "-a"), exec2("busybox", "true"))
	if err != nil {
		return nil, err
	}
	endOurs, err := gantry.remove(idsOurs)
	if err != nil {
		return nil, err
	}
	endTheirs, err := docker.remove(idsTheirs)
	if err != nil {
		return nil, err
	}
	add("P7", "and removed", endOurs, endTheirs, "<= 1/10", 0.1)
	rows = append(rows,
		row{"P8", "memory that each of 100 running containers adds (PSS)", kb(eachOurs), kb(eachTheirs), fmt.Sprintf("1/%.1f", float64(eachTheirs)/float64(max(eachOurs, 1))), "<= 1.2 MB", verdict(eachOurs <= 1200)},
		row{"P9", "idle daemon, resident", kb(rssOurs), kb(rssTheirs), fmt.Sprintf("1/%.1f", float64(rssTheirs)/float64(rssOurs)), "<= 40 MB", verdict(rssOurs <= 40_000)})

	if many > 0 {
		var ids []string
		var first, last time.Duration
		for done := 0; done < many; done += crowd {
			more, took, err := gantry.start(crowd)
			ids = append(ids, more...)
			if err != nil {
				return nil, err
			}
			if done == 0 {
				first = took
			}
			last = took
		}
		rows = append(rows, row{"P7", fmt.Sprintf("the last 100 of %d running against the first", len(ids)), ms(last), ms(first), fmt.Sprintf("%.2f x", float64(last)/float64(first)), "flat", verdict(last <= first*3/2)})
		version, ps, err := turns(n, ours("version"), ours("ps"))
		if err != nil {
			return nil, err
		}
		rows = append(rows,
			row{"P10", "version", ms(version), "", "", "<= 5 ms", verdict(version <= 5*time.Millisecond)},
			row{"P10", fmt.Sprintf("ps with %d running containers (docker: ps -a with 100)", len(ids)), ms(ps), ms(psTheirs), "", "<= 20 ms", verdict(ps <= 20*time.Millisecond)})
		begin := time.Now()
		if err := gantry.Stop(); err != nil {
			return nil, err
		}
		stopped := time.Now()
		if err := gantry.Start(); err != nil {
			return nil, err
		}
		took := time.Since(stopped)
		rows = append(rows, row{"P11", fmt.Sprintf("daemon's start with %d running containers (its stop: %s)", len(ids), ms(stopped.Sub(begin))), ms(took), "", "", "< 1 s", verdict(took < time.Second)})
		if _, err := gantry.remove(ids); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// daemons starts both and gives them the test image.
func daemons() (gantry, docker *engine, err error) {
	g, err := harness.NewDaemon(harness.Dir(), "gantry")
	if err != nil {
		return nil, nil, err
	}
	d, err := harness.NewDockerd(harness.Dir(), "dockerd")
	if err != nil {
		return nil, nil, err
	}
	g.Large = true // a thousand containers on one network
	gantry = &engine{g, harness.Bin("gantry"), []string{"gantryd", "gantry-shim"}}
	docker = &engine{d, "docker", []string{"dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy"}}
	for _, e := range []*engine{gantry, docker} {
		if err := e.Start(); err != nil {
			return nil, nil, err
		}
		if err := e.Base(); err != nil {
			return nil, nil, err
		}
	}
	return gantry, docker, nil
}

func stop(engines ...*engine) {
	for _, e := range engines {
		if err := e.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
}

// command returns how to make a command of a command line against a daemon.
func command(e *engine, cli string) func(args ...string) func() error {
	return func(args ...string) func() error {
		return func() error {
			cmd := exec.Command(cli, args...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.Dir, "DOCKER_HOST=" + e.Host()}
			return finish(cmd)
		}
	}
}

func exec2(name string, args ...string) func() error {
	return func() error { return finish(exec.Command(name, args...)) }
}

func finish(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out.String())
	}
	return nil
}

// settle is how long the kernel may go on with what a run has left to it before the next begins: it takes cgroups and namespaces apart when their processes have ended, for 10 to 50 ms, on the
// processor that the other's run is on.
const settle = 50 * time.Millisecond

// turns runs a and b in turns and returns the medians of their times; the first run of each is not counted.
func turns(n int, a, b func() error) (time.Duration, time.Duration, error) {
	var times [2][]time.Duration
	for i := range n + 1 {
		for k, f := range []func() error{a, b} {
			time.Sleep(settle)
			start := time.Now()
			if err := f(); err != nil {
				return 0, 0, err
			}
			if i > 0 {
				times[k] = append(times[k], time.Since(start))
			}
		}
	}
	for k := range times {
		slices.Sort(times[k])
	}
	return times[0][n/2], times[1][n/2], nil
}

// start creates and starts containers through the API, 8 at a time.
func (e *engine) start(n int) (ids []string, took time.Duration, err error) {
	ids = make([]string, n)
	took, err = e.each(n, func(i int) error {
		answer, err := e.ask("POST", "/v1.41/containers/create", `{"Image":"`+harness.Image+`","Cmd":["sleep","100000"]}`)
		if err != nil {
			return err
		}
		at := strings.Index(answer, `"Id":"`)
		ids[i] = answer[at+6:][:64]
		_, err = e.ask("POST", "/v1.41/containers/"+ids[i]+"/start", "")
		return err
	})
	return ids, took, err
}

func (e *engine) remove(ids []string) (time.Duration, error) {
	return e.each(len(ids), func(i int) error {
		_, err := e.ask("DELETE", "/v1.41/containers/"+ids[i]+"?force=1", "")
		return err
	})
}

func (e *engine) each(n int, f func(i int) error) (time.Duration, error) {
	begin := time.Now()
	next := make(chan int)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				errs[i] = f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return time.Since(begin), errors.Join(errs...)
}

func (e *engine) ask(method, path, body string) (string, error) {
	status, answer, err := e.Do(method, path, body)
	if err == nil && status >= 400 {
		err = fmt.Errorf("%s %s: %d %s", method, path, status, answer)
	}
	return string(answer), err
}

// memory sums a field of /proc/PID/smaps_rollup ("Pss") or /proc/PID/status ("VmRSS") over the engine's processes, in kB.
func (e *engine) memory(field string) int {
	file := "smaps_rollup"
	if field == "VmRSS" {
		file = "status"
	}
	total := 0
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		link, err := os.Readlink(dir + "/exe")
		if err != nil {
			continue
		}
		name := strings.TrimPrefix(filepath.Base(strings.TrimSuffix(link, " (deleted)")), "memfd:")
		if !slices.Contains(e.exes, name) {
			continue
		}
		data, err := os.ReadFile(dir + "/" + file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, field+":"); ok {
				kb, err := strconv.Atoi(strings.Fields(rest)[0])
				if err == nil {
					total += kb
				}
			}
		}
	}
	return total
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
func kb(n int) string           { return fmt.Sprintf("%.2f MB", float64(n)/1000) }

func verdict(ok bool) string {
	if ok {
		return "yes"
	}
	return "**no**"
}

func render(rows []row, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks\n\nMade by `make bench` on %s: medians of %d runs in turns. %s\n\n", time.Now().UTC().Format("2006-01-02"), n, versions())
	b.WriteString("| # | work | gantry | peer (dockerd, unless named) | ratio | target | met |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", r.id, r.work, r.ours, r.theirs, r.ratio, r.target, r.met)
	}
	return b.String()
}

// versions says what was measured on what.
func versions() string {
	say := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			return name + " missing"
		}
		return strings.TrimSpace(strings.SplitN(string(out), "\n", 2)[0])
	}
	cpus, _ := os.ReadFile("/proc/cpuinfo")
	return fmt.Sprintf("Linux %s, %d CPUs; peers: %s; %s; %s; %s.", say("uname", "-r"), bytes.Count(cpus, []byte("processor\t")), say("dockerd", "--version"), say("containerd", "--version"), say("runc", "--version"), say("crun", "--version"))
}
