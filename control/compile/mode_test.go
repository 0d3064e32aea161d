package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// served is a workload that is called by HTTP, by bytes and by who knows what.
const served = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: in, namespace: default}
spec:
  hosts: [in.default.svc.cluster.local]
  location: MESH_INTERNAL
  ports:
  - {number: 80, name: http, protocol: HTTP, targetPort: 8080}
  - {number: 81, name: tcp, protocol: TCP, targetPort: 8081}
  - {number: 82, name: unknown, targetPort: 8082}
  resolution: STATIC
  endpoints: [{address: 10.9.9.9, labels: {app: in}}]
`

const (
	everyALPN = "[istio istio-peer-exchange istio-http/1.0 istio-http/1.1 istio-h2]"
	httpMesh  = "[istio-http/1.0 istio-http/1.1 istio-h2]"
	tcpMesh   = "[istio-peer-exchange istio]"
	plainHTTP = "[http/1.1 h2c]"
)

// TestModes: what is taken on the ports of a workload, as "PORT TRANSPORT [ALPN] WHAT", port
// 0 for all others. Expected are the original's chains (spec/feature-surface.md 6, SX-011).
func TestModes(t *testing.T) {
	unknown := func(port, mode string) []string {
		all := map[string][]string{
			"PERMISSIVE": {"tls " + httpMesh + " mutual HTTP", "raw_buffer " + plainHTTP + " HTTP", "tls " + tcpMesh + " mutual bytes", "raw_buffer [] bytes", "tls [] bytes"},
			"STRICT":     {"tls " + httpMesh + " mutual HTTP", "tls [] mutual bytes"},
			"DISABLE":    {"raw_buffer " + plainHTTP + " HTTP", "raw_buffer [] bytes"},
			"none":       {"raw_buffer " + plainHTTP + " HTTP", "raw_buffer [] bytes", "tls [] bytes"},
		}[mode]
		out := slices.Clone(all)
		for i := range out {
			out[i] = port + " " + out[i]
		}
		return out
	}
	http := map[string][]string{
		"PERMISSIVE": {"8080 tls " + everyALPN + " mutual HTTP", "8080 raw_buffer [] HTTP"},
		"STRICT":     {"8080 tls [] mutual HTTP"},
		"DISABLE":    {"8080 raw_buffer [] HTTP"},
		"none":       {"8080 raw_buffer [] HTTP"},
	}
	tcp := map[string][]string{
		"PERMISSIVE": {"8081 tls " + everyALPN + " mutual bytes", "8081 tls [] bytes", "8081 raw_buffer [] bytes"},
		"STRICT":     {"8081 tls [] mutual bytes"},
		"DISABLE":    {"8081 raw_buffer [] bytes"},
		"none":       {"8081 tls [] bytes", "8081 raw_buffer [] bytes"},
	}
	all := func(mode string) []string {
		return slices.Concat(unknown("0", mode), http[mode], tcp[mode], unknown("8082", mode))
	}
	for _, tc := range []struct {
		name, spec, proxy string
		unissued          bool
		want              []string
		inspectors        string
	}{
		{name: "SX-011 PO-002 nothing is said", want: all("PERMISSIVE"), inspectors: "tls -15006, http -8080 -8081 -15006"},
		{name: "SX-011 PO-002 STRICT", spec: "mtls: {mode: STRICT}", want: all("STRICT"), inspectors: "tls -15006"},
		{name: "SX-011 PO-002 DISABLE", spec: "mtls: {mode: DISABLE}", want: all("DISABLE"), inspectors: "http -8080 -8081 -15006"},
		{name: "PO-003 ports of their own", spec: "selector: {matchLabels: {app: in}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}, 8082: {mode: PERMISSIVE}}",
			want:       slices.Concat(unknown("0", "STRICT"), http["DISABLE"], tcp["STRICT"], unknown("8082", "PERMISSIVE")),
			inspectors: "tls -8080 -15006, http +8082"},
		{name: "PO-003 a port that no service has", spec: "selector: {matchLabels: {app: in}}, mtls: {mode: DISABLE}, portLevelMtls: {9000: {mode: STRICT}, 15006: {mode: STRICT}}",
			want:       slices.Concat(unknown("0", "DISABLE"), unknown("9000", "STRICT"), http["DISABLE"], tcp["DISABLE"], unknown("8082", "DISABLE")),
			inspectors: "tls +9000, http -8080 -8081 -9000 -15006"},
		{name: "SX-011 nobody issues certificates", unissued: true, spec: "mtls: {mode: STRICT}", want: all("none"), inspectors: "tls -8080 -15006, http -8080 -8081 -15006"},
		{name: "SX-011 no agent hands them to the proxy", proxy: "sidecar default 10.9.9.9 app=in", want: all("none"), inspectors: "tls -8080 -15006, http -8080 -8081 -15006"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := served
			if tc.spec != "" {
				text += "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\nspec: {" + tc.spec + "}\n"
			}
			objects, problems := config.DecodeYAML("test.yaml", []byte(text))
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			s := mesh.Build(config.NewSet(1, objects), mesh.Options{Identities: !tc.unissued})
			if tc.proxy == "" {
				tc.proxy = "sidecar default 10.9.9.9 app=in agent"
			}
			p := parseProxy(t, tc.proxy)
			l := Listeners(s, s.Scope(p), p)
			in := l[slices.IndexFunc(l, func(l ir.Listener) bool { return l.Name == captureIn })]
			var got []string
			for _, c := range in.Chains[1:] {
				got = append(got, takenBy(c))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if got := inspected(in); got != tc.inspectors {
				t.Errorf("inspectors %q, want %q", got, tc.inspectors)
			}
		})
	}
}

func takenBy(c ir.FilterChain) string {
	what := "bytes"
	if c.HTTP != nil {
		what = "HTTP"
	}
	if c.TLS != nil {
		what = "mutual " + what
	}
	return fmt.Sprint(c.Match.DestinationPort, " ", c.Match.TransportProtocol, " ", c.Match.ApplicationProtocols, " ", what)
}

func inspected(l ir.Listener) string {
	var out []string
	for _, i := range l.Inspectors {
		text := map[ir.InspectorKind]string{ir.TLSInspector: "tls", ir.HTTPInspector: "http"}[i.Kind]
		if text == "" {
			continue
		}
		for _, p := range i.OnlyPorts {
			text += fmt.Sprint(" +", p)
		}
		for _, p := range i.SkipPorts {
			text += fmt.Sprint(" -", p)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}
