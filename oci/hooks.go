package oci

import "context"

// hooks runs the specification's hooks of a kind.
func (c *Container) hooks(_ context.Context, _ string) error { return nil }
