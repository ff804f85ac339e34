package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// multiplexer is a call that does the work of many: its first argument says which. Programs reach a socket by either way, depending on how
// old their C library is.
type multiplexer struct {
	number uint32
	calls  []string // by first argument; empty where there is none
}

// multiplexed returns the multiplexers of the 32-bit x86.
func multiplexed() []multiplexer {
	return []multiplexer{
		{102, []string{
			1: "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv", "sendto", "recvfrom", "shutdown",
			"setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
		}},
		{117, []string{1: "semop", "semget", "semctl", "semtimedop", 11: "msgsnd", "msgrcv", "msgget", "msgctl", 21: "shmat", "shmdt", "shmget", "shmctl"}},
	}
}

// narrow returns the rules for a call that is reached through another. A condition on the first argument, which is another one there, is
// lost; those on others are kept as they are, as libseccomp has it.
func narrow(list []rule, which uint64) []rule {
	out := make([]rule, len(list))
	for i, r := range list {
		out[i] = rule{r.action, []specs.LinuxSeccompArg{{Index: 0, Value: which, Op: specs.OpEqualTo}}}
		for _, c := range r.args {
			if c.Index != 0 {
				out[i].args = append(out[i].args, c)
			}
		}
	}
	return out
}
