// Package apparmor is about the AppArmor security module: apparmor(7), apparmor.d(5), apparmor_parser(8).
package apparmor

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"gantry/errdefs"
)

// Default is the name of the profile that LoadDefault loads. It is Docker's, which tools look for.
const Default = "docker-default"

//go:embed default.profile
var defaultProfile string

const (
	policy = "/sys/kernel/security/apparmor/profiles" // those that are loaded, a line each: name (mode)
	abi    = "/etc/apparmor.d/abi/3.0"                // what the profile was written for; newer parsers would add what it knows nothing of
	limit  = time.Minute                              // for the parser, which takes a tenth of a second
)

// Enabled reports whether this kernel runs with AppArmor.
func Enabled() bool {
	data, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(data), "Y")
}

// ExecFile returns the file of a task's folder in procfs that takes the profile of its next program. Its old name is shared with
// other security modules, and only the first of them listens.
func ExecFile() string {
	const name = "attr/apparmor/exec" // Linux 5.8
	if _, err := os.Lstat("/proc/thread-self/" + name); err == nil {
		return name
	}
	return "attr/exec"
}

// Manageable reports whether this process can load profiles: AppArmor runs, its policy can be seen, and there is the program that compiles
// profiles. A container, to which the host's policy may be shown, is told by its environment.
func Manageable() bool {
	if !Enabled() || os.Getenv("container") != "" {
		return false
	}
	_, err := loaded()
	if err == nil {
		_, err = compiler()
	}
	return err == nil
}

// compiler finds apparmor_parser.
func compiler() (string, error) {
	for _, dir := range []string{"/sbin/", "/usr/sbin/"} {
		if st, err := os.Stat(dir + "apparmor_parser"); err == nil && st.Mode().IsRegular() {
			return dir + "apparmor_parser", nil
		}
	}
	return exec.LookPath("apparmor_parser")
}

// loaded reports whether the default profile is loaded.
func loaded() (bool, error) {
	list, err := os.ReadFile(policy)
	return bytes.HasPrefix(list, []byte(Default+" (")) || bytes.Contains(list, []byte("\n"+Default+" (")), err
}

// loading has one process load the profile at a time.
var loading sync.Mutex

// LoadDefault loads the default profile unless it is loaded, be it by another. Errors: Unavailable, with what the parser says.
func LoadDefault(ctx context.Context) error {
	loading.Lock()
	defer loading.Unlock()
	if is, err := loaded(); is || err != nil {
		return err
	}
	if err := load(ctx, text()); err != nil {
		return errdefs.New(errdefs.Unavailable, "AppArmor enabled on system but the %s profile could not be loaded: %w", Default, err)
	}
	return nil
}

// text returns the default profile as it is for this host.
func text() string {
	profile := strings.ReplaceAll(defaultProfile, "@DAEMON@", own())
	if _, err := os.Stat(abi); err == nil {
		profile = "abi <abi/3.0>,\n" + profile
	}
	return profile
}

// own returns the profile of this process, quoted.
func own() string {
	data, err := os.ReadFile("/proc/self/attr/current")
	name, _, _ := strings.Cut(strings.TrimSpace(strings.TrimRight(string(data), "\x00\n")), " (")
	if err != nil || name == "" {
		name = "unconfined"
	}
	return fmt.Sprintf("%q", name)
}

// load has the kernel take a profile, new or instead of one of its name.
func load(ctx context.Context, profile string) error {
	program, err := compiler()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := exec.CommandContext(ctx, program, "--skip-cache", "--replace") // it reads standard input
	c.Stdin = strings.NewReader(profile)
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w", program, errors.Join(err, errors.New(strings.TrimSpace(string(out)))))
	}
	return nil
}
