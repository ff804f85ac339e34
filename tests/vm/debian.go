package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages are what a machine with systemd as its first process is made of. What they depend on apt finds.
var packages = []string{"systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "libpam-modules", "criu", "iptables", "apparmor"}

// spare are parts of those packages that nothing in the machine reads.
var spare = []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bash-completion", "usr/share/zsh", "usr/share/i18n", "usr/share/perl",
	"usr/share/perl5", "usr/share/common-licenses", "usr/lib/x86_64-linux-gnu/perl", "usr/lib/x86_64-linux-gnu/perl-base", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/udev/hwdb.d", "lib/udev", "usr/lib/locale", "usr/lib/python3", "usr/lib/python3.11", "usr/bin/python3.11",
	"var/lib/dpkg", "usr/share/dpkg", "usr/share/debconf"}

// settings are the files that installing the packages would have made, had it been done, and the machine's own.
var settings = map[string]string{
	"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/nonexistent:/bin/false\nsystemd-network:x:101:101::/:/bin/false\nalice:x:1000:1000::/home/alice:/bin/sh\n",
	"etc/group":  "root:x:0:\ntty:x:5:\ndisk:x:6:\nutmp:x:43:\nadm:x:4:\nsystemd-journal:x:102:\nmessagebus:x:100:\nsystemd-network:x:101:\nalice:x:1000:\n",
	"etc/shadow": "root:*:19000:0:99999:7:::\nalice:*:19000:0:99999:7:::\n", "etc/subuid": "alice:100000:65536\n", "etc/subgid": "alice:100000:65536\n",
	"etc/machine-id": "0123456789abcdef0123456789abcdef\n", "etc/fstab": "", "etc/hostname": "machine\n", "etc/os-release": "ID=debian\nNAME=Debian\n",
	"etc/pam.d/common-account": "account required pam_permit.so\n", "etc/pam.d/common-auth": "auth required pam_permit.so\n", "etc/pam.d/common-password": "password required pam_permit.so\n",
	"etc/pam.d/common-session": "session required pam_permit.so\n", "etc/pam.d/common-session-noninteractive": "session required pam_permit.so\n",
	// Users get the controllers that a rootless container may be limited with.
	"etc/systemd/system/user@.service.d/delegate.conf": "[Service]\nDelegate=cpu cpuset io memory pids\n",
	"etc/systemd/system/guest.service": `[Unit]
Description=Tests
Requires=dbus.socket basic.target
After=dbus.socket basic.target systemd-logind.service
Wants=systemd-logind.service
[Service]
Type=exec
ExecStart=/bin/guest systemd
Delegate=yes
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Environment=PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
`,
}

// masked are units that have nothing to do in this machine.
var masked = []string{"getty.target", "serial-getty@ttyS0.service", "systemd-firstboot.service", "systemd-journal-flush.service", "systemd-update-utmp.service", "ldconfig.service", "systemd-hwdb-update.service",
	"systemd-boot-system-token.service", "systemd-networkd.service", "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "tmp.mount", "dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"}

// FetchRoot downloads the packages of a machine with systemd to dir and unpacks them, unless they are there. Nothing of them is run:
// what their installation would do is in settings.
func FetchRoot(ctx context.Context, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "sbin/apparmor_parser")); err == nil { // the last package that was added
		return nil
	}
	half := dir + ".new" // renamed when all is there
	archives := dir + ".deb"
	if err := errors.Join(os.RemoveAll(half), os.RemoveAll(dir), os.RemoveAll(archives), os.MkdirAll(half, 0o755), os.MkdirAll(archives+"/partial", 0o755), os.WriteFile(archives+"/status", nil, 0o644)); err != nil {
		return err
	}
	defer os.RemoveAll(archives)
	run := func(name string, args ...string) error {
		c := exec.CommandContext(ctx, name, args...)
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out.Bytes())
		}
		return nil
	}
	// As if nothing was installed here, so that everything is fetched.
	if err := run("apt-get", append([]string{"-qq", "-y", "--no-install-recommends", "--download-only", "-o", "Dir::State::status=" + archives + "/status", "-o", "Dir::Cache::archives=" + archives + "/",
		"-o", "Debug::NoLocking=true", "install"}, packages...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(archives + "/*.deb")
	if err != nil || len(files) == 0 {
		return fmt.Errorf("apt-get left no package in %s: %w", archives, err)
	}
	for _, f := range files {
		if err := run("dpkg-deb", "-x", f, half); err != nil {
			return err
		}
	}
	for _, tool := range []string{"iptables-restore", "ip6tables-restore"} { // by which criu holds a container's network
		if err := os.Symlink("xtables-nft-multi", filepath.Join(half, "usr/sbin", tool)); err != nil {
			return err
		}
	}
	for _, s := range spare {
		if err := os.RemoveAll(filepath.Join(half, s)); err != nil {
			return err
		}
	}
	return os.Rename(half, dir)
}

// RootFiles returns the machine's files, below prefix.
func RootFiles(dir, prefix string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if _, ours := settings[name]; ours {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		f := File{Name: prefix + name, Host: path, Mode: uint32(info.Mode().Perm())}
		switch {
		case info.Mode()&os.ModeSymlink != 0:
			if f.Link, err = os.Readlink(path); err != nil {
				return err
			}
		case info.IsDir():
			entries, err := os.ReadDir(path)
			if err != nil || len(entries) > 0 {
				return err // made on the way to what is in it
			}
			f = File{Name: prefix + name + "/.keep", Mode: 0o644}
		case !info.Mode().IsRegular():
			return nil
		}
		files = append(files, f)
		return nil
	})
	for name, text := range settings {
		files = append(files, File{Name: prefix + name, Body: []byte(text), Mode: 0o644})
	}
	for _, unit := range masked {
		files = append(files, File{Name: prefix + "etc/systemd/system/" + unit, Link: "/dev/null"})
	}
	return files, err
}
