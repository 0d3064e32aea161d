package names

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/lateen-mesh/lateen/nametable"
	"github.com/lateen-mesh/lateen/test/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const aSearch = "default.svc.cluster.local"

func table() nametable.Table {
	service := func(short, namespace string, addresses ...string) nametable.Name {
		return nametable.Name{Addresses: addresses, Registry: "Kubernetes", ShortName: short, Namespace: namespace}
	}
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf("10.1.0.%d", i)
	}
	return nametable.Table{
		"web.default.svc.cluster.local":     service("web", "default", "10.96.0.7", "fd00::7"),
		"web.other.svc.cluster.local":       service("web", "other", "10.96.0.8"),
		"db-0.db.default.svc.cluster.local": service("db", "default", "10.244.0.5"),
		"www.example.com":                   {Addresses: []string{"240.240.0.1"}, Registry: "External"},
		"*.wild.example.com":                {Addresses: []string{"240.240.0.2"}, Registry: "External"},
		"*.deep.wild.example.com":           {Addresses: []string{"240.240.0.3"}, Registry: "External"},
		"old":                               {Addresses: []string{"240.240.0.4"}, Registry: "External"},
		"many.example.com":                  {Addresses: many, Registry: "External"},
	}
}

// an upstream server knows one name, and answers no question for "slow".
func upstream(t *testing.T) netip.AddrPort {
	t.Helper()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ports.One()})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			reply := reply(buf[:n])
			forged := bytes.Clone(reply)
			forged[0]++ // of another question
			_, _ = udp.WriteToUDPAddrPort(forged, from)
			_, _ = udp.WriteToUDPAddrPort(reply, from)
		}
	})
	tasks.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			if question, err := readFramed(c); err == nil {
				_ = writeFramed(c, reply(question))
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_, _ = udp.Close(), tcp.Close()
		tasks.Wait()
	})
	return netip.MustParseAddrPort(udp.LocalAddr().String())
}

