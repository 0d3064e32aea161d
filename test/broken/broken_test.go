package broken

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
)

var class = flag.String("class", "", "the broken objects whose names match this expression, instead of all")

// hosts is how many good hosts there are.
const hosts = 100

// good are the hosts and what leads to them: three in four are of ServiceEntries, the
// others of Services.
func good() map[string]string {
	var b strings.Builder
	b.WriteString(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: good, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.good.test"]}
  - {port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: good}, hosts: ["*.good.test"]}
---
apiVersion: v1
kind: Secret
metadata: {name: good, namespace: istio-system}
type: kubernetes.io/tls
stringData: ${certificate *.good.test}
`)
	for n := 1; n <= hosts; n++ {
		destination := fmt.Sprintf("s%d.good.test", n)
		if n%4 == 0 {
			destination = fmt.Sprintf("k%d.default.svc.cluster.local", n)
			fmt.Fprintf(&b, `
---
apiVersion: v1
kind: Service
metadata: {name: k%[1]d, namespace: default}
spec: {clusterIP: 10.66.1.%[1]d, ports: [{port: 80, name: http, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: k%[1]d-a, namespace: default, labels: {kubernetes.io/service-name: k%[1]d}}
addressType: IPv4
ports: [{name: http, port: ${web}}]
endpoints: [{addresses: ["${around}"], conditions: {ready: true}}]
`, n)
		} else {
			fmt.Fprintf(&b, `
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s%[1]d, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  hosts: [s%[1]d.good.test]
  addresses: [10.66.1.%[1]d]
  location: MESH_EXTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: ${around}, ports: {http: ${web}}}]
`, n)
		}
		fmt.Fprintf(&b, `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  hosts: [s%[1]d.good.test%[3]s]
  gateways: [default/good, mesh]
  http: [{route: [{destination: {host: %[2]s}}], headers: {response: {set: {x-good: "s%[1]d"}}}}]
`, n, destination, map[bool]string{true: ", " + destination}[n%4 == 0])
	}
	b.WriteString(mixed)
	return map[string]string{"good.yaml": b.String()}
}

// mixed is an object whose rules are good and broken in turn.
const mixed = `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mixed, namespace: default}
spec:
  hosts: [mixed.good.test]
  gateways: [default/good]
  http:
  - match: [{uri: {prefix: /good/1}}]
    directResponse: {status: 201}
  - match: [{uri: {prefix: /bad/format}}]
    headers: {response: {set: {x-a: "%NOPE()%"}}}
    directResponse: {status: 201}
  - match: [{uri: {prefix: /bad/group}}]
    rewrite: {uriRegexRewrite: {match: "/(bad)", rewrite: '/\9'}}
    route: [{destination: {host: s1.good.test}}]
  - match: [{uri: {prefix: /good/2}}]
    directResponse: {status: 202}
  - match: [{uri: {regex: "/bad/size.*EXPRESSION"}}]
    directResponse: {status: 201}
  - match: [{uri: {prefix: /bad}}]
    directResponse: {status: 203}
  - directResponse: {status: 204}
