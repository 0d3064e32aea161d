package outside

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/lateen-mesh/lateen/test/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve is a Client with an outside that is this process.
func serve(t *testing.T, o Options) *Client {
	t.Helper()
	theirs, ours, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { served <- Serve(ctx, ours, o) }()
	c, err := NewClient(theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		if err := <-served; err != nil { // it ends with the client
			t.Error(err)
		}
		cancel()
	})
	return c
}

func listenLocally(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func at(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

func TestDial(t *testing.T) {
	c := serve(t, Options{})
	l := listenLocally(t)
	f, err := c.Dial(t.Context(), "tcp", at(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	near, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	_, _ = io.WriteString(far, "hello\n")
	if line, err := bufio.NewReader(near).ReadString('\n'); line != "hello\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestDialFails(t *testing.T) {
	c := serve(t, Options{})
	l := listenLocally(t)
	closed := at(l.Addr())
	_ = l.Close()
	for to, want := range map[netip.AddrPort]syscall.Errno{
		closed: syscall.ECONNREFUSED,
		netip.MustParseAddrPort("255.255.255.255:80"): syscall.ENETUNREACH,
	} {
		f, err := c.Dial(t.Context(), "tcp", to)
		if !errors.Is(err, want) || f != nil {
			t.Errorf("%s: %v, want %v", to, err, want)
		}
		if err == nil || !strings.Contains(err.Error(), to.String()) {
			t.Errorf("the error does not name %s: %v", to, err)
		}
	}
}

// A request that takes its time holds up no other, and ends when nobody waits for it.
func TestSlowAnswers(t *testing.T) {
	entered, left := make(chan struct{}, 3), make(chan error, 3)
	c := serve(t, Options{Listen: func(ctx context.Context, _ uint16) (*net.TCPListener, error) {
		entered <- struct{}{}
		<-ctx.Done()
		left <- ctx.Err()
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			if _, _, err := c.Listen(ctx, 80); !errors.Is(err, context.Canceled) {
				t.Errorf("given up: %v", err)
			}
		})
		<-entered
	}
	l := listenLocally(t)
	f, err := c.Dial(t.Context(), "tcp", at(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	cancel()
	waiting.Wait()
	for range 3 {
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("outside: %v", err)
		}
	}
}

func TestTooManyAtOnce(t *testing.T) {
	c := serve(t, Options{Listen: func(ctx context.Context, _ uint16) (*net.TCPListener, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan error, maxUnderWay+1)
	for range maxUnderWay + 1 {
		go func() {
			_, _, err := c.Listen(ctx, 80)
			answers <- err
		}()
	}
	if err := <-answers; !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	for range maxUnderWay {
		<-answers
	}
}

func TestOutsideEnds(t *testing.T) {
	theirs, ours, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer := make(chan error)
	go func() {
		_, err := c.Query(context.Background(), "udp", []byte("?"))
		answer <- err
	}()
	if _, _, err := receive(ours, make([]byte, 100)); err != nil { // the question is there
		t.Fatal(err)
	}
	_ = ours.Close()
	if err := <-answer; err == nil {
		t.Error("answered by nobody")
	}
	<-c.Done()
	if _, err := c.Dial(t.Context(), "tcp", netip.MustParseAddrPort("127.0.0.1:1")); err == nil {
		t.Error("answered after the end")
	}
}

func TestListen(t *testing.T) {
	c := serve(t, Options{})
	first, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := at(first.Addr()).Port()
	if taken > 65535-portOffset {
		_ = first.Close()
		if first, err = net.Listen("tcp4", "0.0.0.0:23456"); err != nil {
			t.Skipf("port 23456: %v", err)
		}
		taken = 23456
	}
	defer first.Close()
	f, got, err := c.Listen(t.Context(), taken)
	if err != nil || got.Port() != taken+portOffset {
		t.Fatalf("port %d, which is taken: %v, %v", taken, got, err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	defer l.Close()
	if _, _, err := c.Listen(t.Context(), taken); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(taken+portOffset)) {
		t.Errorf("both taken: %v", err)
	}
	near, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(got.Port())))
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
}

func ask(t *testing.T, c *Client, network, name string, kind dnsmessage.Type) dnsmessage.Message {
	t.Helper()
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 9, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	raw, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	reply, err := c.Query(t.Context(), network, raw)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	if m.ID != 9 {
		t.Errorf("answer to question %d", m.ID)
	}
	return m
}

func TestLookup(t *testing.T) {
	dead := fmt.Sprintf("127.0.0.1:%d", ports.One())
	server := nameServer(t)
	c := serve(t, Options{Servers: []string{dead, server}, Resolve: map[string][]netip.Addr{
		"Given.Test.": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, "empty.test": nil,
	}})
	for _, network := range []string{"udp", "tcp"} {
		if m := ask(t, c, network, "given.test.", dnsmessage.TypeA); len(m.Answers) != 1 || m.Answers[0].Body.(*dnsmessage.AResource).A != [4]byte{192, 0, 2, 1} {
			t.Errorf("%s: a given name: %v", network, m.Answers)
		}
		if m := ask(t, c, network, "GIVEN.test.", dnsmessage.TypeAAAA); len(m.Answers) != 1 {
			t.Errorf("%s: a given name by IPv6: %v", network, m.Answers)
		}
		if m := ask(t, c, network, "empty.test.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeSuccess || len(m.Answers) != 0 {
			t.Errorf("%s: a name without addresses: %v %v", network, m.RCode, m.Answers)
		}
		if m := ask(t, c, network, "sub.given.test.", dnsmessage.TypeA); len(m.Answers) != 1 || m.Answers[0].Body.(*dnsmessage.AResource).A != [4]byte{198, 51, 100, 1} {
			t.Errorf("%s: a name of the server: %v", network, m.Answers)
		}
	}
	none := serve(t, Options{Servers: []string{dead}})
	if m := ask(t, none, "udp", "x.test.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("no server: %v", m.RCode)
	}
	if reply, err := c.Query(t.Context(), "udp", []byte("nonsense")); len(reply) != 0 || err != nil {
		t.Errorf("no question: %q, %v", reply, err)
	}
}

// nameServer answers everything with 198.51.100.1, by UDP and TCP.
func nameServer(t *testing.T) string {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", ports.One()) // free for TCP and UDP
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	u, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	answer := func(raw []byte) []byte {
		var m dnsmessage.Message
		if m.Unpack(raw) != nil {
			return nil
		}
		m.Response = true
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET}, Body: &dnsmessage.AResource{A: [4]byte{198, 51, 100, 1}}}}
		reply, err := m.Pack()
		if err != nil {
			return nil
		}
		return reply
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(append([]byte{0xff, 0xff}, answer(buf[:n])[2:]...), from) // not to this question
			_, _ = u.WriteTo(answer(buf[:n]), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			_, _ = io.ReadFull(c, size[:])
			raw := make([]byte, binary.BigEndian.Uint16(size[:]))
			_, _ = io.ReadFull(c, raw)
			reply := answer(raw)
			_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

func TestSystemServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver name.test\nsearch a\nnameserver\nnameserver 2001:db8::1\nnameserver 192.0.2.4\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "[127.0.0.53:53 [fe80::1%eth0]:53 [2001:db8::1]:53]"
	if got := fmt.Sprint(systemServers(path)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := systemServers(path + ".absent"); got != nil {
		t.Errorf("without a file: %v", got)
	}
}

func TestRequests(t *testing.T) {
	for packet, want := range map[string]string{
		"dial tcp 192.0.2.1:80":           "dial tcp 192.0.2.1:80",
		"dial udp [2001:db8::1]:53":       "dial udp [2001:db8::1]:53",
		"dial tcp [::ffff:1.2.3.4]:80":    "dial tcp 1.2.3.4:80",
		"listen tcp 8080":                 "listen tcp 8080",
		"inside":                          "inside",
		"cancel":                          "cancel",
		"query udp \x00\x01 x":            "query udp \x00\x01 x",
		"":                                "",
		"dial":                            "",
		"dial tcp":                        "",
		"dial tcp 192.0.2.1":              "",
		"dial tcp 192.0.2.1:0":            "",
		"dial tcp 192.0.2.1:80 ":          "",
		"dial tcp [fe80::1%eth0]:80":      "",
		"dial sctp 192.0.2.1:80":          "",
		"listen tcp 70000":                "",
		"listen tcp -1":                   "",
		"inside out":                      "",
		"DIAL tcp 192.0.2.1:80":           "",
		strings.Repeat("x", 2*maxRequest): "",
	} {
		r, err := parseRequest([]byte(packet))
		if (err != nil) != (want == "") || err == nil && r.String() != want {
			t.Errorf("%q: %q, %v, want %q", packet, r, err, want)
		}
	}
}

func TestReplies(t *testing.T) {
	for packet, want := range map[string]error{
		"ok":                         nil,
		"ok 0.0.0.0:80":              nil,
		"err 111 connection refused": syscall.ECONNREFUSED,
		"err 2":                      syscall.ENOENT,
		"err x":                      errRequest,
		"nok":                        errRequest,
		"err 99999999":               errRequest,
	} {
		if r := parseReply([]byte(packet), nil); !errors.Is(r.failure, want) {
			t.Errorf("%q: %v, want %v", packet, r.failure, want)
		}
	}
	for err, want := range map[error]syscall.Errno{
		&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}: syscall.EHOSTUNREACH,
		context.Canceled: syscall.ECANCELED, os.ErrDeadlineExceeded: syscall.ETIMEDOUT, errRequest: syscall.EOPNOTSUPP, io.ErrUnexpectedEOF: syscall.EIO,
	} {
		if got := parseReply(failure(fmt.Errorf("a\nb: %w", err)), nil).failure; !errors.Is(got, want) {
			t.Errorf("%v became %v, want %v", err, got, want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{"dial tcp 192.0.2.1:80", "listen tcp 80", "query udp x", "inside", "dial udp [::1]:1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		r, err := parseRequest(packet)
		if err != nil {
			return
		}
		again, err := parseRequest([]byte(r.String()))
		if err != nil || again.String() != r.String() {
			t.Errorf("%q: %q, %v", packet, again, err)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("ok 1"))
	f.Add([]byte("err 111 refused"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if r := parseReply(packet, nil); r.failure != nil && len(r.text) > 0 {
			t.Errorf("%q is both", packet)
		}
	})
}
