// Command probe is the network program inside the test image: busybox linked statically against glibc cannot resolve names.
//
//	probe get HOST:PORT|http://HOST[:PORT]   prints the body of GET /, within 3 s
//	probe serve PORT TEXT                    answers every HTTP request with TEXT
//	probe echo PORT                          answers every UDP datagram with itself
//	probe lookup NAME                        prints the addresses, sorted; or the names of an address
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "probe: too few arguments")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(verb, arg string, rest []string) error {
	switch verb {
	case "get":
		addr := strings.TrimPrefix(arg, "http://")
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(addr, "80")
		}
		// A server that was started a moment ago may not listen yet.
		conn, err := net.DialTimeout("tcp", addr, 3*time.Second)
		for i := 0; errors.Is(err, syscall.ECONNREFUSED) && i < 40; i++ {
			time.Sleep(50 * time.Millisecond)
			conn, err = net.DialTimeout("tcp", addr, 3*time.Second)
		}
		if err != nil {
			return err
		}
		if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", addr); err != nil {
			return err
		}
		answer, err := io.ReadAll(conn)
		if err != nil {
			return err
		}
		_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
		fmt.Println(body)
		return nil
	case "serve":
		l, err := net.Listen("tcp", ":"+arg)
		if err != nil {
			return err
		}
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for line := "x"; strings.TrimSpace(line) != ""; {
					if line, err = r.ReadString('\n'); err != nil {
						return
					}
				}
				text := strings.Join(rest, " ")
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
			}()
		}
	case "echo":
		conn, err := net.ListenPacket("udp", ":"+arg)
		if err != nil {
			return err
		}
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return err
			}
			if _, err := conn.WriteTo(buf[:n], from); err != nil {
				return err
			}
		}
	case "lookup":
		found, err := net.LookupHost(arg)
		if net.ParseIP(arg) != nil {
			found, err = net.LookupAddr(arg)
		}
		if err != nil {
			return err
		}
		sort.Strings(found)
		fmt.Println(strings.Join(found, " "))
		return nil
	}
	return fmt.Errorf("unknown verb %q", verb)
}
