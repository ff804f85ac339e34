package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// runtimeScenarios tries gantry-oci, by itself, on a machine with nothing but cgroup v2.
func runtimeScenarios() {
	for _, s := range []struct {
		name string
		run  func() error
	}{{"oci-bundle", makeBundle}, {"oci-limits", ociLimits}, {"oci-devices", ociDevices}, {"oci-nested", ociNested}, {"oci-kill", ociKill}, {"oci-paths", ociPaths}, {"oci-no-systemd", ociNoSystemd}, {"rootless-delegated", delegated}} {
		at := time.Now()
		if err := s.run(); err != nil {
			say("fail %s %v", s.name, err)
			continue
		}
		say("ok %s %d", s.name, time.Since(at).Milliseconds())
	}
	_ = os.Remove("/sys/fs/cgroup/oci-test") // it is empty, or a scenario has failed
}

const ociGroups = "/sys/fs/cgroup/oci-test/"

func ociLimits() error {
	return contained("limits", "/oci-test/limits", ociGroups+"limits", "", func(_, _, r map[string]any) {
		r["memory"] = map[string]any{"limit": 64 << 20, "swap": 96 << 20}
		r["cpu"] = map[string]any{"shares": 1024, "burst": 10000, "quota": 50000}
		r["unified"] = map[string]string{"memory.high": "50331648", "pids.max": "44", "io.max": "7:0 rbps=4096\n7:1 wbps=8192"}
	}, func() error {
		if err := files(ociGroups+"limits", map[string]string{"memory.max": "67108864", "memory.swap.max": "33554432", "memory.high": "50331648", "pids.max": "44", "cpu.weight": "100", "cpu.max": "50000 100000", "cpu.max.burst": "10000",
			"io.max": "7:1 rbps=max wbps=8192 riops=max wiops=max\n7:0 rbps=4096 wbps=max riops=max wiops=max"}); err != nil {
			if err := files(ociGroups+"limits", map[string]string{"io.max": "7:0 rbps=4096 wbps=max riops=max wiops=max\n7:1 rbps=max wbps=8192 riops=max wiops=max"}); err != nil {
				return err
			}
		}
		out, err := shell("gantry-oci events --stats limits")
		if err != nil {
			return err
		}
		for _, part := range []string{`"type":"stats"`, `"limit":44`, `"limit":67108864`, `"raw":{`, `"psi":{"some":`, `"total":`, `"hugetlb":{`} {
			if !strings.Contains(out, part) {
				return fmt.Errorf("the statistics lack %s: %s", part, out)
			}
		}
		if _, err := shell(`echo '{"memory":{"limit":33554432,"swap":-1},"unified":{"memory.high":"max"},"cpu":{"idle":1}}' | gantry-oci update -r - limits`); err != nil {
			return err
		}
		return files(ociGroups+"limits", map[string]string{"memory.max": "33554432", "memory.swap.max": "max", "memory.high": "max", "cpu.idle": "1", "pids.max": "44"})
	})
}

// ociDevices has no rules but the runtime's own.
func ociDevices() error {
	return contained("devices", "/oci-test/devices", ociGroups+"devices", "", func(_, _, r map[string]any) { delete(r, "devices") }, func() error {
		_, err := shell("gantry-oci exec devices sh -c 'for d in null zero full random urandom; do true </dev/$d || exit 1; done; mknod /tmp/b b 7 0 && mknod /tmp/c c 1 4 && ! true </tmp/b && ! true </tmp/c' 2>&1")
		return err
	})
}

// ociNested has cgroups with limits made inside, as an engine does: a further process then goes where the first is.
func ociNested() error {
	return contained("nested", "/oci-test/nested", ociGroups+"nested", "", func(spec, _, _ map[string]any) {
		for _, m := range spec["mounts"].([]any) {
			if m := m.(map[string]any); m["destination"] == "/sys/fs/cgroup" {
				m["options"] = []string{"nosuid", "noexec", "nodev", "rw"}
			}
		}
		spec["process"].(map[string]any)["args"] = []string{"sh", "-c", "cd /sys/fs/cgroup && mkdir own && echo 1 >own/cgroup.procs && echo +memory >cgroup.subtree_control; exec sleep 1000000"}
	}, func() error {
		if err := until("the cgroup inside", func() error { return files(ociGroups+"nested", map[string]string{"cgroup.subtree_control": "memory"}) }); err != nil {
			return err
		}
		out, err := shell("gantry-oci exec nested cat /proc/self/cgroup")
		if err != nil || out != "0::/own" {
			return fmt.Errorf("%q, %w", out, err)
		}
		out, err = shell("gantry-oci ps --format json nested")
		if err != nil || out == "[]" || out == "null" {
			return fmt.Errorf("processes %q, %w", out, err)
		}
		return nil
	})
}

