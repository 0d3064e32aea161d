package tcpproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tcpproxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Filter state in which the head and the trailers of the tunnel's answer are left.
const (
	responseHeadersKey  = "envoy.tcp_proxy.propagate_response_headers"
	responseTrailersKey = "envoy.tcp_proxy.propagate_response_trailers"
	noTunnelKey         = "envoy.tcp_proxy.disable_tunneling"
)

// tunneling is a compiled tunneling_config.
type tunneling struct {
	host               *format.Format
	post               bool
	path               []byte
	headers            []addition
	keepHead, keepTail bool // propagate_response_headers, _trailers
}

// An addition is one of headers_to_add.
type addition struct {
	name   string
	value  *format.Format
	action corepb.HeaderValueOption_HeaderAppendAction
	empty  bool // keep_empty_value
}

func compileTunnel(c *tcpproxypb.TcpProxy_TunnelingConfig) (*tunneling, error) {
	if err := xds.Only(c, "hostname", "use_post", "headers_to_add", "propagate_response_headers", "propagate_response_trailers", "post_path"); err != nil {
		return nil, err
	}
	t := &tunneling{post: c.GetUsePost(), keepHead: c.GetPropagateResponseHeaders(), keepTail: c.GetPropagateResponseTrailers()}
	var err error
	if t.host, err = format.ParseHeader(c.GetHostname()); err != nil {
		return nil, fmt.Errorf("hostname: %w", err)
	}
	switch {
	case c.GetPostPath() != "" && !t.post:
		return nil, errors.New("post_path: Can't set a post path when POST method isn't used")
	case t.post:
		t.path = []byte("/")
	}
	if c.GetPostPath() != "" {
		t.path = []byte(c.GetPostPath())
	}
	for i, h := range c.GetHeadersToAdd() {
		a, err := compileAddition(h)
		if err != nil {
			return nil, fmt.Errorf("headers_to_add[%d]: %w", i, err)
		}
		t.headers = append(t.headers, a)
	}
	return t, nil
}

func compileAddition(h *corepb.HeaderValueOption) (addition, error) {
	a := addition{name: strings.ToLower(h.GetHeader().GetKey()), action: h.GetAppendAction(), empty: h.GetKeepEmptyValue()}
	if strings.HasPrefix(a.name, ":") || a.name == "host" {
		return a, errors.New(":-prefixed or host headers may not be modified")
	}
	text := h.GetHeader().GetValue()
	if raw := h.GetHeader().GetRawValue(); len(raw) > 0 {
		text = string(raw)
	}
	if on := h.GetAppend(); on != nil && !on.GetValue() {
		a.action = corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	}
	var err error
	a.value, err = format.ParseHeader(text)
	return a, err
}

func (a *addition) appends() bool {
	return a.action == corepb.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
}

func (a *addition) apply(h *http.Headers, rec format.Record) {
	value := a.value.Append(nil, rec)
	exists := h.Has(a.name)
	switch {
	case len(value) == 0 && !a.empty,
		exists && a.action == corepb.HeaderValueOption_ADD_IF_ABSENT,
		!exists && a.action == corepb.HeaderValueOption_OVERWRITE_IF_EXISTS:
	case a.appends():
		h.Add([]byte(a.name), value)
	default:
		h.Set(a.name, value)
	}
}

// request is the head that asks for the tunnel of a connection.
func (t *tunneling) request(info *streaminfo.Info) *http.Request {
	rec := format.Record{Info: info}
	r := &http.Request{Method: []byte("CONNECT"), Authority: t.host.Append(nil, rec), ContentLength: -1, Body: http.NoBody}
	if t.post {
		r.Method, r.Path, r.Scheme = []byte("POST"), t.path, []byte("http")
	}
	for _, appends := range []bool{false, true} { // what is appended comes last, as in Envoy
		for i := range t.headers {
			if a := &t.headers[i]; a.appends() == appends {
				a.apply(&r.Headers, rec)
			}
		}
	}
	return r
}

// errRefused is an answer other than 2xx.
var errRefused = errors.New("the upstream refused the tunnel")

