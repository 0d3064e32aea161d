package transport

import (
	"errors"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A ledger keeps what it takes to tell whether a peer that ended the stream can have
// taken anything of what was written last. It cannot when its FIN acknowledges none of
// it: then no byte had come to the peer's kernel when the peer gave up its side. A reset
// proves nothing, for it does not say what was received before.
type ledger struct {
	written atomic.Int64 // since the mark, what is being written included
	torn    atomic.Bool  // a write was answered by a reset
	ended   atomic.Bool  // the peer's FIN was read
}

func (l *ledger) mark() {
	l.written.Store(0)
	l.torn.Store(false)
	l.ended.Store(false)
}

// wrote corrects what was announced by the bytes that were not written.
func (l *ledger) wrote(announced, n int64, err error) {
	if err != nil {
		l.torn.Store(l.torn.Load() || errors.Is(err, unix.ECONNRESET))
		l.written.Add(n - announced)
	}
}

func (l *ledger) read(err error) {
	if errors.Is(err, io.EOF) {
		l.ended.Store(true)
	}
}

func (l *ledger) untaken(s *socket) bool {
	n := l.written.Load()
	if n == 0 {
		return true
	}
	return l.ended.Load() && !l.torn.Load() && s.unacknowledged() >= n
}

// Mark begins what Untaken is about: the bytes that are written from here.
func (r *raw) Mark() { r.ledger.mark() }

// Untaken reports, when the stream has ended, that the peer has provably not received
// a byte that was written since Mark.
func (r *raw) Untaken() bool { return r.ledger.untaken(&r.socket) }

// Mark is that of the socket beneath.
func (s *secure) Mark() { s.records.ledger.mark() }

// Untaken is that of the socket beneath: without a byte of its record nothing can be
// deciphered.
func (s *secure) Untaken() bool { return s.records.ledger.untaken(&s.records.socket) }

// unacknowledged is how many of the bytes written last the peer's kernel has not
// acknowledged; -1 when that is not known.
func (s *socket) unacknowledged() int64 {
	if s.bare == nil || !s.tcp || s.fault != nil {
		return -1
	}
	n := -1
	err := s.bare.Control(func(fd uintptr) {
		if queued, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = queued
		}
	})
	if err != nil {
		return -1
	}
	return int64(n)
}
