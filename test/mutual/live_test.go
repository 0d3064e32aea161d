package mutual

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// lasting is the path of requests that last as long as their clients want.
const lasting = "/lasting"

// echo sends back what a client sends, as a WebSocket where it asks for one.
func echo(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	if r.Header.Get("Upgrade") != "" {
		conn, rw, err := c.Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, rw)
		return
	}
	_ = c.Flush()
	for lines := bufio.NewReader(r.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(w, line)
		_ = c.Flush()
	}
}

// A stream is the client's end of one that lasts.
type stream struct {
	what string
	io.Writer
	lines *bufio.Reader
}

// goesOn sends a line and reads it.
func (s *stream) goesOn(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(s, "here\n"); err != nil {
		t.Fatalf("%s: %v", s.what, err)
	}
	if line, err := s.lines.ReadString('\n'); err != nil || !strings.HasSuffix(line, "here\n") {
		t.Fatalf("%s: %q, %v", s.what, line, err)
	}
}

// ends waits until the stream is cut.
func (s *stream) ends(t *testing.T) {
	t.Helper()
	if _, err := io.ReadAll(s.lines); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s goes on", s.what)
	}
}

// streams opens one of each kind, under way.
func streams(t *testing.T, from, to *member) (all []*stream) {
	t.Helper()
	all = []*stream{tcpStream(t, from, to), webSocket(t, from, to), grpcStream(t, from, to)}
	for i, kind := range []string{"TCP", "WebSocket", "gRPC"} {
		all[i].what = kind + " of " + from.name
		all[i].goesOn(t)
	}
	return all
}

func (m *member) connect(t *testing.T, to *member, port int) net.Conn {
	t.Helper()
	address := net.JoinHostPort(vip(to), strconv.Itoa(port))
	if m.kind == "none" {
		address = net.JoinHostPort(to.Addr().String(), strconv.Itoa(port))
	}
	c, err := m.Dial(&net.Dialer{Timeout: patience}, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	return c
}

func tcpStream(t *testing.T, from, to *member) *stream {
	c := from.connect(t, to, tcpPort)
	return &stream{Writer: c, lines: bufio.NewReader(c)}
}

func webSocket(t *testing.T, from, to *member) *stream {
	t.Helper()
	c := from.connect(t, to, httpPort)
	_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s:%d\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", lasting, to.host(), httpPort)
	lines := bufio.NewReader(c)
	answer, err := http.ReadResponse(lines, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%s: %+v, %v", from.name, answer, err)
	}
	return &stream{Writer: c, lines: lines}
}

func grpcStream(t *testing.T, from, to *member) *stream {
	t.Helper()
	c := from.connect(t, to, grpcPort)
	transport := &http.Transport{Protocols: &http.Protocols{}, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	body, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://%s:%d%s", to.host(), grpcPort, lasting), body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	answer, err := transport.RoundTrip(r)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %+v, %v", from.name, answer, err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return &stream{Writer: w, lines: bufio.NewReader(answer.Body)}
}

// authorize is a policy for a member: what clients with these identities may not do, or only they.
func authorize(to *member, action string, accounts ...string) string {
	for i, a := range accounts {
		accounts[i] = "cluster.local/ns/default/sa/" + a
	}
	return fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: live, namespace: default}
spec:
  selector: {matchLabels: {app: %s}}
  action: %s
  rules: [{from: [{source: {principals: [%s]}}]}]
`, to.name, action, strings.Join(accounts, ", "))
}

// TestLivePolicy applies policies to a server whose clients have streams under way: PO-018 those that
// a policy denies end, of TCP, WebSocket and gRPC, and no others.
func TestLivePolicy(t *testing.T) {
	p := start(t)
	server := p.members["lateen-2"]
	open := map[string][]*stream{}
	for name, m := range p.members {
		if m != server {
			open[name] = streams(t, m, server)
		}
	}
	for _, step := range []struct {
		policy string
		ends   []string // whose streams
	}{
		{authorize(server, "DENY", "nobody"), nil},
		{authorize(server, "DENY", "lateen"), []string{"lateen"}},
		{"", nil},
		{authorize(server, "ALLOW", "envoy", "envoy-2"), []string{"none"}},
		{authorize(server, "ALLOW", "envoy"), []string{"envoy-2"}},
	} {
		p.put(step.policy)
		for _, who := range step.ends {
			for _, s := range open[who] {
				s.ends(t)
			}
			delete(open, who)
		}
		for _, list := range open {
			for _, s := range list {
				s.goesOn(t)
			}
		}
	}
}
