package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// confinement tries what containers get of AppArmor on a machine that has the program that compiles its profiles.
func confinement() {
	if err := start(); err != nil {
		say("fail confinement %v", err)
		return
	}
	if out, code := gantry("import", "/image.tar", "busybox"); code != 0 {
		say("fail confinement import: %s", out)
	}
	for _, s := range []struct {
		name string
		run  func() error
	}{{"apparmor-default", appArmorDefault}, {"apparmor-denies", appArmorDenies}, {"apparmor-anew", appArmorAnew}} {
		at := time.Now()
		if err := s.run(); err != nil {
			say("fail %s %v", s.name, err)
			continue
		}
		say("ok %s %d", s.name, time.Since(at).Milliseconds())
	}
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		say("fail confinement %v", err)
	}
	if err := daemon.Wait(); err != nil {
		log, _ := os.ReadFile("/var/gantryd.log")
		say("fail confinement gantryd at SIGTERM: %v: %s", err, log)
	}
}

const confined = "docker-default (enforce)"

// appArmorDefault has every container but privileged ones, and what is executed in it, run with the default profile, unless another is asked for.
func appArmorDefault() error {
	if out, err := must("info"); err != nil || !strings.Contains(out, "apparmor") {
		return fmt.Errorf("info: %s, %w", out, err)
	}
	if err := expect(confined, 0, "run", "--rm", "busybox", "cat", "/proc/self/attr/current"); err != nil {
		return err
	}
	for _, flags := range [][]string{{"--privileged"}, {"--security-opt", "apparmor=unconfined"}} {
		if err := expect("unconfined", 0, append(append([]string{"run", "--rm"}, flags...), "busybox", "cat", "/proc/self/attr/current")...); err != nil {
			return err
		}
	}
	if err := expect(confined, 0, "run", "--rm", "--privileged", "--security-opt", "apparmor=docker-default", "busybox", "cat", "/proc/self/attr/current"); err != nil {
		return err
	}
	if _, err := running("held"); err != nil {
		return err
	}
	if err := expect(confined, 0, "exec", "held", "cat", "/proc/self/attr/current"); err != nil {
		return err
	}
	if err := expect("docker-default", 0, "inspect", "-f", "{{.AppArmorProfile}}", "held"); err != nil {
		return err
	}
	if _, err := must("stop", "-t", "20", "held"); err != nil { // the supervisor's signal reaches it
		return err
	}
	return remove("held")
}

// appArmorDenies tries, with all capabilities and nothing else in the way, what the profile forbids, and what it must not. Without it all of that goes.
func appArmorDenies() error {
	if err := os.WriteFile("/run/outside", []byte(fmt.Sprint(os.Getpid())), 0o644); err != nil {
		return err
	}
	scripts := []struct {
		text    string
		allowed bool
	}{
		{"mkdir /m; mount -t tmpfs x /m", false},
		{"echo h > /proc/sysrq-trigger", false},
		{"head -c 1 /proc/kcore | wc -c | grep 1", false},
		{"echo x > /proc/sys/kernel/domainname", false},
		{"echo 10 > /proc/sys/vm/swappiness", false},
		{"echo 0 > /sys/kernel/mm/ksm/run", false},
		{"cat /sys/kernel/security/lsm", false},
		{"kill -0 $(cat /outside)", false},
		{"echo 4096 > /proc/sys/kernel/shmmni", true},
		{"echo 1 > /proc/self/oom_score_adj", true},
		{"echo x > /dev/shm/x", true},
		{"mkdir /sys/fs/cgroup/x && rmdir /sys/fs/cgroup/x", true},
		{"sleep 100 & kill $!", true},
	}
	var all strings.Builder
	for i, s := range scripts {
		fmt.Fprintf(&all, "(%s) >/dev/null 2>&1 && echo %d\n", s.text, i)
	}
	all.WriteString("true\n")
	for _, profile := range []string{"docker-default", "unconfined"} {
		out, err := must("run", "--rm", "--cap-add", "ALL", "--pid", "host", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined", "--security-opt", "apparmor="+profile,
			"-v", "/sys:/sys", "-v", "/run/outside:/outside:ro", "busybox", "sh", "-c", all.String())
		if err != nil {
			return err
		}
		done := strings.Fields(out)
		for i, s := range scripts {
			if want := s.allowed || profile == "unconfined"; slices.Contains(done, fmt.Sprint(i)) != want {
				return fmt.Errorf("with %s: %s: done is to be %v", profile, s.text, want)
			}
		}
	}
	return nil
}

// appArmorAnew has a profile come back that somebody has taken away.
func appArmorAnew() error {
	if err := os.WriteFile("/sys/kernel/security/apparmor/.remove", []byte("docker-default"), 0); err != nil {
		return err
	}
	return expect(confined, 0, "run", "--rm", "busybox", "cat", "/proc/self/attr/current")
}
