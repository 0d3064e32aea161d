package grpcstats

import (
	"encoding/binary"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// prefixLength is a flag byte and the length of the message that follows.
const prefixLength = 5

// counted counts the length-prefixed messages of a body that flows through it. A
// message counts when its prefix has been read.
type counted struct {
	http.Body
	messages *uint64
	trailers func(*http.Headers) // is shown them, nil: nobody wants to know

	prefix [prefixLength]byte
	last   time.Time // when a piece, or the end, was read last
	have   int       // bytes of prefix that are read
	rest   uint32    // bytes of the message still to come
}

// Next is the next bytes of the body.
func (c *counted) Next() ([]byte, error) {
	p, err := c.Body.Next()
	c.count(p)
	c.last = time.Now()
	return p, err
}

// Trailers are those of the body.
func (c *counted) Trailers() *http.Headers {
	t := c.Body.Trailers()
	if t != nil && c.trailers != nil {
		c.trailers(t)
	}
	return t
}

func (c *counted) count(p []byte) {
	for len(p) > 0 {
		if c.rest > 0 {
			n := min(uint64(c.rest), uint64(len(p)))
			c.rest -= uint32(n)
			p = p[n:]
			continue
		}
		n := copy(c.prefix[c.have:], p)
		c.have += n
		p = p[n:]
		if c.have == prefixLength {
			*c.messages++
			c.have, c.rest = 0, binary.BigEndian.Uint32(c.prefix[1:])
		}
	}
}
