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
func expected(words, env []string) (verb int, root, id string) {
	for _, e := range env {
		if strings.HasPrefix(e, "NOTIFY_SOCKET=") {
			return other, "", ""
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
				return other, "", ""
			}
			value = words[i]
		}
		switch name {
		case "root":
			root = value
		case "log-format":
			if value != "json" && value != "text" {
				return other, "", ""
			}
		case "log":
			if f, err := os.OpenFile(value, os.O_WRONLY, 0); err != nil {
				return other, "", ""
			} else {
				f.Close()
			}
		default:
			return other, "", ""
		}
	}
	if !strings.HasPrefix(root, "/") || root == "/" || i == len(words) {
		return other, "", ""
	}
	rest := words[i+1:]
	switch {
	case words[i] == "start" && len(rest) == 1:
		verb = start
	case words[i] == "delete" && len(rest) == 1:
		verb = deleteEnded
	case words[i] == "delete" && len(rest) == 2 && (rest[0] == "-f" || rest[0] == "--force"):
		verb = deleteForce
	default:
		return other, "", ""
	}
	id = words[len(words)-1]
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if id == "" || strings.Trim(id, letters+"_-.") != "" || !strings.ContainsRune(letters, rune(id[0])) {
		return other, "", ""
	}
	for _, c := range id {
		if !strings.ContainsRune(letters+"_-.", c) {
			return other, "", ""
		}
	}
	return verb, root, id
}

func FuzzWanted(f *testing.F) {
	for _, line := range []string{"--root /r start c", "--root=/r -log-format json start c", "--root /r --log /dev/null start c", "--root / start c", "start", "--root /r start c d", "--root", "--root /r delete c", "--root=/r delete --force c", "--root /r delete -f c", "--root /r delete c -f", "--rootless /r start c",
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
		verb, root, id := wanted(sp)
		wantVerb, wantRoot, wantID := expected(words, env)
		if verb != wantVerb || verb != other && (text(root) != wantRoot || text(id) != wantID) {
			t.Errorf("%q: verb %d, want %d of %q in %q", line, verb, wantVerb, wantID, wantRoot)
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

// TestBorn holds lines of /proc/PID/stat, in which a name may have anything.
func TestBorn(t *testing.T) {
	line := func(name, state, birth string) string {
		return "12 (" + name + ") " + state + " 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 " + birth + " 11 12 13\n"
	}
	birth := []byte("4711\x00")
	for text, want := range map[string][2]bool{
		line("sleep", "S", "4711"): {true, true}, line("a) Z (b", "S", "4711"): {true, true}, line("sleep", "S", "47110"): {false, true}, line("sleep", "S", "471"): {false, true},
		line("sleep", "Z", "4711"): {false, true}, line("sleep", "X", "4711"): {false, true}, "12 (sleep) S 1 2": {false, false}, "": {false, false}, "12 sleep S": {false, false},
	} {
		n := copy(status[:], text)
		if alive, ok := born(uintptr(n), unsafe.Pointer(&birth[0])); alive != want[0] || ok != want[1] {
			t.Errorf("%q: %v %v", text, alive, ok)
		}
	}
	if alive, ok := lives(unsafe.Pointer(unsafe.StringData("self\x00")), unsafe.Pointer(&birth[0])); alive || !ok {
		t.Errorf("this process: %v %v", alive, ok)
	}
}
