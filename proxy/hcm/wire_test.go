package hcm_test

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A wireCase is one exchange as it was observed with a real Envoy.
type wireCase struct {
	name                     string
	request                  string
	answer, backend, logLine []string
}

// readCases reads a file of testdata: "=== name", then lines ">request" as quoted
// strings, "<answer", "^what the backend saw", "=access log".
func readCases(t *testing.T, file string) []wireCase {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var cases []wireCase
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		kind, rest, _ := strings.Cut(lines.Text(), " ")
		if kind == "===" {
			cases = append(cases, wireCase{name: rest})
			continue
		}
		if len(cases) == 0 || kind == "" {
			continue
		}
		c := &cases[len(cases)-1]
		switch kind {
		case ">":
			text, err := strconv.Unquote(rest)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			c.request += text
		case "<":
			c.answer = append(c.answer, rest)
		case "^":
			c.backend = append(c.backend, rest)
		case "=":
			c.logLine = append(c.logLine, rest)
		}
	}
	return cases
}

var (
	dateText = regexp.MustCompile(`date: [^\n]*GMT`)
	uuidText = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	timeText = regexp.MustCompile(`x-envoy-upstream-service-time: \d+`)
)

// steady replaces what varies from run to run.
func steady(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = dateText.ReplaceAllString(s, "date: DATE")
	s = uuidText.ReplaceAllString(s, "UUID")
	return timeText.ReplaceAllString(s, "x-envoy-upstream-service-time: MS")
}

// TestWire sends what was sent to a real Envoy of version 1.40 and wants what came
// back, byte by byte, what its backend saw and what it logged.
func TestWire(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.cases")
	if len(files) == 0 {
		t.Fatal("no cases")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".cases"), func(t *testing.T) {
			b := newBackend(t)
			g := start(t, setup{manager: wireManager, routes: wireRoutes,
				clusters: map[string]string{"b": b.addr, "refuse": nobody, "none": ""}})
			lines := 0
			for _, c := range readCases(t, file) {
				t.Run(c.name, func(t *testing.T) {
					before := len(b.seen())
					g.exchange(t, c)
					for _, want := range c.logLine {
						got := strings.ReplaceAll(g.logged(t, lines), b.addr, "BACKEND")
						if got = strings.ReplaceAll(got, nobody, "DEAD"); got != want {
							t.Errorf("log\n got %s\nwant %s", got, want)
						}
						lines++
					}
					if len(c.backend) == 0 {
						return
					}
					var got []string
					for _, head := range b.seen()[before:] {
						got = append(append(got, ""), strings.Split(strings.TrimRight(steady(head), "\n"), "\n")...)
					}
					if diff := cmp.Diff(c.backend, got); diff != "" {
						t.Errorf("backend (-want +got)\n%s", diff)
					}
				})
			}
		})
	}
}

// nobody is an address where nobody listens.
const nobody = "127.0.0.1:1"

// exchange sends a case's request and wants its answer.
func (g *gateway) exchange(t *testing.T, c wireCase) {
	t.Helper()
	conn := g.dial(t)
	defer conn.Close()
	if _, err := conn.Write([]byte(c.request)); err != nil {
		t.Fatal(err)
	}
	want := strings.Join(c.answer, "\n")
	if diff := cmp.Diff(want, receive(conn, want)); diff != "" {
		t.Errorf("answer (-want +got)\n%s", diff)
	}
}

// receive reads until what came is want or the connection is of no more help.
func receive(conn net.Conn, want string) string {
	var got []byte
	buf := make([]byte, 64<<10)
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if text := steady(string(got)); text == want || err != nil {
			return text
		}
	}
}

const wireManager = gatewayBase + `"stream_idle_timeout": "0s"`

const gatewayBase = `"use_remote_address": true, "server_name": "istio-envoy", "normalize_path": true, "proxy_100_continue": true,
	"path_with_escaped_slashes_action": "KEEP_UNCHANGED", "upgrade_configs": [{"upgrade_type": "websocket"}],
	"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"subject": true, "cert": true, "dns": true, "uri": true},
	"request_id_extension": {"typed_config": {"@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
		"use_request_id_for_trace_sampling": true}}, `

const defaultRetries = `"retry_policy": {"retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
	"num_retries": 2, "host_selection_retry_max_attempts": "5", "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts",
	"typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]}`

const wireRoutes = `
	{"match": {"prefix": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "I am a teapot"}}},
	{"match": {"prefix": "/empty"}, "direct_response": {"status": 200}},
	{"match": {"prefix": "/d204"}, "direct_response": {"status": 204}},
	{"match": {"prefix": "/redir"}, "redirect": {"host_redirect": "elsewhere.test", "path_redirect": "/new", "response_code": "FOUND"}},
	{"match": {"prefix": "/httpsredir"}, "redirect": {"https_redirect": true}},
	{"match": {"prefix": "/rw/"}, "decorator": {"operation": "b:80/rw"},
		"route": {"cluster": "b", "prefix_rewrite": "/", "host_rewrite_literal": "rewritten.test", "timeout": "0s", ` + defaultRetries + `},
		"request_headers_to_add": [{"header": {"key": "x-add", "value": "a"}},
			{"header": {"key": "x-set", "value": "s"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
		"response_headers_to_add": [{"header": {"key": "x-resp", "value": "r"}}]},
	{"match": {"prefix": "/to/"}, "route": {"cluster": "b", "timeout": "0.5s"}},
	{"match": {"prefix": "/pt/"}, "route": {"cluster": "b", "timeout": "5s", "retry_policy": {"retry_on": "5xx", "num_retries": 2, "per_try_timeout": "0.3s"}}},
	{"match": {"prefix": "/r5/"}, "route": {"cluster": "b", "timeout": "0s", "retry_policy": {"retry_on": "5xx,reset", "num_retries": 2}}},
	{"match": {"prefix": "/refuse"}, "route": {"cluster": "refuse", "timeout": "0s", ` + defaultRetries + `}},
	{"match": {"prefix": "/nolimit"}, "route": {"cluster": "refuse", "timeout": "0s"}},
	{"match": {"prefix": "/nc"}, "route": {"cluster": "nope", "timeout": "0s"}},
	{"match": {"prefix": "/none"}, "route": {"cluster": "none", "timeout": "0s"}},
	{"match": {"prefix": "/uhe"}, "route": {"cluster": "none", "timeout": "0s"}, "response_headers_to_add": [{"header": {"key": "x-resp", "value": "r"}}]},
	{"match": {"prefix": "/ws"}, "route": {"cluster": "b", "timeout": "0s"}},
	{"match": {"prefix": "/shadow"}, "route": {"cluster": "b", "timeout": "0s", "request_mirror_policies": [{"cluster": "m"}]}},
	{"match": {"prefix": "/"}, "decorator": {"operation": "b:80/*"},
		"route": {"cluster": "b", "timeout": "0s", "max_grpc_timeout": "0s", ` + defaultRetries + `}}`
