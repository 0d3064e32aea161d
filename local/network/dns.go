package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsPort        = 53
	clusterTTL     = 5   // seconds
	maxQuestions   = 512 // at once; more are dropped, as UDP does
	maxCallers     = 256 // connections
	callerTime     = 10 * time.Second
	plainUDP       = 512 // bytes of an answer to who says nothing else
	maxUDP         = 4096
	maxRecords     = 1000 // of an answer
	maxMessage     = 65535
	maxIndirection = 8 // names of ExternalName
)

// names is the DNS server of the mesh. Safe for concurrent use.
type names struct {
	mesh      *mesh
	zone      atomic.Pointer[zone]
	cache     *answers
	questions chan struct{}
	callers   chan struct{}
}

// serveNames listens at the mesh's address for DNS.
func serveNames(m *mesh) (*names, error) {
	n := &names{mesh: m, cache: newAnswers(), questions: make(chan struct{}, maxQuestions), callers: make(chan struct{}, maxCallers)}
	n.set(nil)
	at := netip.AddrPortFrom(m.plan.dns, dnsPort)
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, fmt.Errorf("DNS server: %w", err)
	}
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
	if err != nil {
		_ = udp.Close()
		return nil, fmt.Errorf("DNS server: %w", err)
	}
	m.until(udp)
	m.until(tcp)
	m.serving.Go(func() { n.serveUDP(udp) })
	m.serving.Go(func() { n.serveTCP(tcp) })
	return n, nil
}

// set replaces the names of the cluster.
func (n *names) set(all []Service) { n.zone.Store(newZone(n.mesh.plan, all)) }

func (n *names) serveUDP(c *net.UDPConn) {
	buf := make([]byte, maxMessage)
	for {
		size, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		q, err := parseQuestion(buf[:size])
		if err != nil {
			continue
		}
		if reply, ours := n.known(q, false); ours { // at once, whatever becomes of the others
			_, _ = c.WriteToUDPAddrPort(fit(reply, q), from)
			continue
		}
		select {
		case n.questions <- struct{}{}:
		default:
			continue
		}
		q.raw = slices.Clone(q.raw)
		n.mesh.serving.Go(func() {
			defer func() { <-n.questions }()
			if reply := n.answer(n.mesh.ctx, "udp", q); reply != nil {
				_, _ = c.WriteToUDPAddrPort(fit(reply, q), from)
			}
		})
	}
}

func (n *names) serveTCP(l *net.TCPListener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !pause(n.mesh.ctx) {
				return
			}
			continue
		}
		select {
		case n.callers <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		n.mesh.serving.Go(func() {
			defer func() { <-n.callers }()
			stop := context.AfterFunc(n.mesh.ctx, func() { _ = c.Close() })
			defer stop()
			defer c.Close()
			n.converse(c)
		})
	}
}

// converse answers the questions of one connection in turn.
func (n *names) converse(c net.Conn) {
	for {
		_ = c.SetDeadline(time.Now().Add(callerTime))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		raw := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, raw); err != nil {
			return
		}
		q, err := parseQuestion(raw)
		if err != nil {
			return
		}
		reply := n.answer(n.mesh.ctx, "tcp", q)
		if reply == nil || len(reply) > maxMessage {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// A question is a DNS message that asks one thing.
type question struct {
	raw  []byte
	head dnsmessage.Header
	q    dnsmessage.Question
	name string // in lower case without the final dot
	udp  int    // bytes of an answer by UDP
	edns bool
}

func parseQuestion(raw []byte) (question, error) {
	var p dnsmessage.Parser
	head, err := p.Start(raw)
	if err != nil {
		return question{}, err
	}
	if head.Response || head.OpCode != 0 {
		return question{}, errors.New("no question")
	}
	q, err := p.Question()
	if err != nil {
		return question{}, err
	}
	out := question{raw: raw, head: head, q: q, udp: plainUDP, name: strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))}
	if errors.Join(p.SkipAllQuestions(), p.SkipAllAnswers(), p.SkipAllAuthorities()) != nil {
		return out, nil
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return out, nil
		}
		if h.Type == dnsmessage.TypeOPT {
			out.edns = true
			out.udp = min(max(int(h.Class), plainUDP), maxUDP)
		}
		if p.SkipAdditional() != nil {
			return out, nil
		}
	}
}

