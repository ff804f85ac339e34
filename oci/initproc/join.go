package initproc

import "gantry/linux/clone"

// This file has the scripts of processes that join a container.

// Exec is what a process that joins a running container needs.
type Exec struct {
	Process
	Target    clone.FD // pidfd of a process in the container
	Join      uint64   // CLONE_NEW* flags of the namespaces to join, without the pid namespace if the child is born in that
	JoinNames string
	Fork      bool      // Join has the pid namespace: only a child of the process is in it
	AwaitJoin bool      // stop when the namespaces have been joined
	Root      *clone.FD // the container's root directory, if joining its namespaces does not lead there
}

// enterRootOf makes root, if there is one, the root directory of a process that joins a container.
func (b *builder) enterRootOf(root *clone.FD) {
	if root != nil {
		b.For("enter the container's root directory")
		b.Fchdir(clone.File(*root))
		b.MakeRoot()
	}
}

// Script returns the script of a process that joins a container.
func (in *Exec) Script() *clone.Script {
	b := newBuilder()
	b.begin(&in.Process)
	if in.Join != 0 {
		b.For("join namespaces")
		b.Setns(clone.File(in.Target), in.Join, in.JoinNames)
	}
	if in.InUser {
		b.Undumpable() // what joining does to that is for fs.suid_dumpable to say
	}
	if in.Fork {
		b.For("fork into the pid namespace")
		b.Fork(0, "")
	}
	if in.AwaitJoin {
		b.For("wait until nobody looks into init any more")
		b.Ready()
	}
	b.awaitCgroup(&in.Process)
	b.become(&in.Process)
	labels := b.openLabels(&in.Process)
	b.enterRootOf(in.Root)
	b.For("new session")
	b.NewSession()
	if in.NewKeyring {
		b.NewKeyring()
	}
	b.stdio(&in.Process)
	b.lookFor(&in.Process)
	b.finish(&in.Process, labels)
	return b.Script
}

// Hook is a program of the host's that runs in the container's namespaces.
type Hook struct {
	Path          string
	Args, Env     []string
	Stdin, Stderr clone.FD
	Target        clone.FD // pidfd of the container's init
	Join          uint64   // CLONE_NEW* flags
	InUser        bool     // a user namespace is among them
	Fork          bool     // Join has the pid namespace
	Seccomp       []byte   // the container's filter, if it applies
	SeccompFlags  uint64
	SendListener  bool
	Root          *clone.FD // as of Exec
	Dir           string    // working directory, in the namespaces that are joined; empty: as it comes
}

// Script returns the script of a hook.
func (h *Hook) Script() *clone.Script {
	b := newBuilder()
	b.For("join namespaces")
	if h.Join != 0 {
		b.Setns(clone.File(h.Target), h.Join, "the container's")
	}
	if h.Fork {
		b.For("fork into the pid namespace")
		b.Fork(0, "")
	}
	b.become(&Process{InUser: h.InUser})
	b.enterRootOf(h.Root)
	if h.Dir != "" {
		b.For("enter " + h.Dir)
		b.Chdir(h.Dir)
	}
	b.For("set up standard input and output")
	b.Dup(clone.File(h.Stdin), 0)
	b.Dup(clone.File(h.Stderr), 1)
	b.Dup(clone.File(h.Stderr), 2)
	b.CloseOnExecFrom(3)
	b.UnblockSignals()
	if h.Seccomp != nil {
		b.For("load seccomp filter")
		b.filter(&Process{Seccomp: h.Seccomp, SeccompFlags: h.SeccompFlags, SendListener: h.SendListener})
	}
	b.For(Execute)
	b.Script.Exec([]string{h.Path}, h.Args, h.Env)
	return b.Script
}
