package transport

import (
	"net"
	"sync"
)

// recordBuffer is how much a TLS connection reads at once when a record begins.
const recordBuffer = 4 << 10

var recordBuffers = sync.Pool{New: func() any { return new([recordBuffer]byte) }}

// records is the socket as crypto/tls sees it. It hands out bytes only up to the end
// of the TLS record that they belong to, so that between records crypto/tls holds
// nothing and it is known whether bytes are under way. Its own buffer exists only
// while it has something in it: an idle connection holds none.
type records struct {
	net.Conn
	wait   waiter
	ledger ledger
	ahead  []byte // what listener filters took from the socket
	buf    *[recordBuffer]byte
	r, w   int
	head   [5]byte
	have   int // bytes of head seen
	left   int // bytes of the record's body not yet handed out
}

func newRecords(c net.Conn, ahead []byte) *records {
	s := &records{Conn: c, ahead: ahead}
	s.wait.init(c)
	return s
}

// empty reports that no byte of the stream is between the socket and crypto/tls.
func (s *records) empty() bool {
	return s.r == s.w && s.have == 0 && s.left == 0 && len(s.ahead) == 0
}

func (s *records) Read(p []byte) (int, error) {
	if s.r == s.w {
		if s.left >= recordBuffer && len(s.ahead) == 0 { // the rest of a large record: no copy
			n, err := s.Conn.Read(p[:min(len(p), s.left)])
			s.left -= n
			s.ledger.read(err)
			return n, err
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := s.hand(p)
	if s.r == s.w {
		recordBuffers.Put(s.buf)
		s.buf, s.r, s.w = nil, 0, 0
	}
	return n, nil
}

func (s *records) Write(p []byte) (int, error) {
	s.ledger.written.Add(int64(len(p)))
	n, err := s.Conn.Write(p)
	s.ledger.wrote(int64(len(p)), int64(n), err)
	return n, err
}

func (s *records) fill() error {
	if s.buf == nil {
		s.buf = recordBuffers.Get().(*[recordBuffer]byte)
	}
	if len(s.ahead) > 0 {
		s.r, s.w = 0, copy(s.buf[:], s.ahead)
		if s.ahead = s.ahead[s.w:]; len(s.ahead) == 0 {
			s.ahead = nil
		}
		return nil
	}
	n, err := s.Conn.Read(s.buf[:])
	if n > 0 {
		s.r, s.w = 0, n
		return nil
	}
	recordBuffers.Put(s.buf)
	s.buf = nil
	s.ledger.read(err)
	return err
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