func reply(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil {
		return nil
	}
	m.Response, m.Additionals = true, nil
	q := m.Questions[0]
	switch {
	case q.Name.String() == "outside.example.org." && q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
	case q.Type == dnsmessage.TypeTXT:
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.TXTResource{TXT: []string{"text"}}}}
	default:
		m.RCode = dnsmessage.RCodeNameError
	}
	out, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return out
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	if o.Address == "" {
		o.Address = fmt.Sprintf("127.0.0.1:%d", ports.One()) // free for UDP and TCP
	}
	o.Namespace, o.Search = "default", []string{aSearch, "svc.cluster.local", "cluster.local"}
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask asks a server and says the answer in words.
func ask(t *testing.T, network, server, name string, kind dnsmessage.Type, edns int) string {
	t.Helper()
	c, err := net.Dial(network, server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	if edns > 0 {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(edns, 0, false); err != nil {
			t.Fatal(err)
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	question, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var answer []byte
	if network == "tcp" {
		if err := writeFramed(c, question); err != nil {
			t.Fatal(err)
		}
		answer, err = readFramed(c)
	} else {
		if _, err := c.Write(question); err != nil {
			t.Fatal(err)
		}
		answer = make([]byte, 65535)
		var n int
		n, err = c.Read(answer)
		answer = answer[:n]
	}
	if err != nil {
		t.Fatal(err)
	}
	return words(t, answer, name)
}

func words(t *testing.T, answer []byte, name string) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil {
		t.Fatal(err)
	}
	if m.ID != 4711 || !m.Response || len(m.Questions) != 1 || m.Questions[0].Name.String() != name {
		t.Errorf("answer %v is not for the question", m.Header)
	}
	if m.RCode != dnsmessage.RCodeSuccess {
		return strings.TrimPrefix(m.RCode.String(), "RCode")
	}
	var all []string
	if m.Truncated {
		all = append(all, "cut")
	}
	for _, r := range m.Answers {
		if ttl := r.Header.TTL; ttl != timeToLive && ttl != 1 { // the other server's live for a second
			t.Errorf("%s lives %d s", r.Header.Name, ttl)
		}
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			all = append(all, netip.AddrFrom4(body.A).String())
		case *dnsmessage.AAAAResource:
			all = append(all, netip.AddrFrom16(body.AAAA).String())
		case *dnsmessage.CNAMEResource:
			all = append(all, "="+body.CNAME.String())
		case *dnsmessage.TXTResource:
			all = append(all, body.TXT...)
		}
	}
	return strings.Join(all, " ")
}

func TestQuestions(t *testing.T) {
	s := start(t, Options{Servers: []netip.AddrPort{upstream(t)}})
	if got := ask(t, "udp", s.Address(), "www.example.com.", dnsmessage.TypeA, 0); got != "NameError" {
		t.Errorf("before the first table: %q, want the server's answer", got)
	}
	s.Update(table())
	a, aaaa := dnsmessage.TypeA, dnsmessage.TypeAAAA
	tests := []struct {
		name, question string
		kind           dnsmessage.Type
		want           string
	}{
		{"a Service by its full name", "web.default.svc.cluster.local.", a, "10.96.0.7"},
		{"by IPv6", "web.default.svc.cluster.local.", aaaa, "fd00::7"},
		{"in other letters", "WEB.Default.svc.cluster.local.", a, "10.96.0.7"},
		{"without domain", "web.default.svc.", a, "10.96.0.7"},
		{"with namespace", "web.other.", a, "10.96.0.8"},
		{"by its name, of the own namespace", "web.", a, "10.96.0.7"},
		{"with the first search domain behind", "web.other.default.svc.cluster.local.", a, "=web.other. 10.96.0.8"},
		{"the full name with a search domain behind", "web.default.svc.cluster.local.default.svc.cluster.local.", a, "=web.default.svc.cluster.local. 10.96.0.7"},
		{"a pod of a headless Service", "db-0.db.", a, "10.244.0.5"},
		{"and in full", "db-0.db.default.svc.cluster.local.", a, "10.244.0.5"},
		{"a name of a ServiceEntry", "www.example.com.", a, "240.240.0.1"},
		{"as the resolver tries it first", "www.example.com.default.svc.cluster.local.", a, "=www.example.com. 240.240.0.1"},
		{"with the last search domain", "www.example.com.cluster.local.", a, "=www.example.com. 240.240.0.1"},
		{"of one label", "old.default.svc.cluster.local.", a, "=old. 240.240.0.4"},
		{"below a wildcard", "x.wild.example.com.", a, "240.240.0.2"},
		{"far below it", "y.x.wild.example.com.", a, "240.240.0.2"},
		{"below the longer one", "x.deep.wild.example.com.", a, "240.240.0.3"},
		{"below a wildcard, with a search domain", "x.wild.example.com.svc.cluster.local.", a, "=x.wild.example.com. 240.240.0.2"},
		{"the wildcard's own name is another", "wild.example.com.", a, "NameError"},
		{"an address of the other family is none", "www.example.com.", aaaa, ""},
		{"a name of nobody", "outside.example.org.", a, "192.0.2.1"},
		{"a name that is nowhere", "web.nowhere.svc.cluster.local.", a, "NameError"},
		{"other types are others' matter", "www.example.com.", dnsmessage.TypeTXT, "text"},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range tests {
			t.Run("EN-015 EN-038 WI-033 "+network+": "+tt.name, func(t *testing.T) {
				if got := ask(t, network, s.Address(), tt.question, tt.kind, 0); got != tt.want {
					t.Errorf("answer %q, want %q", got, tt.want)
				}
			})
		}
	}
	if c := s.Counts(); c.Questions < 46 || c.Forwarded == 0 || c.Failed != 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestLongAnswers(t *testing.T) {
	s := start(t, Options{})
	s.Update(table())
	for _, tt := range []struct {
		network   string
		edns      int
		addresses int
		cut       bool
	}{{"udp", 0, 25, true}, {"udp", 4096, 100, false}, {"tcp", 0, 100, false}} {
		got := strings.Fields(ask(t, tt.network, s.Address(), "many.example.com.", dnsmessage.TypeA, tt.edns))
		cut := got[0] == "cut"
		if cut {
			got = got[1:]
		}
		if len(got) != tt.addresses || cut != tt.cut {
			t.Errorf("%s, %d bytes: %d addresses, cut %v; want %d, %v", tt.network, tt.edns, len(got), cut, tt.addresses, tt.cut)
		}
	}
	first := map[string]bool{}
	for range 50 {
		first[strings.Fields(ask(t, "tcp", s.Address(), "many.example.com.", dnsmessage.TypeA, 0))[0]] = true
	}
	if len(first) < 5 {
		t.Errorf("the first of 50 answers is one of %d only", len(first))
	}
}

func TestServersThatFail(t *testing.T) {
	gone := upstreamGone()
	t.Run("the next one is asked", func(t *testing.T) {
		s := start(t, Options{Servers: []netip.AddrPort{gone, upstream(t)}})
		if got := ask(t, "udp", s.Address(), "outside.example.org.", dnsmessage.TypeA, 0); got != "192.0.2.1" {
			t.Errorf("answer %q", got)
		}
	})
	t.Run("none is left", func(t *testing.T) {
		s := start(t, Options{Servers: []netip.AddrPort{gone}})
		for _, network := range []string{"udp", "tcp"} {
			if got := ask(t, network, s.Address(), "outside.example.org.", dnsmessage.TypeA, 0); got != "ServerFailure" {
				t.Errorf("%s: answer %q", network, got)
			}
		}
		if c := s.Counts(); c.Failed != 2 {
			t.Errorf("counts %+v", c)
		}
	})
}

// upstreamGone is a server that nobody is at.
func upstreamGone() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), uint16(ports.One()))
}

