package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
)

// lasting is a server whose answers last: it greets, then sends every byte of the request back. To
// /silent it says nothing, to /flood more than anybody wants to hear.
func lasting(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(lasts), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().String()
}

func lasts(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	switch {
	case r.URL.Path == "/silent":
		<-r.Context().Done()
		return
	case r.URL.Path == "/flood":
		for piece := make([]byte, 64<<10); ; {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	case r.Header.Get("upgrade") != "":
		conn, rw, err := c.Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello\n")
		_, _ = io.Copy(conn, rw)
		return
	}
	_ = c.EnableFullDuplex()
	_, _ = io.WriteString(w, "hello\n")
	_ = c.Flush()
	lines := bufio.NewReader(r.Body)
	for {
		line, err := lines.ReadString('\n')
		_, _ = io.WriteString(w, line)
		_ = c.Flush()
		if err != nil {
			break
		}
	}
	if r.Method == http.MethodGet { // its answer has no end
		<-r.Context().Done()
	}
}

// lastingListener has routes to such servers: requests, WebSockets and tunnels are let through,
// as far as filters do. The header by which a policy knows clients goes no further.
func lastingListener(t *testing.T, filters, routes, log string) proto.Message {
	return adsListener(t, filters, fmt.Sprintf(`http2_protocol_options: {allow_connect: true}
      upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]
      access_log: [{name: envoy.access_loggers.file, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q,
        log_format: {text_format_source: {inline_string: "%%RESPONSE_CODE%% %%RESPONSE_CODE_DETAILS%% %%REQ(X-ID)%%\n"}}}}]
      `, log)+routes)
}

// lastingRoutes have typed_per_filter_config.
func lastingRoutes(perFilter string) string {
	return fmt.Sprintf(`{name: routes, virtual_hosts: [{name: vh, domains: ["*"], request_headers_to_remove: [x-who], typed_per_filter_config: {%s}, routes: [
        {match: {connect_matcher: {}}, route: {cluster: h1, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}},
        {match: {prefix: /h2}, route: {cluster: h2, timeout: 0s}},
        {match: {prefix: /}, route: {cluster: h1, timeout: 0s, prefix_rewrite: /}}]}]}`, perFilter)
}

const (
	rbacURL  = `"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC`
	routeURL = `"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute`
)

// denying are rules that deny the clients named.
func denying(who ...string) string {
	var policies []string
	for _, w := range who {
		policies = append(policies, fmt.Sprintf(`"no-%s": {permissions: [{header: {name: x-who, string_match: {exact: %s}}}], principals: [{any: true}]}`, w, w))
	}
	return `rules: {action: DENY, policies: {` + strings.Join(policies, ", ") + `}}`
}

func rbacFilter(config string) string {
	return `
      - {name: rbac, typed_config: {` + rbacURL + `, ` + config + `}}`
}

const discoveredRBAC = `
      - {name: rbac, config_discovery: {config_source: {ads: {}, resource_api_version: V3}, type_urls: [type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC]}}`

// A lastingStream is a client's end of a stream that lasts.
type lastingStream struct {
	id string
	io.Reader
	io.Writer // nil: the request has ended
	waits     bool
}

// echoes sends a line and reads it.
func (s *lastingStream) echoes(t *testing.T) {
	t.Helper()
	if s.Writer == nil {
		return
	}
	if _, err := io.WriteString(s.Writer, "ping\n"); err != nil {
		t.Fatalf("%s: %v", s.id, err)
	}
	s.line(t, "ping\n")
}

func (s *lastingStream) line(t *testing.T, want string) {
	t.Helper()
	line := make([]byte, len(want))
	if _, err := io.ReadFull(s.Reader, line); err != nil || string(line) != want {
		t.Fatalf("%s: %q, %v; want %q", s.id, line, err, want)
	}
}

// ended waits for the end that a policy makes.
func (s *lastingStream) ended(t *testing.T) {
	t.Helper()
	b, err := io.ReadAll(s.Reader)
	var reset http2.StreamError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.Errorf("%s: goes on", s.id)
	case s.waits && !strings.Contains(string(b), "403"):
		t.Errorf("%s: %q, %v", s.id, b, err)
	case strings.Contains(s.id, "HTTP/2") && !s.waits && !errors.As(err, &reset):
		t.Errorf("%s: %q, %v; want a reset", s.id, b, err)
	}
}

// lastingHTTP1 sends a request's lines on a connection of its own.
func lastingHTTP1(t *testing.T, addr, id, who, lines string, writes bool) *lastingStream {
	c := dial(t, addr)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, strings.ReplaceAll(lines, "\n", "\r\n")+"x-who: "+who+"\r\nx-id: "+id+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	s := &lastingStream{id: id, Reader: bufio.NewReader(c)}
	if writes {
		s.Writer = c
	}
	return s
}

