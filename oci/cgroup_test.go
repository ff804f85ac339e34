package oci

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestCgroupOwner(t *testing.T) {
	spec := func(change func(*specs.Spec)) *specs.Spec {
		s := &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "user"}, {Type: "cgroup"}}, UIDMappings: []specs.LinuxIDMapping{{ContainerID: 1, HostID: 5, Size: 9}, {ContainerID: 0, HostID: 1000, Size: 1}}},
			Mounts: []specs.Mount{{Type: "cgroup", Options: []string{"rw"}}}}
		change(s)
		return s
	}
	if uid, ok := cgroupOwner(spec(func(*specs.Spec) {})); uid != 1000 || !ok {
		t.Errorf("%d, %v", uid, ok)
	}
	for name, change := range map[string]func(*specs.Spec){
		"read-only": func(s *specs.Spec) { s.Mounts[0].Options = []string{"ro"} }, "no mount": func(s *specs.Spec) { s.Mounts = nil },
		"no user namespace": func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, "joined": func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/x" },
	} {
		if uid, ok := cgroupOwner(spec(change)); ok {
			t.Errorf("%s: %d", name, uid)
		}
	}
}

func TestPlanCgroup(t *testing.T) {
	b := Bundle{ID: "id", Spec: &specs.Spec{Linux: &specs.Linux{CgroupsPath: "/a/b"}}}
	if path, s, err := PlanCgroup(b); path != "/a/b" || s.Places != nil || s.Unit != nil || err != nil {
		t.Errorf("%q, %+v, %v", path, s, err)
	}
	b.Spec.Linux.CgroupsPath = ""
	if path, _, err := PlanCgroup(b); !strings.HasSuffix(path, "/id") || err != nil {
		t.Errorf("without a path: %q, %v", path, err)
	}
	b.SystemdCgroup, b.Spec.Linux.CgroupsPath = true, "a.slice:p:n"
	if path, s, err := PlanCgroup(b); path != "" || s.Unit == nil || s.Unit.Name != "p-n.scope" || err != nil {
		t.Errorf("by systemd: %q, %+v, %v", path, s.Unit, err)
	}
	b.Spec.Linux.CgroupsPath = "../x"
	if _, _, err := PlanCgroup(b); err == nil {
		t.Error("a path that is none for systemd: no error")
	}
}
