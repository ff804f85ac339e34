package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// systemdScenarios tries the runtime on a machine that systemd runs.
func systemdScenarios() {
	environ = append(environ[:0:0], "PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "DOCKER_HOST=unix:///run/gantry.sock") // named, so that gantry starts no daemon itself
	version, _ := shell("systemctl --version | head -n 1")
	note()
	say("note %s", version)
	before, _ := scopes()
	for _, s := range []struct {
		name string
		run  func() error
	}{
		{"bundle", makeBundle}, {"scope", ociScope}, {"scope-update", ociUpdate}, {"scope-annotations", ociAnnotations}, {"scope-wrong", ociWrong}, {"scope-crash", ociCrash},
		{"checkpoint", ociCheckpoint}, {"scope-checkpoint", ociScopeCheckpoint},
	} {
		at := time.Now()
		if err := s.run(); err != nil {
			say("fail %s %v", s.name, err)
			continue
		}
		say("ok %s %d", s.name, time.Since(at).Milliseconds())
	}
	confinement()
	units()
	userUnits()
	if after, err := scopes(); err != nil || after != before {
		say("fail nothing-left scopes %q instead of %q, %v", after, before, err)
	}
}

// shell runs a script that has to succeed, and to come to its end.
func shell(script string) (string, error) {
	return shellAs(nil, script)
}

// shellAs runs it as a user, nil for root.
func shellAs(user *syscall.Credential, script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	c.Env = environ
	c.WaitDelay = time.Second
	c.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	var tasks string
	c.Cancel = func() error { // before the end, for what waits to be there
		tasks = waiting()
		return c.Process.Kill()
	}
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s%s%s", script, err, stdout.Bytes(), stderr.Bytes(), tasks)
	}
	return strings.TrimSpace(stdout.String()), nil
}

// waiting returns the programs that run, and where in the kernel each of their threads is.
func waiting() string {
	var s strings.Builder
	threads, _ := filepath.Glob("/proc/[0-9]*/task/*")
	for _, t := range threads {
		line, _ := os.ReadFile(t + "/cmdline")
		if len(line) == 0 { // a thread of the kernel
			continue
		}
		stack, _ := os.ReadFile(t + "/stack")
		fmt.Fprintf(&s, "\n%s %q\n%s", t, bytes.ReplaceAll(line, []byte{0}, []byte{' '}), stack)
	}
	return s.String()
}

// scopes returns the containers' scopes, failed ones too.
func scopes() (string, error) {
	return shell("systemctl list-units --all --plain --no-legend --type=scope 'gantry-*' 'test-*' | awk '{print $1}'")
}

const bundle = "/var/bundle"

func makeBundle() error {
	_, err := shell("mkdir -p " + bundle + "/rootfs && cd " + bundle + "/rootfs && mkdir -p proc dev sys && tar xf /image.tar && cd .. && gantry-oci spec")
	return err
}

// config writes the bundle's config.json.
func config(change func(spec, linux, resources map[string]any)) error {
	return edit(bundle, func(spec map[string]any) { configure(spec, change) })
}

// edit changes a bundle's config.json, whose program does nothing for long.
func edit(bundle string, change func(spec map[string]any)) error {
	name := filepath.Join(bundle, "config.json")
	var spec map[string]any
	body, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(body, &spec)
	}
	if err != nil {
		return err
	}
	process := spec["process"].(map[string]any)
	process["args"], process["terminal"] = []string{"sleep", "1000000"}, false
	change(spec)
	if body, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(name, body, 0o644)
}

func configure(spec map[string]any, change func(spec, linux, resources map[string]any)) {
	process := spec["process"].(map[string]any)
	capabilities := process["capabilities"].(map[string]any)
	for _, set := range []string{"bounding", "effective", "permitted"} { // to make what may not be opened
		if list, _ := capabilities[set].([]any); !slices.Contains(list, any("CAP_MKNOD")) {
			capabilities[set] = append(list, "CAP_MKNOD")
		}
	}
	linux := spec["linux"].(map[string]any)
	resources := map[string]any{"devices": []any{map[string]any{"allow": false, "access": "rwm"}}}
	linux["resources"] = resources
	delete(spec, "annotations")
	spec["root"].(map[string]any)["readonly"] = false
	change(spec, linux, resources)
}

