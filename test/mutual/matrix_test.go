package mutual

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/test/fixture"
)

// policies are what is asked of the servers' proxies, by the name of expected.txt.
func policies(servers []string) map[string]string {
	general := func(mode string) string {
		return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: " + mode + "}}\n"
	}
	var ports, rules strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&ports, `---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: %s, namespace: default}
spec:
  selector: {matchLabels: {app: %[1]s}}
  mtls: {mode: STRICT}
  portLevelMtls: {%d: {mode: DISABLE}, %d: {mode: PERMISSIVE}}
`, s, httpPort, tcpPort)
		fmt.Fprintf(&rules, `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %s, namespace: default}
spec: {host: %[1]s.default.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}
`, s)
	}
	return map[string]string{
		"permissive": "", "strict": general("STRICT"), "disable": general("DISABLE"),
		"port": strings.TrimPrefix(ports.String(), "---\n"), "rule": general("STRICT") + rules.String(),
	}
}

// TestMatrix makes all calls of testdata/expected.txt between pods with our proxy, pods with a
// real Envoy and pods without (PO-002, PO-003, MC-020, DR-043, AN-050, SX-010, SX-011).
func TestMatrix(t *testing.T) {
	data, err := os.ReadFile("testdata/expected.txt")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t)
	var names []string
	for name := range p.members {
		names = append(names, name)
	}
	slices.Sort(names)
	byName, inForce := policies(names), ""
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 7 {
			t.Fatalf("%q: want seven words", line)
		}
		if f[0] != inForce {
			p.put(byName[f[0]])
			inForce = f[0]
		}
		for _, from := range p.clients(f[1]) {
			for _, to := range p.servers(f[2], from) {
				for i, port := range []int{httpPort, grpcPort, tcpPort, autoPort} {
					t.Run(fmt.Sprintf("%s/%s to %s/%d", f[0], from.name, to.name, port), func(t *testing.T) { check(t, from, to, port, f[3+i]) })
				}
			}
		}
	}
}

func (p *plane) clients(kind string) []*member {
	if kind == "none" {
		return []*member{p.members["none"]}
	}
	return p.existing("lateen", "envoy")
}

func (p *plane) servers(kind string, from *member) []*member {
	switch {
	case kind == "none":
		return []*member{p.members["none"]}
	case from.kind == "none":
		return p.existing("lateen", "envoy")
	}
	return p.existing("lateen-2", "envoy-2")
}

func (p *plane) existing(names ...string) (list []*member) {
	for _, name := range names {
		if m := p.members[name]; m != nil {
			list = append(list, m)
		}
	}
	return list
}

// forwarded is the form of x-forwarded-client-cert.
var forwarded = regexp.MustCompile(`^By=([^;]*);Hash=[0-9a-f]{64};Subject="[^"]*";URI=([^;,]*)$`)

func check(t *testing.T, from, to *member, port int, want string) {
	before := 0
	if to.sidecar != nil {
		before = len(to.sidecar.Stdout())
	}
	got := call(from, to, port)
	if want == "refused" {
		if got.answered != "" {
			t.Errorf("is answered by %s", got.answered)
		}
		return
	}
	if got.answered != to.name {
		t.Fatalf("want %s: answered by %q: %s", want, got.answered, got.problem)
	}
	who := ""
	if m := forwarded.FindStringSubmatch(got.told); m != nil {
		if who = m[2]; m[1] != to.id() {
			t.Errorf("the server is told to be %s", m[1])
		}
	} else if got.told != "" {
		t.Errorf("the server is told %q", got.told)
	}
	if to.sidecar == nil {
		if who != "" {
			t.Errorf("the server is told of %s", who)
		}
		return
	}
	known := logged(t, to, port, before)
	if want == "plain" {
		if who != "" || known["from"] != "-" || known["tls"] != "-" {
			t.Errorf("want plain: told of %q, known %v", who, known)
		}
		return
	}
	sni := fmt.Sprintf("outbound_.%d_._.%s", port, to.host())
	if known["from"] != from.id() || known["to"] != to.id() || known["sni"] != sni || known["tls"] != "TLSv1.3" {
		t.Errorf("want mutual: known %v", known)
	}
	// An Envoy without the original's filters says nothing of HTTP in TLS to a port of unknown
	// protocol, which passes it on as bytes.
	if who != from.id() && port != tcpPort && !(port == autoPort && from.kind == "envoy") {
		t.Errorf("the server is told %q", got.told)
	}
}

// logged is what the server's proxy has logged of a call on a port.
func logged(t *testing.T, to *member, port, before int) map[string]string {
	t.Helper()
	known := map[string]string{}
	fixture.Eventually(t, "a line in the log of "+to.name, func() error {
		for line := range strings.Lines(to.sidecar.Stdout()[before:]) {
			if !strings.HasPrefix(line, fmt.Sprintf("in=%s:%d ", to.Addr(), port)) || !strings.HasSuffix(line, "\n") {
				continue
			}
			for field := range strings.FieldsSeq(line) {
				key, value, _ := strings.Cut(field, "=")
				known[key] = value
			}
			return nil
		}
		return fmt.Errorf("nothing of port %d in %q", port, to.sidecar.Stdout()[before:])
	})
	return known
}
