package http2

import (
	"encoding/binary"

	"golang.org/x/net/http2"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// credit gives back what was consumed of a stream's body, on the connection as well.
// The peer is told when half a window has gathered.
func (l *link) credit(s *stream, n int) {
	if n == 0 {
		return
	}
	l.creditLink(n)
	if s.owed += int64(n); s.open && !s.recvEnd && s.owed >= (l.grant+1)/2 && !l.ended {
		l.out = append32(l.out, http2.FrameWindowUpdate, s.id, uint32(s.owed))
		l.counted(false)
		s.recvLeft += s.owed
		s.owed = 0
		l.kick()
	}
}

// creditLink gives back what no stream holds any more.
func (l *link) creditLink(n int) {
	if l.owed += int64(n); l.owed >= int64(l.opts.InitialConnectionWindow)/2 && !l.ended {
		l.out = append32(l.out, http2.FrameWindowUpdate, 0, uint32(l.owed))
		l.counted(false)
		l.recvLeft += l.owed
		l.owed = 0
		l.kick()
	}
}

// shiftWindows follows a change of the peer's initial window.
func (l *link) shiftWindows(size int64) error {
	delta := size - l.peerWindow
	l.peerWindow = size
	for _, s := range l.streams {
		if s.sendLeft += delta; s.sendLeft > maxWindow {
			return breach(http2.ErrCodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE makes a window too large")
		}
		if delta > 0 {
			s.writable.Broadcast()
		}
	}
	return nil
}

// onWindowUpdate takes the peer's credit.
func (l *link) onWindowUpdate(f *frame) error {
	if len(f.payload) != 4 {
		return breach(http2.ErrCodeFrameSize, "WINDOW_UPDATE of invalid length")
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	l.mu.Lock()
	defer l.unlock()
	if err := l.guard.windowUpdate(l); err != nil {
		return err
	}
	if f.id == 0 {
		if n == 0 {
			return breach(CodeProtocol, "WINDOW_UPDATE of nothing")
		}
		if l.sendLeft += n; l.sendLeft > maxWindow {
			return breach(http2.ErrCodeFlowControl, "the connection's window is too large")
		}
		l.admit()
		return nil
	}
	s := l.streams[f.id]
	switch {
	case s == nil && f.id > l.last:
		return quietly(0, "WINDOW_UPDATE on an idle stream")
	case s == nil:
	case n == 0:
		return quietly(f.id, "WINDOW_UPDATE of nothing on a stream")
	default:
		if s.sendLeft += n; s.sendLeft > maxWindow {
			l.abort(s, http2.ErrCodeFlowControl, remoteReset)
		}
		s.writable.Broadcast()
	}
	return nil
}

// onData takes a part of a body.
func (l *link) onData(f *frame) error {
	if f.id == 0 {
		return breach(CodeProtocol, "DATA without a stream")
	}
	p, err := f.unpad()
	if err != nil {
		return err
	}
	end := f.flags.Has(http2.FlagDataEndStream)
	if err := l.guard.empty(l, f.id, len(p) == 0 && !end); err != nil {
		return err
	}
	whole := len(f.payload)
	l.mu.Lock()
	defer l.unlock()
	if l.recvLeft -= int64(whole); l.recvLeft < 0 {
		return breach(http2.ErrCodeFlowControl, "DATA beyond the connection's window")
	}
	s := l.streams[f.id]
	if s == nil || s.recvEnd || !s.begun {
		l.creditLink(whole)
		return l.stray(s, f.id)
	}
	if s.recvLeft -= int64(whole); s.recvLeft < 0 {
		l.creditLink(whole)
		l.abort(s, http2.ErrCodeFlowControl, remoteReset)
		return nil
	}
	l.credit(s, whole-len(p))
	if sum := s.received + int64(len(p)); s.bodiless && len(p) > 0 || s.declared >= 0 && (sum > s.declared || end && sum < s.declared) {
		l.creditLink(len(p))
		l.opts.Stats.RxMessagingError.Inc()
		l.abort(s, CodeProtocol, remoteReset)
		return nil
	}
	s.received += int64(len(p))
	s.queue.add(p)
	if end {
		l.endReceived(s)
	}
	s.readable.Broadcast()
	return nil
}

// stray judges DATA for a stream that takes none.
func (l *link) stray(s *stream, id uint32) error {
	switch {
	case s != nil && s.recvEnd:
		return breach(http2.ErrCodeStreamClosed, "DATA: stream in half-closed (remote)")
	case s != nil:
		return breach(CodeProtocol, "DATA: stream not opened")
	case id > l.last || id&1 == 0:
		return breach(CodeProtocol, "DATA: stream in idle")
	case !l.wasReset(id):
		l.sendReset(id, http2.ErrCodeStreamClosed)
	}
	return nil
}

// endReceived: the peer has ended its side of a stream.
func (l *link) endReceived(s *stream) {
	s.recvEnd = true
	if s.sentEnd {
		l.part(s)
	}
}

// abort resets a stream whose peer has broken a rule on it.
func (l *link) abort(s *stream, code Code, details string) {
	s.fail(&Error{Code: code, Details: details, Flag: streaminfo.DownstreamProtocolError, reason: http.ProtocolError})
	if l.server {
		l.report(s)
	}
	l.reset(s, code)
}
