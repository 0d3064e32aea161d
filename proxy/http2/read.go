package http2

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/net/http2"
)

// An inbox is the bytes that were read and are not parsed yet: b[r:w]. It belongs to the
// goroutine that reads.
type inbox struct {
	b    *[readBuffer]byte
	r, w int
}

// start takes a buffer, with the bytes that were read before.
func (in *inbox) start(ahead []byte) {
	in.b = readBuffers.Get().(*[readBuffer]byte)
	in.r, in.w = 0, copy(in.b[:], ahead)
}

func (in *inbox) free() {
	if in.b != nil {
		readBuffers.Put(in.b)
		in.b = nil
	}
}

// A block is the header block that is being received.
type block struct {
	id     uint32 // 0: none
	end    bool
	size   int
	frames int
}

// maxContinuations is how many frames a block may have more than its size asks for.
const maxContinuations = 8

// fill reads more bytes, after room was made for a frame.
func (l *link) fill() error {
	in := &l.in
	if in.r == in.w {
		in.r, in.w = 0, 0
	} else if readBuffer-in.r < frameHead+maxFrame {
		in.w = copy(in.b[:], in.b[in.r:in.w])
		in.r = 0
	}
	return l.more()
}

// more appends what the connection has. A connection with nothing under way rests
// without a buffer.
func (l *link) more() error {
	in := &l.in
	for {
		n, err := l.conn.Read(in.b[in.w:])
		in.w += n
		if n > 0 {
			return nil
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := l.woken(); err != nil {
			return err
		}
	}
}

// woken finds out why a read was cut short.
func (l *link) woken() error {
	l.mu.Lock()
	switch {
	case l.doom != nil:
		defer l.mu.Unlock()
		return l.doom
	case l.leaving:
		defer l.mu.Unlock()
		return errClosed
	}
	_ = l.conn.SetReadDeadline(time.Time{}) // under the lock: nobody's wake is lost
	rest := l.idle.due && l.in.r == l.in.w
	l.idle.due = false
	l.mu.Unlock()
	if !rest {
		return nil
	}
	l.in.free()
	err := l.conn.WaitReadable()
	l.in.start(nil)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// read reads frames until the connection ends.
func (l *link) read() error {
	defer l.in.free()
	for {
		for {
			f, n, err := parseFrame(l.in.b[l.in.r:l.in.w])
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			l.in.r += n
			if err := l.frame(&f); err != nil {
				return err
			}
		}
		l.mu.Lock()
		l.kick()
		err := l.doom
		l.alive.hear()
		l.unlock()
		if err != nil {
			return err
		}
		if err := l.fill(); err != nil {
			return err
		}
	}
}

// frame deals with one frame.
func (l *link) frame(f *frame) error {
	if !l.greeted {
		if f.kind != http2.FrameSettings || f.flags.Has(http2.FlagSettingsAck) {
			return breach(CodeProtocol, "the first frame is not SETTINGS")
		}
		l.greeted = true
	}
	if (f.kind == http2.FrameContinuation) != (l.block.id != 0) || l.block.id != 0 && f.id != l.block.id {
		return breach(CodeProtocol, "unexpected frame in or after a header block")
	}
	switch f.kind {
	case http2.FrameData:
		return l.onData(f)
	case http2.FrameHeaders:
		return l.onHeaders(f)
	case http2.FrameContinuation:
		return l.onContinuation(f)
	case http2.FramePriority:
		return l.onPriority(f)
	case http2.FrameRSTStream:
		return l.onReset(f)
	case http2.FrameSettings:
		return l.onSettings(f)
	case http2.FramePushPromise:
		return quietly(f.id, "PUSH_PROMISE")
	case http2.FramePing:
		return l.onPing(f)
	case http2.FrameGoAway:
		return l.onGoAway(f)
	case http2.FrameWindowUpdate:
		return l.onWindowUpdate(f)
	}
	return nil // RFC 9113 §4.1: unknown frames are ignored
}

func (l *link) onHeaders(f *frame) error {
	p, err := f.fragment()
	if err != nil {
		return err
	}
	if f.id&1 == 0 {
		return quietly(0, "HEADERS on a stream that a client cannot open")
	}
	end := f.flags.Has(http2.FlagHeadersEndStream)
	k, err := l.side.expects(f.id, end)
	if err != nil {
		return err
	}
	l.dec.begin(k)
	l.block = block{id: f.id, end: end}
	return l.onFragment(p, f.flags.Has(http2.FlagHeadersEndHeaders))
}

func (l *link) onContinuation(f *frame) error {
	return l.onFragment(f.payload, f.flags.Has(http2.FlagContinuationEndHeaders))
}

// onFragment decodes a part of a header block. Its length and the number of its frames are
// bounded, whatever it is made of (CVE-2024-27316 and its kin).
func (l *link) onFragment(p []byte, last bool) error {
	if err := l.guard.empty(l, l.block.id, len(p) == 0 && !last); err != nil {
		return err
	}
	b := &l.block
	b.frames++
	b.size += len(p)
	most := l.opts.MaxHeadBytes + blockSlack
	if b.size > most || b.frames > maxContinuations+most/maxFrame {
		return breach(http2.ErrCodeEnhanceYourCalm, "header block too long")
	}
	if err := l.dec.write(p); err != nil {
		return err
	}
	if !last {
		return nil
	}
	id, end := b.id, b.end
	l.block = block{}
	h, err := l.dec.end()
	if err != nil {
		return err
	}
	return l.side.header(id, end, h)
}

func (l *link) onPriority(f *frame) error {
	if f.id == 0 {
		return breach(CodeProtocol, "PRIORITY without a stream")
	}
	if len(f.payload) != 5 {
		return breach(http2.ErrCodeFrameSize, "PRIORITY of invalid length")
	}
	if binary.BigEndian.Uint32(f.payload)&maxStreamID == f.id {
		return breach(CodeProtocol, "stream depends on itself")
	}
	return l.guard.priority(l)
}

func (l *link) onReset(f *frame) error {
	if len(f.payload) != 4 {
		return breach(http2.ErrCodeFrameSize, "RST_STREAM of invalid length")
	}
	code := Code(binary.BigEndian.Uint32(f.payload))
	l.mu.Lock()
	defer l.unlock()
	s := l.streams[f.id]
	if s == nil {
		if f.id == 0 || f.id > l.last || f.id&1 == 0 {
			return quietly(0, "RST_STREAM on an idle stream")
		}
		return nil
	}
	l.opts.Stats.RxReset.Inc()
	return l.side.reset(s, code)
}

func (l *link) onPing(f *frame) error {
	if f.id != 0 {
		return quietly(f.id, "PING on a stream")
	}
	if len(f.payload) != 8 {
		return breach(http2.ErrCodeFrameSize, "PING of invalid length")
	}
	l.mu.Lock()
	defer l.unlock()
	if f.flags.Has(http2.FlagPingAck) {
		l.alive.answered(f.payload)
		return nil
	}
	l.out = append(appendFrame(l.out, 8, http2.FramePing, http2.FlagPingAck, 0), f.payload...)
	return l.countedControl()
}

func (l *link) onGoAway(f *frame) error {
	if f.id != 0 {
		return breach(CodeProtocol, "GOAWAY on a stream")
	}
	if len(f.payload) < 8 {
		return breach(http2.ErrCodeFrameSize, "GOAWAY of invalid length")
	}
	l.mu.Lock()
	defer l.unlock()
	l.side.goAway(binary.BigEndian.Uint32(f.payload) & maxStreamID)
	return nil
}
