package http2

import "sync"

// A chunk holds bytes of a body that were received and not read yet: b[r:w].
type chunk struct {
	next *chunk
	b    []byte
	r, w int
}

const (
	smallChunk = 2 << 10
	largeChunk = maxFrame
	readBuffer = 32 << 10 // holds any frame and something of the next
)

var (
	smallChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, smallChunk)} }}
	largeChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, largeChunk)} }}
	readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}
)

// newChunk returns an empty chunk for n bytes, or for some of them.
func newChunk(n int) *chunk {
	pool := &smallChunks
	if n > smallChunk {
		pool = &largeChunks
	}
	c := pool.Get().(*chunk)
	c.next, c.r, c.w = nil, 0, 0
	return c
}

func (c *chunk) free() {
	if len(c.b) == smallChunk {
		smallChunks.Put(c)
	} else {
		largeChunks.Put(c)
	}
}

// A queue is the chunks of one stream in order. The bytes that take returned stay until
// drop: a chunk is full or taken, but never moved.
type queue struct{ first, last *chunk }

// add copies p to the end.
func (q *queue) add(p []byte) {
	for len(p) > 0 {
		c := q.last
		if c == nil || c.w == len(c.b) {
			n := newChunk(len(p))
			if c == nil {
				q.first = n
			} else {
				c.next = n
			}
			q.last, c = n, n
		}
		n := copy(c.b[c.w:], p)
		c.w += n
		p = p[n:]
	}
}

// ready reports that take would give something.
func (q *queue) ready() bool {
	return q.first != nil && (q.first.r < q.first.w || q.first.next != nil)
}

// take returns the next bytes; those of the former take are given up.
func (q *queue) take() []byte {
	c := q.first
	if c == nil {
		return nil
	}
	if c.r == c.w {
		if q.first = c.next; c.next == nil {
			q.last = nil
		}
		c.free()
		if c = q.first; c == nil {
			return nil
		}
	}
	p := c.b[c.r:c.w]
	c.r = c.w
	return p
}

// drop frees all chunks and returns how many bytes nobody has taken.
func (q *queue) drop() (left int) {
	for c := q.first; c != nil; {
		next := c.next
		left += c.w - c.r
		c.free()
		c = next
	}
	*q = queue{}
	return left
}
