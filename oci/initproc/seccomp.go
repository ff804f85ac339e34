package initproc

// flagNewListener is the flag of seccomp(2) that asks for a listener.
const flagNewListener = 1 << 3

// filter loads the seccomp filter; what it asks a listener about can be answered when the steps go on.
func (b *builder) filter(p *Process) {
	b.For("load seccomp filter")
	switch {
	case p.Seccomp == nil:
	case p.SeccompFlags&flagNewListener == 0:
		b.Script.Seccomp(p.Seccomp, p.SeccompFlags)
	default:
		b.SeccompListen(p.Seccomp, p.SeccompFlags, p.SendListener)
	}
}