// fit makes an answer short enough for UDP: one that is too long becomes an empty one
// that says so.
func fit(reply []byte, q question) []byte {
	if len(reply) <= q.udp {
		return reply
	}
	var p dnsmessage.Parser
	head, err := p.Start(reply)
	if err != nil {
		return nil
	}
	head.Truncated = true
	b := dnsmessage.NewBuilder(nil, head)
	if errors.Join(b.StartQuestions(), b.Question(q.q)) != nil {
		return nil
	}
	short, err := b.Finish()
	if err != nil {
		return nil
	}
	return short
}

// answer is the reply to a question, nil for none.
func (n *names) answer(ctx context.Context, network string, q question) []byte {
	if reply, ours := n.known(q, true); ours {
		return reply
	}
	return n.outside(ctx, network, q)
}

// outside asks the outside half, unless it was asked of late.
func (n *names) outside(ctx context.Context, network string, q question) []byte {
	if reply := n.cache.find(q); reply != nil {
		return reply
	}
	if n.mesh.o.Outside == nil {
		return n.reply(q, dnsmessage.RCodeServerFailure, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, callerTime)
	defer cancel()
	reply, err := n.mesh.o.Outside.Query(ctx, network, q.raw)
	if err != nil || len(reply) == 0 {
		return n.reply(q, dnsmessage.RCodeServerFailure, nil)
	}
	if reply, err = withAliases(reply, n.mesh.aliases); err != nil {
		return n.reply(q, dnsmessage.RCodeServerFailure, nil)
	}
	n.cache.keep(q, reply)
	return reply
}

// known is the reply to a question about the cluster; false for others. Names of
// ExternalName may lead outside, which is followed only if the caller can wait.
func (n *names) known(q question, wait bool) ([]byte, bool) {
	z := n.zone.Load()
	if q.q.Class != dnsmessage.ClassINET {
		return nil, false
	}
	if a, ok := pointer(q.name); ok {
		return n.knownPointer(z, q, a)
	}
	if !z.covers(q.name) {
		return nil, false
	}
	r, exists := z.find(q.name)
	if !exists {
		return n.reply(q, dnsmessage.RCodeNameError, nil), true
	}
	if r.cname == "" {
		return n.reply(q, dnsmessage.RCodeSuccess, r.resources(q.q.Name, q.q.Type)), true
	}
	if !wait {
		return nil, false
	}
	return n.follow(z, q, r.cname), true
}

func (n *names) knownPointer(z *zone, q question, a netip.Addr) ([]byte, bool) {
	if !n.mesh.plan.pods.Contains(a) && !n.mesh.plan.services.Contains(a) && !n.mesh.plan.pods6.Contains(a) {
		return nil, false
	}
	name, exists := z.pointers[a]
	if !exists {
		return n.reply(q, dnsmessage.RCodeNameError, nil), true
	}
	target, err := dnsmessage.NewName(name + ".")
	if err != nil || q.q.Type != dnsmessage.TypePTR {
		return n.reply(q, dnsmessage.RCodeSuccess, nil), true
	}
	return n.reply(q, dnsmessage.RCodeSuccess, []dnsmessage.Resource{{Header: header(q.q.Name), Body: &dnsmessage.PTRResource{PTR: target}}}), true
}

// follow answers for a name that stands for another one, in the cluster or outside.
func (n *names) follow(z *zone, q question, target string) []byte {
	var all []dnsmessage.Resource
	from := q.q.Name
	for range maxIndirection {
		to, err := dnsmessage.NewName(target + ".")
		if err != nil {
			return n.reply(q, dnsmessage.RCodeServerFailure, nil)
		}
		all = append(all, dnsmessage.Resource{Header: header(from), Body: &dnsmessage.CNAMEResource{CNAME: to}})
		if q.q.Type == dnsmessage.TypeCNAME {
			return n.reply(q, dnsmessage.RCodeSuccess, all)
		}
		if !z.covers(target) {
			return n.reply(q, dnsmessage.RCodeSuccess, append(all, n.ask(q, to)...))
		}
		r, exists := z.find(target)
		if !exists || r.cname == "" {
			return n.reply(q, dnsmessage.RCodeSuccess, append(all, r.resources(to, q.q.Type)...))
		}
		from, target = to, r.cname
	}
	return n.reply(q, dnsmessage.RCodeServerFailure, nil)
}

// ask returns the answers to a question of ours about a name outside.
func (n *names) ask(q question, name dnsmessage.Name) []dnsmessage.Resource {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: q.q.Type, Class: q.q.Class}}}
	raw, err := m.Pack()
	if err != nil {
		return nil
	}
	parsed, err := parseQuestion(raw)
	if err != nil {
		return nil
	}
	for _, network := range []string{"udp", "tcp"} {
		var p dnsmessage.Parser
		head, err := p.Start(n.outside(n.mesh.ctx, network, parsed))
		if err != nil || p.SkipAllQuestions() != nil {
			return nil
		}
		if head.Truncated {
			continue
		}
		all, err := p.AllAnswers()
		if err != nil {
			return nil
		}
		return all
	}
	return nil
}

