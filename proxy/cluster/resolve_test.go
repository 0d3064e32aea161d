package cluster

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/lb"
)

// zone is a name server whose one name has the answer of the moment.
type zone struct {
	addr  string
	mu    sync.Mutex
	reply string // addresses, or NXDOMAIN, SERVFAIL
	asked chan struct{}
}

func newZone(t *testing.T, reply string) *zone {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{addr: c.LocalAddr().String(), reply: reply, asked: make(chan struct{})}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			select {
			case z.asked <- struct{}{}:
			case <-stop:
				return
			}
			_, _ = c.WriteTo(z.answer(buf[:n]), from)
		}
	}()
	t.Cleanup(func() { close(stop); c.Close(); <-done })
	return z
}

func (z *zone) answer(query []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	r := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true}, Questions: m.Questions}
	switch z.reply {
	case "NXDOMAIN":
		r.RCode = dnsmessage.RCodeNameError
	case "SERVFAIL":
		r.RCode = dnsmessage.RCodeServerFailure
	default:
		for ip := range strings.FieldsSeq(z.reply) {
			r.Answers = append(r.Answers, dnsmessage.Resource{ // a TTL of 0 is not kept
				Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET},
				Body:   &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()}})
		}
	}
	b, _ := r.Pack()
	return b
}

// next lets the server answer reply, and waits until that has been taken: the question
// after it is asked only then.
func (z *zone) next(reply string) {
	z.mu.Lock()
	z.reply = reply
	z.mu.Unlock()
	<-z.asked
	<-z.asked
}

func dnsCluster(t *testing.T, z *zone, kind string) *Clusters {
	t.Helper()
	cs := New(Options{Logger: slog.New(slog.DiscardHandler), Resolver: dns.New(dns.Options{Servers: []string{z.addr}, NoSearch: true, Tries: 1})})
	t.Cleanup(cs.Close)
	if err := cs.AddStatic(newCluster(t, `{"name": "a", "type": "`+kind+`", "dns_refresh_rate": "0.002s", "dns_lookup_family": "V4_ONLY", "load_assignment": `+to("www.test:80")+`}`)); err != nil {
		t.Fatal(err)
	}
	cs.Start(nil, 0)
	return cs
}

func TestStrictDNS(t *testing.T) {
	z := newZone(t, "10.0.0.1 10.0.0.2")
	cs := dnsCluster(t, z, "STRICT_DNS")
	if cs.Get("a") != nil {
		t.Fatal("live before its name is resolved")
	}
	<-z.asked
	<-cs.Initialized()
	c := cs.Get("a")
	check := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, addresses(c)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("at first", "10.0.0.1:80", "10.0.0.2:80")
	kept := c.Endpoints()[1]
	if kept.Hostname != "www.test" {
		t.Errorf("host name %q", kept.Hostname)
	}
	z.next("10.0.0.2 10.0.0.3")
	check("changed", "10.0.0.2:80", "10.0.0.3:80")
	if c.Endpoints()[0] != kept {
		t.Error("an address that stays is another endpoint")
	}
	z.next("SERVFAIL")
	check("a failure keeps the last good", "10.0.0.2:80", "10.0.0.3:80")
	z.next("NXDOMAIN")
	check("a name that is gone empties")
	if c.Pick(&lb.Context{}) != nil {
		t.Error("picked")
	}
	z.next("10.0.0.4")
	check("and back", "10.0.0.4:80")
}

func TestLogicalDNS(t *testing.T) {
	z := newZone(t, "10.0.0.1 10.0.0.2")
	cs := dnsCluster(t, z, "LOGICAL_DNS")
	<-z.asked
	<-cs.Initialized()
	c := cs.Get("a")
	check := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, addresses(c)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("the first one", "10.0.0.1:80")
	z.next("10.0.0.2 10.0.0.1")
	check("stays while it is among the answers", "10.0.0.1:80")
	z.next("10.0.0.2 10.0.0.3")
	check("changed", "10.0.0.2:80")
	z.next("NXDOMAIN")
	check("keeps the last one", "10.0.0.2:80")
}

// A name that cannot be resolved does not keep the proxy from starting.
func TestUnresolvable(t *testing.T) {
	for _, reply := range []string{"SERVFAIL", "NXDOMAIN"} {
		z := newZone(t, reply)
		cs := dnsCluster(t, z, "STRICT_DNS")
		<-z.asked
		<-cs.Initialized()
		if ep := cs.Get("a").Pick(&lb.Context{}); ep != nil {
			t.Errorf("%s: picked %s", reply, ep.Address)
		}
	}
}