// properties compares properties of a unit with "Name=value" lines.
func properties(unit string, want ...string) error {
	var names []string
	for _, w := range want {
		name, _, _ := strings.Cut(w, "=")
		names = append(names, "-p "+name)
	}
	out, err := shell("systemctl show " + strings.Join(names, " ") + " " + unit)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range want {
		if !strings.Contains("\n"+out+"\n", "\n"+w+"\n") {
			errs = append(errs, fmt.Errorf("%s is not there", w))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%s: %w in %q", unit, errors.Join(errs...), out)
	}
	return nil
}

// scoped runs f with a container under systemd, in test.slice, and sees that nothing is left of it.
func scoped(id string, change func(spec, linux, resources map[string]any), f func(unit, dir string) error) error {
	unit, dir := "test-"+id+".scope", "/sys/fs/cgroup/machine.slice/machine-tests.slice/test-"+id+".scope"
	err := contained(id, "machine-tests.slice:test:"+id, dir, "--systemd-cgroup", change, func() error { return f(unit, dir) })
	return errors.Join(err, properties(unit, "LoadState=not-found"))
}

// contained runs f with a container whose cgroup is dir, and sees that it goes.
func contained(id, path, dir, flags string, change func(spec, linux, resources map[string]any), f func() error) error {
	err := config(func(spec, linux, resources map[string]any) {
		linux["cgroupsPath"] = path
		change(spec, linux, resources)
	})
	if err != nil {
		return err
	}
	if _, err := shell("gantry-oci " + flags + " create --bundle " + bundle + " " + id + " </dev/null >/dev/null 2>/tmp/err || { cat /tmp/err; exit 1; }"); err != nil {
		return err
	}
	if _, err = shell("gantry-oci start " + id); err == nil {
		err = f()
	}
	if _, derr := shell("gantry-oci delete --force " + id); derr != nil {
		return errors.Join(err, derr)
	}
	return errors.Join(err, gone(dir))
}

func ociScope() error {
	return scoped("one", func(_, linux, r map[string]any) {
		r["memory"] = map[string]any{"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20}
		r["cpu"] = map[string]any{"shares": 512, "quota": 50000, "period": 100000, "cpus": "1"}
		r["pids"] = map[string]any{"limit": 40}
		r["unified"] = map[string]string{"memory.high": "50331648", "memory.oom.group": "1"}
		r["blockIO"] = map[string]any{"throttleReadBpsDevice": []any{map[string]any{"major": 7, "minor": 0, "rate": 1 << 20}}}
	}, func(unit, dir string) error {
		if err := properties(unit, "ActiveState=active", "Slice=machine-tests.slice", "Delegate=yes", "MemoryMax=67108864", "MemorySwapMax=33554432", "MemoryLow=33554432", "MemoryHigh=50331648",
			"CPUWeight=59", "CPUQuotaPerSecUSec=500ms", "AllowedCPUs=1", "TasksMax=40", "DevicePolicy=strict", "Transient=yes"); err != nil {
			return err
		}
		if err := files(dir, map[string]string{"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "33554432", "memory.high": "50331648", "memory.oom.group": "1", "cpu.weight": "59",
			"cpu.max": "50000 100000", "cpuset.cpus": "1", "pids.max": "40", "io.max": "7:0 rbps=1048576 wbps=max riops=max wiops=max"}); err != nil {
			return err
		}
		// The container's process is the only one, and stays there when systemd looks at its units again.
		if _, err := shell("systemctl daemon-reload"); err != nil {
			return err
		}
		out, err := shell("test $(wc -l <" + dir + "/cgroup.procs) = 1 && gantry-oci exec one cat /proc/self/cgroup")
		if err != nil || out != "0::/" {
			return fmt.Errorf("in the container: %q, %w", out, err)
		}
		if out, err := shell("gantry-oci exec one sh -c ': </dev/null && echo x >/dev/null && head -c 1 /dev/zero >/dev/null && echo open; rm -f /tmp/b; mknod /tmp/b b 7 0 || exit 9; true </tmp/b'"); err == nil || !strings.Contains(err.Error(), "open\n") || !strings.Contains(err.Error(), "Operation not permitted") {
			return fmt.Errorf("devices: %s, %w", out, err)
		}
		return nil
	})
}

func ociUpdate() error {
	return scoped("two", func(_, _, r map[string]any) {
		r["memory"] = map[string]any{"limit": 64 << 20}
	}, func(unit, dir string) error {
		const limits = `{"memory":{"limit":33554432,"swap":33554432},"cpu":{"shares":2048,"quota":25000,"period":50000,"cpus":"0"},"pids":{"limit":9},"unified":{"memory.min":"4096"},"devices":[{"allow":true,"access":"rwm"}]}`
		if _, err := shell("echo '" + limits + "' | gantry-oci update -r - two"); err != nil {
			return err
		}
		if err := properties(unit, "MemoryMax=33554432", "MemorySwapMax=0", "MemoryMin=4096", "CPUWeight=174", "CPUQuotaPerSecUSec=500ms", "CPUQuotaPeriodUSec=50ms", "AllowedCPUs=0", "TasksMax=9"); err != nil {
			return err
		}
		if _, err := shell("systemctl daemon-reload"); err != nil {
			return err
		}
		if err := files(dir, map[string]string{"memory.max": "33554432", "memory.swap.max": "0", "memory.min": "4096", "cpu.max": "25000 50000", "cpuset.cpus": "0", "pids.max": "9"}); err != nil {
			return err
		}
		_, err := shell("gantry-oci exec two sh -c 'rm -f /tmp/b; mknod /tmp/b b 7 0 && true </tmp/b'")
		return err
	})
}

func ociAnnotations() error {
	return scoped("three", func(spec, _, _ map[string]any) {
		spec["annotations"] = map[string]string{"org.systemd.property.TimeoutStopSec": "uint64 7", "org.systemd.property.CollectMode": "'inactive-or-failed'", "org.systemd.property.Description": "'of the test'"}
	}, func(unit, _ string) error {
		return properties(unit, "TimeoutStopUSec=7s", "CollectMode=inactive-or-failed", "Description=of the test")
	})
}

// ociWrong asks for what cannot be, and expects one line that says why, and nothing left.
func ociWrong() error {
	for text, change := range map[string]func(spec, linux, r map[string]any){
		"expected cgroupsPath to be of format": func(_, linux, _ map[string]any) { linux["cgroupsPath"] = "/a/b" },
		"invalid slice name: a--b.slice":       func(_, linux, _ map[string]any) { linux["cgroupsPath"] = "a--b.slice:test:x" },
		"linux.resources.cpu.cpus":             func(_, _, r map[string]any) { r["cpu"] = map[string]any{"cpus": "900"} },
		"org.systemd.property.TimeoutStopSec": func(spec, _, _ map[string]any) {
			spec["annotations"] = map[string]string{"org.systemd.property.TimeoutStopSec": "'soon'"}
		},
		"NoSuchThing": func(spec, _, _ map[string]any) {
			spec["annotations"] = map[string]string{"org.systemd.property.NoSuchThing": "true"}
		},
		"set: controller": func(_, _, r map[string]any) { r["unified"] = map[string]string{"nosuch.max": "1"} },
		"unable to set swap limit without memory li": func(_, _, r map[string]any) { r["memory"] = map[string]any{"swap": 1 << 20} },
	} {
		if err := config(func(spec, linux, r map[string]any) {
			linux["cgroupsPath"] = "machine-tests.slice:test:wrong"
			change(spec, linux, r)
		}); err != nil {
			return err
		}
		_, err := shell("gantry-oci --systemd-cgroup create --bundle " + bundle + " wrong </dev/null 2>&1")
		if err == nil || !strings.Contains(err.Error(), text) {
			return fmt.Errorf("the error is %w, not %q", err, text)
		}
		if err := properties("test-wrong.scope", "LoadState=not-found"); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}

// ociCrash ends a container behind the runtime's back, and deletes it then.
func ociCrash() error {
	return scoped("four", func(_, _, _ map[string]any) {}, func(unit, dir string) error {
		if _, err := shell("systemctl kill --signal=KILL " + unit); err != nil {
			return err
		}
		return until("the scope to end", func() error { return properties(unit, "ActiveState=inactive") })
	})
}

// userUnits runs the tests of the systemd driver as a user with a systemd of his own.
func userUnits() {
	if _, err := shell("mkdir -p /home/alice && chown 1000:1000 /home/alice && systemctl start user@1000.service"); err != nil {
		say("fail user-systemd %v", err)
		return
	}
	unit("/unit/linux-cgroup-systemd/linux-cgroup-systemd.test", func(c *exec.Cmd) {
		c.Env = append(c.Env, "HOME=/home/alice", "XDG_RUNTIME_DIR=/run/user/1000")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	})
	at := time.Now()
	if err := userScope(); err != nil {
		say("fail user-scope %v", err)
		return
	}
	say("ok user-scope %d", time.Since(at).Milliseconds())
}

// userScope has a user run a container of his own under his systemd, from the specification that spec --rootless writes.
func userScope() error {
	const dir = "/home/alice/bundle"
	if _, err := asAlice("mkdir -p " + dir + "/rootfs && cd " + dir + " && tar xf /image.tar -C rootfs && mkdir -p rootfs/proc rootfs/dev rootfs/sys && gantry-oci spec --rootless"); err != nil {
		return err
	}
	err := edit(dir, func(spec map[string]any) {
		linux := spec["linux"].(map[string]any)
		linux["cgroupsPath"] = "test.slice:test:mine"
		linux["resources"] = map[string]any{"memory": map[string]any{"limit": 64 << 20}, "pids": map[string]any{"limit": 40}}
	})
	if err != nil {
		return err
	}
	const runtime = "gantry-oci --systemd-cgroup "
	out, err := asAlice("cd " + dir + " && { " + runtime + "create mine </dev/null >/dev/null 2>/tmp/alice || { cat /tmp/alice; exit 1; }; } && " + runtime + "start mine && " + runtime + "exec mine id -u && " +
		"systemctl --user show -p ActiveState -p Slice -p MemoryMax -p TasksMax test-mine.scope && " +
		"cat /sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/test.slice/test-mine.scope/memory.max && " +
		`echo '{"memory":{"limit":33554432}}' | ` + runtime + "update -r - mine && systemctl --user show -p MemoryMax test-mine.scope && " + runtime + "state mine | grep status")
	if _, derr := asAlice(runtime + "delete --force mine && systemctl --user show -p LoadState test-mine.scope | grep not-found && ! ls /run/user/1000/gantry-oci/mine 2>/dev/null"); derr != nil {
		err = errors.Join(err, derr)
	}
	if err != nil {
		return err
	}
	for _, want := range []string{"0", "ActiveState=active", "Slice=test.slice", "MemoryMax=67108864", "TasksMax=40", "67108864", "MemoryMax=33554432", `"status": "running"`} {
		if !strings.Contains("\n"+out+"\n", "\n"+want) && !strings.Contains(out, want+",") {
			return fmt.Errorf("%s is not there: %q", want, out)
		}
	}
	return nil
}

// asAlice runs a script as a unit of the user's systemd, as what he types into a terminal does.
func asAlice(script string) (string, error) {
	const name = "/tmp/alice.sh"
	own := "export XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/alice\n"
	if err := os.WriteFile(name, []byte("export "+environ[0]+"\n"+own+script+"\n"), 0o755); err != nil {
		return "", err
	}
	return shellAs(&syscall.Credential{Uid: 1000, Gid: 1000}, own+"systemd-run --user --wait --pipe --quiet --collect sh -e "+name+" 2>&1")
}
