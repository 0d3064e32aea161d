package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Sizes of messages in bytes, and how many addresses of an answer are kept.
const (
	maxUDP       = 1232 // what we announce by EDNS: no fragments anywhere
	maxAddresses = 1024
)

var errTruncated = errors.New("answer is truncated")

// exchange asks one server once, by UDP and, if the answer was cut, by TCP.
func (r *Resolver) exchange(ctx context.Context, server, name string, v6 bool) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	id := uint16(rand.Uint32())
	query, err := question(id, name, v6)
	if err != nil {
		return Answer{}, err
	}
	if !r.opts.TCP {
		a, err := r.exchangeUDP(ctx, server, id, query)
		if !errors.Is(err, errTruncated) {
			return a, err
		}
	}
	return r.exchangeTCP(ctx, server, id, query)
}

func question(id uint16, name string, v6 bool) ([]byte, error) {
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	q := dnsmessage.Question{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	if v6 {
		q.Type = dnsmessage.TypeAAAA
	}
	var opt dnsmessage.ResourceHeader
	if err := opt.SetEDNS0(maxUDP, dnsmessage.RCodeSuccess, false); err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions:   []dnsmessage.Question{q},
		Additionals: []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{}}},
	}
	return m.Pack()
}

func (r *Resolver) dial(ctx context.Context, network, server string) (net.Conn, error) {
	d := net.Dialer{Control: r.opts.Control}
	c, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (r *Resolver) exchangeUDP(ctx context.Context, server string, id uint16, query []byte) (Answer, error) {
	c, err := r.dial(ctx, "udp", server)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := c.Write(query); err != nil {
		return Answer{}, err
	}
	buf := make([]byte, maxUDP)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return Answer{}, err
		}
		a, err := parse(buf[:n], id, query)
		if errors.Is(err, errStray) { // not to our question: somebody guesses
			continue
		}
		return a, err
	}
}

func (r *Resolver) exchangeTCP(ctx context.Context, server string, id uint16, query []byte) (Answer, error) {
	c, err := r.dial(ctx, "tcp", server)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return Answer{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return Answer{}, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, buf); err != nil {
		return Answer{}, err
	}
	return parse(buf, id, query)
}

// errStray marks a message that is no answer to our question.
var errStray = errors.New("not an answer to the question")

// parse reads the answer to query.
func parse(msg []byte, id uint16, query []byte) (Answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.ID != id || !h.Response {
		return Answer{}, errStray
	}
	if err := sameQuestion(&p, query); err != nil {
		return Answer{}, err
	}
	switch {
	case h.Truncated:
		return Answer{}, errTruncated
	case h.RCode == dnsmessage.RCodeNameError:
		return Answer{}, ErrNotFound
	case h.RCode != dnsmessage.RCodeSuccess:
		return Answer{}, fmt.Errorf("answered %s", h.RCode)
	}
	return addresses(&p)
}

func sameQuestion(p *dnsmessage.Parser, query []byte) error {
	var asked dnsmessage.Parser
	if _, err := asked.Start(query); err != nil {
		return err
	}
	want, err := asked.Question()
	if err != nil {
		return err
	}
	got, err := p.AllQuestions()
	if err != nil || len(got) != 1 || got[0].Type != want.Type || !equalFold(got[0].Name, want.Name) {
		return errStray
	}
	return nil
}

func equalFold(a, b dnsmessage.Name) bool {
	if a.Length != b.Length {
		return false
	}
	for i := range a.Length {
		if lower(a.Data[i]) != lower(b.Data[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// addresses collects the addresses of an answer; aliases on the way only lower the TTL.
func addresses(p *dnsmessage.Parser) (Answer, error) {
	var a Answer
	ttl := uint32(1<<31 - 1)
	for len(a.Addresses) < maxAddresses {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return Answer{}, err
		}
		ttl = min(ttl, h.TTL)
		switch h.Type {
		case dnsmessage.TypeA:
			r, err := p.AResource()
			if err != nil {
				return Answer{}, err
			}
			a.Addresses = append(a.Addresses, netip.AddrFrom4(r.A))
		case dnsmessage.TypeAAAA:
			r, err := p.AAAAResource()
			if err != nil {
				return Answer{}, err
			}
			a.Addresses = append(a.Addresses, netip.AddrFrom16(r.AAAA))
		default:
			if err := p.SkipAnswer(); err != nil {
				return Answer{}, err
			}
		}
	}
	if len(a.Addresses) == 0 {
		return Answer{}, ErrNotFound
	}
	a.TTL = time.Duration(ttl) * time.Second
	return a, nil
}
