package jwt

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/ports"
)

// A peer is one running proxy; its listeners are those of listeners, in order.
type peer struct {
	name  string
	ports []int
	admin int
}

// backend answers each request with what it got: the request line and all headers, sorted,
// fields of one name as one, as Envoy sends some of them.
func backend(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var lines []string
		for name, values := range r.Header {
			lines = append(lines, strings.ToLower(name)+": "+strings.Join(values, ","))
		}
		slices.Sort(lines)
		fmt.Fprintf(w, "%s %s\n%s\n", r.Method, r.RequestURI, strings.Join(lines, "\n"))
	}))
	t.Cleanup(s.Close)
	return s
}

// issuer serves a document of keys.
func issuer(t *testing.T, keys string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, keys)
	}))
	t.Cleanup(s.Close)
	return s
}

// start runs a proxy of a static configuration, a listener for each filter.
func start(t *testing.T, name, binary string, filters []string, upstream, keys *httptest.Server) *peer {
	t.Helper()
	p := &peer{name: name, ports: ports.Claim(len(filters)), admin: ports.One()}
	var b strings.Builder
	fmt.Fprintf(&b, "admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}\nstatic_resources:\n  clusters:\n", p.admin)
	for cluster, server := range map[string]*httptest.Server{"upstream": upstream, "issuer": keys} {
		port := server.Listener.Addr().(*net.TCPAddr).Port
		fmt.Fprintf(&b, "  - {name: %s, type: STATIC, load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}}\n", cluster, cluster, port)
	}
	b.WriteString("  listeners:\n")
	for i, f := range filters {
		fmt.Fprintf(&b, listener, i, p.ports[i], i, f)
	}
	data, err := yaml.YAMLToJSON([]byte(b.String()))
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	fixture.Start(t, name, []string{binary, "-c", file, "--log-level", "warn", "--base-id", strconv.Itoa(p.admin), "--concurrency", "1"})
	fixture.Eventually(t, name+" is ready", func() error {
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/ready", p.admin))
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != 200 {
			return fmt.Errorf("status %d", r.StatusCode)
		}
		return nil
	})
	return p
}

// listener shows in headers what else only logs and metadata would tell.
const listener = `
  - name: l%d
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l%d
          generate_request_id: false
          local_reply_config:
            mappers:
            - filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 100, runtime_key: none}}}}
              headers_to_add:
              - {header: {key: x-details, value: "%%RESPONSE_CODE_DETAILS%% %%RESPONSE_FLAGS%%"}}
              - {header: {key: x-metadata, value: "%%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%%"}}
          http_filters:
          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
%s
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            request_headers_to_add:
            - {header: {key: x-metadata, value: "%%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%%"}}
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /off}
                route: {cluster: upstream}
                typed_per_filter_config: {envoy.filters.http.jwt_authn: {"@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, disabled: true}}
              - match: {prefix: /named}
                route: {cluster: upstream}
                typed_per_filter_config: {envoy.filters.http.jwt_authn: {"@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, requirement_name: named}}
              - match: {prefix: /misnamed}
                route: {cluster: upstream}
                typed_per_filter_config: {envoy.filters.http.jwt_authn: {"@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, requirement_name: nowhere}}
              - match: {prefix: /, dynamic_metadata: [{filter: envoy.filters.http.jwt_authn, path: [{key: payload}, {key: sub}], value: {string_match: {exact: admin}}}]}
                route: {cluster: upstream}
                request_headers_to_add: [{header: {key: x-route, value: admin}}]
              - match: {prefix: /, headers: [{name: x-claim-sub, string_match: {exact: admin}}]}
                route: {cluster: upstream}
                request_headers_to_add: [{header: {key: x-route, value: by claim}}]
              - match: {prefix: /}
                route: {cluster: upstream}
`

// A line is a connection to one listener, kept open.
type line struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
}

func (p *peer) line(i int) *line { return &line{addr: fmt.Sprintf("127.0.0.1:%d", p.ports[i])} }

func (l *line) close() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}

// send sends a request and returns the answer in a form that can be compared.
func (l *line) send(request string) (string, error) {
	if l.conn == nil {
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			return "", err
		}
		l.conn, l.in = c, bufio.NewReader(c)
	}
	_ = l.conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(l.conn, request); err != nil {
		return "", err
	}
	r, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	if r.Close {
		l.close()
	}
	return transcript(r, string(body)), nil
}

// transcript is an answer without what differs by nature; metadata is written with sorted keys.
func transcript(r *http.Response, body string) string {
	var lines []string
	for name, values := range r.Header {
		switch name {
		case "Date", "X-Envoy-Upstream-Service-Time", "Content-Length": // the length of metadata depends on how numbers are written
			continue
		}
		for _, v := range values {
			lines = append(lines, canonical(strings.ToLower(name)+": "+v))
		}
	}
	sort.Strings(lines)
	for l := range strings.SplitSeq(body, "\n") {
		lines = append(lines, canonical(l))
	}
	return r.Status + "\n" + strings.Join(lines, "\n")
}

func canonical(l string) string {
	text, ok := strings.CutPrefix(l, "x-metadata: ")
	var v any
	if !ok || json.Unmarshal([]byte(text), &v) != nil {
		return l
	}
	out, _ := json.Marshal(v)
	return "x-metadata: " + string(out)
}

// counters are the filters' stats but those that depend on who came first.
func (p *peer) counters(t *testing.T) string {
	t.Helper()
	r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/stats?filter=jwt_authn", p.admin))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for l := range strings.Lines(string(body)) {
		if name, _, _ := strings.Cut(l, ":"); strings.Contains(name, "cache") || strings.Contains(name, "jwks_fetch") {
			l = name + "\n"
		}
		lines = append(lines, l)
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// binaries are our proxy and the real Envoy.
func binaries(t *testing.T) (ours, envoy string) {
	t.Helper()
	if envoy = fixture.EnvoyPath(); envoy == "" {
		t.Skip("the real Envoy is not installed: run `make peers`")
	}
	return build.Command(t, "lateen-proxy"), envoy
}
