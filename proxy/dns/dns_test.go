package dns

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nameServer is a DNS server of the test, on UDP and TCP of one port.
type nameServer struct {
	addr string
	mu   sync.Mutex
	// zone maps "A name." to the answer: addresses, or one of the words NXDOMAIN,
	// SERVFAIL, EMPTY, CUT (truncated by UDP), STRAY (a wrong answer comes first).
	zone map[string][]string
	log  []string // "udp A name."
}

// listenBoth finds a port that is free for UDP and for TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 50 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if udp, err := net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return udp, tcp
		}
		_ = tcp.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func newServer(t *testing.T, zone map[string][]string) *nameServer {
	t.Helper()
	udp, tcp := listenBoth(t)
	s := &nameServer{addr: udp.LocalAddr().String(), zone: zone}
	var running sync.WaitGroup
	running.Go(func() { s.serveUDP(udp) })
	running.Go(func() { s.serveTCP(tcp) })
	t.Cleanup(func() { udp.Close(); tcp.Close(); running.Wait() })
	return s
}

func (s *nameServer) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *nameServer) serveUDP(c net.PacketConn) {
	buf := make([]byte, 2000)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		for _, m := range s.answer("udp", buf[:n]) {
			_, _ = c.WriteTo(m, from)
		}
	}
}

func (s *nameServer) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err == nil {
			q := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, q); err == nil {
				m := s.answer("tcp", q)[0]
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
			}
		}
		c.Close()
	}
}

func (s *nameServer) answer(network string, query []byte) [][]byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil
	}
	q := m.Questions[0]
	kind := strings.TrimPrefix(q.Type.String(), "Type")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, network+" "+kind+" "+q.Name.String())
	r := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true}, Questions: m.Questions}
	var stray []byte
	for _, v := range s.zone[kind+" "+q.Name.String()] {
		switch v {
		case "NXDOMAIN":
			r.RCode = dnsmessage.RCodeNameError
		case "SERVFAIL":
			r.RCode = dnsmessage.RCodeServerFailure
		case "EMPTY":
		case "CUT":
			r.Truncated = network == "udp"
		case "STRAY":
			bad := r
			bad.ID++
			stray, _ = bad.Pack()
		default:
			r.Answers = append(r.Answers, record(q.Name, v))
		}
	}
	if len(s.zone[kind+" "+q.Name.String()]) == 0 {
		r.RCode = dnsmessage.RCodeNameError
	}
	b, err := r.Pack()
	if err != nil {
		panic(err)
	}
	if stray != nil {
		return [][]byte{stray, b}
	}
	return [][]byte{b}
}

// record is an address with a TTL of 300 s, or "name." for an alias of 60 s.
func record(owner dnsmessage.Name, v string) dnsmessage.Resource {
	h := dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: 300}
	ip, err := netip.ParseAddr(v)
	switch {
	case err != nil:
		h.TTL = 60
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(v)}}
	case ip.Is4():
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: ip.As4()}}
	}
	return dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}}
}

