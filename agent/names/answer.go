package names

import (
	"math/rand/v2"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lateen-mesh/lateen/nametable"
)

// Sizes of answers: of a datagram without EDNS, the most of one with it, and by TCP.
const (
	udpSize = 512
	maxUDP  = maxDatagram
	tcpSize = 65535
)

// timeToLive is that of answers, in seconds.
const timeToLive = 30

const kubernetes = "Kubernetes"

// A found name is one of the table; alias says that it was asked for by a longer one.
type found struct {
	nametable.Name
	canonical string // name of the addresses
	alias     bool
}

// find looks a name up, in lower case and without its final dot.
func (s *Server) find(table nametable.Table, name string) (found, bool) {
	if n, ok := s.exact(table, name); ok {
		return found{Name: n, canonical: name}, true
	}
	bases := s.bases(name)
	for _, base := range bases {
		if n, ok := s.exact(table, base); ok {
			return found{n, base, true}, true
		}
	}
	if n, ok := below(table, name); ok {
		return found{Name: n, canonical: name}, true
	}
	for _, base := range bases {
		if n, ok := below(table, base); ok {
			return found{n, base, true}, true
		}
	}
	return found{}, false
}

// exact finds a name as it stands, or as a shorter form of a Service.
func (s *Server) exact(table nametable.Table, name string) (nametable.Name, bool) {
	if n, ok := table[name]; ok {
		return n, true
	}
	for _, suffix := range []string{"." + s.o.Namespace + ".svc." + s.o.Domain, ".svc." + s.o.Domain, "." + s.o.Domain} {
		if n, ok := table[name+suffix]; ok && n.Registry == kubernetes {
			return n, true
		}
	}
	return nametable.Name{}, false
}

// bases are what a name is without the search domains that a resolver may have appended.
func (s *Server) bases(name string) []string {
	var all []string
	for _, domain := range s.o.Search {
		if base, ok := strings.CutSuffix(name, "."+domain); ok && base != "" {
			all = append(all, base)
		}
	}
	return all
}

// below finds the longest "*." that a name is below of.
func below(table nametable.Table, name string) (nametable.Name, bool) {
	for {
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return nametable.Name{}, false
		}
		if n, ok := table["*."+parent]; ok {
			return n, true
		}
		name = parent
	}
}

// answer is what the table says; known is false for a question that others are to answer.
// A message that is no question is known, and has no answer.
func (s *Server) answer(message []byte, size int) (answer []byte, known bool) {
	var p dnsmessage.Parser
	head, err := p.Start(message)
	if err != nil || head.Response {
		return nil, true
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return failure(head, nil, dnsmessage.RCodeFormatError), true
	}
	q := questions[0]
	table := s.Table()
	if table == nil || head.OpCode != 0 || q.Class != dnsmessage.ClassINET || q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA {
		return nil, false
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	n, ok := s.find(table, name)
	if !ok {
		return nil, false
	}
	if size == udpSize {
		size = datagram(&p)
	}
	return respond(head, q, n, size), true
}

// datagram is the size that the asker takes.
func datagram(p *dnsmessage.Parser) int {
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return udpSize
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return udpSize
		}
		if h.Type == dnsmessage.TypeOPT {
			return min(max(int(h.Class), udpSize), maxUDP)
		}
		if p.SkipAdditional() != nil {
			return udpSize
		}
	}
}

// respond writes the addresses of the family that is asked for, in an order of chance. What does
// not fit is left out and said so.
func respond(head dnsmessage.Header, q dnsmessage.Question, n found, size int) []byte {
	addresses := family(n.Addresses, q.Type)
	out := build(head, q, n, addresses, false)
	for len(out) > size && len(addresses) > 0 {
		addresses = addresses[:len(addresses)/2]
		out = build(head, q, n, addresses, true)
	}
	return out
}

func family(all []string, kind dnsmessage.Type) []netip.Addr {
	var out []netip.Addr
	for _, text := range all {
		if ip, err := netip.ParseAddr(text); err == nil && ip.Unmap().Is4() == (kind == dnsmessage.TypeA) {
			out = append(out, ip.Unmap())
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func build(head dnsmessage.Header, q dnsmessage.Question, n found, addresses []netip.Addr, cut bool) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: head.ID, Response: true, Authoritative: true, Truncated: cut,
		RecursionDesired: head.RecursionDesired, RecursionAvailable: true})
	b.EnableCompression()
	owner := q.Name
	err := b.StartQuestions()
	if err == nil {
		err = b.Question(q)
	}
	if err == nil {
		err = b.StartAnswers()
	}
	record := func(kind dnsmessage.Type) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: owner, Type: kind, Class: dnsmessage.ClassINET, TTL: timeToLive}
	}
	if n.alias && err == nil {
		var to dnsmessage.Name
		if to, err = dnsmessage.NewName(n.canonical + "."); err == nil {
			err = b.CNAMEResource(record(dnsmessage.TypeCNAME), dnsmessage.CNAMEResource{CNAME: to})
			owner = to
		}
	}
	for _, ip := range addresses {
		if err != nil {
			break
		}
		if ip.Is4() {
			err = b.AResource(record(dnsmessage.TypeA), dnsmessage.AResource{A: ip.As4()})
		} else {
			err = b.AAAAResource(record(dnsmessage.TypeAAAA), dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
	}
	if err != nil {
		return failure(head, &q, dnsmessage.RCodeServerFailure)
	}
	out, err := b.Finish()
	if err != nil {
		return failure(head, &q, dnsmessage.RCodeServerFailure)
	}
	return out
}

// failure is an answer that says what went wrong.
func failure(head dnsmessage.Header, q *dnsmessage.Question, code dnsmessage.RCode) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: head.ID, Response: true, OpCode: head.OpCode,
		RecursionDesired: head.RecursionDesired, RecursionAvailable: true, RCode: code}}
	if q != nil {
		m.Questions = []dnsmessage.Question{*q}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}
