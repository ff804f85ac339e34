package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// units runs the tests of packages that talk to the kernel, each as a scenario of its own.
func units() {
	tests, err := filepath.Glob("/unit/*/*.test")
	if err != nil || len(tests) == 0 {
		say("fail unit there are no tests, %v", err)
	}
	for _, t := range tests {
		unit(t, nil)
	}
}

// unit runs the tests of one package; change may change how.
func unit(test string, change func(*exec.Cmd)) {
	name := "unit-" + strings.TrimSuffix(filepath.Base(test), ".test")
	at := time.Now()
	c := exec.Command(test, "-test.timeout=120s", "-test.v")
	if lacking := lacking(name); lacking != "" {
		c.Args = append(c.Args, "-test.skip="+lacking)
		say("note %s: %s are left out here", name, lacking)
	}
	c.Env = append(environ, "GANTRY_TEST_VM=1", "PATH=/bin:/sbin:/usr/bin:/usr/sbin")
	c.Dir = filepath.Dir(test) // with its testdata
	c.WaitDelay = 10 * time.Second
	if change != nil {
		change(c)
	}
	out, err := c.CombinedOutput()
	if err != nil {
		say("fail %s %v: %s", name, err, failures(string(out)))
		return
	}
	for _, s := range regexp.MustCompile(`(?m)^ +\w+_test\.go:\d+: (.*)\n--- SKIP: (\w+)`).FindAllStringSubmatch(string(out), -1) {
		say("note %s: %s is skipped: %s", name, s[2], s[1])
	}
	say("ok %s %d", name, time.Since(at).Milliseconds())
}

// lacking names the tests of a package that this machine cannot pass. Its file system is a tmpfs, which has no owners to translate before Linux 6.3 and no
// attributes of users before 6.6, on which an overlay is nothing to stack another on; and it has no newuidmap.
func lacking(name string) string {
	switch name {
	case "unit-oci":
		return "^TestIDMappedMount$|^TestMountsOfMounts$|^TestRootless$/^map$"
	case "unit-snapshot-overlay":
		return "^TestNested$|^TestContract$/^Attributes$"
	}
	return ""
}

// failures returns what of the output of tests is about those that failed: what comes before it is of no interest.
func failures(out string) string {
	at := strings.Index(out, "--- FAIL")
	if p := strings.Index(out, "panic:"); p >= 0 && (at < 0 || p < at) {
		at = p
	}
	at = max(at, 0)
	return out[max(0, at-2000):min(len(out), at+4000)]
}
