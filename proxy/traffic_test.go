package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// accessLog is the default text format of the original's mesh configuration.
const accessLog = `[{name: log, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: PATH, log_format: {text_format_source: {inline_string:
  "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"}}}}]`

// certificate is a self-signed one for names.
func certificate(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func pool(t *testing.T, c tls.Certificate) *x509.CertPool {
	t.Helper()
	x, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	p.AddCert(x)
	return p
}

// tlsBackend echoes over TLS.
func tlsBackend(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	return accepting(t, ln, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

// logLines waits for n lines.
func logLines(t *testing.T, path string, n int) []string {
	t.Helper()
	for range 1000 {
		if b, err := os.ReadFile(path); err == nil && strings.Count(string(b), "\n") >= n {
			return strings.Split(strings.TrimSpace(string(b)), "\n")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("no %d lines in %s", n, path)
	return nil
}

var port = regexp.MustCompile(`127\.0\.0\.1:\d+`)

func TestPassthroughBySNI(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	logs := strings.Replace(accessLog, "PATH", path, 1)
	cert := certificate(t, "edition.cnn.com")
	up := tlsBackend(t, cert)
	r := start(t, `
static_resources:
  clusters: [`+staticCluster(`"outbound|443||edition.cnn.com"`, up)+`]
  listeners:
  - name: "0.0.0.0_443"
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    traffic_direction: OUTBOUND
    access_log: [{name: log, filter: {response_flag_filter: {flags: [NR]}}, typed_config: `+logs[strings.Index(logs, "typed_config: ")+14:len(logs)-1]+`]
    listener_filters: [{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector, initial_read_buffer_size: 512}}]
    filter_chains:
    - filter_chain_match: {server_names: [edition.cnn.com]}
      filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: p, cluster: "outbound|443||edition.cnn.com", access_log: `+logs+`}}]
`)
	addr := r.listener("0.0.0.0_443")
	t.Run("the server's own certificate arrives", func(t *testing.T) {
		c, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "edition.cnn.com", RootCAs: pool(t, cert)})
		if err != nil {
			t.Fatal(err)
		}
		echoes(t, c, "hello")
		_ = c.Close()
	})
	t.Run("another server name is cut", func(t *testing.T) {
		if _, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "other.test"}); err == nil {
			t.Error("connected")
		}
	})
	t.Run("so is plain HTTP", func(t *testing.T) {
		if _, err := r.http.Get("http://" + addr + "/"); err == nil {
			t.Error("answered")
		}
	})
	t.Run("WI-019 the lines that the original logs", func(t *testing.T) {
		lines := logLines(t, path, 3)
		want := []*regexp.Regexp{
			regexp.MustCompile(`^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] "- - -" 0 - - - "-" \d+ \d+ \d+ - "-" "-" "-" "-" "ADDR" outbound\|443\|\|edition\.cnn\.com ADDR ADDR ADDR edition\.cnn\.com -$`),
			regexp.MustCompile(`^\[[^]]*\] "- - -" 0 NR filter_chain_not_found - "-" 0 0 \d+ - "-" "-" "-" "-" "-" - - ADDR ADDR other\.test -$`),
			regexp.MustCompile(`^\[[^]]*\] "- - -" 0 NR filter_chain_not_found - "-" 0 0 \d+ - "-" "-" "-" "-" "-" - - ADDR ADDR - -$`),
		}
		joined := port.ReplaceAllString(strings.Join(lines, "\n"), "ADDR")
		for _, re := range want {
			found := false
			for line := range strings.SplitSeq(joined, "\n") {
				found = found || re.MatchString(line)
			}
			if !found {
				t.Errorf("no line like %s in\n%s", re, joined)
			}
		}
	})
}

func TestFailedConnectionIsLogged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	logs := strings.Replace(accessLog, "PATH", path, 1)
	r := start(t, `
static_resources:
  clusters: [`+staticCluster("PassthroughCluster", "127.0.0.1:1")+`]
  listeners: [`+strings.Replace(tcpListener("l", "PassthroughCluster"), "stat_prefix: p", "stat_prefix: p, access_log: "+logs, 1)+`]
`)
	c := dial(t, r.listener("l"))
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
	want := regexp.MustCompile(`^\[[^]]*\] "- - -" 0 UF,URX - - "delayed_connect_error:_Connection_refused" 0 0 \d+ - "-" "-" "-" "-" "127\.0\.0\.1:1" PassthroughCluster - 127\.0\.0\.1:\d+ 127\.0\.0\.1:\d+ - -$`)
	if line := logLines(t, path, 1)[0]; !want.MatchString(line) {
		t.Errorf("got %s", line)
	}
}

