package server

import (
	"encoding/json"

	"gantry/shim/wire"
)

// sample has a value for each member of a StartRequest that requests commonly have.
const sample = `{"ID":"a","Dir":"b","Spec":{"ociVersion":"1","process":{"terminal":false,"user":{"uid":0,"gid":0,"additionalGids":[0]},` +
	`"args":["a"],"env":["a"],"cwd":"/","capabilities":{"bounding":["a"]},"rlimits":[{"type":"a","hard":1,"soft":1}]},` +
	`"root":{"path":"/"},"hostname":"a","mounts":[{"destination":"/","type":"a","source":"b","options":["c"]}],` +
	`"annotations":{"a":"b"},"linux":{"sysctl":{"a":"b"},"resources":{"devices":[{"allow":true,"type":"c","major":1,"minor":1,"access":"rwm"}],` +
	`"memory":{"limit":1},"cpu":{"shares":1},"pids":{"limit":1}},"cgroupsPath":"a","namespaces":[{"type":"pid"}],` +
	`"devices":[{"path":"a","type":"c","major":1,"minor":1}],"maskedPaths":["a"],"readonlyPaths":["a"]}},` +
	`"Seccomp":"AAAA","HasRoot":true,"Namespaces":["network"],"Log":{"Driver":"a","Options":{"a":"b"}},"Streams":[{"Stdin":true}]}`

// warm does, while the shim waits, what the first request would otherwise wait for: package json looks at a type only once.
func warm() {
	var r wire.StartRequest
	if err := json.Unmarshal([]byte(sample), &r); err != nil {
		panic(err) // a constant
	}
	if _, err := json.Marshal(wire.State{}); err != nil {
		panic(err)
	}
}
