package health

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func plan(t testing.TB, list ...string) *Plan {
	t.Helper()
	p, err := Compile(decode(t, list...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decode(t testing.TB, list ...string) (pbs []*corev3.HealthCheck) {
	t.Helper()
	for _, text := range list {
		var pb corev3.HealthCheck
		if err := protojson.Unmarshal([]byte(text), &pb); err != nil {
			t.Fatal(err)
		}
		pbs = append(pbs, &pb)
	}
	return pbs
}

// check is a health check with short intervals; rest are further fields.
func checkOf(rest string) string {
	return `{"timeout": "1s", "interval": "10s", "unhealthyThreshold": 2, "healthyThreshold": 2, "noTrafficInterval": "60s", ` + rest + `}`
}

// A site is hosts that answer connections within the test, and a checker that asks them.
type site struct {
	c     *Checker
	store *stats.Store
	used  bool

	mu      sync.Mutex
	answer  func(net.Conn) // nil: refuses
	dials   []time.Duration
	asked   []string
	began   time.Time
	changes []string
}

func newSite(p *Plan, answer func(net.Conn)) *site {
	s := &site{answer: answer, began: time.Now(), store: stats.NewStore(), used: true}
	s.c = p.Start(Env{Cluster: "one", Stats: s.store.Scope("cluster.one."), Connect: s.connect, Used: func() bool { return s.used }, Checked: s.checked})
	return s
}

func (s *site) connect(_ context.Context, _ *endpoint.Endpoint, address string, w Way) (transport.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials = append(s.dials, time.Since(s.began))
	s.asked = append(s.asked, fmt.Sprint(address, " ", w.ALPN, " ", w.Criteria))
	if s.answer == nil {
		return nil, errors.New("refused")
	}
	ours, theirs := net.Pipe()
	answer := s.answer
	go func() { defer theirs.Close(); answer(theirs) }()
	return transport.NewConn(ours), nil
}

func (s *site) checked(ep *endpoint.Endpoint, passed, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if changed {
		s.changes = append(s.changes, fmt.Sprintf("%v %v %s", time.Since(s.began), passed, flags(ep)))
	}
}

func (s *site) set(answer func(net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *site) took() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.dials)
}

func (s *site) value(name string) uint64 {
	return s.store.Scope("cluster.one.health_check.").Counter(name).Value()
}

func (s *site) gauge(name string) int64 {
	return s.store.Scope("cluster.one.health_check.").Gauge(name).Value()
}

func flags(ep *endpoint.Endpoint) string {
	var list []string
	for i, name := range []string{"eds", "failed", "outlier", "", "", "degraded", "pending", "removal", "timeout", "excluded"} {
		if ep.Unhealthy.Load()&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	if list == nil {
		return "healthy"
	}
	return strings.Join(list, "+")
}

func newHost() (Host, *endpoint.Endpoint) {
	ep := &endpoint.Endpoint{Address: "127.0.0.1:80"}
	return Host{Endpoint: ep}, ep
}

// says answers every request of a connection with one answer.
func says(answer string, seen func(string)) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			var text strings.Builder
			for !strings.HasSuffix(text.String(), "\r\n\r\n") {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				text.WriteString(line)
			}
			if seen != nil {
				seen(text.String())
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

const ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

// in runs f in a bubble, with a checker of one host.
func in(t *testing.T, answer func(net.Conn), check string, f func(t *testing.T, s *site, ep *endpoint.Endpoint)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(plan(t, check), answer)
		defer s.c.Close()
		h, ep := newHost()
		s.c.Set([]Host{h})
		synctest.Wait()
		f(t, s, ep)
	})
}

// after lets time pass.
func after(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

const httpCheckOf = `"httpHealthCheck": {"path": "/healthz"`

func TestThresholds(t *testing.T) {
	in(t, says(ok, nil), checkOf(httpCheckOf+`}, "unhealthyInterval": "20s", "unhealthyEdgeInterval": "3s", "healthyEdgeInterval": "4s", "reuseConnection": false`), func(t *testing.T, s *site, ep *endpoint.Endpoint) {
		want := func(moment, state string) {
			t.Helper()
			if got := flags(ep); got != state {
				t.Errorf("%s: %s, want %s (%v)", moment, got, state, s.changes)
			}
		}
		want("the first result counts at once", "healthy")
		s.set(nil)
		after(10 * time.Second)
		want("one failure", "healthy")
		after(3 * time.Second)
		want("two failures, the second after the edge interval", "failed")
		s.set(says(ok, nil))
		after(20 * time.Second)
		want("one success after the unhealthy interval", "failed")
		after(4 * time.Second)
		want("two successes", "healthy")
		if got, want := fmt.Sprint(s.took()), "[0s 10s 13s 33s 37s]"; got != want {
			t.Errorf("checked at %s, want %s", got, want)
		}
		for name, n := range map[string]uint64{"attempt": 5, "success": 3, "failure": 2, "network_failure": 2} {
			if got := s.value(name); got != n {
				t.Errorf("%s: %d, want %d", name, got, n)
			}
		}
		if s.gauge("healthy") != 1 {
			t.Error("the gauge of healthy hosts")
		}
	})
}

func TestIntervals(t *testing.T) {
	for _, c := range []struct{ name, fields, want string }{
		{"without traffic", `"noTrafficHealthyInterval": "30s"`, "[0s 30s 1m0s]"},
		{"without traffic, one interval", `"initialJitter": "0s"`, "[0s 1m0s]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(plan(t, checkOf(httpCheckOf+`}, "reuseConnection": false, `+c.fields)), says(ok, nil))
				defer s.c.Close()
				s.used = false
				h, _ := newHost()
				s.c.Set([]Host{h})
				after(70 * time.Second)
				if got := fmt.Sprint(s.took()); got != c.want {
					t.Errorf("checked at %s, want %s", got, c.want)
				}
			})
		})
	}
}