// head reads the head of an answer, and the line of the chunk that follows, if any.
func (s *lastingStream) head(t *testing.T, chunked bool) *lastingStream {
	r := s.Reader.(*bufio.Reader)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", s.id, err)
		}
		if line == "\r\n" {
			break
		}
	}
	if chunked {
		s.line(t, "6\r\n")
	}
	return s
}

// lastingHTTP2 opens a stream on a shared connection.
func lastingHTTP2(t *testing.T, c http.RoundTripper, id, who, method, path string, header ...string) *lastingStream {
	s := &lastingStream{id: id}
	req, err := http.NewRequest(method, "http://a.test:80"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if method != http.MethodGet {
		r, w := io.Pipe()
		t.Cleanup(func() { _ = w.Close() })
		req.Body, s.Writer = r, w
	}
	req.Header = http.Header{"X-Who": {who}, "X-Id": {id}}
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = []string{header[i+1]}
	}
	answer, err := c.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	if answer.StatusCode != 200 {
		t.Fatalf("%s: %d", id, answer.StatusCode)
	}
	s.Reader = answer.Body
	return s
}

const lastingUpgrade = "GET /ws HTTP/1.1\nhost: a.test\nconnection: upgrade\nupgrade: websocket\n"

// deniedHTTP2 is a request that is answered.
func deniedHTTP2(t *testing.T, c http.RoundTripper, who string) {
	t.Helper()
	answer, err := c.RoundTrip(&http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: "a.test", Path: "/"}, Header: http.Header{"X-Who": {who}}})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 403 {
		t.Errorf("a request of %s on a connection that was there: %d", who, answer.StatusCode)
	}
}

// openLasting opens a stream of each kind, under way, for a client.
func openLasting(t *testing.T, addr string, c http.RoundTripper, who string) (all []*lastingStream) {
	all = append(all,
		lastingHTTP1(t, addr, "WebSocket-"+who, who, lastingUpgrade, true).head(t, false),
		lastingHTTP1(t, addr, "answer-"+who, who, "GET /long HTTP/1.1\nhost: a.test\n", false).head(t, true),
		lastingHTTP2(t, c, "gRPC-HTTP/2-"+who, who, http.MethodPost, "/h2/bidi", "Content-Type", "application/grpc"),
		lastingHTTP2(t, c, "WebSocket-HTTP/2-"+who, who, http.MethodConnect, "/ws", ":protocol", "websocket"),
		lastingHTTP2(t, c, "answer-HTTP/2-"+who, who, http.MethodGet, "/h2/long"),
		lastingHTTP2(t, c, "to-HTTP/1-HTTP/2-"+who, who, http.MethodGet, "/long"))
	for _, s := range all {
		s.line(t, "hello\n")
	}
	tunnels := []*lastingStream{
		lastingHTTP1(t, addr, "CONNECT-"+who, who, "CONNECT a.test:80 HTTP/1.1\nhost: a.test:80\n", true).head(t, false),
		lastingHTTP2(t, c, "CONNECT-HTTP/2-"+who, who, http.MethodConnect, ""),
	}
	for _, s := range tunnels { // what they carry is a WebSocket, too
		if _, err := io.WriteString(s.Writer, strings.ReplaceAll(lastingUpgrade, "\n", "\r\n")+"\r\n"); err != nil {
			t.Fatal(err)
		}
		s.Reader = bufio.NewReader(s.Reader)
		s.head(t, false).line(t, "hello\n")
	}
	silent := lastingHTTP1(t, addr, "silent-"+who, who, "GET /silent HTTP/1.1\nhost: a.test\nconnection: close\n", false)
	silent.waits = true
	for _, s := range append(all, tunnels...) {
		s.echoes(t)
	}
	return append(append(all, tunnels...), silent)
}

