package http1

import (
	"net"
	"strconv"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A sender writes the messages of one direction of a connection. Bytes gather in out
// until flush; long pieces of a body leave at once, together with what has gathered.
type sender struct {
	conn     transport.Conn
	out      []byte
	chunked  bool // the body is framed in chunks
	mute     bool // the body is not sent (answer to HEAD)
	over     bool // the message is written to its end
	spelling Case // of names
	sent     uint64
	vec      [3][]byte
	bufs     net.Buffers
}

// Pieces of a body longer than direct are written without a copy; out is flushed when
// it has grown to full.
const (
	direct  = 8 << 10
	full    = 32 << 10
	maxKept = 64 << 10
)

// flush writes what has gathered.
func (c *sender) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out)
	if cap(c.out) > maxKept {
		c.out = nil
	} else {
		c.out = c.out[:0]
	}
	return err
}

// fields appends header lines. It returns whether a content-length was among them.
func (c *sender) fields(h *http.Headers, skipLength bool) (sized bool) {
	out := c.out
	for i := range h.Fields {
		f := &h.Fields[i]
		if len(f.Name) == 14 && http.EqualFold(f.Name, "content-length") {
			if skipLength {
				continue
			}
			sized = true
		}
		switch c.spelling {
		case AsRead:
			out = append(out, f.Name...)
		case ProperCase:
			out = appendProper(out, f.Name)
		default:
			out = appendLower(out, f.Name)
		}
		out = append(out, ": "...)
		out = append(out, f.Value...)
		out = append(out, "\r\n"...)
	}
	c.out = out
	return sized
}

func appendLower(out, name []byte) []byte {
	n := len(out)
	out = append(out, name...)
	for i := n; i < len(out); i++ {
		out[i] = http.Lower(out[i])
	}
	return out
}

// line appends a header line of our own; its name is in lower case.
func (c *sender) line(name, value string) {
	n := len(c.out)
	c.out = append(c.out, name...)
	if c.spelling == ProperCase {
		proper(c.out[n:])
	}
	c.out = append(append(append(c.out, ": "...), value...), "\r\n"...)
}

// appendProper begins each word of a name with a capital letter. Letters within words stay
// as in lower case.
func appendProper(out, name []byte) []byte {
	n := len(out)
	out = appendLower(out, name)
	proper(out[n:])
	return out
}

func proper(name []byte) {
	begins := true
	for i, c := range name {
		letter := c >= 'a' && c <= 'z'
		if begins && letter {
			name[i] = c - 'a' + 'A'
		}
		begins = !letter && (c < '0' || c > '9')
	}
}

// body appends or writes a piece of the body; p is not kept.
func (c *sender) body(p []byte, last bool) error {
	c.over = c.over || last
	if c.mute {
		return nil
	}
	c.sent += uint64(len(p))
	var tail string
	if c.chunked {
		if len(p) > 0 {
			c.out = strconv.AppendUint(c.out, uint64(len(p)), 16)
			c.out = append(c.out, "\r\n"...)
			tail = "\r\n"
		}
		if last {
			tail = "\r\n0\r\n\r\n"
			if len(p) == 0 {
				tail = "0\r\n\r\n"
			}
		}
	}
	if len(p) > direct {
		return c.writeThrough(p, tail)
	}
	c.out = append(append(c.out, p...), tail...)
	if len(c.out) > full {
		return c.flush()
	}
	return nil
}

// writeThrough writes out, p and tail in one call without copying p.
func (c *sender) writeThrough(p []byte, tail string) error {
	n := len(c.out)
	c.out = append(c.out, tail...)
	c.vec[0], c.vec[1], c.vec[2] = c.out[:n], p, c.out[n:]
	c.bufs = c.vec[:]
	if n == 0 {
		c.bufs = c.vec[1:]
	}
	if len(tail) == 0 {
		c.bufs = c.bufs[:len(c.bufs)-1]
	}
	_, err := c.conn.WriteBuffers(&c.bufs)
	c.out, c.vec[1] = c.out[:0], nil
	return err
}

// trailers ends a chunked body; without keep they are dropped.
func (c *sender) trailers(h *http.Headers, keep bool) {
	c.over = true
	if c.mute || !c.chunked {
		return
	}
	c.out = append(c.out, "0\r\n"...)
	if keep && h != nil {
		c.fields(h, true)
	}
	c.out = append(c.out, "\r\n"...)
}
