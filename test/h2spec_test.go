package test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lateen-mesh/lateen/test/fixture"
)

// TestConformance: h2spec, the suite for RFC 9113 and RFC 7541 (its cases carry the
// numbers of RFC 7540), finds nothing to say against the proxy, on plain text and over TLS.
// A real Envoy 1.40 fails 21 of its 145 cases.
func TestConformance(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(make([]byte, 100))
	}))
	defer backend.Close()
	tool := h2spec(t)
	c := &fixture.Case{Name: "h2spec", Bootstrap: fmt.Sprintf(h2specBootstrap, backend.Listener.Addr().(*net.TCPAddr).Port)}
	m := fixture.NewMesh(t, c, programs(t), []fixture.Peer{ours(t)})
	t.Run("plain", func(t *testing.T) { conforms(t, tool, m.Gateways[0].Addr(80)) })
	t.Run("TLS", func(t *testing.T) { conforms(t, tool, m.Gateways[0].Addr(2), "-t", "-k") })
}

// conforms runs the suite; each of its cases is one of ours.
func conforms(t *testing.T, tool, addr string, options ...string) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	cmd := exec.CommandContext(t.Context(), tool, append(options, "-h", "127.0.0.1", "-p", port, "-o", "5", "-j", report)...)
	cmd.Dir = t.TempDir()
	out, runErr := cmd.CombinedOutput()
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v\n%s", runErr, out)
	}
	var suites struct {
		Suites []struct {
			Cases []struct {
				Package string `xml:"package,attr"`
				Name    string `xml:"classname,attr"`
				Failure *struct {
					Text string `xml:",innerxml"`
				} `xml:"failure"`
				Error *struct {
					Text string `xml:",innerxml"`
				} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, suite := range suites.Suites {
		for _, c := range suite.Cases {
			n++
			t.Run(c.Package+" "+c.Name, func(t *testing.T) {
				if c.Failure != nil {
					t.Error(c.Failure.Text)
				}
				if c.Error != nil {
					t.Error(c.Error.Text)
				}
			})
		}
	}
	if n < 140 {
		t.Errorf("%d cases only", n)
	}
}

// h2spec builds the tool.
func h2spec(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "h2spec")
	cmd := exec.Command("go", "build", "-o", path, "github.com/summerwind/h2spec/cmd/h2spec")
	cmd.Dir = "h2spec"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("h2spec cannot be built, its modules are not at hand: %v\n%s", err, out)
	}
	return path
}

const h2specBootstrap = `
static_resources:
  listeners:
  - name: plain
    address: {socket_address: {address: 127.0.0.1, port_value: ${listen}}}
    filter_chains:
    - filters: &manager
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: all
          codec_type: HTTP2 # without it a preface that is none is a request of HTTP/1
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config: {name: all, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: backend}}]}]}
  - name: secure
    address: {socket_address: {address: 127.0.0.1, port_value: ${listen2}}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2]
            tls_certificates: [{certificate_chain: {filename: "${cert h2spec.test}"}, private_key: {filename: "${key h2spec.test}"}}]
      filters: *manager
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: backend
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`
