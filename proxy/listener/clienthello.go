package listener

import (
	"encoding/binary"
	"slices"
)

// maxHello bounds the bytes that the TLS inspector looks at. A client hello with
// post-quantum key shares has some 1.8 KiB; Envoy gives up at 16 KiB as well.
const maxHello = 16 << 10

// A hello is what a TLS client says before anything is decrypted.
type hello struct {
	serverName string   // lower case, "" when the client sent none
	protocols  []string // ALPN, in the client's order
}

// sight is what the bytes seen so far allow to say.
type sight uint8

const (
	more    sight = iota // not enough bytes yet
	absent               // this is something else
	present              // found
)

// parseHello reads a TLS client hello from the first bytes of a stream. It accepts
// what a handshake could go on with, and leaves all other checks to the handshake.
func parseHello(b []byte) (hello, sight) {
	body, s := handshake(b)
	if s != present {
		return hello{}, s
	}
	// client_version, random, session_id, cipher_suites, compression_methods
	r := reader{b: body}
	r.skip(2 + 32)
	r.skip(int(r.u8()))
	r.skip(int(r.u16()))
	r.skip(int(r.u8()))
	if r.bad {
		return hello{}, absent
	}
	if len(r.b) == 0 { // extensions are optional
		return hello{}, present
	}
	var h hello
	ext := reader{b: r.take(int(r.u16()))}
	if r.bad || len(r.b) != 0 {
		return hello{}, absent
	}
	for len(ext.b) > 0 {
		kind := ext.u16()
		data := reader{b: ext.take(int(ext.u16()))}
		switch kind {
		case 0:
			h.serverName = serverName(&data)
		case 16:
			h.protocols = protocols(&data)
		}
		if ext.bad || data.bad {
			return hello{}, absent
		}
	}
	return h, present
}

// handshake joins the records of the first handshake message and returns the body of
// a client hello.
func handshake(b []byte) ([]byte, sight) {
	var message []byte
	for records := 0; ; records++ {
		if len(b) > 0 && b[0] != 22 || len(b) > 1 && b[1] != 3 {
			return nil, absent
		}
		if len(b) < 5 {
			return nil, more
		}
		n := int(binary.BigEndian.Uint16(b[3:]))
		if n == 0 || n > 1<<14 {
			return nil, absent
		}
		part := b[5:min(len(b), 5+n)]
		switch records {
		case 0:
			message = part
		case 1: // part of the caller's bytes until here
			message = append(slices.Clip(message), part...)
		default:
			message = append(message, part...)
		}
		if len(message) > 0 && message[0] != 1 {
			return nil, absent
		}
		if len(message) >= 4 {
			size := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
			if size > maxHello {
				return nil, absent
			}
			if len(message) >= 4+size {
				return message[4 : 4+size], present
			}
		}
		if len(b) < 5+n {
			return nil, more
		}
		b = b[5+n:]
	}
}

// serverName reads the server_name extension; only host names exist.
func serverName(r *reader) string {
	list := reader{b: r.take(int(r.u16()))}
	name := ""
	for len(list.b) > 0 {
		kind := list.u8()
		value := list.take(int(list.u16()))
		if kind == 0 && name == "" {
			name = lower(value)
		}
	}
	r.bad = r.bad || list.bad || len(r.b) != 0
	return name
}

func protocols(r *reader) []string {
	list := reader{b: r.take(int(r.u16()))}
	var names []string
	for len(list.b) > 0 {
		p := list.take(int(list.u8()))
		if len(p) == 0 {
			list.bad = true
			break
		}
		names = append(names, string(p))
	}
	r.bad = r.bad || list.bad || len(r.b) != 0
	return names
}

func lower(b []byte) string {
	c := make([]byte, len(b))
	for i, x := range b {
		if x >= 'A' && x <= 'Z' {
			x += 'a' - 'A'
		}
		c[i] = x
	}
	return string(c)
}

// reader takes big-endian numbers and runs of bytes; after the first failure bad is
// set and every further call yields nothing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) skip(n int) { r.take(n) }

func (r *reader) u8() uint8 {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if p := r.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}