`

// rules asks the rules of the mixed object: broken ones answer 500 with an empty body, the
// others as they say.
func (s *scene) rules(t *testing.T) {
	for _, g := range s.mesh.Gateways {
		for path, want := range map[string]int{"/good/1": 201, "/good/2": 202, "/bad/format": 500, "/bad/group": 500,
			"/bad/size/x": 500, "/bad/other": 203, "/": 204} {
			r, err := http.NewRequest(http.MethodGet, "http://"+g.Addr(80)+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "mixed.good.test"
			answer, err := g.Client().Do(r)
			if err != nil {
				t.Errorf("%s: %s: %v", g.Name, path, err)
				continue
			}
			body, _ := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if answer.StatusCode != want || len(body) > 0 {
				t.Errorf("%s: %s: %d %q, want %d", g.Name, path, answer.StatusCode, body, want)
			}
		}
	}
}

// A scene is a mesh with the good and the broken.
type scene struct {
	t       *testing.T
	mesh    *fixture.Mesh
	objects []Object
	sidecar bool
}

// TestBroken has 300 broken objects among 100 good hosts.
func TestBroken(t *testing.T) {
	objects := Objects(300)
	if testing.Short() {
		objects = objects[:len(objects)/3]
	}
	if *class != "" {
		only := regexp.MustCompile(*class)
		objects = slices.DeleteFunc(objects, func(o Object) bool { return !only.MatchString(o.File) })
	}
	for _, where := range []struct {
		name    string
		sidecar bool
	}{{"gateway", false}, {"sidecar", true}} {
		t.Run(where.name, func(t *testing.T) {
			s := open(t, where.sidecar, objects)
			s.mesh.Put("mesh.yaml", "accessLogFile: /dev/stdout\nenableAutoMtls: perhaps\n")
			s.objects = append(s.objects, Object{File: "mesh.yaml"})
			for _, when := range []string{"at first", "after a restart of everything"} {
				if when != "at first" {
					s.mesh.Restart()
				}
				t.Run("every good host answers "+when, s.answer)
				t.Run("every broken object is named "+when, s.named)
				if !where.sidecar {
					t.Run("a broken rule answers 500, its neighbours as they say, "+when, s.rules)
				}
			}
		})
	}
}

func open(t *testing.T, sidecar bool, objects []Object) *scene {
	t.Helper()
	peers := []fixture.Peer{{Name: "lateen", Argv: []string{build.Command(t, "lateen-proxy")}}}
	if envoy := fixture.EnvoyPath(); envoy != "" {
		peers = append(peers, fixture.Peer{Name: "envoy", Argv: []string{envoy}})
	} else {
		t.Log("the real Envoy is not installed: `make peers`; our own proxy runs alone")
	}
	around := "127.0.0.1"
	if sidecar {
		around = "10.66.0.1"
	}
	config := good()
	for name, text := range config {
		config[name] = strings.NewReplacer("${around}", around, "EXPRESSION", phrases.Replace("PROGRAM")).Replace(text)
	}
	for _, o := range objects {
		config[o.File] = o.Text
	}
	c := &fixture.Case{Name: "broken", Config: config, Sidecar: sidecar, Backends: []fixture.BackendSpec{{Name: "web"}}}
	m := fixture.NewMesh(t, c, fixture.Programs{Istiod: []string{build.Command(t, "istiod")}}, peers)
	return &scene{t: t, mesh: m, objects: objects, sidecar: sidecar}
}

// answer asks every good host several times.
func (s *scene) answer(t *testing.T) {
	for _, g := range s.mesh.Gateways {
		failed := map[string]int{}
		for range 2 {
			for n := 1; n <= hosts; n++ {
				if got := s.ask(g, n); got != "" {
					failed[got]++
				}
			}
		}
		for _, what := range slices.Sorted(maps.Keys(failed)) {
			t.Errorf("%s: %d times %s", g.Name, failed[what], what)
		}
	}
	if t.Failed() {
		t.Logf("refused:\n%s", s.refusals())
		for _, g := range s.mesh.Gateways {
			for line := range strings.Lines(g.Stdout()) {
				if strings.Contains(line, "good.test") && !strings.Contains(line, `" 200 `) {
					t.Logf("%s: %s", g.Name, line)
					break
				}
			}
		}
	}
}

// refusals are what proxies have refused, as the control plane has logged it.
func (s *scene) refusals() string {
	var b strings.Builder
	for line := range strings.Lines(s.mesh.ControlLog()) {
		if strings.Contains(line, "NACK") || strings.Contains(line, "left out of what") {
			fmt.Fprintf(&b, "%.1000s\n", strings.TrimSpace(line))
		}
	}
	return b.String()
}

// ask returns what is wrong with the answer of a host, "" if nothing is.
func (s *scene) ask(g *fixture.Gateway, n int) string {
	host := fmt.Sprintf("s%d.good.test", n)
	url := "http://" + g.Addr(80) + "/"
	if s.sidecar {
		url = fmt.Sprintf("http://10.66.1.%d/", n)
	}
	client := g.Client()
	if !s.sidecar && n%5 == 0 { // by TLS
		url = "https://" + host + "/"
		client = &http.Client{Timeout: client.Timeout, Transport: &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: s.mesh.CA.Pool(), MinVersion: tls.VersionTLS12},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", g.Addr(443))
			}}}
	}
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	r.Host = host
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Sprintf("no answer: %v", errors.Unwrap(err)) // without the host
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusOK {
		return answer.Status
	}
	if answer.Header.Get("X-Good") != fmt.Sprintf("s%d", n) {
		return "an answer by another rule"
	}
	return ""
}

// named looks for every broken object in the status.
func (s *scene) named(t *testing.T) {
	var last []string
	fixture.Eventually(t, "all are named", func() error {
		page, err := s.mesh.ControlPage("/debug/status")
		if err != nil {
			return err
		}
		var st control.Status
		if err := json.Unmarshal([]byte(page), &st); err != nil {
			return err
		}
		told := map[string][]control.Problem{}
		problems := st.Problems
		for _, f := range st.Files {
			problems = append(problems, f.Problems...)
		}
		for _, p := range problems {
			file, _, _ := strings.Cut(filepath.Base(p.Place), ":")
			told[file] = append(told[file], p)
		}
		last = last[:0]
		for _, o := range s.objects {
			if s.sidecar && strings.HasPrefix(o.File, "gw-") {
				continue // what is wrong with a server shows where a gateway is
			}
			if len(told[o.File]) == 0 {
				last = append(last, o.File)
			}
		}
		if len(last) > 0 {
			return fmt.Errorf("%d are not: %s", len(last), strings.Join(last, " "))
		}
		log := s.mesh.ControlLog()
		for _, o := range s.objects {
			if len(told[o.File]) > 0 && !strings.Contains(log, o.File+":") {
				return fmt.Errorf("the log does not name %s", o.File)
			}
		}
		return nil
	})
}
