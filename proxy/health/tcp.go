package health

import (
	"bytes"
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/core/v3"

	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// tcpCheck connects and, where it says so, sends bytes and waits for others.
type tcpCheck struct {
	send    []byte
	receive [][]byte
}

func compileTCP(pb *corev3.HealthCheck_TcpHealthCheck) (prober, error) {
	if err := xds.Only(pb, "send", "receive"); err != nil {
		return nil, err
	}
	send, err := payload(pb.GetSend())
	if err != nil {
		return nil, at("send", err)
	}
	receive, err := payloads("receive", pb.GetReceive())
	if err != nil {
		return nil, err
	}
	return &tcpCheck{send: send, receive: receive}, nil
}

func (*tcpCheck) kind() kind { return datav3.HealthCheckerType_TCP }

func (k *tcpCheck) probe(s *session) probe { return &tcpProbe{check: k, s: s} }

type tcpProbe struct {
	check *tcpCheck
	s     *session
	conn  transport.Conn
}

func (p *tcpProbe) try(ctx context.Context) outcome {
	if p.conn != nil && stale(p.conn) {
		p.close()
	}
	if p.conn == nil {
		var err error
		if p.conn, err = p.s.dial(ctx); err != nil {
			return outcome{cause: network}
		}
	}
	release := p.s.bound(ctx, p.conn)
	ok := p.exchange()
	release()
	if !ok {
		p.close()
		return outcome{cause: network}
	}
	if len(p.check.receive) == 0 {
		p.close() // a connection that says nothing proves nothing twice
	}
	return outcome{passed: true}
}

func (p *tcpProbe) exchange() bool {
	if len(p.check.send) > 0 {
		if _, err := p.conn.Write(p.check.send); err != nil {
			return false
		}
	}
	if len(p.check.receive) == 0 {
		return true
	}
	var got []byte
	for buf := make([]byte, 4<<10); len(got) < maxBuffer; {
		n, err := p.conn.Read(buf)
		if got = append(got, buf[:n]...); matches(p.check.receive, got) {
			return true
		}
		if err != nil {
			return false
		}
	}
	return false
}

func (p *tcpProbe) close() {
	if p.conn != nil {
		_ = p.conn.Close() // nothing is left to be said
		p.conn = nil
	}
}

// matches reports that got holds the parts one after the other.
func matches(parts [][]byte, got []byte) bool {
	for _, p := range parts {
		i := bytes.Index(got, p)
		if i < 0 {
			return false
		}
		got = got[i+len(p):]
	}
	return true
}

// dial connects to the host.
func (s *session) dial(ctx context.Context) (transport.Conn, error) {
	return s.c.env.Connect(ctx, s.Endpoint, s.address(), s.check.way)
}

// bound has conn fail when ctx ends, until release.
func (s *session) bound(ctx context.Context, conn transport.Conn) (release func()) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return func() { stop() }
}

// stale reports that the peer has ended the connection, or spoke out of turn.
func stale(conn transport.Conn) bool {
	p, ok := conn.(interface{ Stale() bool })
	return ok && p.Stale()
}