// TestLivePolicy: PO-018 a policy that comes, in whatever way, ends the streams that it denies, on
// HTTP/1 and HTTP/2, and no others, also on connections that were there before any policy was;
// requests that come later on those are denied; a policy that changes or goes ends nothing that it allows.
func TestLivePolicy(t *testing.T) {
	static := func(perFilter string) string { return "route_config: " + lastingRoutes(perFilter) }
	const rds = `rds: {route_config_name: routes, config_source: {ads: {}, resource_api_version: V3}}`
	listener := func(filters func(who []string) string, routes string) func(*testing.T, *xdstest.Server, string, []string) {
		return func(t *testing.T, srv *xdstest.Server, log string, who []string) {
			srv.Set("l", lastingListener(t, filters(who), routes, log))
		}
	}
	for _, c := range []struct {
		name  string
		apply func(t *testing.T, srv *xdstest.Server, log string, who []string) // a policy that denies them
	}{
		{"where no filter was", listener(func(who []string) string {
			if len(who) == 0 {
				return ""
			}
			return rbacFilter(denying(who...))
		}, static(""))},
		{"in the place of another", listener(func(who []string) string { return rbacFilter(denying(append(who, "nobody")...)) }, static(""))},
		{"by routes", func(t *testing.T, srv *xdstest.Server, log string, who []string) {
			srv.Set("l", lastingListener(t, rbacFilter(""), rds, log))
			srv.Set("routes", message(t, &routepb.RouteConfiguration{}, lastingRoutes(`rbac: {`+routeURL+`, rbac: {`+denying(append(who, "nobody")...)+`}}`)))
		}},
		{"as a discovered filter", func(t *testing.T, srv *xdstest.Server, log string, who []string) {
			srv.Set("l", lastingListener(t, discoveredRBAC, static(""), log))
			srv.Set("rbac", faultResource(t, "rbac", `{`+rbacURL+`, `+denying(append(who, "nobody")...)+`}`))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv, log, upstream := xdstest.New(t), t.TempDir()+"/log", lasting(t)
			c.apply(t, srv, log, nil)
			addr := lastingProxy(t, srv, upstream)
			h2 := dialHTTP2(t, addr)
			a, b := openLasting(t, addr, h2, "a"), openLasting(t, addr, h2, "b")
			c.apply(t, srv, log, []string{"b"})
			for _, s := range b {
				s.ended(t)
			}
			deniedHTTP2(t, h2, "b")
			for _, who := range []string{"c", "d"} {
				canary := lastingHTTP1(t, addr, "canary-"+who, who, lastingUpgrade, true).head(t, false)
				canary.line(t, "hello\n")
				c.apply(t, srv, log, []string{who})
				canary.ended(t)
				for _, s := range a {
					s.echoes(t)
				}
			}
			c.apply(t, srv, log, nil)
			for _, s := range a {
				s.echoes(t)
			}
			c.apply(t, srv, log, []string{"a"})
			for _, s := range a {
				s.ended(t)
			}
			for _, s := range append(a, b...) {
				logged(t, log, " rbac_access_denied_matched_policy[no-"+s.id[len(s.id)-1:]+"] "+s.id+"\n")
			}
		})
	}
}

// lastingProxy runs a proxy of the server's listener l before an upstream.
func lastingProxy(t *testing.T, srv *xdstest.Server, upstream string) (addr string) {
	t.Helper()
	h1 := "- " + staticCluster("h1", upstream)
	h2 := strings.TrimSuffix("- "+staticCluster("h2", upstream), "}") + `, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}}`
	r := underADS(t, srv, "DELTA_GRPC", h1, h2)
	r.eventually("/ready", "LIVE\n")
	return r.listener("l")
}

// TestLivePolicyOfMetadata: what filters have found out about a request ahead of the last policy is
// known to a policy that comes.
func TestLivePolicyOfMetadata(t *testing.T) {
	filters := func(who ...string) string {
		return rbacFilter(denying(who...)) + `
      - {name: set, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config, metadata: [{metadata_namespace: m, value: {who: known}}]}}` +
			strings.Replace(rbacFilter(`rules: {policies: {known: {permissions: [{any: true}], principals: [{metadata: {filter: m, path: [{key: who}], value: {string_match: {exact: known}}}}]}}}`), "name: rbac", "name: rbac-2", 1)
	}
	srv, log := xdstest.New(t), t.TempDir()+"/log"
	srv.Set("l", lastingListener(t, filters("nobody"), "route_config: "+lastingRoutes(""), log))
	addr := lastingProxy(t, srv, lasting(t))
	a, b := lastingHTTP1(t, addr, "a", "a", lastingUpgrade, true).head(t, false), lastingHTTP1(t, addr, "b", "b", lastingUpgrade, true).head(t, false)
	a.line(t, "hello\n")
	srv.Set("l", lastingListener(t, filters("b"), "route_config: "+lastingRoutes(""), log))
	b.ended(t)
	a.echoes(t)
}

// TestLivePolicyOfDeafClients: a stream that a policy denies ends also where its client takes nothing.
func TestLivePolicyOfDeafClients(t *testing.T) {
	srv, log := xdstest.New(t), t.TempDir()+"/log"
	srv.Set("l", lastingListener(t, "", "route_config: "+lastingRoutes(""), log))
	addr := lastingProxy(t, srv, lasting(t))
	lastingHTTP1(t, addr, "one", "b", "GET /flood HTTP/1.1\nhost: a.test\n", false).head(t, false)
	lastingHTTP2(t, dialHTTP2(t, addr), "two", "b", http.MethodGet, "/flood")
	srv.Set("l", lastingListener(t, rbacFilter(denying("b")), "route_config: "+lastingRoutes(""), log))
	logged(t, log, "200 rbac_access_denied_matched_policy[no-b] one\n")
	logged(t, log, "200 rbac_access_denied_matched_policy[no-b] two\n")
}