func header(name dnsmessage.Name) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: clusterTTL}
}

// resources are the records of a type, those with addresses in any order.
func (r records) resources(name dnsmessage.Name, t dnsmessage.Type) []dnsmessage.Resource {
	var all []dnsmessage.Resource
	for _, a := range r.addresses {
		switch {
		case t == dnsmessage.TypeA && a.Is4():
			all = append(all, dnsmessage.Resource{Header: header(name), Body: &dnsmessage.AResource{A: a.As4()}})
		case t == dnsmessage.TypeAAAA && a.Is6():
			all = append(all, dnsmessage.Resource{Header: header(name), Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if t != dnsmessage.TypeSRV {
		return all
	}
	for _, s := range r.services {
		if target, err := dnsmessage.NewName(s.target + "."); err == nil {
			all = append(all, dnsmessage.Resource{Header: header(name), Body: &dnsmessage.SRVResource{Weight: 1, Port: s.port, Target: target}})
		}
	}
	return all
}

// reply packs an answer. One without records says by an SOA record how long that holds.
func (n *names) reply(q question, code dnsmessage.RCode, all []dnsmessage.Resource) []byte {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: q.head.ID, Response: true, Authoritative: code != dnsmessage.RCodeServerFailure, RCode: code,
			RecursionDesired: q.head.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q.q},
		Answers:   all[:min(len(all), maxRecords)],
	}
	if len(all) == 0 && code != dnsmessage.RCodeServerFailure {
		m.Authorities = []dnsmessage.Resource{soa()}
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		_ = h.SetEDNS0(maxUDP, dnsmessage.RCodeSuccess, false) // fails for no RCode of ours
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	raw, err := m.Pack()
	if err != nil {
		return nil
	}
	return raw
}

func soa() dnsmessage.Resource {
	zone := dnsmessage.MustNewName(clusterDomain + ".")
	return dnsmessage.Resource{Header: header(zone), Body: &dnsmessage.SOAResource{
		NS: dnsmessage.MustNewName("ns.dns." + clusterDomain + "."), MBox: dnsmessage.MustNewName("hostmaster." + clusterDomain + "."),
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, MinTTL: clusterTTL,
	}}
}
