package transport

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

const (
	// ticketKeySize is the size of a session ticket key in a configuration.
	ticketKeySize = 80
	// sessionLife is how long a session may be resumed where nothing is configured.
	sessionLife = 2 * time.Hour
)

// A ticketKey encrypts session tickets; the first of a list encrypts, all decrypt.
type ticketKey = [32]byte

// compileTicketKeys makes keys of crypto/tls's size of the configured ones, which have
// one size for the cipher, one for the digest and a name.
func compileTicketKeys(c *tlsv3.TlsSessionTicketKeys) ([]ticketKey, error) {
	var keys []ticketKey
	for i, k := range c.GetKeys() {
		b, from, err := read(k)
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		if len(b) != ticketKeySize {
			return nil, fmt.Errorf("keys[%d]: incorrect TLS session ticket key length in %s: length %d, expected length %d", i, from, len(b), ticketKeySize)
		}
		keys = append(keys, sha256.Sum256(b))
	}
	return keys, nil
}

// bornMark begins what a ticket says of the time when its session began.
const bornMark = "lateen:born:"

// limitSessions has c resume sessions for no longer than life.
func limitSessions(c *tls.Config, life time.Duration) {
	c.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		if _, ok := born(s); !ok { // a resumed session keeps its time
			s.Extra = append(s.Extra, binary.BigEndian.AppendUint64([]byte(bornMark), uint64(time.Now().Unix())))
		}
		return c.EncryptTicket(cs, s)
	}
	c.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		s, err := c.DecryptTicket(identity, cs)
		if err != nil || s == nil {
			return s, err
		}
		if at, ok := born(s); !ok || time.Since(at) >= life {
			return nil, nil // a full handshake
		}
		return s, nil
	}
}

func born(s *tls.SessionState) (time.Time, bool) {
	for _, x := range s.Extra {
		if n := len(bornMark); len(x) == n+8 && string(x[:n]) == bornMark {
			return time.Unix(int64(binary.BigEndian.Uint64(x[n:])), 0), true
		}
	}
	return time.Time{}, false
}
