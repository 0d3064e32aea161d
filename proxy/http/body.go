package http

import "io"

// NoBody is the body of a message that has none.
var NoBody Body = noBody{}

type noBody struct{}

func (noBody) Next() ([]byte, error) { return nil, io.EOF }
func (noBody) Ready() bool           { return true }
func (noBody) Done() bool            { return true }
func (noBody) Trailers() *Headers    { return nil }

// Bytes is a body that is held in memory; it is read once. Reset makes it ready again.
type Bytes struct {
	B    []byte
	read bool
}

// Reset makes b the body's bytes, unread.
func (b *Bytes) Reset(p []byte) { b.B, b.read = p, false }

// Next returns all bytes at once.
func (b *Bytes) Next() ([]byte, error) {
	if b.Done() {
		return nil, io.EOF
	}
	b.read = true
	return b.B, nil
}

// Ready is always true.
func (b *Bytes) Ready() bool { return true }

// Done reports that the bytes have been read.
func (b *Bytes) Done() bool { return b.read || len(b.B) == 0 }

// Trailers is nil.
func (b *Bytes) Trailers() *Headers { return nil }
