package oci

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"gantry/linux/safepath"
	"gantry/oci/initproc"
)

// maxPasswd is how much of a container's /etc/passwd is read.
const maxPasswd = 1 << 20

// setHome gives the process the home directory of its user in the container's /etc/passwd, "/" if that does not say, unless its
// environment has one already.
func setHome(p *initproc.Process, root *os.File) {
	for _, kv := range p.Env {
		if strings.HasPrefix(kv, "HOME=") {
			return
		}
	}
	env := make([]string, len(p.Env), len(p.Env)+1)
	copy(env, p.Env)
	p.Env = append(env, "HOME="+home(root, p.User.UID))
}

func home(root *os.File, uid uint32) string {
	f, err := safepath.Open(root, "/etc/passwd", syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0) // a FIFO must not block us
	if err != nil {
		return "/"
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "/"
	}
	return homeIn(io.LimitReader(f, maxPasswd), uid)
}

// homeIn finds the user's home directory in passwd.
func homeIn(passwd io.Reader, uid uint32) string {
	s := bufio.NewScanner(passwd)
	for s.Scan() {
		f := strings.Split(s.Text(), ":")
		if len(f) >= 6 && f[2] == strconv.FormatUint(uint64(uid), 10) && strings.HasPrefix(f[5], "/") && !strings.ContainsRune(f[5], 0) {
			return f[5]
		}
	}
	return "/"
}
