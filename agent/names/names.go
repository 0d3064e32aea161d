// Package names answers the DNS questions of a pod: from the table of names that the control
// plane sends, and for all other names by asking the servers of the pod's resolv.conf.
//
//	question ─ UDP, TCP ─► Server ─┬ A, AAAA of a name of the table: answered here
//	                               └ else: forwarded as it is
//
// A name is found as it stands, as a shorter form of a Kubernetes Service (web, web.default,
// web.default.svc), with a search domain behind it, as resolvers try it (www.example.com.default.
// svc.cluster.local is www.example.com: the answer says so by a CNAME and spares the resolver
// the other tries), and last below a name that begins with "*.". A name of the table without
// addresses of the family that is asked for has an empty answer.
//
// Until there is a table everything is forwarded. A question that comes back to the server,
// because the redirection of the pod does not know its sockets, fails at once.
package names

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lateen-mesh/lateen/nametable"
)

// Options say where questions come from and go to.
type Options struct {
	Address   string   // HOST:PORT to listen on, UDP and TCP
	Namespace string   // of the pod: its own Services are found by their name alone
	Domain    string   // DNS suffix of services, "" is cluster.local
	Search    []string // domains that the pod's resolver appends
	Servers   []netip.AddrPort
	// Control is called for each socket that asks a server, before it is bound. May be nil.
	Control func(network, address string, c syscall.RawConn) error
	// Logger is slog's default if nil.
	Logger *slog.Logger
}

// Counts are how many questions there were.
type Counts struct {
	Questions, Forwarded, Failed uint64
}

// A Server answers. Its methods may be called by any goroutine.
type Server struct {
	o     Options
	log   *slog.Logger
	udp   *net.UDPConn
	tcp   net.Listener
	table atomic.Pointer[nametable.Table]

	slots chan struct{} // of questions that are forwarded or came by TCP
	own   sync.Map      // socketOf, of those that ask servers

	questions, forwarded, failed atomic.Uint64
}

// Bounds of the server.
const (
	maxAtOnce   = 256
	maxDatagram = 4096 // bytes of a question, and of an answer that is taken
	idleTCP     = 10 * time.Second
)

// Listen opens the sockets.
func Listen(o Options) (*Server, error) {
	s := &Server{o: o, log: cmp.Or(o.Logger, slog.Default()), slots: make(chan struct{}, maxAtOnce)}
	s.o.Domain = cmp.Or(o.Domain, "cluster.local")
	address, err := net.ResolveUDPAddr("udp", o.Address)
	if err != nil {
		return nil, err
	}
	if s.udp, err = net.ListenUDP("udp", address); err != nil {
		return nil, err
	}
	if s.tcp, err = net.Listen("tcp", s.udp.LocalAddr().String()); err != nil {
		return nil, errors.Join(err, s.udp.Close())
	}
	return s, nil
}

// Address is where the server listens.
func (s *Server) Address() string { return s.udp.LocalAddr().String() }

// Update is the new table; it must not be changed any more.
func (s *Server) Update(t nametable.Table) { s.table.Store(&t) }

// Table is the newest table, nil before the first.
func (s *Server) Table() nametable.Table {
	if t := s.table.Load(); t != nil {
		return *t
	}
	return nil
}

// Counts are those so far.
func (s *Server) Counts() Counts {
	return Counts{s.questions.Load(), s.forwarded.Load(), s.failed.Load()}
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _, _ = s.udp.Close(), s.tcp.Close() })
	defer stop()
	failed := make(chan error, 2)
	for _, serve := range []func(context.Context, *sync.WaitGroup) error{s.serveUDP, s.serveTCP} {
		tasks.Go(func() {
			failed <- serve(ctx, &tasks)
			cancel()
		})
	}
	err := <-failed
	over := ctx.Err() != nil
	cancel()
	tasks.Wait()
	if over && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) serveUDP(ctx context.Context, tasks *sync.WaitGroup) error {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				continue // an answer that nobody took
			}
			return err
		}
		s.questions.Add(1)
		if answer, known := s.answer(buf[:n], udpSize); known {
			_, _ = s.udp.WriteToUDPAddrPort(answer, from)
			continue
		}
		question := append([]byte(nil), buf[:n]...)
		s.inSlot(tasks, func() {
			if answer := s.forward(ctx, "udp", question, from.Port()); answer != nil {
				_, _ = s.udp.WriteToUDPAddrPort(answer, from)
			}
		})
	}
}

// inSlot runs f unless too many run; then the resolver asks again.
func (s *Server) inSlot(tasks *sync.WaitGroup, f func()) bool {
	select {
	case s.slots <- struct{}{}:
	default:
		s.failed.Add(1)
		return false
	}
	tasks.Go(func() {
		defer func() { <-s.slots }()
		f()
	})
	return true
}

func (s *Server) serveTCP(ctx context.Context, tasks *sync.WaitGroup) error {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return err
			}
			time.Sleep(10 * time.Millisecond) // too many open files, or the like
			continue
		}
		if !s.inSlot(tasks, func() { s.converse(ctx, c) }) {
			_ = c.Close()
		}
	}
}

// converse answers the questions of one connection.
func (s *Server) converse(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	for {
		_ = c.SetDeadline(time.Now().Add(idleTCP))
		question, err := readFramed(c)
		if err != nil {
			return
		}
		s.questions.Add(1)
		answer, known := s.answer(question, tcpSize)
		if !known {
			port := c.RemoteAddr().(*net.TCPAddr).AddrPort().Port()
			answer = s.forward(ctx, "tcp", question, port)
		}
		if answer == nil || writeFramed(c, answer) != nil {
			return
		}
	}
}

// A Resolver is what resolv.conf says.
type Resolver struct {
	Servers []netip.AddrPort
	Search  []string
}

// Bounds of resolv.conf.
const (
	maxServers = 8
	maxSearch  = 32
)

// ReadResolver reads a resolv.conf.
func ReadResolver(path string) (Resolver, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Resolver{}, err
	}
	return parseResolver(string(text))
}

func parseResolver(text string) (r Resolver, err error) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			ip, failed := netip.ParseAddr(words[1])
			if failed != nil {
				err = errors.Join(err, fmt.Errorf("nameserver: %w", failed))
				continue
			}
			if len(r.Servers) < maxServers {
				r.Servers = append(r.Servers, netip.AddrPortFrom(ip, 53))
			}
		case "search", "domain":
			r.Search = nil
			for _, domain := range words[1:min(len(words), maxSearch+1)] {
				r.Search = append(r.Search, strings.ToLower(strings.Trim(domain, ".")))
			}
		}
	}
	return r, err
}