// TestLoop has the redirection send the server's own questions back to it.
func TestLoop(t *testing.T) {
	var log bytes.Buffer
	address := fmt.Sprintf("127.0.0.1:%d", ports.One())
	s := start(t, Options{Address: address, Servers: []netip.AddrPort{netip.MustParseAddrPort(address)}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if got := ask(t, "udp", s.Address(), "outside.example.org.", dnsmessage.TypeA, 0); got != "ServerFailure" {
		t.Errorf("answer %q", got)
	}
	if c := s.Counts(); c.Questions != 2 {
		t.Errorf("counts %+v, want the question and its way back", c)
	}
}

func TestResolver(t *testing.T) {
	tests := []struct{ text, servers, search, err string }{
		{"nameserver 10.96.0.10\nsearch default.svc.cluster.local SVC.cluster.local.\noptions ndots:5\n", "[10.96.0.10:53]", "[default.svc.cluster.local svc.cluster.local]", ""},
		{"# nothing\nnameserver\n", "[]", "[]", ""},
		{"nameserver fe80::1%eth0\nnameserver ::1", "[[fe80::1%eth0]:53 [::1]:53]", "[]", ""},
		{"nameserver here\nnameserver 1.1.1.1", "[1.1.1.1:53]", "[]", `nameserver: ParseAddr("here"): unable to parse IP`},
	}
	for _, tt := range tests {
		r, err := parseResolver(tt.text)
		if fmt.Sprint(r.Servers) != tt.servers || fmt.Sprint(r.Search) != tt.search || err != nil && err.Error() != tt.err || err == nil && tt.err != "" {
			t.Errorf("%q is %v %v, error %v", tt.text, r.Servers, r.Search, err)
		}
	}
}

// FuzzAnswer: no message breaks the server, and what it answers is an answer to it.
func FuzzAnswer(f *testing.F) {
	s := &Server{o: Options{Namespace: "default", Domain: "cluster.local", Search: []string{aSearch}}}
	s.Update(table())
	for _, name := range slices.Sorted(maps.Keys(table())) {
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		text, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		answer, known := s.answer(message, udpSize)
		if !known || answer == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil || !m.Response || len(answer) > maxUDP {
			t.Errorf("%d bytes, %v: %v", len(answer), m.Header, err)
		}
	})
}

// FuzzResolver: a resolv.conf may hold anything; what is read is bounded.
func FuzzResolver(f *testing.F) {
	f.Add("nameserver 10.96.0.10\nsearch a b\n")
	f.Add("nameserver x\ndomain A.\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, _ := parseResolver(text)
		if len(r.Servers) > maxServers || len(r.Search) > maxSearch {
			t.Errorf("%d servers, %d domains", len(r.Servers), len(r.Search))
		}
	})
}
