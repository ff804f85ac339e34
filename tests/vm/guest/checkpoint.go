package main

import (
	"fmt"
	"strings"
)

// counting has the container's program count on in a file, which a restored one goes on with and a new one begins anew.
func counting(spec, _, _ map[string]any) {
	spec["process"].(map[string]any)["args"] = []string{"sh", "-c", "exec 2>/dev/null; n=0; while :; do n=$((n+1)); echo $n >/count.new; mv /count.new /count; sleep 0.1; done"}
}

// ociCheckpoint saves and restores a container with the real criu, in a cgroup of its own and in a scope of systemd's.
func ociCheckpoint() error {
	return contained("saved", "/saved", "/sys/fs/cgroup/saved", "", counting, func() error { return savedAndBack("saved", "") })
}

func ociScopeCheckpoint() error {
	return scoped("four", counting, func(unit, dir string) error {
		if err := savedAndBack("four", "--systemd-cgroup"); err != nil {
			return err
		}
		if err := properties(unit, "ActiveState=active", "Slice=machine-tests.slice"); err != nil {
			return err
		}
		_, err := shell("test $(wc -l <" + dir + "/cgroup.procs) -ge 1")
		return err
	})
}

func savedAndBack(id, flags string) error {
	const log = " || { grep -h Error /tmp/saved.work/*.log; exit 1; }"
	if err := until("a count", func() error { _, err := shell("test $(cat " + bundle + "/rootfs/count) -gt 5"); return err }); err != nil {
		return err
	}
	if _, err := shell("rm -rf /tmp/saved /tmp/saved.work; gantry-oci checkpoint --image-path /tmp/saved --work-path /tmp/saved.work --leave-running " + id + log); err != nil {
		return fmt.Errorf("leave running: %w", err)
	}
	if _, err := shell("gantry-oci exec " + id + " true"); err != nil {
		return err
	}
	if _, err := shell("rm -rf /tmp/saved; gantry-oci checkpoint --image-path /tmp/saved --work-path /tmp/saved.work " + id + log); err != nil {
		return err
	}
	if out, err := shell("gantry-oci state " + id); err == nil {
		return fmt.Errorf("the saved container is still there: %s", out)
	}
	before, err := shell("cat " + bundle + "/rootfs/count")
	if err != nil {
		return err
	}
	if _, err := shell("gantry-oci " + flags + " restore --detach --bundle " + bundle + " --image-path /tmp/saved --work-path /tmp/saved.work " + id + " </dev/null >/dev/null 2>/tmp/err || { cat /tmp/err; grep -h Error /tmp/saved.work/*.log; exit 1; }"); err != nil {
		return err
	}
	if out, err := shell("gantry-oci state " + id); err != nil || !strings.Contains(out, `"status": "running"`) {
		return fmt.Errorf("restored: %s, %w", out, err)
	}
	return until("a count that goes on from "+before, func() error {
		_, err := shell("test $(cat " + bundle + "/rootfs/count) -gt " + before + " && gantry-oci exec " + id + " true")
		return err
	})
}
