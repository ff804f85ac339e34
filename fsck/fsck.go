// Package fsck has the words in which each part of the engine reports where its records and the kernel or disk disagree.
package fsck

import "context"

// Difference is one disagreement between what the engine has on record and what is really there.
type Difference struct {
	Area    string // "container", "network", "layer", "cgroup", "mount", ...
	Object  string // the ID, name or path concerned
	Problem string // what is wrong, as a sentence for the user
	// Repair makes record and reality agree again. It is idempotent; nil where only a person can decide.
	Repair func(context.Context) error `json:"-"`
}
