package server

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/shim/wire"
)

// warm does, while the shim waits, what the first request would otherwise wait for: the fingerprint of its type and the look of package
// json at the answer's type, which it takes only once, and the first execution of that code.
func warm() error {
	sample := wire.StartRequest{Spec: &specs.Spec{Process: &specs.Process{Args: []string{"true"}}, Annotations: map[string]string{"a": "b"}}}
	b, err := wire.Pack(nil, &sample)
	if err != nil {
		return err
	}
	if err := wire.Unpack(b, new(wire.StartRequest)); err != nil {
		return err
	}
	_, err = json.Marshal(wire.State{})
	return err
}
