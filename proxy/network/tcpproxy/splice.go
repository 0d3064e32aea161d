package tcpproxy

import (
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is what one splice may carry: the more, the fewer calls and wake-ups.
const pipeSize = 1 << 20

// A pipe is where the kernel keeps bytes between two sockets.
type pipe struct{ r, w int }

var pipes = sync.Pool{New: func() any { return newPipe() }}

// newPipe returns nil when the machine gives none.
func newPipe() *pipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	p := &pipe{fds[0], fds[1]}
	_, _ = unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize) // a smaller one works too
	runtime.SetFinalizer(p, (*pipe).close)                          // the pool drops what it does not need
	return p
}

func (p *pipe) close() {
	runtime.SetFinalizer(p, nil)
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// A splicer moves bytes from one socket to another without seeing them.
type splicer struct {
	src, dst  syscall.RawConn
	pipe      *pipe
	in, out   func(fd uintptr) bool // bound once
	n, left   int
	inE, outE error
}

// newSplicer is nil where there is no pipe to be had.
func newSplicer(src, dst *net.TCPConn) *splicer {
	s := &splicer{}
	var err error
	if s.src, err = src.SyscallConn(); err != nil {
		return nil
	}
	if s.dst, err = dst.SyscallConn(); err != nil {
		return nil
	}
	if s.pipe, _ = pipes.Get().(*pipe); s.pipe == nil {
		return nil
	}
	s.in, s.out = s.fill, s.drain
	return s
}

// splice is the bare system call: none of its ends blocks, and to tell the scheduler of
// calls that take longer than its patience would cost a change of threads for each.
func splice(from, to, most int) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// fill takes from the source what is there; false waits for more.
func (s *splicer) fill(fd uintptr) bool {
	for {
		n, errno := splice(int(fd), s.pipe.w, pipeSize)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return false
		case errno != 0:
			s.inE = errno
		case n == 0:
			s.inE = io.EOF
		}
		s.n = n
		return true
	}
}

// drain gives the destination what it takes; false waits until it takes more.
func (s *splicer) drain(fd uintptr) bool {
	for s.left > 0 {
		n, errno := splice(s.pipe.r, int(fd), s.left)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return false
		case errno != 0:
			s.outE = errno
			return true
		}
		s.left -= n
	}
	return true
}

// move waits for bytes and passes them on: io.EOF at the end of the source, a writeError
// where the destination fails.
func (s *splicer) move() (int, error) {
	if err := s.src.Read(s.in); err != nil {
		return 0, err
	}
	if s.inE != nil {
		return 0, s.inE
	}
	s.left = s.n
	if err := s.dst.Write(s.out); err != nil {
		return 0, writeError{err}
	}
	if s.outE != nil {
		return 0, writeError{s.outE}
	}
	return s.n, nil
}

// close gives the pipe back if it is empty.
func (s *splicer) close() {
	if s.left > 0 {
		s.pipe.close()
	} else {
		pipes.Put(s.pipe)
	}
	s.pipe = nil
}