func TestJitter(t *testing.T) {
	in(t, says(ok, nil), checkOf(httpCheckOf+`}, "reuseConnection": false, "intervalJitter": "2s", "intervalJitterPercent": 50`), func(t *testing.T, s *site, _ *endpoint.Endpoint) {
		after(300 * time.Second)
		took := s.took()
		varied := false
		for i := 1; i < len(took); i++ {
			d := took[i] - took[i-1]
			if d < 10*time.Second || d >= 17*time.Second {
				t.Errorf("an interval of %v, want 10s to 17s", d)
			}
			varied = varied || i > 1 && d != took[1]-took[0]
		}
		if !varied {
			t.Errorf("no jitter: %v", took)
		}
	})
}

func TestTimeout(t *testing.T) {
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	in(t, silent, checkOf(httpCheckOf+`}`), func(t *testing.T, s *site, ep *endpoint.Endpoint) {
		after(time.Second)
		if got := flags(ep); got != "failed+timeout" {
			t.Errorf("%s", got)
		}
		s.set(says(ok, nil))
		after(20 * time.Second)
		if got := flags(ep); got != "healthy" {
			t.Errorf("%s", got)
		}
	})
}

func TestHTTPAnswers(t *testing.T) {
	answer := func(status, rest string) string {
		return "HTTP/1.1 " + status + "\r\n" + rest + "\r\n"
	}
	for _, c := range []struct{ name, fields, answer, first, then string }{
		{"200", "", ok, "healthy", "healthy"},
		{"204 is not expected", "", answer("204 No Content", ""), "failed", "failed"},
		{"expected_statuses", `, "expectedStatuses": [{"start": 200, "end": 300}]`, answer("204 No Content", ""), "healthy", "healthy"},
		{"retriable_statuses count", `, "retriableStatuses": [{"start": 503, "end": 504}]`, answer("503 No", "content-length: 0\r\n"), "failed", "failed"},
		{"degraded", "", answer("200 OK", "x-envoy-degraded: 1\r\ncontent-length: 0\r\n"), "degraded", "degraded"},
		{"immediate failure", "", answer("503 No", "x-envoy-immediate-health-check-fail: 1\r\ncontent-length: 0\r\n"), "failed+excluded", "failed+excluded"},
		{"body", `, "receive": [{"text": "` + hex.EncodeToString([]byte("we")) + `"}, {"binary": "bGw="}]`, answer("200 OK", "content-length: 5\r\n") + "wewll", "healthy", "healthy"},
		{"another body", `, "receive": [{"text": "` + hex.EncodeToString([]byte("well")) + `"}]`, answer("200 OK", "content-length: 4\r\n") + "sick", "failed", "failed"},
		{"the service's name", `, "serviceNameMatcher": {"prefix": "lo"}`, answer("200 OK", "x-envoy-upstream-healthchecked-cluster: locations-production\r\ncontent-length: 0\r\n"), "healthy", "healthy"},
		{"another service", `, "serviceNameMatcher": {"exact": "lo"}`, ok, "failed", "failed"},
		{"until the end", "", "HTTP/1.1 200 OK\r\n\r\n", "failed", "failed+timeout"},
		{"no HTTP", "", "NOTHTTP\r\n\r\n", "failed", "failed"},
		{"a long body", "", answer("200 OK", "content-length: 65536\r\n") + strings.Repeat("x", 65536), "healthy", "healthy"},
		{"after 100 Continue", "", "HTTP/1.1 100 Continue\r\n\r\n" + ok, "healthy", "healthy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, says(c.answer, nil), checkOf(httpCheckOf+c.fields+`}`), func(t *testing.T, s *site, ep *endpoint.Endpoint) {
				if got := flags(ep); got != c.first {
					t.Errorf("first %s, want %s", got, c.first)
				}
				after(60 * time.Second)
				if got := flags(ep); got != c.then {
					t.Errorf("then %s, want %s", got, c.then)
				}
			})
		})
	}
}

