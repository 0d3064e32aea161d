package http2

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// An Error is why a stream broke off.
type Error struct {
	Code    Code
	Remote  bool   // the peer reset it, or its connection ended
	Details string // RESPONSE_CODE_DETAILS: "http2.remote_reset"
	Flag    streaminfo.Flag

	reason http.ResetReason
	unused bool
}

// Error is the details.
func (e *Error) Error() string { return e.Details }

// errStopped is the end of an exchange that we have ended.
var errStopped = &Error{Code: CodeCancel, Details: "http2.local_reset", reason: http.LocalReset}

// errBodyStopped is the end of a read that StopBody ended, errSent of a write after the end.
var (
	errBodyStopped = &Error{Code: CodeCancel, Details: "http2.local_reset", reason: http.LocalReset}
	errDeadline    = os.ErrDeadlineExceeded
	errSent        = &Error{Code: CodeInternal, Details: "http2.written_after_the_end", reason: http.LocalReset}
)

// A stream is what both ends have in common: the body that is received and the one that
// is sent. The lock of its link guards all of it.
type stream struct {
	l      *link
	id     uint32
	open   bool // it is one of the link's: not ended on the wire
	refs   atomic.Int32
	next   *stream
	server *ServerStream // the ends that embed it; one is nil
	client *ClientStream

	readable, writable sync.Cond

	queue    queue
	recvLeft int64 // what the peer may still send
	owed     int64 // consumed, not credited yet
	lent     int   // what the last Next returned
	declared int64 // content-length of what is received, -1 for none
	received int64
	asked    bool // somebody has read of it
	begun    bool // the (final) head was received, DATA may come
	bodiless bool // DATA must be empty
	recvEnd  bool
	atEnd    bool  // Next has said so
	tail     *head // trailers
	err      *Error
	stopped  *Error // reads fail at once

	sendLeft int64
	sent     uint64
	headed   bool // our (final) head was sent
	sentEnd  bool
	mute     bool // nothing of a body is sent
	queued   bool // in the link's waiting

	deadline time.Time
	late     bool // it has passed
	timer    *time.Timer
	alarm    time.Time // when timer fires, zero when it does not
	blocked  int       // goroutines that wait
}

// reset makes s new for a link.
func (s *stream) reset(l *link) {
	timer := s.timer
	*s = stream{l: l, timer: timer, declared: -1}
	s.readable.L, s.writable.L = &l.mu, &l.mu
	s.refs.Store(1)
}

// fail ends both directions for that reason; what was received can still be read.
func (s *stream) fail(e *Error) {
	if s.err == nil {
		s.err = e
	}
	s.readable.Broadcast()
	s.writable.Broadcast()
}

// lost fails a stream whose connection has ended.
func (s *stream) lost(err error) {
	if s.recvEnd && s.sentEnd {
		return
	}
	s.fail(s.l.side.loss(s, err))
}

// wait waits on one of the stream's conditions; false: its time is up.
func (s *stream) wait(c *sync.Cond) bool {
	if s.late {
		return false
	}
	s.arm()
	s.blocked++
	c.Wait()
	s.blocked--
	return !s.late
}

// arm makes sure that the timer fires no later than the deadline.
func (s *stream) arm() {
	if s.deadline.IsZero() || !s.alarm.IsZero() && !s.alarm.After(s.deadline) {
		return
	}
	s.alarm = s.deadline
	if d := time.Until(s.deadline); s.timer == nil {
		s.timer = time.AfterFunc(d, s.alarmed)
	} else {
		s.timer.Reset(d)
	}
}

// alarmed runs when the timer fires. The deadline may have been moved since.
func (s *stream) alarmed() {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	s.alarm = time.Time{}
	switch {
	case s.deadline.IsZero():
	case time.Now().Before(s.deadline):
		if s.blocked > 0 {
			s.arm()
		}
	default:
		s.late = true
		s.readable.Broadcast()
		s.writable.Broadcast()
	}
}

// calm stops the timer; false: it is running, and s must not be used for another link.
func (s *stream) calm() bool { return s.alarm.IsZero() || s.timer.Stop() }

// setDeadline bounds all waits from now on.
func (s *stream) setDeadline(t time.Time) {
	s.deadline, s.late = t, false
	if s.blocked > 0 {
		s.arm()
	}
}

// Next returns the next bytes of the received body and gives credit for the former ones.
func (s *stream) Next() ([]byte, error) {
	l := s.l
	l.mu.Lock()
	p, err := s.read()
	l.unlock()
	return p, err
}

func (s *stream) read() ([]byte, error) {
	s.asked = true
	s.l.credit(s, s.lent)
	s.lent = 0
	for {
		if s.stopped != nil {
			return nil, s.stopped
		}
		if p := s.queue.take(); p != nil {
			s.lent = len(p)
			return p, nil
		}
		switch {
		case s.recvEnd:
			s.atEnd = true
			return nil, io.EOF
		case s.err != nil:
			return nil, s.err
		case !s.wait(&s.readable):
			return nil, errDeadline
		}
	}
}

