package http1

import (
	"errors"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A receiver reads the messages of one direction of a connection and is the body of
// the one that is being read.
//
// The head lies at the start of the head buffer. Body bytes that came with it follow
// there; more are read into the rest of that buffer or, when it is short or the body
// long, into an overflow buffer, so that the head stays as it is.
type receiver struct {
	conn     transport.Conn
	head     buffer
	overflow buffer

	area []byte // where bytes are read into: head or overflow
	lo   int    // the first byte of area that may be written
	r, w int    // area[r:w] is read from the connection and not used yet

	mode     mode
	left     int64 // bytes of the body or of the chunk still to come
	state    chunkState
	line     uint8       // where in a chunk's line, lineBlank …
	size     uint64      // of the chunk whose digits are read
	done     atomic.Bool // the message is complete; a watcher looks at it
	failed   error
	keep     bool // hand on trailers
	lenient  bool // line ends may come before a head
	trailers *http.Headers
	limit    int

	received atomic.Uint64 // bytes of the body read, as they were framed off; a log may look while they still come
	broke    atomic.Bool   // failed is set
	first    time.Time     // when the first byte of the message came
	blank    bool          // a line end came before it
}

// A mode is how a body is framed.
type mode uint8

const (
	none    mode = iota
	sized        // content-length
	chunks       // transfer-encoding: chunked
	untilFI      // until the connection ends
)

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkData
	chunkEnd
	chunkTrailers
)

// begin starts the body of a message whose head ended before r.
func (c *receiver) begin(m mode, n int64) {
	c.mode, c.left, c.state, c.failed, c.trailers = m, n, chunkSize, nil, nil
	c.line, c.size = lineBlank, 0
	c.broke.Store(false)
	c.done.Store(m == none || m == sized && n == 0)
	c.lo = c.r
}

// recycle makes the receiver ready for the next head: what was read beyond the
// message moves to the start of the head buffer.
func (c *receiver) recycle() {
	rest := c.area[c.r:c.w]
	if (c.head.l != nil || c.head.m != nil) && len(rest) <= smallSize {
		old := c.head
		c.head = buffer{}
		c.head.ensure(false)
		copy(c.head.bytes(), rest)
		old.free()
	} else {
		c.head.ensure(len(rest) > smallSize)
		if len(rest) > len(c.head.bytes()) {
			c.head.grow(0)
		}
		copy(c.head.bytes(), rest)
	}
	c.overflow.free()
	c.area, c.lo, c.r, c.w = c.head.bytes(), 0, 0, len(rest)
	c.first, c.blank = time.Time{}, false
}

// free gives all memory back; nothing read may be left.
func (c *receiver) free() {
	c.head.free()
	c.overflow.free()
	c.area, c.lo, c.r, c.w = nil, 0, 0, 0
}

// pending reports whether bytes are at hand beyond the message.
func (c *receiver) pending() bool { return c.r < c.w }

// readHead reads until a complete head is at area[0:], and returns its length. early
// may refuse what has come so far.
func (c *receiver) readHead(max int, early func([]byte) error) (int, error) {
	for next := 0; ; {
		if c.lenient {
			c.skipBlank()
		}
		if c.r < c.w {
			if c.first.IsZero() {
				c.first = time.Now()
			}
			end, from := headEnd(c.area[:c.w], next)
			if end > max || end == 0 && c.w >= max {
				return 0, errTooLarge
			}
			if end > 0 {
				return end, nil
			}
			if err := early(c.area[:c.w]); err != nil {
				return 0, err
			}
			next = from
		}
		if c.w == len(c.area) {
			c.head.grow(c.w)
			c.area = c.head.bytes()
		}
		if err := c.read(); err != nil {
			return 0, err
		}
	}
}

// skipBlank drops line ends that come before a request.
func (c *receiver) skipBlank() {
	n := 0
	for n < c.w && (c.area[n] == '\r' || c.area[n] == '\n') {
		n++
	}
	if n > 0 {
		c.w = copy(c.area, c.area[n:c.w])
		c.blank = true
	}
}