func file(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLookup(t *testing.T) {
	s := newServer(t, map[string][]string{
		"A two.test.": {"10.0.0.1", "10.0.0.2"}, "AAAA two.test.": {"2001:db8::1"},
		"A four.test.": {"10.0.0.4"}, "AAAA four.test.": {"EMPTY"},
		"A alias.test.": {"two.test.", "10.0.0.1"}, "A gone.test.": {"NXDOMAIN"},
		"A broken.test.": {"SERVFAIL"}, "A large.test.": {"CUT", "10.0.0.9"}, "A spoofed.test.": {"STRAY", "10.0.0.5"},
		"A svc.ns.cluster.test.": {"10.0.0.7"},
	})
	hosts := file(t, "127.0.0.9 pinned.test other # comment\n::9 pinned.test\nnonsense\n")
	conf := file(t, "search ns.cluster.test\noptions ndots:2\nnameserver 192.0.2.1\n")
	for _, c := range []struct {
		name   string
		host   string
		family Family
		want   string // addresses, TTL in seconds
		err    string
	}{
		{"IPv4 only", "two.test", V4Only, "10.0.0.1 10.0.0.2 300", ""},
		{"IPv6 only", "two.test", V6Only, "2001:db8::1 300", ""},
		{"AUTO prefers IPv6", "two.test", Auto, "2001:db8::1 300", ""},
		{"AUTO falls back to IPv4", "four.test", Auto, "10.0.0.4 300", ""},
		{"V4_PREFERRED", "two.test", V4Preferred, "10.0.0.1 10.0.0.2 300", ""},
		{"ALL", "two.test", All, "10.0.0.1 10.0.0.2 2001:db8::1 300", ""},
		{"ALL of one family", "four.test", All, "10.0.0.4 300", ""},
		{"the alias has the shorter life", "alias.test", V4Only, "10.0.0.1 60", ""},
		{"a cut answer is asked for by TCP", "large.test", V4Only, "10.0.0.9 300", ""},
		{"an answer to another question is passed over", "spoofed.test", V4Only, "10.0.0.5 300", ""},
		{"no such name", "gone.test", V4Only, "", "gone.test: no such host"},
		{"no such record", "four.test", V6Only, "", "four.test: no such host"},
		{"server failure", "broken.test", V4Only, "", "broken.test: server " + s.addr + ": answered RCodeServerFailure"},
		{"search domains", "svc", V4Only, "10.0.0.7 300", ""},
		{"letter case", "TWO.test", V4Only, "10.0.0.1 10.0.0.2 300", ""},
		{"hosts file", "pinned.test", V4Only, "127.0.0.9 0", ""},
		{"hosts file, both families", "pinned.test", All, "127.0.0.9 ::9 0", ""},
		{"localhost needs no file", "localhost", V4Only, "127.0.0.1 0", ""},
		{"address", "10.1.2.3", Auto, "10.1.2.3 0", ""},
		{"too long", strings.Repeat("a.", 200), V4Only, "", "not a host name"},
		{"label too long", strings.Repeat("a", 64) + ".test", V4Only, "", "no such host|label"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := New(Options{Servers: []string{s.addr}, Hosts: hosts, ResolvConf: conf, Tries: 1})
			a, err := r.Lookup(t.Context(), c.host, c.family)
			if c.err != "" {
				for want := range strings.SplitSeq(c.err, "|") {
					if err != nil && strings.Contains(err.Error(), want) {
						return
					}
				}
				if err == nil {
					t.Fatalf("answer %v, want error %q", a, c.err)
				}
				if !strings.Contains(c.err, "|") {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, ip := range a.Addresses {
				words = append(words, ip.String())
			}
			words = append(words, a.TTL.Round(time.Second).String())
			got := strings.Join(words, " ")
			want := strings.Fields(c.want)
			ttl, _ := time.ParseDuration(want[len(want)-1] + "s")
			want[len(want)-1] = ttl.String()
			if diff := cmp.Diff(strings.Join(want, " "), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestServers(t *testing.T) {
	good := newServer(t, map[string][]string{"A a.test.": {"10.0.0.1"}})
	bad := newServer(t, map[string][]string{"A a.test.": {"SERVFAIL"}})
	r := New(Options{Servers: []string{bad.addr, good.addr}, NoSearch: true})
	a, err := r.Lookup(t.Context(), "a.test", V4Only)
	if err != nil || len(a.Addresses) != 1 {
		t.Fatalf("the second server was not asked: %v %v", a, err)
	}
	// Within its TTL an answer is not asked for again; a failure is.
	if _, err := r.Lookup(t.Context(), "a.test", V4Only); err != nil {
		t.Fatal(err)
	}
	if log := good.asked(); len(log) != 1 {
		t.Errorf("asked %v", log)
	}
	if _, err := r.Lookup(t.Context(), "b.test", V4Only); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v is not ErrNotFound", err)
	}
}

func TestTCP(t *testing.T) {
	s := newServer(t, map[string][]string{"A a.test.": {"10.0.0.1"}})
	r := New(Options{Servers: []string{s.addr}, NoSearch: true, TCP: true})
	if _, err := r.Lookup(t.Context(), "a.test", V4Only); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"tcp A a.test."}, s.asked()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCacheIsBounded(t *testing.T) {
	r := New(Options{})
	for i := range maxCached + 100 {
		r.remember(key{name: string(rune(i)) + ".test"}, Answer{TTL: time.Hour})
	}
	if n := len(r.cache); n > maxCached {
		t.Errorf("%d entries", n)
	}
}

func TestHostsFileChanges(t *testing.T) {
	p := file(t, "10.0.0.1 a\n")
	r := New(Options{Hosts: p, ResolvConf: "/nonexistent"})
	if a, err := r.Lookup(t.Context(), "a", V4Only); err != nil || a.Addresses[0].String() != "10.0.0.1" {
		t.Fatal(a, err)
	}
	if err := os.WriteFile(p, []byte("10.0.0.22 a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := r.Lookup(t.Context(), "a", V4Only); err != nil || a.Addresses[0].String() != "10.0.0.22" {
		t.Fatal(a, err)
	}
}

func FuzzParse(f *testing.F) {
	query, err := question(7, "a.test.", false)
	if err != nil {
		f.Fatal(err)
	}
	s := &nameServer{zone: map[string][]string{"A a.test.": {"b.test.", "10.0.0.1"}}}
	f.Add(s.answer("udp", query)[0])
	f.Add(query)
	f.Fuzz(func(t *testing.T, msg []byte) {
		a, err := parse(msg, 7, query)
		if err == nil && (len(a.Addresses) == 0 || len(a.Addresses) > maxAddresses || a.TTL < 0) {
			t.Fatalf("accepted %v", a)
		}
	})
}
