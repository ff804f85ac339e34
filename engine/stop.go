package engine

import "context"

// StopContainers stops all containers, each with its own time-out, until the context ends.
func (e *Engine) StopContainers(ctx context.Context) error { return e.Containers.Shutdown(ctx) }