// read appends what the connection has to area[:w].
func (c *receiver) read() error {
	n, err := c.conn.Read(c.area[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// minRoom is how much of the head buffer must be free to read body bytes there.
const minRoom = 2 << 10

// fill makes room and reads; what is unused stays.
func (c *receiver) fill() error {
	if c.r == c.w {
		c.r, c.w = c.lo, c.lo
	}
	room := len(c.area) - c.w
	if c.overflow.l == nil && (room < minRoom || c.long(room)) {
		c.overflow.ensure(true)
		c.w = copy(c.overflow.l[:], c.area[c.r:c.w])
		c.area, c.lo, c.r = c.overflow.l[:], 0, 0
	} else if c.r > c.lo && room < minRoom {
		c.w = c.lo + copy(c.area[c.lo:], c.area[c.r:c.w])
		c.r = c.lo
	}
	if c.w == len(c.area) {
		return errCodec // a line that does not fit
	}
	return c.read()
}

// long reports that the rest of the body does not fit into the room.
func (c *receiver) long(room int) bool { return c.mode == sized && c.left > int64(room) }

// Next returns the next bytes of the body.
func (c *receiver) Next() ([]byte, error) {
	for {
		if c.failed != nil {
			return nil, c.failed
		}
		if c.done.Load() {
			return nil, io.EOF
		}
		p, err := c.take()
		if err != nil {
			return nil, c.fail(err)
		}
		if len(p) > 0 {
			c.received.Add(uint64(len(p)))
			return p, nil
		}
		if c.done.Load() {
			return nil, io.EOF // the last chunk
		}
		if err := c.fill(); err != nil {
			if !errors.Is(err, io.EOF) {
				return nil, c.fail(err)
			}
			if c.mode != untilFI {
				return nil, c.fail(io.ErrUnexpectedEOF)
			}
			c.done.Store(true)
			return nil, io.EOF
		}
	}
}

// reset makes of a connection that its peer has reset one that it has ended: so it is
// for a body that only the end of the connection ends, and any other is cut short.
func (c *receiver) reset() error {
	if c.mode != untilFI {
		return c.fail(io.ErrUnexpectedEOF)
	}
	c.failed = nil
	c.broke.Store(false)
	c.done.Store(true)
	return io.EOF
}

func (c *receiver) fail(err error) error {
	c.failed = err
	c.broke.Store(true)
	return err
}

// take returns body bytes that are at hand, none when more must be read first.
func (c *receiver) take() ([]byte, error) {
	switch c.mode {
	case chunks:
		return c.takeChunk()
	case none:
		return nil, nil
	}
	p := c.area[c.r:c.w]
	if c.mode == sized && int64(len(p)) > c.left {
		p = p[:c.left]
	}
	c.r += len(p)
	if c.mode == sized {
		c.left -= int64(len(p))
		if c.left == 0 {
			c.done.Store(true)
		}
	}
	return p, nil
}

// takeChunk moves through the chunk framing.
func (c *receiver) takeChunk() ([]byte, error) {
	for !c.done.Load() {
		switch c.state {
		case chunkSize:
			ok, err := c.chunkLine()
			if !ok || err != nil {
				return nil, err
			}
		case chunkExtension:
			ok, err := c.chunkRest()
			if !ok || err != nil {
				return nil, err
			}
		case chunkData:
			p := c.area[c.r:c.w]
			if int64(len(p)) > c.left {
				p = p[:c.left]
			}
			c.r += len(p)
			if c.left -= int64(len(p)); c.left == 0 {
				c.state = chunkEnd
				c.finish()
			}
			return p, nil
		case chunkEnd:
			if !c.chunkTail() {
				return nil, nil
			}
		case chunkTrailers:
			return nil, c.trailer()
		}
	}
	return nil, nil
}

// finish looks past a chunk's data for the end of the body, so that Done is true as
// soon as it can be. Errors are found again by the next call.
func (c *receiver) finish() {
	const last = "0\r\n\r\n"
	if !c.chunkTail() || c.w-c.r < len(last) {
		return
	}
	if string(c.area[c.r:c.r+len(last)]) == last {
		c.r += len(last)
		c.done.Store(true)
	}
}

// chunkTail takes the line end after a chunk's data. What stands before it is dropped, as
// by Envoy: the chunk is framed anew when it goes on.
func (c *receiver) chunkTail() bool {
	end := indexByte(c.area[c.r:c.w], '\n')
	if end < 0 {
		c.r = c.w
		return false
	}
	c.r += end + 1
	c.state = chunkSize
	return true
}

// chunkLine takes the digits of a chunk size. ok is false when more must be read first.
func (c *receiver) chunkLine() (ok bool, err error) {
	for ; c.r < c.w; c.r++ {
		d := hexDigit[c.area[c.r]]
		if d < 0 {
			if c.line != lineWithin {
				return false, errCodec
			}
			c.left, c.state, c.line = int64(min(c.size, math.MaxInt64)), chunkExtension, lineBlank
			c.size = 0
			return true, nil
		}
		if c.size > math.MaxUint64>>4 {
			return false, errCodec
		}
		c.size, c.line = c.size<<4|uint64(d), lineWithin
	}
	return false, nil
}

// The places within the line of a chunk.
const (
	lineBlank  = iota // before digits; after them: blanks, then nothing or an extension
	lineWithin        // digits; an extension
	lineEnding        // CR was read
)

// chunkRest takes what follows a chunk size up to the end of its line: blanks, then
// nothing or an extension, which is dropped, then CR and LF.
func (c *receiver) chunkRest() (ok bool, err error) {
	for ; c.r < c.w; c.r++ {
		b := c.area[c.r]
		switch {
		case c.line == lineEnding && b == '\n':
			c.r++
			c.line = lineBlank
			if c.state = chunkData; c.left == 0 {
				c.state = chunkTrailers
			}
			return true, nil
		case c.line == lineEnding || b == '\n':
			return false, errCodec
		case b == '\r':
			c.line = lineEnding
		case c.line == lineWithin || blank(b):
		case b == ';':
			c.line = lineWithin
		default:
			return false, errCodec
		}
	}
	return false, nil
}

// trailer takes the trailer section when it is complete.
func (c *receiver) trailer() error {
	b := c.area[c.r:c.w]
	end := 0
	switch {
	case len(b) >= 1 && b[0] == '\n':
		end = 1
	case len(b) >= 2 && b[0] == '\r' && b[1] == '\n':
		end = 2
	default:
		end, _ = headEnd(b, 0)
	}
	if end == 0 {
		if len(b) > c.limit && c.keep {
			return errTrailersLarge
		}
		if len(b) > c.limit {
			return errTooLarge
		}
		return nil
	}
	if err := c.parseTrailers(b[:end]); err != nil {
		return err
	}
	c.r += end
	c.done.Store(true)
	return nil
}

func (c *receiver) parseTrailers(b []byte) error {
	most := MaxHeaders
	if !c.keep {
		most = math.MaxInt // they are dropped
	}
	return fields(b, most, func(name, value []byte) error {
		if c.keep {
			if c.trailers == nil {
				c.trailers = &http.Headers{}
			}
			c.trailers.Add(append([]byte(nil), name...), append([]byte(nil), value...))
		}
		return nil
	})
}

// Ready reports that Next would not block.
func (c *receiver) Ready() bool {
	switch {
	case c.done.Load() || c.failed != nil:
		return true
	case c.r == c.w:
		return false
	case c.mode != chunks || c.state == chunkData:
		return true
	case c.state == chunkEnd && !c.chunkTail(), c.state == chunkExtension, c.line != lineBlank:
		return false
	}
	b := c.area[c.r:c.w]
	if c.state == chunkSize {
		i := indexByte(b, '\n')
		if i < 0 || i+1 == len(b) {
			return false
		}
		if b[0] != '0' {
			return true
		}
		b = b[i+1:]
	}
	end, _ := headEnd(b, 0)
	return end > 0 || b[0] == '\n' || len(b) > 1 && b[0] == '\r' && b[1] == '\n'
}

// Done reports that the body has ended.
func (c *receiver) Done() bool { return c.done.Load() }

// Trailers are those of a body that has ended.
func (c *receiver) Trailers() *http.Headers { return c.trailers }

var hexDigit = func() (t [256]int8) {
	for i := range t {
		switch {
		case i >= '0' && i <= '9':
			t[i] = int8(i - '0')
		case i >= 'a' && i <= 'f':
			t[i] = int8(i - 'a' + 10)
		case i >= 'A' && i <= 'F':
			t[i] = int8(i - 'A' + 10)
		default:
			t[i] = -1
		}
	}
	return t
}()
