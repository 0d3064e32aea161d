package http2

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A side is what a link leaves to the end it is.
type side interface {
	// expects says what a header block on that stream is; end is its END_STREAM.
	expects(id uint32, end bool) (kind, error)
	// header takes a decoded block.
	header(id uint32, end bool, h *head) error
	// reset: the peer has reset a stream. The lock is held.
	reset(s *stream, code Code) error
	// goAway is the peer's. The lock is held.
	goAway(last uint32)
	// loss is why a stream breaks off whose connection has ended. The lock is held.
	loss(s *stream, err error) *Error
	// closed is told without a lock, once for each stream that was put into the news.
	closed(*stream)
	// rest is called when the connection is idle or has ended. The lock is held.
	rest()
	// changed is told without a lock that the peer's SETTINGS allow another number of streams.
	changed()
}

// A link is one connection, whichever end of it. mu guards all that follows it and all
// streams; what belongs to the goroutine that reads stands before.
type link struct {
	conn    transport.Conn
	opts    Options
	server  bool
	side    side
	in      inbox
	dec     *decoder
	guard   guard
	block   block
	greeted bool // the peer's first SETTINGS have come

	mu       sync.Mutex
	streams  map[uint32]*stream
	last     uint32     // the highest stream opened so far: by the peer (Server), by us (Client)
	resetIDs [64]uint32 // of the streams that we have reset last
	nresets  uint32

	out, spare  []byte
	frames      int // in out, and those being written
	control     int
	writer      func() // write, made once
	writing     bool
	quiet       sync.Cond // nobody writes any more
	handed      uint64    // bytes given to the socket
	enc         encoder
	sendLeft    int64
	peerWindow  int64 // of the streams to come
	peerStreams uint32
	allowed     bool      // peerStreams is the peer's word
	blocked     []*stream // for the connection's window or for room in out
	sentData    uint64    // DATA frames
	recvLeft    int64
	owed        int64 // consumed, not credited yet
	grant       int64 // the window of a stream that the peer opens
	idle        idle
	alive       alive
	news        *stream // closed, to be told when the lock is free
	changed     bool
	ended       bool  // nothing is read or appended any more
	leaving     bool  // the reader is to end in order
	doom        error // the reader is to end for that reason
	err         error // why it ended
	open        int   // streams in streams
}

// errClosed is the end that we have made ourselves.
var errClosed = errors.New("http2: connection closed")

var errKeepAlive = errors.New("http2: keepalive timeout")

func (l *link) init(conn transport.Conn, o Options, server bool, s side) {
	o.settle()
	l.conn, l.opts, l.server, l.side = conn, o, server, s
	l.dec = newDecoder(&l.opts)
	l.streams = map[uint32]*stream{}
	l.quiet.L = &l.mu
	l.enc.init()
	l.writer = l.write
	l.sendLeft, l.peerWindow, l.peerStreams = defaultWindow, defaultWindow, 100
	if server {
		l.peerStreams = 0
	}
	l.recvLeft = int64(o.InitialConnectionWindow)
	l.grant = max(int64(o.InitialStreamWindow), defaultWindow)
}

// unlock ends a critical section and tells what has come of it.
func (l *link) unlock() {
	news, changed := l.news, l.changed
	if news == nil && !changed {
		l.mu.Unlock()
		return
	}
	l.news, l.changed = nil, false
	l.mu.Unlock()
	for news != nil {
		s := news
		news, s.next = s.next, nil
		l.side.closed(s)
	}
	if changed {
		l.side.changed()
	}
}

// report puts a stream into the news; its memory stays until it was told.
func (l *link) report(s *stream) {
	s.refs.Add(1)
	s.next, l.news = l.news, s
}

// join makes s a stream of the link.
func (l *link) join(s *stream, id uint32) {
	s.id, s.open = id, true
	s.sendLeft, s.recvLeft = l.peerWindow, l.grant
	l.streams[id] = s
	l.open++
	l.opts.Stats.StreamsActive.Inc()
}

// part takes a stream that has ended on the wire from the link.
func (l *link) part(s *stream) {
	if !s.open {
		return
	}
	s.open = false
	delete(l.streams, s.id)
	l.open--
	l.opts.Stats.StreamsActive.Dec()
	if s.client != nil {
		s.client.giveUp()
	}
	l.rest()
}

// reset ends a stream by RST_STREAM.
func (l *link) reset(s *stream, code Code) {
	if s.open && !l.ended {
		l.sendReset(s.id, code)
	}
	l.part(s)
}

// sendReset appends RST_STREAM for any stream.
func (l *link) sendReset(id uint32, code Code) {
	if l.ended {
		return
	}
	l.resetIDs[l.nresets%uint32(len(l.resetIDs))] = id
	l.nresets++
	l.opts.Stats.TxReset.Inc()
	l.out = append32(l.out, http2.FrameRSTStream, id, uint32(code))
	if err := l.countedControl(); err != nil {
		l.fatal(err)
	}
	l.kick()
}

// wasReset reports that we have, or may have, reset a stream: what the peer sent before it
// knew is no breach.
func (l *link) wasReset(id uint32) bool {
	for _, r := range l.resetIDs {
		if r == id {
			return true
		}
	}
	return l.nresets > uint32(len(l.resetIDs))
}

// fatal makes the reader end the connection for that reason.
func (l *link) fatal(err error) {
	if l.doom == nil {
		l.doom = err
		l.wake()
	}
}

// leave makes the reader end the connection in order.
func (l *link) leave() {
	if !l.leaving {
		l.leaving = true
		l.wake()
	}
}

var past = time.Unix(1, 0)

// wake ends the reader's wait.
func (l *link) wake() { _ = l.conn.SetReadDeadline(past) } // of a closed connection it has ended already

// end makes the link one that has ended: all streams fail, nothing is appended any more.
func (l *link) end(err error) {
	l.mu.Lock()
	if !l.ended {
		l.ended, l.err = true, err
		l.idle.stop()
		l.alive.stop()
		l.side.rest()
		for _, s := range l.streams {
			s.lost(err)
			if l.server {
				l.report(s)
			}
			l.part(s)
		}
	}
	l.unlock()
}

// farewell is how long a peer has to read what was written to it last.
const farewell = time.Second

// finish ends the connection after the reader has, for err.
func (l *link) finish(err error) {
	var b *connError
	polite := errors.As(err, &b)
	l.mu.Lock()
	polite = polite || l.leaving
	if b != nil && !b.quiet && !l.ended {
		last := l.last
		if !l.server {
			last = 0
		}
		l.out = appendGoAway(l.out, last, b.code, b.text)
		l.opts.Stats.GoAwaySent.Inc()
	}
	l.kick()
	l.mu.Unlock()
	l.end(err)
	if polite {
		l.linger()
	}
	_ = l.conn.Close() // nothing is left to be written
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.writing { // it ends with the connection
		l.quiet.Wait()
	}
	l.uncount(l.frames, l.control) // nobody writes them any more
}

// linger lets the peer read the last frames: our side is ended after them, and what comes
// is dropped until the peer ends its own.
func (l *link) linger() {
	until := time.Now().Add(farewell)
	if l.conn.SetWriteDeadline(until) != nil {
		return
	}
	l.mu.Lock()
	for l.writing {
		l.quiet.Wait()
	}
	l.mu.Unlock()
	if l.conn.CloseWrite() != nil || l.conn.SetReadDeadline(until) != nil {
		return
	}
	b := readBuffers.Get().(*[readBuffer]byte)
	defer readBuffers.Put(b)
	for {
		if _, err := l.conn.Read(b[:]); err != nil {
			return
		}
	}
}