// A status that is not expected makes a host unhealthy at once, one that may be tried
// again when the threshold says so.
func TestRetriable(t *testing.T) {
	for name, want := range map[string]string{"": "failed", `, "retriableStatuses": [{"start": 503, "end": 504}]`: "healthy"} {
		in(t, says(ok, nil), checkOf(httpCheckOf+name+`}, "reuseConnection": false`), func(t *testing.T, s *site, ep *endpoint.Endpoint) {
			s.set(says("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", nil))
			after(10 * time.Second)
			if got := flags(ep); got != want {
				t.Errorf("%q: %s, want %s", name, got, want)
			}
			after(10 * time.Second)
			if got := flags(ep); got != "failed" {
				t.Errorf("%q: %s after the second", name, got)
			}
		})
	}
}

func TestRequest(t *testing.T) {
	var seen []string
	note := func(text string) { seen = append(seen, text) }
	for _, c := range []struct{ name, fields, hostname, want string }{
		{"plain", ``, "", "GET /healthz HTTP/1.1\r\nhost: one\r\nuser-agent: Envoy/HC\r\n\r\n"},
		{"host", `, "host": "foo"`, "", "GET /healthz HTTP/1.1\r\nhost: foo\r\nuser-agent: Envoy/HC\r\n\r\n"},
		{"the endpoint's host name", `, "host": "foo"`, "bar", "GET /healthz HTTP/1.1\r\nhost: bar\r\nuser-agent: Envoy/HC\r\n\r\n"},
		{"method", `, "method": "POST"`, "", "POST /healthz HTTP/1.1\r\nhost: one\r\nuser-agent: Envoy/HC\r\ncontent-length: 0\r\n\r\n"},
		{"headers", `, "requestHeadersToAdd": [{"header": {"key": "X-A", "value": "%REQ(x)%b"}}], "requestHeadersToRemove": ["User-Agent"]`, "", "GET /healthz HTTP/1.1\r\nhost: one\r\nx-a: b\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen = nil
				s := newSite(plan(t, checkOf(httpCheckOf+c.fields+`}`)), says(ok, note))
				defer s.c.Close()
				h, _ := newHost()
				h.Hostname = c.hostname
				s.c.Set([]Host{h})
				synctest.Wait()
				if len(seen) != 1 || seen[0] != c.want {
					t.Errorf("sent %q, want %q", seen, c.want)
				}
			})
		})
	}
}

