package registry

import (
	"strings"
	"testing"
	"time"
)

func TestParseHosts(t *testing.T) {
	mirrors, origin, err := parseHosts([]byte(`
server = "https://upstream.example/x"
[host."https://first.example"]
  capabilities = ["pull", "resolve"]
  ca = "/etc/ca.pem"
  dial_timeout = "2s"
[host."http://second.example:5000/v2/sub"]
  skip_verify = true
  override_path = true
  client = [["a.cert", "a.key"], ["b.pem"]]
  [host."http://second.example:5000/v2/sub".header]
    x-one = ["1", "2"]
[host."third.example"]
`), "reg.example", "/f")
	if err != nil || len(mirrors) != 3 || origin == nil {
		t.Fatal(mirrors, origin, err)
	}
	for i, want := range []string{"https://first.example/v2", "http://second.example:5000/v2/sub", "https://third.example/v2"} {
		if got := mirrors[i].base.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if origin.base.String() != "https://upstream.example/x/v2" || !origin.push {
		t.Errorf("%+v", origin)
	}
	if first := mirrors[0]; first.push || !first.pull || !first.resolve || first.ca[0] != "/etc/ca.pem" || first.dialTimeout.Seconds() != 2 {
		t.Errorf("%+v", first)
	}
	if second := mirrors[1]; !second.skipVerify || second.client[0] != [2]string{"/f/a.cert", "/f/a.key"} || second.client[1] != [2]string{"/f/b.pem", "/f/b.pem"} || len(second.header["X-One"]) != 2 {
		t.Errorf("%+v", second)
	}
	// Inline tables, and names that are not in order.
	if mirrors, _, err = parseHosts([]byte("[host]\n\"https://z\" = {capabilities = [\"pull\"], header = {x = \"1\"}}\n\"https://a\" = {}"), "reg.example", "/f"); err != nil || len(mirrors) != 2 || mirrors[0].base.Host != "z" || mirrors[0].resolve || mirrors[0].header.Get("X") != "1" || mirrors[1].base.Host != "a" {
		t.Errorf("%+v, %v", mirrors, err)
	}
	// The registry's own settings without another address.
	if mirrors, origin, err = parseHosts([]byte(`skip_verify = true`), hubDomain, "/f"); err != nil || len(mirrors) != 0 || origin.base.String() != "https://"+hubHost+"/v2" {
		t.Error(mirrors, origin, err)
	}
	for _, bad := range []string{
		`server = 1`, `server = "ftp://x"`, `server = "https://u:p@x"`, `[host."https://x?y"]`, `[host."https://x"]` + "\ncapabilities = [\"fly\"]", `[host."https://x"]` + "\ncapabilities = 1",
		`[host."https://x"]` + "\nca = [1]", `[host."https://x"]` + "\nclient = [[\"a\",\"b\",\"c\"]]", `[host."https://x"]` + "\nskip_verify = \"yes\"", `[host."https://x"]` + "\nunknown = 1",
		`[[host]]`, `host = 1`, `[host]` + "\nx = 1", strings.Repeat("#", maxTOML+1), strings.Repeat("a = [", 1000), `[host."https://x"]` + "\ndial_timeout = \"soon\"", `[other]`, `[host."https://x"]` + "\n[host.\"https://x\".header]\na = \"\\r\\n\"",
	} {
		if mirrors, origin, err := parseHosts([]byte(bad), "reg.example", "/f"); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: %v %v %v", bad, mirrors, origin, err)
		}
	}
}

func FuzzHosts(f *testing.F) {
	f.Add([]byte("server = \"https://x\"\n[host.\"https://y/z\"]\ncapabilities = [\"pull\"]\nclient = [['a','b']]\n[host.\"https://y/z\".header]\nx = ['1']\n"))
	f.Add([]byte("a = \"\\u00e9\" # x\r\nb = [1, [true]]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		mirrors, origin, err := parseHosts(data, "reg.example", "/f")
		if err != nil {
			return
		}
		if origin != nil {
			mirrors = append(mirrors, *origin)
		}
		for _, s := range mirrors {
			if s.base == nil || s.base.Host == "" || s.base.User != nil {
				t.Errorf("%+v", s)
			}
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Fri, 31 Dec 1999 23:59:59 GMT")
	f.Fuzz(func(t *testing.T, header string) {
		if d := retryAfter(header, time.Time{}); d < 0 {
			t.Error(d)
		}
	})
}
