package network

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	maxAnswers = 1024
	answerTime = 5 * time.Second // at most; names outside change like names inside
)

// answers are those of outside that are still fresh.
type answers struct {
	mu sync.Mutex
	by map[asked]kept
}

// asked is what makes two questions the same.
type asked struct {
	name string
	kind dnsmessage.Type
	edns bool
	bits uint16 // of the header: what the asker wants
}

type kept struct {
	reply []byte
	until time.Time
}

func newAnswers() *answers { return &answers{by: map[asked]kept{}} }

func (q question) asked() asked {
	return asked{q.name, q.q.Type, q.edns, binary.BigEndian.Uint16(q.raw[2:4])}
}

// find returns a fresh answer under the question's own number, nil for none.
func (a *answers) find(q question) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, known := a.by[q.asked()]
	if !known || !time.Now().Before(k.until) {
		return nil
	}
	reply := slices.Clone(k.reply)
	binary.BigEndian.PutUint16(reply, q.head.ID)
	return reply
}

// keep remembers an answer for as long as its records allow.
func (a *answers) keep(q question, reply []byte) {
	life := freshFor(reply)
	if life <= 0 || q.q.Class != dnsmessage.ClassINET {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if len(a.by) >= maxAnswers {
		for key, k := range a.by {
			if !now.Before(k.until) || len(a.by) >= maxAnswers {
				delete(a.by, key)
			}
		}
	}
	a.by[q.asked()] = kept{reply, now.Add(life)}
}

// freshFor is how long an answer holds; 0 for one that says nothing.
func freshFor(reply []byte) time.Duration {
	var p dnsmessage.Parser
	head, err := p.Start(reply)
	if err != nil || head.Truncated || head.RCode != dnsmessage.RCodeSuccess && head.RCode != dnsmessage.RCodeNameError {
		return 0
	}
	if p.SkipAllQuestions() != nil {
		return 0
	}
	life := answerTime
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return life
		}
		if err != nil || p.SkipAnswer() != nil {
			return 0
		}
		life = min(life, time.Duration(h.TTL)*time.Second)
	}
}

// withAliases replaces addresses of this machine's loopback, which in a pod would be the
// pod's. An IPv6 one becomes the alias in its IPv4-mapped form.
func withAliases(reply []byte, a *aliases) ([]byte, error) {
	var p dnsmessage.Parser
	if _, err := p.Start(reply); err != nil {
		return nil, err
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, err
	}
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return reply, nil
		}
		if err != nil {
			return nil, err
		}
		if err := p.SkipAnswer(); err != nil {
			return nil, err
		}
		if h.Type == dnsmessage.TypeA || h.Type == dnsmessage.TypeAAAA {
			return repacked(reply, a)
		}
	}
}

// repacked is withAliases for an answer that has addresses.
func repacked(reply []byte, a *aliases) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(reply); err != nil {
		return nil, err
	}
	changed := false
	for _, r := range m.Answers {
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			if alias, ok := a.instead(netip.AddrFrom4(body.A)); ok {
				body.A, changed = alias.As4(), true
			}
		case *dnsmessage.AAAAResource:
			if alias, ok := a.instead(netip.AddrFrom16(body.AAAA).Unmap()); ok {
				body.AAAA, changed = alias.As16(), true
			}
		}
	}
	if !changed {
		return reply, nil
	}
	return m.Pack()
}

// instead is the alias of a loopback address; false for others.
func (a *aliases) instead(addr netip.Addr) (netip.Addr, bool) {
	if !addr.IsLoopback() {
		return addr, false
	}
	return a.alias(addr)
}
