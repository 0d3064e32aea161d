package outside

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	maxQuestions = 256 // at once; more are dropped, as UDP does
	maxMessage   = 65535
)

// A Resolver is a DNS server on loopback that answers as the outside half does, for
// programs of this machine: names that were given, and all others by its name servers.
type Resolver struct {
	names    *lookup
	udp      *net.UDPConn
	tcp      net.Listener
	forwards chan struct{} // questions by UDP that are forwarded
	callers  chan struct{} // connections
	serving  sync.WaitGroup
}

// NewResolver listens on a free port of loopback, the same for UDP and TCP; Options.Listen
// does not count. Run serves.
func NewResolver(o Options) (*Resolver, error) {
	r := &Resolver{names: newLookup(o), forwards: make(chan struct{}, maxQuestions), callers: make(chan struct{}, maxQuestions)}
	var err error
	for range 10 { // the TCP port of a free UDP port can be taken
		if r.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			return nil, err
		}
		if r.tcp, err = net.Listen("tcp4", r.udp.LocalAddr().String()); err == nil {
			return r, nil
		}
		_ = r.udp.Close()
	}
	return nil, err
}

// Port is that of 127.0.0.1 on which the server listens.
func (r *Resolver) Port() int { return r.udp.LocalAddr().(*net.UDPAddr).Port }

// Run serves until the context ends, then closes the port. It is called once.
func (r *Resolver) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = r.udp.Close(); _ = r.tcp.Close() })
	defer stop()
	r.serving.Go(func() { r.serveUDP(ctx) })
	r.serving.Go(func() { r.serveTCP(ctx) })
	<-ctx.Done()
	r.serving.Wait()
}

func (r *Resolver) serveUDP(ctx context.Context) {
	buf := make([]byte, maxMessage)
	for {
		n, from, err := r.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		q, ok := parseQuestion(buf[:n])
		if !ok {
			continue
		}
		if reply, given := r.names.given(q); given { // at once, whatever became of the others
			_, _ = r.udp.WriteToUDPAddrPort(reply, from)
			continue
		}
		q.raw = append([]byte(nil), q.raw...)
		select {
		case r.forwards <- struct{}{}:
		default:
			continue
		}
		r.serving.Go(func() {
			defer func() { <-r.forwards }()
			if reply := r.names.forward(ctx, "udp", q); reply != nil {
				_, _ = r.udp.WriteToUDPAddrPort(reply, from)
			}
		})
	}
}

func (r *Resolver) serveTCP(ctx context.Context) {
	for {
		c, err := r.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: others end
			if !pause(ctx) {
				return
			}
			continue
		}
		select {
		case r.callers <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		r.serving.Go(func() {
			defer func() { <-r.callers }()
			r.serveCaller(ctx, c)
		})
	}
}

// serveCaller answers the one question of a connection.
func (r *Resolver) serveCaller(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	_ = c.SetDeadline(time.Now().Add(2 * lookupTime))
	message, err := readFrame(c)
	if err != nil {
		return
	}
	if reply := r.names.answer(ctx, "tcp", message); reply != nil {
		_ = writeFrame(c, reply)
	}
}
