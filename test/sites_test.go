package test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/test/fixture"
)

// A site is a stand-in of one on the internet: its name, its addresses, and what answers there.
type site struct {
	name          string
	addresses     []string
	plain, secure bool
	argv          []string
}

// sites are those that scenarios name, and one that none names.
var sites = []site{
	{"httpbin.org", []string{"203.0.113.1", "203.0.113.2"}, true, true, []string{"httpbin", "--tls-name", "my.example.com"}}, // what a gateway forwards keeps its Host
	{"edition.cnn.com", []string{"203.0.113.3"}, false, true, []string{"site", "--title", "CNN International - Breaking News, US News, World News and Video"}},
	{"www.google.com", []string{"203.0.113.4"}, true, true, []string{"site", "--title", "Google"}},
	{"unrelated.example", []string{"203.0.113.5"}, true, false, []string{"site", "--title", "unrelated"}},
}

// ourEnd is this network's address in that of the sites.
const ourEnd = "203.0.113.254/24"

// startSites runs the sites in a network of their own, which a link joins to that of the
// tests: all ports of this machine stay free for the mesh. It returns how `lateen up` is
// told of the names. The certificates are signed by the test CA of a folder.
func startSites(t *testing.T, sample, ca string) (flags []string) {
	t.Helper()
	if !fixture.Isolated() {
		t.Skip("no network of their own is permitted to the tests: the sites would have to be in this machine's")
	}
	outside := newOutside(t)
	within(t, outside, func() {
		for _, s := range sites {
			argv := append([]string{sample}, s.argv...)
			for _, a := range s.addresses {
				if s.plain {
					argv = append(argv, "--listen", a+":80")
				}
				if s.secure {
					argv = append(argv, "--tls-listen", a+":443")
				}
			}
			if s.secure {
				argv = append(argv, "--tls-name", s.name, "--ca", ca)
			}
			s.listening(t, fixture.Start(t, s.name, argv))
			flags = append(flags, "--resolve", s.name+"="+strings.Join(s.addresses, ","))
		}
		fixture.Start(t, "database", []string{sample, "tcp-echo", "3306", "db"})
	})
	return flags
}

// listening waits for a site's first port.
func (s site) listening(t *testing.T, p *fixture.Process) {
	t.Helper()
	port := "443"
	if s.plain {
		port = "80"
	}
	fixture.Eventually(t, s.name, func() error {
		if p.Exited() {
			return errors.New("has ended")
		}
		c, err := net.Dial("tcp", net.JoinHostPort(s.addresses[0], port))
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// newOutside makes the network of the sites. It goes with the test's processes.
func newOutside(t *testing.T) *os.File {
	t.Helper()
	var ns *os.File
	within(t, nil, func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Fatalf("a network for the sites: %v", err)
		}
		ns = openNetwork(t)
	})
	t.Cleanup(func() { _ = ns.Close() })
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "outside"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd())}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatalf("a link to the sites: %v", err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(pair) })
	here, err := netlink.NewHandle()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(here.Close)
	raise(t, here, "outside", ourEnd)
	there, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(there.Close)
	raise(t, there, "lo")
	for _, s := range sites {
		for _, a := range s.addresses {
			raise(t, there, "eth0", a+"/24")
		}
	}
	return ns
}

// raise gives a link addresses and makes it ready.
func raise(t *testing.T, h *netlink.Handle, name string, addresses ...string) {
	t.Helper()
	link, err := h.LinkByName(name)
	for _, a := range addresses {
		p := netip.MustParsePrefix(a)
		ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
		err = errors.Join(err, h.AddrAdd(link, &netlink.Addr{IPNet: ip}))
	}
	if err == nil {
		err = h.LinkSetUp(link)
	}
	if err != nil {
		t.Fatalf("link %s: %v", name, err)
	}
}

// within runs a function on a thread that is in a network, in a new one's making if there is
// none yet; programs that it starts stay there.
func within(t *testing.T, ns *os.File, do func()) {
	t.Helper()
	runtime.LockOSThread()
	home := openNetwork(t)
	defer home.Close()
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // the thread must not serve others
		}
		runtime.UnlockOSThread()
	}()
	if ns != nil {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
	}
	do()
}

func openNetwork(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return f
}
