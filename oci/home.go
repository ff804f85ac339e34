package oci

import (
	"bufio"
	"fmt"
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

// setEnvironment gives the process its environment: of a variable that is set several times the last value, where the first was, and as
// HOME, unless one is set that is not empty, the home directory of its user in the container's /etc/passwd, "/" if that does not say.
func setEnvironment(p *initproc.Process, root *os.File) {
	env := make([]string, 0, len(p.Env)+1)
	at := make(map[string]int, len(p.Env))
	for _, kv := range p.Env {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			env[i] = kv
			continue
		}
		at[name] = len(env)
		env = append(env, kv)
	}
	i, ok := at["HOME"]
	if !ok {
		i = len(env)
		env = append(env, "HOME=")
	}
	if env[i] == "HOME=" {
		env[i] += home(root, p.User.UID)
	}
	p.Env = env
}

// initEnvironment returns the environment that init gets.
func (c *Container) initEnvironment() []string {
	if c.environment != nil {
		return c.environment
	}
	p := initproc.Process{Env: c.spec.Process.Env, User: c.spec.Process.User}
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", c.init.Pid), syscall.O_DIRECTORY|oPath, 0)
	if err != nil {
		return p.Env // it has ended: its hook is not going to start either
	}
	defer root.Close()
	setEnvironment(&p, root)
	return p.Env
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
