package signal

import (
	"strconv"
	"strings"
	"syscall"

	"gantry/errdefs"
)

// names are those of signal(7) without SIG, on the architectures of Linux that matter here.
var names = map[string]syscall.Signal{"ABRT": 6, "ALRM": 14, "BUS": 7, "CHLD": 17, "CLD": 17, "CONT": 18, "FPE": 8, "HUP": 1, "ILL": 4, "INT": 2,
	"IO": 29, "IOT": 6, "KILL": 9, "PIPE": 13, "POLL": 29, "PROF": 27, "PWR": 30, "QUIT": 3, "SEGV": 11, "STKFLT": 16, "STOP": 19, "SYS": 31,
	"TERM": 15, "TRAP": 5, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "USR1": 10, "USR2": 12, "VTALRM": 26, "WINCH": 28, "XCPU": 24, "XFSZ": 25}

// Real-time signals as glibc numbers them.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// Parse reads a signal by name, with or without SIG, or number.
func Parse(text string) (syscall.Signal, error) {
	bad := errdefs.New(errdefs.InvalidParameter, "invalid signal: %s", text)
	if n, err := strconv.Atoi(text); err == nil {
		if n <= 0 || n > sigRTMax {
			return 0, bad
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if sig, ok := names[name]; ok {
		return sig, nil
	}
	for prefix, base := range map[string]int{"RTMIN": sigRTMin, "RTMAX": sigRTMax} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		offset := 0
		if rest != "" {
			var err error
			if offset, err = strconv.Atoi(rest); err != nil {
				return 0, bad
			}
		}
		if n := base + offset; n >= sigRTMin && n <= sigRTMax {
			return syscall.Signal(n), nil
		}
	}
	return 0, bad
}
