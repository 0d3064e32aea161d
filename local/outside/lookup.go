package outside

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	answerTTL   = 5 // seconds, of names that were given
	lookupTime  = 2 * time.Second
	maxServers  = 3
	maxUDPReply = 4096
)

// A lookup answers DNS questions as this machine would.
type lookup struct {
	names   map[string][]netip.Addr // in lower case, without the final dot
	servers []string
}

func newLookup(o Options) *lookup {
	l := &lookup{names: map[string][]netip.Addr{}, servers: o.Servers}
	for name, addrs := range o.Resolve {
		l.names[strings.ToLower(strings.TrimSuffix(name, "."))] = addrs
	}
	return l
}

// A question is a DNS message with one.
type question struct {
	raw  []byte
	head dnsmessage.Header
	dnsmessage.Question
}

func parseQuestion(raw []byte) (question, bool) {
	var p dnsmessage.Parser
	head, err := p.Start(raw)
	if err != nil || head.Response {
		return question{}, false
	}
	q, err := p.Question()
	return question{raw, head, q}, err == nil
}

// answer is the reply to a message, empty for one that is no question.
func (l *lookup) answer(ctx context.Context, network string, message []byte) []byte {
	q, ok := parseQuestion(message)
	if !ok {
		return nil
	}
	if reply, given := l.given(q); given {
		return reply
	}
	return l.forward(ctx, network, q)
}

// given is the reply for a name whose addresses were given; false for other names,
// sub-domains of it among them.
func (l *lookup) given(q question) ([]byte, bool) {
	addrs, known := l.names[strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))]
	if !known || q.Class != dnsmessage.ClassINET {
		return nil, false
	}
	return response(q, dnsmessage.RCodeSuccess, addrs), true
}

// forward asks the name servers in turn.
func (l *lookup) forward(ctx context.Context, network string, q question) []byte {
	servers := l.servers
	if servers == nil {
		servers = systemServers("/etc/resolv.conf")
	}
	for _, server := range servers {
		if reply, err := exchange(ctx, network, server, q.raw); err == nil {
			return reply
		}
	}
	return response(q, dnsmessage.RCodeServerFailure, nil) // quicker for the asker than silence
}

func response(q question, code dnsmessage.RCode, addrs []netip.Addr) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: q.head.ID, Response: true, Authoritative: code == dnsmessage.RCodeSuccess, RCode: code,
		RecursionDesired: q.head.RecursionDesired, RecursionAvailable: true,
	})
	b.EnableCompression()
	failed := errors.Join(b.StartQuestions(), b.Question(q.Question), b.StartAnswers())
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: answerTTL}
	for _, a := range addrs {
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			failed = errors.Join(failed, b.AResource(h, dnsmessage.AResource{A: a.As4()}))
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			failed = errors.Join(failed, b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: a.As16()}))
		}
	}
	text, err := b.Finish()
	if errors.Join(failed, err) != nil {
		return nil
	}
	return text
}

// exchange asks one server.
func exchange(ctx context.Context, network, server string, query []byte) ([]byte, error) {
	d := net.Dialer{Timeout: lookupTime}
	c, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	_ = c.SetDeadline(time.Now().Add(lookupTime))
	if network == "tcp" {
		if err := writeFrame(c, query); err != nil {
			return nil, err
		}
		return readFrame(c)
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDPReply)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if n >= 2 && buf[0] == query[0] && buf[1] == query[1] { // else an answer to another question
			return buf[:n], nil
		}
	}
}

// readFrame reads a message as DNS has it on TCP, after its length.
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
	if len(b) > math.MaxUint16 {
		return errors.New("DNS message too long")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
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
	for lines.Scan() && len(servers) < maxServers {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			servers = append(servers, net.JoinHostPort(a.String(), "53"))
		}
	}
	return servers
}
