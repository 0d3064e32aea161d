package transport

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
	"time"
)

// maxVerified bounds the chains that one trust remembers.
const maxVerified = 1024

// A chainID tells chains apart: a hash of all that the peer has sent, and of what it is used for.
type chainID [sha256.Size]byte

// verified remembers chains that led to some roots, so that a peer that connects again costs no
// signature but that of its own key, which crypto/tls checks each time. Other roots have another,
// which is empty. Safe for concurrent use.
type verified struct {
	mu   sync.Mutex
	span map[chainID]span
}

// A span is the time in which all certificates of a chain are valid.
type span struct{ from, to time.Time }

func newVerified() *verified { return &verified{span: map[chainID]span{}} }

func idOf(chain []*x509.Certificate, usage x509.ExtKeyUsage) (id chainID) {
	h := sha256.New()
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(usage))
	h.Write(size[:])
	for _, c := range chain {
		binary.BigEndian.PutUint64(size[:], uint64(len(c.Raw)))
		h.Write(size[:])
		h.Write(c.Raw)
	}
	h.Sum(id[:0])
	return id
}

// has reports whether a chain is known that is valid at that time.
func (v *verified) has(id chainID, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, ok := v.span[id]
	return ok && !now.Before(s.from) && !now.After(s.to)
}

// keep remembers a chain by all ways in which it was verified: it is known while all are valid.
func (v *verified) keep(id chainID, ways [][]*x509.Certificate) {
	s := span{from: ways[0][0].NotBefore, to: ways[0][0].NotAfter}
	for _, chain := range ways {
		for _, c := range chain {
			if c.NotBefore.After(s.from) {
				s.from = c.NotBefore
			}
			if c.NotAfter.Before(s.to) {
				s.to = c.NotAfter
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.span) >= maxVerified {
		clear(v.span)
	}
	v.span[id] = s
}
