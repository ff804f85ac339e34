package oci_test

import (
	"os"
	"strings"
	"testing"

	"gantry/linux/landlock"
	"gantry/oci"
)

const confined = `{
	"ruleset": {"handledAccessFS": ["execute", "write_file", "read_file", "read_dir", "make_reg"], "handledAccessNet": ["bind_tcp"], "scoped": ["signal"]},
	"rules": {
		"pathBeneath": [
			{"allowedAccess": ["execute", "read_file", "read_dir"], "paths": ["/bin", "/proc", "/no/such"]},
			{"allowedAccess": ["read_file", "read_dir", "write_file", "make_reg"], "paths": ["/tmp"]},
			{"allowedAccess": ["read_file", "read_dir", "write_file"], "paths": ["/etc/passwd", "/dev/null"]}
		],
		"netPort": [{"allowedAccess": ["bind_tcp"], "ports": [8080]}]
	}
}`

const tries = `cat /etc/passwd | head -n 1; cat /etc/shadow; echo x > /tmp/new && cat /tmp/new; echo x > /root/new; ls /root; busybox timeout 1 busybox nc -l -p 8081; busybox timeout 1 busybox nc -l -p 8080; echo $?`

const outcome = `root:x:0:0:root:/root:/bin/sh
cat: can't open '/etc/shadow': Permission denied
x
sh: can't create /root/new: Permission denied
ls: can't open '/root': Permission denied
nc: bind: Permission denied
Terminated
143
`

func TestLandlock(t *testing.T) {
	if landlock.ABI() < 6 {
		t.Skip("this kernel's Landlock is older than Linux 6.12's")
	}
	for _, nnp := range []bool{false, true} {
		for _, uid := range []uint32{0, 1000} {
			s := dockerSpec(t, rootfs(t), "sh", "-c", tries)
			s.Process.NoNewPrivileges, s.Process.User.UID = nnp, uid
			s.Annotations = map[string]string{oci.LandlockAnnotation: confined}
			prepare(t, s.Root.Path)
			if out, _ := run(t, s); out != outcome {
				t.Errorf("user %d, no_new_privs %t: output\n%s", uid, nnp, out)
			}
		}
	}
	// The same for what joins later; without the annotation all of it is possible.
	s := dockerSpec(t, rootfs(t), "sleep", "1000")
	prepare(t, s.Root.Path)
	s.Annotations = map[string]string{oci.LandlockAnnotation: confined}
	c := start(t, s)
	if out, _ := execIn(t, c, process("sh", "-c", tries)); out != outcome {
		t.Errorf("exec: output\n%s", out)
	}
	if out, code := execIn(t, c, process("kill", "1")); code == 0 || !strings.Contains(out, "Operation not permitted") {
		t.Errorf("signal to another: exit code %d, output %q", code, out)
	}
}

func TestLandlockRefusals(t *testing.T) {
	root := rootfs(t)
	for text, words := range map[string]string{
		`{"ruleset": {"handledAccessFS": ["raed"]}}`: "annotations.org.gantry.landlock",
		`{"disableBestEffort": true, "ruleset": {"handledAccessFS": ["read_file"]}, "rules": {"pathBeneath": [{"allowedAccess": ["read_file"], "paths": ["/no/such"]}]}}`: "/no/such",
	} {
		s := dockerSpec(t, root, "true")
		s.Annotations = map[string]string{oci.LandlockAnnotation: text}
		if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// prepare gives a root file system what the tries are about, readable to every user.
func prepare(t *testing.T, root string) {
	t.Helper()
	for _, err := range []error{
		os.WriteFile(root+"/etc/shadow", []byte("secret\n"), 0o644), os.Chmod(root+"/root", 0o777), os.Chmod(root+"/tmp", 0o777), os.Chmod(root+"/etc/passwd", 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}
