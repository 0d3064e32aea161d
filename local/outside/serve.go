package outside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	maxUnderWay = 1024             // requests of one socketpair
	dialTime    = 10 * time.Second // of one dial
	portOffset  = 8000             // added to a port that is not to be had
)

// Options say how the outside answers.
type Options struct {
	// Resolve are names with their addresses; what the name servers know of them does not count.
	Resolve map[string][]netip.Addr
	// Servers are name servers, HOST:PORT. Nil: those of /etc/resolv.conf at the time of a question.
	Servers []string
	// Listen opens the socket of this machine behind a port of a pod; it is closed after it was
	// handed over. Nil: the port itself where that is allowed and free, else port + 8000.
	Listen func(ctx context.Context, port uint16) (*net.TCPListener, error)
}

// Serve answers the requests of a Client until the context ends or the Client is gone,
// which is no error. It closes the connection.
func Serve(ctx context.Context, conn *net.UnixConn, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	if o.Listen == nil {
		o.Listen = listen
	}
	s := &server{conn: conn, open: o.Listen, names: newLookup(o), underWay: map[string]context.CancelFunc{}}
	defer s.serving.Wait()
	defer cancel()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	buf := make([]byte, maxPacket)
	for {
		packet, file, err := receive(conn, buf)
		if file != nil { // nobody asked for it
			_ = file.Close()
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
			return nil
		case err != nil:
			return fmt.Errorf("requests from inside: %w", err)
		}
		s.take(ctx, packet)
	}
}

type server struct {
	conn    *net.UnixConn
	names   *lookup
	open    func(context.Context, uint16) (*net.TCPListener, error)
	serving sync.WaitGroup

	mu       sync.Mutex
	underWay map[string]context.CancelFunc // by number
}

// take starts what one packet asks for.
func (s *server) take(ctx context.Context, packet []byte) {
	prefix, rest, found := bytes.Cut(packet, []byte(" "))
	number := string(prefix)
	r, err := parseRequest(rest)
	if !found || err != nil {
		s.answer(number, failure(errRequest), nil)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.verb == "cancel" {
		if cancel := s.underWay[number]; cancel != nil {
			cancel()
		}
		return
	}
	if _, twice := s.underWay[number]; twice || len(s.underWay) >= maxUnderWay {
		s.answer(number, failure(exhausted), nil)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	s.underWay[number] = cancel
	r.message = bytes.Clone(r.message)
	s.serving.Go(func() {
		s.serve(ctx, number, r)
		cancel()
		s.mu.Lock()
		delete(s.underWay, number)
		s.mu.Unlock()
	})
}

func (s *server) answer(number string, text []byte, from syscall.Conn) {
	_ = send(s.conn, append([]byte(number+" "), text...), from) // gone: the reader sees it too
}

func (s *server) serve(ctx context.Context, number string, r request) {
	switch r.verb {
	case "query":
		s.answer(number, append([]byte("ok "), s.names.answer(ctx, r.network, r.message)...), nil)
	case "dial":
		c, err := dial(ctx, r.network, r.to)
		if err != nil {
			s.answer(number, failure(err), nil)
			return
		}
		s.answer(number, []byte("ok"), c)
		_ = c.Close()
	case "listen":
		if r.network != "tcp" {
			s.answer(number, failure(errRequest), nil)
			return
		}
		l, err := s.open(ctx, r.port)
		if err != nil {
			s.answer(number, failure(err), nil)
			return
		}
		s.answer(number, []byte("ok "+l.Addr().String()), l)
		_ = l.Close()
	default:
		s.answer(number, failure(errRequest), nil)
	}
}

type socket interface {
	net.Conn
	syscall.Conn
}

func dial(ctx context.Context, network string, to netip.AddrPort) (socket, error) {
	d := net.Dialer{Timeout: dialTime}
	c, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, bare(err)
	}
	return c.(socket), nil
}

// bare is an error of a dial or listen without words about who asked for what.
func bare(err error) error {
	if n, ok := errors.AsType[syscall.Errno](err); ok {
		return n
	}
	return err
}

// listen opens the port itself where that is allowed and free, else port + 8000.
func listen(ctx context.Context, port uint16) (*net.TCPListener, error) {
	var reasons []error
	for _, p := range []int{int(port), int(port) + portOffset} {
		if p > 65535 {
			continue
		}
		var c net.ListenConfig
		l, err := c.Listen(ctx, "tcp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(p)))
		if err == nil {
			return l.(*net.TCPListener), nil
		}
		reasons = append(reasons, fmt.Errorf("%d: %w", p, bare(err)))
	}
	return nil, errors.Join(reasons...)
}