func TestReuse(t *testing.T) {
	for fields, want := range map[string]int{`}`: 1, `}, "reuseConnection": false`: 4} {
		in(t, says(ok, nil), checkOf(httpCheckOf+fields), func(t *testing.T, s *site, _ *endpoint.Endpoint) {
			after(35 * time.Second)
			if got := len(s.took()); got != want {
				t.Errorf("%s: %d connections, want %d", fields, got, want)
			}
		})
	}
	t.Run("not after connection: close", func(t *testing.T) {
		in(t, says("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", nil), checkOf(httpCheckOf+`}`), func(t *testing.T, s *site, ep *endpoint.Endpoint) {
			after(35 * time.Second)
			if got := len(s.took()); got != 4 || flags(ep) != "healthy" {
				t.Errorf("%d connections, %s", got, flags(ep))
			}
		})
	})
}

func TestTCP(t *testing.T) {
	echo := func(c net.Conn) { _, _ = io.Copy(c, c) }
	for _, c := range []struct{ name, fields, want string }{
		{"connects", `{}`, "healthy"},
		{"sends and receives", `{"send": {"text": "70696e67"}, "receive": [{"text": "7069"}, {"text": "67"}]}`, "healthy"},
		{"another answer", `{"send": {"text": "70696e67"}, "receive": [{"text": "aa"}]}`, "failed+timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, echo, checkOf(`"tcpHealthCheck": `+c.fields), func(t *testing.T, s *site, ep *endpoint.Endpoint) {
				after(time.Second)
				if got := flags(ep); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
			})
		})
	}
	in(t, nil, checkOf(`"tcpHealthCheck": {}`), func(t *testing.T, _ *site, ep *endpoint.Endpoint) {
		if got := flags(ep); got != "failed" {
			t.Errorf("refused: %s", got)
		}
	})
}

// A host with several checks is well when all say so, and its stats are of each.
func TestSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := checkOf(httpCheckOf + `}, "name": "web"`)
		port := checkOf(`"tcpHealthCheck": {"send": {"text": "50"}, "receive": [{"text": "51"}]}, "name": "port", "altPort": 81`)
		s := newSite(plan(t, web, port), says(ok, nil))
		defer s.c.Close()
		h, ep := newHost()
		s.c.Set([]Host{h})
		synctest.Wait()
		select {
		case <-s.c.Ready():
			t.Error("one check has no result yet")
		default:
		}
		after(time.Second)
		if got := flags(ep); got != "failed+timeout" {
			t.Errorf("%s", got)
		}
		<-s.c.Ready()
		if s.value("name.web.success") != 1 || s.value("name.port.failure") != 1 || s.gauge("healthy") != 0 || s.gauge("name.web.healthy") != 1 {
			t.Error("the stats of each check, and of all")
		}
		if !slices.Contains(s.asked, "127.0.0.1:81 [] map[]") || !slices.Contains(s.asked, "127.0.0.1:80 [] map[]") {
			t.Errorf("asked %v", s.asked)
		}
	})
}

func TestWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(plan(t, checkOf(`"tcpHealthCheck": {}, "altPort": 81, "tlsOptions": {"alpnProtocols": ["h2", "http/1.1"]}, "transportSocketMatchCriteria": {"a": "b"}`)), says(ok, nil))
		defer s.c.Close()
		a, _ := newHost()
		b, _ := newHost()
		b.Port, b.Address = 82, "10.0.0.1:1"
		s.c.Set([]Host{a, b})
		synctest.Wait()
		slices.Sort(s.asked)
		if got, want := fmt.Sprint(s.asked), "[10.0.0.1:82 [h2 http/1.1] map[a:b] 127.0.0.1:81 [h2 http/1.1] map[a:b]]"; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
	})
}

// Hosts come and go: one that stays keeps its state, one that goes is not asked any more.
func TestHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(plan(t, checkOf(httpCheckOf+`}, "reuseConnection": false`)), says(ok, func(string) { time.Sleep(time.Millisecond) })) // of the bubble: no answer before the test waits
		a, first := newHost()
		b, second := newHost()
		b.Unchecked = true
		s.c.Set([]Host{a, b})
		<-s.c.Ready()
		if flags(first) != "healthy" || flags(second) != "healthy" || len(s.took()) != 1 {
			t.Errorf("%s, %s, %d", flags(first), flags(second), len(s.took()))
		}
		c, third := newHost()
		s.c.Set([]Host{a, c})
		if flags(first) != "healthy" || flags(third) != "failed" {
			t.Errorf("a new host has failed until its first check: %s", flags(third))
		}
		after(time.Millisecond)
		s.c.Set([]Host{c})
		synctest.Wait()
		if s.gauge("healthy") != 1 || flags(third) != "healthy" {
			t.Errorf("%d healthy", s.gauge("healthy"))
		}
		before := len(s.took())
		after(10 * time.Second)
		if got := len(s.took()) - before; got != 1 {
			t.Errorf("%d checks, want those of one host", got)
		}
		s.c.Close()
		s.c.Close()
		after(time.Minute)
		if len(s.took()) != before+1 || s.gauge("healthy") != 0 {
			t.Error("checks go on after the end")
		}
	})
}

// A cluster whose only host goes before it answers is ready.
func TestReadyWithoutHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(plan(t, checkOf(httpCheckOf+`}`)), func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		defer s.c.Close()
		h, _ := newHost()
		s.c.Set([]Host{h})
		s.c.Set(nil)
		<-s.c.Ready()
	})
}

// What an answer to a request says counts until a check passes.
func TestRefuse(t *testing.T) {
	in(t, says(ok, nil), checkOf(httpCheckOf+`}`), func(t *testing.T, s *site, ep *endpoint.Endpoint) {
		s.c.Refuse(ep)
		if got := flags(ep); got != "failed+excluded" || s.value("passive_failure") != 1 {
			t.Errorf("%s", got)
		}
		after(10 * time.Second)
		if got := flags(ep); got != "failed+excluded" {
			t.Errorf("%s after one success of two", got)
		}
		after(10 * time.Second)
		if got := flags(ep); got != "healthy" {
			t.Errorf("%s", got)
		}
		s.c.Refuse(&endpoint.Endpoint{})
	})
}

