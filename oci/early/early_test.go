//go:build amd64

package early

import (
	"os"
	"strings"
	"testing"
	"unsafe"
)

// stack lays out words and an environment as the kernel does for a program that begins, and keeps what it refers to.
func stack(words, env []string) (sp unsafe.Pointer, keep any) {
	list := []unsafe.Pointer{nil}
	var texts [][]byte
	for _, part := range [][]string{words, env} {
		for _, w := range part {
			texts = append(texts, append([]byte(w), 0))
			list = append(list, unsafe.Pointer(&texts[len(texts)-1][0]))
		}
		list = append(list, nil)
	}
	*(*int)(unsafe.Pointer(&list[0])) = len(words)
	return unsafe.Pointer(&list[0]), texts
}

// text returns a C string.
func text(p unsafe.Pointer) string {
	n := 0
	for *(*byte)(unsafe.Add(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(p), n))
}

// expected is wanted in ordinary Go.
func expected(words, env []string) (root, id string, ok bool) {
	for _, e := range env {
		if strings.HasPrefix(e, "NOTIFY_SOCKET=") {
			return "", "", false
		}
	}
	i := 1
	for ; i < len(words) && strings.HasPrefix(words[i], "-"); i++ {
		name, value, has := strings.Cut(strings.TrimPrefix(words[i][1:], "-"), "=")
		if name == "systemd-cgroup" && !has {
			continue
		}
		if !has {
			if i++; i == len(words) {
				return "", "", false
			}
			value = words[i]
		}
		switch name {
		case "root":
			root = value
		case "log-format":
			if value != "json" && value != "text" {
				return "", "", false
			}
		case "log":
			if f, err := os.OpenFile(value, os.O_WRONLY, 0); err != nil {
				return "", "", false
			} else {
				f.Close()
			}
		default:
			return "", "", false
		}
	}
	if i+2 != len(words) || words[i] != "start" || !strings.HasPrefix(root, "/") || root == "/" {
		return "", "", false
	}
	id = words[i+1]
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if id == "" || strings.Trim(id, letters+"_-.") != "" || !strings.ContainsRune(letters, rune(id[0])) {
		return "", "", false
	}
	for _, c := range id {
		if !strings.ContainsRune(letters+"_-.", c) {
			return "", "", false
		}
	}
	return root, id, true
}

func FuzzWanted(f *testing.F) {
	for _, line := range []string{"--root /r start c", "--root=/r -log-format json start c", "--root /r --log /dev/null start c", "--root / start c", "start", "--root /r start c d", "--root", "--rootless /r start c",
		"--root /r --systemd-cgroup start c.1_2-3", "--root /r --systemd-cgroup=1 start c", "--root /r -- start c", "- start c", "--root /r start ../c", "--log-format xml --root /r start c", "--root /r  start c", "--log=/no/such --root /r start c"} {
		f.Add(line, "A=b")
		f.Add(line, "A=b NOTIFY_SOCKET=/x")
	}
	f.Fuzz(func(t *testing.T, line, environment string) {
		if strings.Contains(line+environment, "\x00") {
			return // ends a word
		}
		words, env := append([]string{"gantry-oci"}, strings.Split(line, " ")...), strings.Split(environment, " ")
		sp, keep := stack(words, env)
		root, id := wanted(sp)
		wantRoot, wantID, ok := expected(words, env)
		if (id != nil) != ok || ok && (text(root) != wantRoot || text(id) != wantID) {
			t.Errorf("%q: %v, want %q %q %v", line, id != nil, wantRoot, wantID, ok)
		}
		_ = keep
	})
}

// TestAdd holds the length of a socket's address.
func TestAdd(t *testing.T) {
	long := append([]byte(strings.Repeat("x", len(address.Path)-1)), 0)
	if n := add(0, unsafe.Pointer(&long[0])); n != len(address.Path)-1 {
		t.Error(n)
	}
	if n := add(1, unsafe.Pointer(&long[0])); n != -1 {
		t.Error(n)
	}
	if n := add(-1, unsafe.Pointer(&long[0])); n != -1 {
		t.Error(n)
	}
}