// open asks for a tunnel on a connection of the pool, bounded by ctx.
func (t *tunneling) open(ctx context.Context, pool *upstream.Pool, info *streaminfo.Info) (*tunnel, error) {
	x, err := pool.Acquire(ctx.Done(), time.Time{})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, x.Interrupt)
	u := &tunnel{x: x, stop: stop, connect: !t.post, local: x.LocalAddr(), handshake: x.Handshake()}
	if err = x.WriteHead(t.request(info), false); err == nil {
		err = x.Flush()
	}
	for err == nil {
		if err = x.Await(&u.head); err == nil && u.head.Status >= 200 {
			break
		}
	}
	if err == nil && u.head.Status/100 != 2 {
		err = errRefused
	}
	if t.keepHead && u.head.Status >= 200 {
		info.SetState(responseHeadersKey, copied(&u.head.Headers))
	}
	if err != nil {
		u.release()
		return nil, err
	}
	if t.keepTail {
		u.trailed = func(h *http.Headers) { info.SetState(responseTrailersKey, copied(h)) }
	}
	info.UpstreamProtocol = x.Protocol().String()
	return u, nil
}

// copied are fields that outlive the exchange.
func copied(h *http.Headers) map[string]any {
	out := map[string]any{}
	for _, f := range h.Fields {
		out[string(f.Name)] = string(f.Value)
	}
	return out
}

// A tunnel is the body of an HTTP exchange as a connection.
type tunnel struct {
	x       http.ClientStream
	head    http.Response
	connect bool
	stop    func() bool
	trailed func(*http.Headers)
	local   netip.AddrPort
	// handshake is that of the connection beneath.
	handshake *streaminfo.TLS

	mu       sync.Mutex
	released bool

	ahead []byte // of the answer's body, not yet read
	err   error  // its end
}

// WaitReadable takes the next piece of the body.
func (u *tunnel) WaitReadable() error {
	if len(u.ahead) > 0 || u.err != nil {
		return nil
	}
	u.ahead, u.err = u.head.Body.Next()
	if errors.Is(u.err, io.EOF) && u.trailed != nil && u.head.Body.Trailers() != nil {
		u.trailed(u.head.Body.Trailers())
	}
	return nil
}

// Ended reports that nothing is left to be read.
func (u *tunnel) Ended() bool { return len(u.ahead) == 0 && u.err != nil }

func (u *tunnel) Read(p []byte) (int, error) {
	_ = u.WaitReadable() // what it finds is in u
	if len(u.ahead) == 0 {
		return 0, u.err
	}
	n := copy(p, u.ahead)
	u.ahead = u.ahead[n:]
	return n, nil
}

func (u *tunnel) Write(p []byte) (int, error) {
	err := u.x.WriteBody(p, false)
	if err == nil {
		err = u.x.Flush()
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteBuffers writes the slices one by one: the codec joins them.
func (u *tunnel) WriteBuffers(bufs *net.Buffers) (total int64, err error) {
	for _, b := range *bufs {
		if err = u.x.WriteBody(b, false); err != nil {
			return total, err
		}
		total += int64(len(b))
	}
	*bufs = nil
	return total, u.x.Flush()
}

// CloseWrite ends the request. HTTP/1 has no half of a CONNECT: it ends the connection.
func (u *tunnel) CloseWrite() error {
	if u.connect && u.x.Protocol() < http.HTTP2 {
		u.x.Interrupt()
		return nil
	}
	if err := u.x.WriteBody(nil, true); err != nil {
		return err
	}
	return u.x.Flush()
}

// Close ends the exchange, from any goroutine.
func (u *tunnel) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.released {
		u.x.Interrupt()
	}
	return nil
}

// release gives the exchange back; nobody reads or writes any more.
func (u *tunnel) release() {
	u.stop()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.released = true
	u.x.Release()
}

// Reset ends the exchange: a tunnel has no end of its own kind.
func (u *tunnel) Reset() error { return u.Close() }

// SetReadDeadline and SetWriteDeadline do nothing: the relay ends a tunnel by Close.
func (u *tunnel) SetReadDeadline(time.Time) error  { return nil }
func (u *tunnel) SetWriteDeadline(time.Time) error { return nil }

func (u *tunnel) LocalAddr() netip.AddrPort  { return u.local }
func (u *tunnel) RemoteAddr() netip.AddrPort { return netip.AddrPort{} }
func (u *tunnel) TCP() *net.TCPConn          { return nil }
func (u *tunnel) TLS() *tls.ConnectionState  { return nil }
func (u *tunnel) Handshake() *streaminfo.TLS { return u.handshake }
