package http1

import "sync"

// Buffers come in two sizes: one that holds the usual head with a short body, and
// one that holds the longest head and moves long bodies.
const (
	smallSize = 8 << 10
	largeSize = 64 << 10
)

type small [smallSize]byte
type large [largeSize]byte

var (
	smalls = sync.Pool{New: func() any { return new(small) }}
	larges = sync.Pool{New: func() any { return new(large) }}
)

// A buffer is memory of one of the two sizes, or none; or more of it, for a head that
// may be longer than the larger size.
type buffer struct {
	s *small
	l *large
	m []byte
}

func (b *buffer) bytes() []byte {
	switch {
	case b.m != nil:
		return b.m
	case b.l != nil:
		return b.l[:]
	case b.s != nil:
		return b.s[:]
	}
	return nil
}

// ensure makes b hold memory if it held none, of the larger size if big is set.
func (b *buffer) ensure(big bool) {
	if b.m != nil || b.l != nil || b.s != nil && !big {
		return
	}
	if big {
		b.l = larges.Get().(*large)
		return
	}
	b.s = smalls.Get().(*small)
}

// grow replaces a buffer by a larger one with the same first n bytes.
func (b *buffer) grow(n int) {
	if old := b.bytes(); len(old) >= largeSize {
		m := make([]byte, 2*len(old))
		copy(m, old[:n])
		b.free()
		b.m = m
		return
	}
	l := larges.Get().(*large)
	if b.s != nil {
		copy(l[:], b.s[:n])
		smalls.Put(b.s)
		b.s = nil
	}
	b.l = l
}

// free gives the memory back.
func (b *buffer) free() {
	if b.s != nil {
		smalls.Put(b.s)
	}
	if b.l != nil {
		larges.Put(b.l)
	}
	*b = buffer{}
}
