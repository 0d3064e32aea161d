package dns

import (
	"net/netip"
	"strings"
	"testing"
)

// FuzzResolvConf: whatever the file holds, there are servers to ask, three at most, by
// address, and ndots is within its bounds.
func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 1.2.3.4\nsearch a b\noptions ndots:5 timeout:1\n")
	f.Add("nameserver fe80::1%eth0\nnameserver x\n;options ndots:99\noptions ndots:-1 ndots:999999999999")
	f.Fuzz(func(t *testing.T, text string) {
		c := parseConf(strings.Split(text, "\n"))
		if len(c.servers) == 0 || len(c.servers) > 3 || c.ndots < 0 || c.ndots > 15 {
			t.Fatalf("%q: %+v", text, c)
		}
		for _, s := range c.servers {
			if a, err := netip.ParseAddrPort(s); err != nil || a.Port() != 53 {
				t.Fatalf("%q: server %q", text, s)
			}
		}
	})
}

// FuzzHosts: a line of the hosts file gives addresses to names, or nothing.
func FuzzHosts(f *testing.F) {
	f.Add("127.0.0.1 localhost A.test.")
	f.Add("::1%lo x\ty")
	f.Fuzz(func(t *testing.T, line string) {
		h := hostsFile{names: map[string][]netip.Addr{}}
		h.add(strings.Fields(line))
		for name, list := range h.names {
			if name != strings.ToLower(name) || len(list) == 0 || !list[0].IsValid() {
				t.Fatalf("%q: %q is %v", line, name, list)
			}
		}
	})
}
