package local

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	answerTTL      = 5 // seconds
	forwardTime    = 2 * time.Second
	maxDNSQueries  = 256 // at once; more are dropped, as UDP does
	maxDNSMessage  = 65535
	maxUDPResponse = 4096
)

// A resolver is a DNS server on loopback: it answers the names it was given and
// forwards all others to the system's servers. A given name has the given
// addresses and nothing else; sub-domains of it are other names.
type resolver struct {
	names    map[string][]netip.Addr // in lower case, without the final dot
	upstream []string                // HOST:PORT
	udp      *net.UDPConn
	tcp      net.Listener
	forwards chan struct{} // queries by UDP that are forwarded
	callers  chan struct{} // connections
	serving  sync.WaitGroup
}

// newResolver listens on a free port of loopback, the same for UDP and TCP.
func newResolver(names map[string][]netip.Addr, upstream []string) (*resolver, error) {
	r := &resolver{names: map[string][]netip.Addr{}, upstream: upstream,
		forwards: make(chan struct{}, maxDNSQueries), callers: make(chan struct{}, maxDNSQueries)}
	for name, addrs := range names {
		r.names[strings.ToLower(strings.TrimSuffix(name, "."))] = addrs
	}
	var err error
	for range 10 { // the TCP port of a free UDP port can be taken
		if r.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			return nil, err
		}
		if r.tcp, err = net.Listen("tcp4", r.udp.LocalAddr().String()); err == nil {
			return r, nil
		}
		_ = r.udp.Close()
	}
	return nil, err
}

func (r *resolver) port() int { return r.udp.LocalAddr().(*net.UDPAddr).Port }

// run serves until the context ends.
func (r *resolver) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = r.udp.Close(); _ = r.tcp.Close() })
	defer stop()
	r.serving.Add(2)
	go func() { defer r.serving.Done(); r.serveUDP(ctx) }()
	go func() { defer r.serving.Done(); r.serveTCP(ctx) }()
	<-ctx.Done()
	r.serving.Wait()
}

func (r *resolver) serveUDP(ctx context.Context) {
	buf := make([]byte, maxDNSMessage)
	for {
		n, from, err := r.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		q, ok := parseQuery(buf[:n])
		if !ok {
			continue
		}
		if reply, given := r.given(q); given { // at once, whatever became of the others
			_, _ = r.udp.WriteToUDPAddrPort(reply, from)
			continue
		}
		q.raw = append([]byte(nil), q.raw...)
		select {
		case r.forwards <- struct{}{}:
		default:
			continue
		}
		r.serving.Go(func() {
			defer func() { <-r.forwards }()
			if reply := r.forward(ctx, q, "udp"); reply != nil {
				_, _ = r.udp.WriteToUDPAddrPort(reply, from)
			}
		})
	}
}

func (r *resolver) serveTCP(ctx context.Context) {
	for {
		c, err := r.tcp.Accept()
		if err != nil {
			return
		}
		select {
		case r.callers <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		r.serving.Go(func() {
			defer func() { <-r.callers }()
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(2 * forwardTime))
			query, err := readFrame(c)
			if err != nil {
				return
			}
			if reply := r.answer(ctx, query, "tcp"); reply != nil {
				_ = writeFrame(c, reply)
			}
		})
	}
}

// answer is the reply to a query, nil for none.
func (r *resolver) answer(ctx context.Context, raw []byte, network string) []byte {
	q, ok := parseQuery(raw)
	if !ok {
		return nil
	}
	if reply, given := r.given(q); given {
		return reply
	}
	return r.forward(ctx, q, network)
}

// A query is one question, parsed.
type query struct {
	raw      []byte
	head     dnsmessage.Header
	question dnsmessage.Question
}

func parseQuery(raw []byte) (query, bool) {
	var p dnsmessage.Parser
	head, err := p.Start(raw)
	if err != nil || head.Response {
		return query{}, false
	}
	question, err := p.Question()
	return query{raw, head, question}, err == nil
}

// given is the reply for a name that the resolver was given; false for other names.
func (r *resolver) given(q query) ([]byte, bool) {
	addrs, known := r.names[strings.ToLower(strings.TrimSuffix(q.question.Name.String(), "."))]
	if !known || q.question.Class != dnsmessage.ClassINET {
		return nil, false
	}
	text, err := reply(q.head, q.question, dnsmessage.RCodeSuccess, addrs)
	return text, err == nil
}

func reply(head dnsmessage.Header, q dnsmessage.Question, code dnsmessage.RCode, addrs []netip.Addr) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: head.ID, Response: true, Authoritative: code == dnsmessage.RCodeSuccess, RCode: code,
		RecursionDesired: head.RecursionDesired, RecursionAvailable: true,
	})
	b.EnableCompression()
	if err := errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers()); err != nil {
		return nil, err
	}
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: answerTTL}
	for _, a := range addrs {
		var err error
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			err = b.AResource(h, dnsmessage.AResource{A: a.As4()})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			err = b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: a.As16()})
		}
		if err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// forward asks the system's servers in turn; when none answers the client is told
// so, which is quicker for it than silence.
func (r *resolver) forward(ctx context.Context, q query, network string) []byte {
	for _, server := range r.upstream {
		if reply, err := exchange(ctx, network, server, q.raw); err == nil {
			return reply
		}
	}
	failure, err := reply(q.head, q.question, dnsmessage.RCodeServerFailure, nil)
	if err != nil {
		return nil
	}
	return failure
}

func exchange(ctx context.Context, network, server string, query []byte) ([]byte, error) {
	d := net.Dialer{Timeout: forwardTime}
	c, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	_ = c.SetDeadline(time.Now().Add(forwardTime))
	if network == "tcp" {
		if err := writeFrame(c, query); err != nil {
			return nil, err
		}
		return readFrame(c)
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDPResponse)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if n >= 2 && buf[0] == query[0] && buf[1] == query[1] { // else an answer to somebody else
			return buf[:n], nil
		}
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFrame(w io.Writer, b []byte) error {
	if len(b) > maxDNSMessage {
		return errors.New("DNS message too long")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)) // bounded above
	return err
}

// systemServers reads the name servers of a resolv.conf.
func systemServers(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var servers []string
	lines := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for lines.Scan() && len(servers) < 3 {
		f := strings.Fields(lines.Text())
		if len(f) >= 2 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err == nil {
				servers = append(servers, net.JoinHostPort(a.String(), strconv.Itoa(53)))
			}
		}
	}
	return servers
}