// ociKill pauses a container without a pid namespace of its own, and kills all of it.
func ociKill() error {
	return contained("kill", "/oci-test/kill", ociGroups+"kill", "", func(spec, linux, _ map[string]any) {
		var rest []any
		for _, n := range linux["namespaces"].([]any) {
			if n.(map[string]any)["type"] != "pid" {
				rest = append(rest, n)
			}
		}
		linux["namespaces"] = rest
		spec["process"].(map[string]any)["args"] = []string{"sh", "-c", "sleep 1000000 & sleep 1000000 & wait"}
	}, func() error {
		if err := until("three processes", func() error {
			_, err := shell("test $(wc -l <" + ociGroups + "kill/cgroup.procs) = 3")
			return err
		}); err != nil {
			return err
		}
		if _, err := shell("gantry-oci pause kill"); err != nil {
			return err
		}
		if err := files(ociGroups+"kill", map[string]string{"cgroup.freeze": "1"}); err != nil {
			return err
		}
		if _, err := shell("gantry-oci resume kill && gantry-oci kill --all kill KILL"); err != nil {
			return err
		}
		return until("their end", func() error { return files(ociGroups+"kill", map[string]string{"cgroup.procs": ""}) })
	})
}

// ociPaths tries paths that are refused, and one that is in use.
func ociPaths() error {
	used := ociGroups + "used"
	if err := os.MkdirAll(used, 0o755); err != nil {
		return err
	}
	sleeper := exec.Command("/bin/sleep", "1000")
	group, err := os.Open(used)
	if err != nil {
		return err
	}
	defer group.Close()
	sleeper.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := sleeper.Start(); err != nil {
		return err
	}
	defer func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
		_ = until("the cgroup to be removed", func() error { return os.Remove(used) })
	}()
	for path, text := range map[string]string{"../../escape": "leaves its parent", "/": "is the root", "/oci-test/used": "container's cgroup is not empty: 1 process(es) found"} {
		if err := config(func(_, linux, _ map[string]any) { linux["cgroupsPath"] = path }); err != nil {
			return err
		}
		_, err := shell("gantry-oci create --bundle " + bundle + " path </dev/null 2>&1")
		if err == nil || !strings.Contains(err.Error(), text) || strings.Count(err.Error(), "\n") > 1 {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	if err := syscall.Kill(sleeper.Process.Pid, 0); err != nil {
		return fmt.Errorf("the process that was there: %w", err)
	}
	return nil
}

func ociNoSystemd() error {
	if err := config(func(_, linux, _ map[string]any) { linux["cgroupsPath"] = "a.slice:test:x" }); err != nil {
		return err
	}
	_, err := shell("gantry-oci --systemd-cgroup create --bundle " + bundle + " path </dev/null 2>&1")
	if err == nil || !strings.Contains(err.Error(), "systemd not running on this host, cannot use systemd cgroups manager") {
		return fmt.Errorf("without systemd: %w", err)
	}
	return nil
}

// delegated gives a user a part of the tree, and runs a test as him in it.
func delegated() error {
	root := "/sys/fs/cgroup/delegated"
	own := root + "/own"
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	defer func() {
		_ = until("the cgroups to be removed", func() error { return errors.Join(os.Remove(own), os.Remove(root)) })
	}()
	if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+memory +pids +cpu"), 0o644); err != nil {
		return err
	}
	for _, dir := range []string{root, own} {
		for _, name := range []string{"", "cgroup.procs", "cgroup.threads"} { // which controllers there are stays root's to say
			if err := os.Chown(filepath.Join(dir, name), 1000, 1000); err != nil {
				return err
			}
		}
	}
	group, err := os.Open(own)
	if err != nil {
		return err
	}
	defer group.Close()
	c := exec.Command("/unit/linux-cgroup/linux-cgroup.test", "-test.run", "^TestDelegated$", "-test.v")
	c.Env = append(environ, "CGROUP_TEST_DELEGATED=1")
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd()), Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestDelegated") {
		return fmt.Errorf("%w: %s", err, failures(string(out)))
	}
	return nil
}
