package outside

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// startResolver serves until the test ends.
func startResolver(t *testing.T, names map[string][]netip.Addr, servers ...string) *Resolver {
	t.Helper()
	r, err := NewResolver(Options{Resolve: names, Servers: append([]string{}, servers...)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// query asks over UDP or TCP: "a.example. A 127.0.0.1 …", with the code where it is
// not success.
func query(t *testing.T, network string, port int, name string, kind dnsmessage.Type) string {
	t.Helper()
	message, err := (&dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}).Pack()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := exchange(t.Context(), network, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), message)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(raw); err != nil {
		t.Fatal(err)
	}
	if m.ID != 7 || !m.Response || len(m.Questions) != 1 {
		t.Fatalf("reply %+v", m.Header)
	}
	var parts []string
	if m.RCode != dnsmessage.RCodeSuccess {
		parts = append(parts, m.RCode.String())
	}
	for _, a := range m.Answers {
		switch b := a.Body.(type) {
		case *dnsmessage.AResource:
			parts = append(parts, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			parts = append(parts, netip.AddrFrom16(b.AAAA).String())
		}
	}
	return strings.Join(parts, " ")
}

func TestResolver(t *testing.T) {
	addr := netip.MustParseAddr
	other := startResolver(t, map[string][]netip.Addr{"elsewhere.example": {addr("127.0.0.9")}})
	r := startResolver(t, map[string][]netip.Addr{
		"httpbin.org": {addr("127.0.0.1"), addr("127.0.0.2")}, "Six.Example.": {addr("::1")},
	}, net.JoinHostPort("127.0.0.1", strconv.Itoa(other.Port())))
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name string
			kind dnsmessage.Type
			want string
		}{
			{"httpbin.org.", dnsmessage.TypeA, "127.0.0.1 127.0.0.2"},
			{"HTTPBIN.org.", dnsmessage.TypeA, "127.0.0.1 127.0.0.2"},
			{"httpbin.org.", dnsmessage.TypeAAAA, ""}, // known, but not in this family
			{"six.example.", dnsmessage.TypeAAAA, "::1"},
			{"elsewhere.example.", dnsmessage.TypeA, "127.0.0.9"}, // forwarded
			{"www.httpbin.org.", dnsmessage.TypeA, "RCodeServerFailure"},
		} {
			t.Run(network+" "+c.name+" "+c.kind.String(), func(t *testing.T) {
				if got := query(t, network, r.Port(), c.name, c.kind); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		}
	}
}

// Names that were given are answered, however many other questions wait for servers
// that do not answer, and callers for nothing.
func TestResolverUnderSiege(t *testing.T) {
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_ = silent.SetReadDeadline(time.Now().Add(10 * time.Second))
	r := startResolver(t, map[string][]netip.Addr{"a.example": {netip.MustParseAddr("127.0.0.1")}}, silent.LocalAddr().String())
	other, err := (&dnsmessage.Message{Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName("b.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}).Pack()
	if err != nil {
		t.Fatal(err)
	}
	asker, err := net.Dial("udp4", r.udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	for range maxQuestions { // each is taken before the next is sent, so that all slots are
		if _, err := asker.Write(other); err != nil {
			t.Fatal(err)
		}
		if _, _, err := silent.ReadFromUDPAddrPort(make([]byte, 512)); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp4", r.tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if got := query(t, "udp", r.Port(), "a.example.", dnsmessage.TypeA); got != "127.0.0.1" {
		t.Errorf("got %q", got)
	}
}

func FuzzAnswer(f *testing.F) {
	query, err := (&dnsmessage.Message{Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName("a.b."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(query)
	f.Add([]byte{0, 1, 2})
	l := newLookup(Options{Resolve: map[string][]netip.Addr{"a.b": {netip.MustParseAddr("127.0.0.1")}}, Servers: []string{}})
	f.Fuzz(func(t *testing.T, b []byte) {
		reply := l.answer(t.Context(), "udp", b)
		if reply == nil {
			return
		}
		var p dnsmessage.Parser
		if head, err := p.Start(reply); err != nil || !head.Response {
			t.Errorf("reply %x to %x: %v", reply, b, err)
		}
	})
}