// Ready reports that Next would not block.
func (s *stream) Ready() bool {
	s.l.mu.Lock()
	ready := s.queue.ready() || s.recvEnd || s.err != nil || s.stopped != nil
	s.l.mu.Unlock()
	return ready
}

// Done reports that the body has ended. While trailers wait it has not, for they come
// after the end that Next tells.
func (s *stream) Done() bool {
	s.l.mu.Lock()
	done := s.recvEnd && !s.queue.ready() && (s.tail == nil || s.atEnd)
	s.l.mu.Unlock()
	return done
}

// Ended reports that the end of the body has come, though it may not be read yet.
func (s *stream) Ended() bool {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.recvEnd
}

// Trailers are those of a body that has ended, nil for none.
func (s *stream) Trailers() *http.Headers {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.tail == nil {
		return nil
	}
	return &s.tail.Headers
}

// refusal is why nothing can be written any more, nil if it can.
func (s *stream) refusal() error {
	switch {
	case s.err != nil:
		return s.err
	case s.stopped != nil && s.stopped != errBodyStopped:
		return s.stopped
	case s.sentEnd:
		return errSent
	case s.late:
		return errDeadline
	}
	return nil
}

// WriteBody sends bytes of the body; p is not kept. It blocks while the peer grants no
// window or the connection has too much to write.
func (s *stream) WriteBody(p []byte, last bool) error {
	l := s.l
	l.mu.Lock()
	err := s.write(p, last)
	l.unlock()
	return err
}

func (s *stream) write(p []byte, last bool) error {
	l := s.l
	if s.mute {
		p = nil
	}
	for {
		if err := s.refusal(); err != nil {
			return err
		}
		if len(p) == 0 {
			if last {
				l.sendData(s, nil, true)
				s.endSent()
			}
			return nil
		}
		n := int(min(int64(len(p)), s.sendLeft, l.sendLeft, maxFrame))
		if n <= 0 || len(l.out) >= maxUnsent {
			l.kick()
			pending := s.l.opts.Stats.PendingSendBytes
			pending.Add(int64(len(p)))
			err := s.pause(s.sendLeft <= 0)
			pending.Add(-int64(len(p)))
			if err != nil {
				return err
			}
			continue
		}
		end := last && n == len(p)
		l.sendData(s, p[:n], end)
		p = p[n:]
		if len(l.out) >= flushAt {
			l.kick()
		}
		if end {
			s.endSent()
		}
		if len(p) == 0 {
			return nil
		}
	}
}

// pause waits until writing may go on: for the stream's own window, or for what all
// streams share.
func (s *stream) pause(own bool) error {
	if !own && !s.queued {
		s.queued = true
		s.l.blocked = append(s.l.blocked, s)
	}
	ok := s.wait(&s.writable)
	if !ok {
		return errDeadline
	}
	return nil
}

// endSent: our side of the stream has ended.
func (s *stream) endSent() {
	s.sentEnd = true
	if s.recvEnd {
		s.l.part(s)
	}
}

// WriteTrailers ends the body.
func (s *stream) WriteTrailers(h *http.Headers) error {
	l := s.l
	l.mu.Lock()
	defer l.unlock()
	if h == nil || len(h.Fields) == 0 {
		return s.write(nil, true)
	}
	if err := s.refusal(); err != nil {
		return err
	}
	l.sendHead(s.id, true, func(b []byte) []byte { return l.enc.trailers(b, h) })
	s.endSent()
	return nil
}

// Flush makes sure that what was written is put on the wire; it does not wait for that.
func (s *stream) Flush() error {
	l := s.l
	l.mu.Lock()
	defer l.unlock()
	l.kick()
	if s.err != nil && !s.sentEnd {
		return s.err
	}
	return nil
}

// Received is how many bytes of the body have come: none, if our side ended before
// anybody asked for them.
func (s *stream) Received() uint64 {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.sentEnd && !s.asked {
		return 0
	}
	return uint64(s.received)
}

// Sent is how many bytes of the body have been written.
func (s *stream) Sent() uint64 {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.sent
}

// leaveQueue takes s from those that wait for what all share.
func (s *stream) leaveQueue() {
	if !s.queued {
		return
	}
	w := s.l.blocked
	for i, x := range w {
		if x == s {
			w[i] = w[len(w)-1]
			w[len(w)-1] = nil
			s.l.blocked = w[:len(w)-1]
			break
		}
	}
	s.queued = false
}

// drop gives up what was received; the peer gets its credit on the connection.
func (s *stream) drop() {
	s.l.creditLink(s.queue.drop() + s.lent)
	s.lent = 0
	s.leaveQueue()
}