func TestStatsListener(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := free.Addr().String()
	_ = free.Close()
	_, p, _ := net.SplitHostPort(admin)
	r := start(t, `
static_resources:
  clusters: [`+staticCluster("prometheus_stats", admin)+`]
  listeners:
  - name: "0.0.0.0_15090"
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: stats,
      route_config: {virtual_hosts: [{name: backend, domains: ["*"], routes: [{match: {prefix: /stats/prometheus}, route: {cluster: prometheus_stats}}]}]},
      http_filters: [{name: gzip, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor, compressor_library: {name: z, typed_config: {"@type": type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}}}},
       {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]
admin: {address: {socket_address: {address: 127.0.0.1, port_value: `+p+`}}}
`)
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := r.http.Get("http://" + r.listener("0.0.0.0_15090") + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	t.Run("EN-016 the port of the statistics serves the page of the admin port and nothing else", func(t *testing.T) {
		if code, body := get("/stats/prometheus"); code != http.StatusOK || !strings.Contains(body, "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n") {
			t.Error(code, body[:min(len(body), 300)])
		}
		if code, _ := get("/quitquitquit"); code != http.StatusNotFound {
			t.Error(code)
		}
	})
	if !strings.Contains(r.log.String(), "parts of the bootstrap have no effect in this proxy: listener 0.0.0.0_15090: gzip") {
		t.Error(r.log)
	}
}

func TestHandshakeTimeout(t *testing.T) {
	cert := certificate(t, "a.test")
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secure := fmt.Sprintf(`filter_chains: [{transport_socket_connect_timeout: 2s, transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
     common_tls_context: {tls_certificates: [{certificate_chain: {filename: %q}, private_key: {filename: %q}}]}}}, filters`, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	r := start(t, `
static_resources:
  clusters: [`+staticCluster("echo", backend(t))+`]
  listeners: [`+strings.Replace(tcpListener("l", "echo"), "filter_chains: [{filters", secure, 1)+`]
`)
	addr := r.listener("l")
	t.Run("termination", func(t *testing.T) {
		c, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "a.test", RootCAs: pool(t, cert)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		echoes(t, c, "secret")
	})
	t.Run("a client that says nothing", func(t *testing.T) {
		if b, _ := io.ReadAll(dial(t, addr)); len(b) > 0 {
			t.Errorf("%q", b)
		}
		r.eventually("/stats?filter=transport_socket_connect_timeout", "downstream_cx_transport_socket_connect_timeout: 1\n")
	})
}

func TestAdditionalAddresses(t *testing.T) {
	r := start(t, `
static_resources:
  clusters: [`+staticCluster("echo", backend(t))+`]
  listeners: [`+strings.Replace(tcpListener("l", "echo"), "filter_chains", "additional_addresses: [{address: {socket_address: {address: 127.0.0.2, port_value: 0}}}], filter_chains", 1)+`]
`)
	r.eventually("/listeners", "l::127.0.0.2:")
	var n int
	for line := range strings.Lines(r.get("/listeners")) {
		echoes(t, dial(t, strings.TrimSpace(strings.TrimPrefix(line, "l::"))), "hello")
		n++
	}
	if n != 2 {
		t.Errorf("%d addresses", n)
	}
}
