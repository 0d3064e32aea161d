package listener

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestRedirected: a listener knows where its clients wanted to go when the kernel has
// sent them to it, over IPv4 and IPv6, on a socket for both too, translated (REDIRECT) or
// as they are (TPROXY). The rules are real ones, in a network namespace of the test.
func TestRedirected(t *testing.T) {
	type outcome struct{ greeting, local string }
	const listen, wanted, transparently = 15001, 9999, 9998
	cases := []struct {
		name, address, to string
		want              outcome
	}{
		{"IPv4", `"0.0.0.0"`, "127.0.0.2:9999", outcome{"redirected", "127.0.0.2:9999"}},
		{"IPv4, not redirected", `"0.0.0.0"`, "127.0.0.2:15001", outcome{"direct", "127.0.0.2:15001"}},
		{"IPv6", `"::"`, "[::1]:9999", outcome{"redirected", "[::1]:9999"}},
		{"IPv4 on a socket for both", `"::", "ipv4_compat": true`, "127.0.0.2:9999", outcome{"redirected", "127.0.0.2:9999"}},
		{"IPv6 on a socket for both", `"::", "ipv4_compat": true`, "[::1]:9999", outcome{"redirected", "[::1]:9999"}},
		{"transparent", `"0.0.0.0"`, "127.0.0.2:9998", outcome{"redirected", "127.0.0.2:9998"}},
		{"transparent IPv6", `"::"`, "[::1]:9998", outcome{"redirected", "[::1]:9998"}},
	}
	got := make([]outcome, len(cases))
	inNamespace(t, func() error {
		if err := redirect(wanted, transparently, listen); err != nil {
			return err
		}
		for i, c := range cases {
			f := newFixture(t, nil)
			f.apply(nil, fmt.Sprintf(`{"name": "l", "address": {"socket_address": {"address": %s, "port_value": %d}}, "transparent": true,
				"use_original_dst": true, "filter_chains": [%s, %s]}`, c.address, listen,
				chainNamed("direct", "direct", fmt.Sprintf(`{"destination_port": %d}`, listen)), chainNamed("redirected", "redirected", "")))
			client := f.dial(c.to)
			got[i].greeting = client.line()
			_ = client.Close()
			_, got[i].local, _ = strings.Cut(f.lastLine(), "local=")
			f.Set.Close()
		}
		return nil
	})
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got[i] != c.want {
				t.Errorf("got %v, want %v", got[i], c.want)
			}
		})
	}
}

// TestHandOffTransparent: with TPROXY too a connection goes to the listener that its
// destination has.
func TestHandOffTransparent(t *testing.T) {
	listeners := []struct{ name, address, greeting string }{
		{"its own", `{"address": "127.0.0.2", "port_value": 9998}`, "real"},
		{"its port's", `{"address": "0.0.0.0", "port_value": 9998}`, "real"},
		{"its port's, for both families", `{"address": "::", "port_value": 9998, "ipv4_compat": true}`, "real"},
		{"its port's, for the other family", `{"address": "::", "port_value": 9998}`, "virtual"},
		{"of another port", `{"address": "0.0.0.0", "port_value": 9997}`, "virtual"},
	}
	got := make([]string, len(listeners))
	inNamespace(t, func() error {
		if err := redirect(9999, 9998, 15001); err != nil {
			return err
		}
		for i, l := range listeners {
			f := newFixture(t, nil)
			f.apply(nil, `{"name": "virtual", "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15001}}, "transparent": true,
				"use_original_dst": true, "filter_chains": [`+chainNamed("c", "virtual", "")+`]}`,
				`{"name": "real", "address": {"socket_address": `+l.address+`}, "bind_to_port": false,
				"filter_chains": [`+chainNamed("c", "real", "")+`]}`)
			client := f.dial("127.0.0.2:9998")
			got[i] = client.line()
			_ = client.Close()
			f.Set.Close()
		}
		return nil
	})
	for i, l := range listeners {
		if got[i] != l.greeting {
			t.Errorf("%s: %q, want %q", l.name, got[i], l.greeting)
		}
	}
}

// inNamespace runs f in a network namespace with loopback up, on a thread that ends with it.
func inNamespace(t *testing.T, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace with rules needs root")
	}
	done := make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is not to be used again
		if failed = unix.Unshare(unix.CLONE_NEWNET); failed != nil {
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if failed = err; err == nil {
			failed = f()
		}
	}()
	<-done
	if errors.Is(failed, unix.EPERM) || errors.Is(failed, unix.EOPNOTSUPP) || errors.Is(failed, unix.ENOENT) {
		t.Skip("network namespaces with rules are not to be had here: " + failed.Error())
	}
	if failed != nil {
		t.Fatal(failed)
	}
}

// redirect sets the rules: connections to one port are translated to another, those to a
// second one are taken there as they are.
func redirect(translated, transparent, to uint16) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "test", Family: nftables.TableFamilyINet})
	port := func(n uint16) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(n)},
			&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(to)},
		}
	}
	out := c.AddChain(&nftables.Chain{Name: "out", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: append(port(translated), &expr.Redir{RegisterProtoMin: 1})})
	in := c.AddChain(&nftables.Chain{Name: "in", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle})
	c.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: append(port(transparent),
		&expr.TProxy{Family: unix.NFPROTO_UNSPEC, TableFamily: byte(nftables.TableFamilyINet), RegPort: 1})})
	return c.Flush()
}
