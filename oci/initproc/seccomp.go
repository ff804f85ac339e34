package initproc

// flagNewListener is the flag of seccomp(2) that asks for a listener.
const flagNewListener = 1 << 3

// filter loads the seccomp filter; what it asks a listener about can be answered when the steps go on.
func (b *builder) filter(p *Process) {
	b.For("load seccomp filter")
	switch {
	case p.SeccompLater:
		b.Script.SeccompLater(p.SeccompFlags)
	case p.Seccomp == nil:
	case p.SeccompFlags&flagNewListener == 0:
		b.Script.Seccomp(p.Seccomp, p.SeccompFlags)
	default:
		b.SeccompListen(p.Seccomp, p.SeccompFlags, p.SendListener)
	}
}

// awaitFilter takes a filter that the parent makes while the steps before this one are done.
func (b *builder) awaitFilter(p *Process) {
	if p.SeccompLater {
		b.For("wait for the seccomp filter")
		b.AwaitFilter()
	}
}