// TestLivePolicyAmongRequests: while a policy comes and goes, requests come and end on connections of
// both versions; those that it does not name are all answered, the others are answered or denied.
func TestLivePolicyAmongRequests(t *testing.T) {
	srv, log := xdstest.New(t), t.TempDir()+"/log"
	srv.Set("l", lastingListener(t, discoveredRBAC, "route_config: "+lastingRoutes(""), log))
	srv.Set("rbac", faultResource(t, "rbac", `{`+rbacURL+`, `+denying("nobody")+`}`))
	addr := lastingProxy(t, srv, lasting(t))
	done := make(chan struct{})
	var clients sync.WaitGroup
	two := &http.Transport{Protocols: new(http.Protocols)} // which connects again where a changed listener ends connections
	two.Protocols.SetUnencryptedHTTP2(true)
	for _, by := range []*http.Transport{{}, two} {
		t.Cleanup(by.CloseIdleConnections)
		for _, who := range []string{"a", "b"} {
			clients.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-done:
						return
					default:
					}
					if err := shortly(t.Context(), by, addr, who); err != nil {
						t.Errorf("request %d of %s: %v", n, who, err)
						return
					}
				}
			})
		}
	}
	for i := range 40 {
		config := rbacFilter(denying([]string{"b", "nobody"}[i%2]))
		if i%4 < 2 {
			srv.Set("rbac", faultResource(t, "rbac", `{`+rbacURL+`, `+denying([]string{"b", "nobody"}[i%2])+`}`))
		} else {
			srv.Set("l", lastingListener(t, config, "route_config: "+lastingRoutes(""), log))
		}
		canary := lastingHTTP1(t, addr, "canary", "a", lastingUpgrade, true).head(t, false)
		canary.line(t, "hello\n")
		canary.echoes(t)
		_ = canary.Writer.(io.Closer).Close()
	}
	close(done)
	clients.Wait()
}

// shortly sends a request with a body, which is answered as it comes.
func shortly(ctx context.Context, by http.RoundTripper, addr, who string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/short", strings.NewReader("one\ntwo\n"))
	if err != nil {
		return err
	}
	r.Header.Set("x-who", who)
	answer, err := by.RoundTrip(r)
	if err != nil {
		return denied(who, err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return denied(who, err)
	case answer.StatusCode == http.StatusOK && string(b) == "hello\none\ntwo\n":
		return nil
	}
	return denied(who, fmt.Errorf("%d %q", answer.StatusCode, b))
}

// denied is no error of who may be denied.
func denied(who string, err error) error {
	if who == "b" {
		return nil
	}
	return err
}

// TestLivePolicyOfConnections: the same for connections without HTTP, whose filter is a discovered one.
func TestLivePolicyOfConnections(t *testing.T) {
	srv := xdstest.New(t)
	srv.Set("l", lds(t, `{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [
      {name: rbac, config_discovery: {config_source: {ads: {}, resource_api_version: V3}, type_urls: [type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC]}},
      {name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: p, cluster: echo}}]}]}`))
	deny := func(address string) {
		srv.Set("rbac", faultResource(t, "rbac", `{"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: t.,
      rules: {action: DENY, policies: {p: {permissions: [{any: true}], principals: [{direct_remote_ip: {address_prefix: `+address+`, prefix_len: 32}}]}}}}`))
	}
	deny("127.0.0.9")
	r := underADS(t, srv, "GRPC", "- "+staticCluster("echo", backend(t)))
	r.eventually("/ready", "LIVE\n")
	var clients []net.Conn
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", r.listener("l"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		echoes(t, c, "hello")
		clients = append(clients, c)
	}
	deny("127.0.0.3")
	if b, err := io.ReadAll(clients[1]); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection that is denied goes on: %q", b)
	}
	deny("127.0.0.9")
	echoes(t, clients[0], "still here")
}

// logged waits until a file contains text.
func logged(t *testing.T, path, text string) {
	t.Helper()
	var all []byte
	for range 1000 {
		if all, _ = os.ReadFile(path); strings.Contains(string(all), text) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("no line %q in\n%s", text, all)
}

// dialHTTP2 opens a connection of HTTP/2, of which there is one only.
func dialHTTP2(t *testing.T, addr string) http.RoundTripper {
	c := dial(t, addr)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	once := make(chan net.Conn, 1)
	once <- c
	return &http2.Transport{AllowHTTP: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) { //nolint:staticcheck // net/http's own sends no extended CONNECT
		select {
		case c := <-once:
			return c, nil
		default:
			return nil, errors.New("the connection has ended")
		}
	}}
}
