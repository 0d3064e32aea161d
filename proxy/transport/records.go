package transport

import (
	"net"
	"sync"
	"sync/atomic"
)

const (
	// recordBuffer is how much a TLS connection reads at once when a record begins, and
	// longRecordBuffer when records are long: several of them then come with one read.
	recordBuffer     = 4 << 10
	longRecordBuffer = 64 << 10

	// maxPlain is the longest text of a record (RFC 8446 §5.1), and heldRecords what is
	// gathered of records before they are written: four of the longest.
	maxPlain    = 16 << 10
	heldRecords = 4 * (maxPlain + 256)
)

var (
	recordBuffers     = sync.Pool{New: func() any { return new([recordBuffer]byte) }}
	longRecordBuffers = sync.Pool{New: func() any { return new([longRecordBuffer]byte) }}
	heldBuffers       = sync.Pool{New: func() any { return new([heldRecords]byte) }}
)

// records is the socket as crypto/tls sees it. It hands out bytes only up to the end
// of the TLS record that they belong to, so that between records crypto/tls holds
// nothing and it is known whether bytes are under way. Its own buffer exists only
// while it has something in it: an idle connection holds none.
type records struct {
	socket
	ahead []byte // what listener filters took from the socket
	buf   []byte // of one of the two sizes, nil while there is nothing in it
	r, w  int
	head  [5]byte
	have  int  // bytes of head seen
	left  int  // bytes of the record's body not yet handed out
	long  bool // the present or last record does not fit into the smaller buffer
	still bool // what would have to wait is errNothing

	busy    atomic.Int32 // writes whose records are gathered or on their way
	writing sync.Mutex
	hold    bool
	held    []byte // records that are not written yet
	torn    error  // some of them were not written: the stream is broken
}

func newRecords(c net.Conn, ahead []byte) *records {
	s := &records{ahead: ahead}
	s.socket.init(c)
	return s
}

// nothing is an error that crypto/tls does not keep: it goes on where it was.
type nothing struct{}

func (nothing) Error() string   { return "nothing at hand" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

var errNothing net.Error = nothing{}

// empty reports that no byte of the stream is between the socket and crypto/tls.
func (s *records) empty() bool {
	return s.r == s.w && s.have == 0 && s.left == 0 && len(s.ahead) == 0
}

func (s *records) Read(p []byte) (int, error) {
	if s.r == s.w {
		if s.still {
			return 0, errNothing
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := s.hand(p)
	if s.r == s.w {
		s.release()
	}
	return n, nil
}

func (s *records) fill() error {
	if s.long {
		s.buf = longRecordBuffers.Get().(*[longRecordBuffer]byte)[:]
	} else {
		s.buf = recordBuffers.Get().(*[recordBuffer]byte)[:]
	}
	if len(s.ahead) > 0 {
		s.r, s.w = 0, copy(s.buf, s.ahead)
		if s.ahead = s.ahead[s.w:]; len(s.ahead) == 0 {
			s.ahead = nil
		}
		return nil
	}
	n, err := s.socket.Read(s.buf)
	if n > 0 {
		s.r, s.w = 0, n
		return nil
	}
	s.release()
	return err
}

func (s *records) release() {
	if len(s.buf) == longRecordBuffer {
		longRecordBuffers.Put((*[longRecordBuffer]byte)(s.buf))
	} else {
		recordBuffers.Put((*[recordBuffer]byte)(s.buf))
	}
	s.buf, s.r, s.w = nil, 0, 0
}

// hand copies buffered bytes up to the end of the present record.
func (s *records) hand(p []byte) int {
	n := 0
	for n < len(p) && s.r < s.w {
		if s.left == 0 {
			s.head[s.have] = s.buf[s.r]
			p[n] = s.buf[s.r]
			s.have, s.r, n = s.have+1, s.r+1, n+1
			if s.have == len(s.head) {
				s.have, s.left = 0, int(s.head[3])<<8|int(s.head[4])
				s.long = s.left >= recordBuffer
				if s.left == 0 {
					break
				}
			}
			continue
		}
		m := copy(p[n:], s.buf[s.r:min(s.w, s.r+s.left)])
		n, s.r, s.left = n+m, s.r+m, s.left-m
		if s.left == 0 {
			break
		}
	}
	return n
}

// Write writes a record, or keeps it while records are held together.
func (s *records) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.torn != nil {
		return 0, s.torn
	}
	if !s.hold {
		return s.socket.Write(p)
	}
	if s.held == nil {
		s.held = heldBuffers.Get().(*[heldRecords]byte)[:0]
	}
	if len(s.held)+len(p) > heldRecords {
		if err := s.writeHeld(); err != nil {
			return 0, err
		}
	}
	if len(p) > heldRecords {
		return s.socket.Write(p)
	}
	s.held = append(s.held, p...)
	return len(p), nil
}

// together has the records that f writes leave with as few system calls as can be.
func (s *records) together(f func() (int, error)) (int, error) {
	s.busy.Add(1)
	defer s.busy.Add(-1)
	s.writing.Lock()
	s.hold = true
	s.writing.Unlock()
	n, err := f()
	s.writing.Lock()
	defer s.writing.Unlock()
	s.hold = false
	if s.held == nil {
		return n, err
	}
	if failed := s.writeHeld(); err == nil {
		err = failed
	}
	heldBuffers.Put((*[heldRecords]byte)(s.held[:heldRecords]))
	s.held = nil
	return n, err
}

// writeHeld writes what is held. What cannot be written, a deadline having passed, leaves the
// stream broken, which crypto/tls has no means to know.
func (s *records) writeHeld() error {
	if len(s.held) == 0 || s.torn != nil {
		return s.torn
	}
	_, s.torn = s.socket.Write(s.held)
	s.held = s.held[:0]
	return s.torn
}