func TestEvents(t *testing.T) {
	file, second := filepath.Join(t.TempDir(), "events"), filepath.Join(t.TempDir(), "more")
	fields := httpCheckOf + `}, "eventLogPath": "` + file + `", "alwaysLogHealthCheckFailures": true, "alwaysLogHealthCheckSuccess": true, "reuseConnection": false,
		"eventLogger": [{"name": "f", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink", "eventLogPath": "` + second + `"}}]`
	in(t, says(ok, nil), checkOf(fields), func(t *testing.T, s *site, ep *endpoint.Endpoint) {
		after(10 * time.Second)
		s.set(says("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", nil))
		after(10 * time.Second)
	})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const at = `"host":{"socket_address":{"protocol":"TCP","address":"127.0.0.1","port_value":80,"resolver_name":"","ipv4_compat":false,"network_namespace_filepath":""}},"cluster_name":"one"`
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	wants := []string{`"add_healthy_event":{"first_check":true}`, `"successful_health_check_event":{}`,
		`"eject_unhealthy_event":{"failure_type":"ACTIVE","http_status_code":500}`, `"health_check_failure_event":{"failure_type":"ACTIVE","first_check":false,"http_status_code":500}`}
	if len(lines) != len(wants) {
		t.Fatalf("%d lines: %s", len(lines), text)
	}
	for i, want := range wants {
		for _, part := range []string{want, at, `"timestamp":"2000-01-01T00:00:`, `"health_checker_type":"HTTP"`, `"locality":{"region":"","zone":"","sub_zone":""}`} {
			if !strings.Contains(lines[i], part) {
				t.Errorf("line %d: %s: no %s", i, lines[i], part)
			}
		}
	}
	if more, err := os.ReadFile(second); err != nil || string(more) != string(text) {
		t.Errorf("the second log: %q, %v", more, err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, check, want string }{
		{"no kind", `{"timeout": "1s", "interval": "1s", "unhealthyThreshold": 1, "healthyThreshold": 1}`, "HealthChecker"},
		{"no timeout", `{"interval": "1s", "unhealthyThreshold": 1, "healthyThreshold": 1, "tcpHealthCheck": {}}`, "Timeout"},
		{"hexadecimal", checkOf(`"tcpHealthCheck": {"send": {"text": "xyz"}}`), "tcp_health_check.send.text: invalid hex string 'xyz'"},
		{"statuses", checkOf(httpCheckOf + `, "expectedStatuses": [{"start": 300, "end": 200}]}`), "expected_statuses[0]: invalid http status range"},
		{"HTTP/3", checkOf(httpCheckOf + `, "codecClientType": "HTTP3"}`), "codec_client_type: HTTP3: not supported"},
		{"events by gRPC", checkOf(httpCheckOf + `}, "eventService": {}`), "event_service"},
		{"host as a header", checkOf(httpCheckOf + `, "requestHeadersToAdd": [{"header": {"key": "Host", "value": "a"}}]}`), "may not be modified"},
		{"a custom check", checkOf(`"customHealthCheck": {"name": "redis"}`), "custom_health_check"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Compile(decode(t, c.check)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Run("several without names", func(t *testing.T) {
		_, err := Compile(decode(t, checkOf(`"tcpHealthCheck": {}`), checkOf(`"tcpHealthCheck": {}`)))
		want := "health check at index 0 is missing a name; all health checks must have a name when multiple health checks are configured"
		if err == nil || err.Error() != want {
			t.Errorf("%v", err)
		}
	})
	if p, err := Compile(nil); p != nil || err != nil {
		t.Errorf("no checks: %v, %v", p, err)
	}
}

// TestHTTP2 asks a server by prior knowledge, twice on one connection.
func TestHTTP2(t *testing.T) {
	var protocols nethttp.Protocols
	protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 4)
	server := &nethttp.Server{Protocols: &protocols, Handler: nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		seen <- fmt.Sprint(r.Proto, " ", r.Method, " ", r.Host, " ", r.URL.Path, " ", r.UserAgent(), " ", r.RemoteAddr)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	s := newSite(plan(t, `{"timeout": "5s", "interval": "0.01s", "unhealthyThreshold": 2, "healthyThreshold": 1, `+httpCheckOf+`, "codecClientType": "HTTP2"}}`), nil)
	s.c.env.Connect = dial
	ep := &endpoint.Endpoint{Address: l.Addr().String()}
	s.c.Set([]Host{{Endpoint: ep}})
	<-s.c.Ready()
	first, again := <-seen, <-seen
	if !strings.HasPrefix(first, "HTTP/2.0 GET one /healthz Envoy/HC ") || first != again {
		t.Errorf("asked %q, then %q", first, again)
	}
	s.c.Close()
	if flags(ep) != "healthy" {
		t.Errorf("%s", flags(ep))
	}
	_ = server.Close()
	<-done
}
