package http2

import (
	"runtime"
	"sync"

	"golang.org/x/net/http2"
)

const (
	maxUnsent = 64 << 10 // bytes waiting to be written before streams wait
	flushAt   = 32 << 10 // bytes that are written without a Flush
	keptOut   = 4 << 10  // capacity that an idle connection keeps
)

// outSize is what out may grow to but for heads and frames that are longer than usual.
const outSize = maxUnsent + maxFrame + frameHead

// outs are buffers of connections that are busy.
var outs = sync.Pool{New: func() any { return new([outSize]byte) }}

// room makes sure that out can take n bytes more without moving often.
func (l *link) room(n int) {
	if cap(l.out)-len(l.out) >= n || cap(l.out) >= maxUnsent {
		return
	}
	l.out = append(outs.Get().(*[outSize]byte)[:0], l.out...)
}

// kick makes sure that what was appended is written.
func (l *link) kick() {
	if len(l.out) > 0 && !l.writing {
		l.writing = true
		go l.writer()
	}
}

// write writes until nothing is left. It lets the streams that are about to append
// their frames do so first.
func (l *link) write() {
	runtime.Gosched()
	l.mu.Lock()
	for len(l.out) > 0 {
		buf, frames, control := l.out, l.frames, l.control
		l.out, l.spare = l.spare[:0], nil
		l.handed += uint64(len(buf))
		l.mu.Unlock()
		_, err := l.conn.Write(buf)
		l.mu.Lock()
		l.uncount(frames, control)
		l.spare = buf[:0]
		if err != nil {
			l.out = l.out[:0]
			l.broken(err)
			break
		}
		l.admit()
	}
	l.shrink()
	l.writing = false
	l.quiet.Broadcast()
	l.unlock()
}

// broken ends the connection because writing failed; the lock is held.
func (l *link) broken(err error) {
	if l.ended {
		return
	}
	l.mu.Unlock()
	l.end(err)
	l.mu.Lock()
	l.fatal(err)
}

// shrink gives large buffers back when nothing is left to write.
func (l *link) shrink() {
	l.out, l.spare = shrunk(l.out), shrunk(l.spare)
}

func shrunk(b []byte) []byte {
	if cap(b) <= keptOut {
		return b
	}
	if cap(b) == outSize {
		outs.Put((*[outSize]byte)(b[:outSize]))
	}
	return nil
}

// admit wakes the streams that wait for room in out or for the connection's window.
func (l *link) admit() {
	if len(l.blocked) == 0 || len(l.out) >= maxUnsent {
		return
	}
	for i, s := range l.blocked {
		s.queued = false
		s.writable.Broadcast()
		l.blocked[i] = nil
	}
	l.blocked = l.blocked[:0]
}

// counted counts a frame that was appended, until it was written.
func (l *link) counted(control bool) {
	l.frames++
	l.opts.Stats.OutboundFramesActive.Inc()
	if control {
		l.control++
		l.opts.Stats.OutboundControlFramesActive.Inc()
	}
}

// uncount takes back what counted has counted.
func (l *link) uncount(frames, control int) {
	l.frames -= frames
	l.control -= control
	l.opts.Stats.OutboundFramesActive.Add(-int64(frames))
	if control > 0 {
		l.opts.Stats.OutboundControlFramesActive.Add(-int64(control))
	}
}

// countedControl counts one that the peer has made us send; too many that it does not
// read are a flood (CVE-2019-9512 PING, CVE-2019-9515 SETTINGS, CVE-2019-9514 RST_STREAM).
func (l *link) countedControl() error {
	l.counted(true)
	if l.control > l.opts.MaxOutboundControlFrames {
		if l.doom != nil {
			return l.doom
		}
		l.opts.Stats.OutboundControlFlood.Inc()
		return breach(http2.ErrCodeEnhanceYourCalm, "too many control frames in the outbound queue")
	}
	return l.crowded()
}

// crowded judges the number of frames that wait to be written.
func (l *link) crowded() error {
	if l.frames > l.opts.MaxOutboundFrames && l.doom == nil {
		l.opts.Stats.OutboundFlood.Inc()
		return breach(http2.ErrCodeEnhanceYourCalm, "too many frames in the outbound queue")
	}
	return nil
}

// sendHead appends the header block that encode appends, in as many frames as it takes.
func (l *link) sendHead(id uint32, end bool, encode func([]byte) []byte) {
	l.room(4 << 10)
	at := len(l.out)
	l.out = encode(appendFrame(l.out, 0, http2.FrameHeaders, 0, id))
	l.endHead(at, id, end)
}

// endHead completes the frame of a header block that was appended at a position.
func (l *link) endHead(at int, id uint32, end bool) {
	flags := http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	n := len(l.out) - at - frameHead
	if n <= maxFrame {
		appendFrame(l.out[:at], n, http2.FrameHeaders, flags|http2.FlagHeadersEndHeaders, id)
		l.counted(false)
		return
	}
	rest := append([]byte(nil), l.out[at+frameHead+maxFrame:]...)
	appendFrame(l.out[:at], maxFrame, http2.FrameHeaders, flags, id)
	l.out = l.out[:at+frameHead+maxFrame]
	l.counted(false)
	for len(rest) > 0 {
		p := rest[:min(len(rest), maxFrame)]
		if rest = rest[len(p):]; len(rest) == 0 {
			flags = http2.FlagContinuationEndHeaders
		} else {
			flags = 0
		}
		l.out = append(appendFrame(l.out, len(p), http2.FrameContinuation, flags, id), p...)
		l.counted(false)
	}
}

// sendData appends a DATA frame, for which there is window.
func (l *link) sendData(s *stream, p []byte, end bool) {
	flags := http2.Flags(0)
	if end {
		flags = http2.FlagDataEndStream
	}
	l.room(frameHead + len(p))
	l.out = append(appendFrame(l.out, len(p), http2.FrameData, flags, s.id), p...)
	l.counted(false)
	l.sentData++
	s.sendLeft -= int64(len(p))
	l.sendLeft -= int64(len(p))
	s.sent += uint64(len(p))
}
