package mutual

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/agent/bootstrap"
	"github.com/lateen-mesh/lateen/agent/redirect"
	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/wellknown"
)

const adminAddr = "127.0.0.1:15000"

// accessLog has what a proxy knows of its client, for the ports that applications serve.
const accessLog = "in=%DOWNSTREAM_LOCAL_ADDRESS% from=%DOWNSTREAM_PEER_URI_SAN% to=%DOWNSTREAM_LOCAL_URI_SAN% sni=%REQUESTED_SERVER_NAME% tls=%DOWNSTREAM_TLS_VERSION%\n"

// A member is a pod with an application, and perhaps a proxy.
type member struct {
	*fixture.Pod
	name    string
	kind    string           // "lateen", "envoy" or "none"
	sidecar *fixture.Gateway // nil: none
}

// id is the identity of the member's workload.
func (m *member) id() string { return "spiffe://cluster.local/ns/default/sa/" + m.name }

// host is the name of the member's service.
func (m *member) host() string { return m.name + ".default.svc.cluster.local" }

// A plane is our control plane, the members under it, and an authority that has given each
// with a proxy a certificate.
type plane struct {
	t       *testing.T
	dir     string // of the configuration
	sockets string
	server  *control.Server
	ca      *testca.CA
	members map[string]*member
	steps   int
}

// start makes the mesh of all members.
func start(t *testing.T) *plane {
	t.Helper()
	sockets, err := os.MkdirTemp("", "mutual") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{t: t, dir: t.TempDir(), sockets: sockets, ca: ca, members: map[string]*member{}}
	kinds := []string{"lateen", "lateen", "none"}
	if fixture.EnvoyPath() != "" {
		kinds = append(kinds, "envoy", "envoy")
	} else {
		t.Log("the real Envoy is not installed (make peers): only ours is tested")
	}
	captured := make([]bool, len(kinds))
	for i, k := range kinds {
		captured[i] = k != "none"
	}
	pods := fixture.NewPods(t, captured...)
	for i, k := range kinds {
		name := k
		if p.members[name] != nil {
			name += "-2"
		}
		p.members[name] = &member{Pod: pods[i], name: name, kind: k}
		serve(t, p.members[name])
	}
	p.write("")
	p.control()
	for _, m := range p.members {
		if m.kind != "none" {
			m.sidecar = p.proxy(m)
		}
	}
	p.settle()
	return p
}

func (p *plane) control() {
	p.t.Helper()
	log, err := logging.New(logging.Options{Output: p.t.Output(), Levels: "error"})
	if err != nil {
		p.t.Fatal(err)
	}
	p.server, err = control.New(control.Options{Paths: []string{p.dir}, Log: log, GRPC: "unix:" + filepath.Join(p.sockets, "xds"),
		Identities: true, Debounce: control.Debounce{After: time.Millisecond, Max: time.Second}})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.server.Run(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("the control plane: %v", err)
		}
	})
}

// proxy starts the sidecar of a member, with its certificate at hand as from an agent.
func (p *plane) proxy(m *member) *fixture.Gateway {
	p.t.Helper()
	sds := filepath.Join(p.sockets, m.name)
	xdstest.At(p.t, "unix:"+sds).SetAll(wellknown.SecretType, p.secrets(m))
	in := bootstrap.Input{Type: "sidecar", Name: m.name + "-1", Namespace: "default", Addresses: []string{m.Addr().String()},
		Labels: map[string]string{"app": m.name}, PilotSAN: []string{"istiod.istio-system.svc"}, Metadata: map[string]any{"SERVICE_ACCOUNT": m.name},
		XDSSocket: filepath.Join(p.sockets, "xds"), SDSSocket: sds, Admin: 15000, Bind: "0.0.0.0", Agent: 15020, Health: 15021, Metrics: 15090, Mark: redirect.ProxyID}
	data, err := in.JSON()
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		p.t.Fatal(err)
	}
	peer := fixture.Peer{Name: m.name, Argv: []string{fixture.EnvoyPath()}}
	if m.kind == "lateen" {
		peer.Argv = []string{build.Command(p.t, "lateen-proxy")}
	}
	return m.Sidecar(p.t, peer, file, adminAddr)
}

func (p *plane) secrets(m *member) map[string]proto.Message {
	p.t.Helper()
	cert, key, err := p.ca.Issue(m.id())
	if err != nil {
		p.t.Fatal(err)
	}
	inline := func(b []byte) *corepb.DataSource {
		return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: b}}
	}
	return map[string]proto.Message{
		"default": &tlspb.Secret{Name: "default", Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{CertificateChain: inline(cert), PrivateKey: inline(key)}}},
		"ROOTCA":  &tlspb.Secret{Name: "ROOTCA", Type: &tlspb.Secret_ValidationContext{ValidationContext: &tlspb.CertificateValidationContext{TrustedCa: inline(p.ca.PEM())}}},
	}
}

// write puts a configuration in the place of the last one: the members' services, and what
// is given beside them.
func (p *plane) write(policies string) {
	p.t.Helper()
	p.steps++
	var all strings.Builder
	fmt.Fprintf(&all, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: %q}\n",
		fmt.Sprintf("accessLogFile: /dev/stdout\naccessLogFormat: %q\n", accessLog))
	fmt.Fprintf(&all, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: step, labels: {step: \"%d\"}}\n", p.steps)
	for _, m := range p.members {
		mode := "istio"
		if m.kind == "none" {
			mode = "disabled"
		}
		fmt.Fprintf(&all, `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %[1]s, namespace: default}
spec:
  hosts: [%[2]s]
  addresses: [%[3]s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: %[4]d, name: http, protocol: HTTP}
  - {number: %[5]d, name: grpc, protocol: GRPC}
  - {number: %[6]d, name: tcp, protocol: TCP}
  - {number: %[7]d, name: unknown}
  endpoints: [{address: %[8]s, serviceAccount: %[1]s, labels: {app: %[1]s, security.istio.io/tlsMode: %[9]s}}]
`, m.name, m.host(), vip(m), httpPort, grpcPort, tcpPort, autoPort, m.Addr(), mode)
	}
	if policies != "" {
		all.WriteString("---\n" + policies)
	}
	file := filepath.Join(p.dir, "all.yaml")
	if err := os.WriteFile(file+".part", []byte(all.String()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(file+".part", file); err != nil {
		p.t.Fatal(err)
	}
}

// vip is the address of a member's service.
func vip(m *member) string { return "10.60.0." + m.Addr().String()[len("10.77.100."):] }

// put has a configuration in force.
func (p *plane) put(policies string) {
	p.t.Helper()
	before := p.server.Status().Generation
	p.write(policies)
	fixture.Eventually(p.t, "a snapshot", func() error {
		if now := p.server.Status().Generation; now <= before {
			return fmt.Errorf("still at generation %d", now)
		}
		return nil
	})
	p.settle()
}

// settle waits until all proxies have the newest snapshot in force; they may refuse nothing.
func (p *plane) settle() {
	p.t.Helper()
	fixture.Eventually(p.t, "everything is in force", func() error {
		st := p.server.Status()
		synced := 0
		for _, is := range st.Proxies {
			for _, r := range is.Refused {
				p.t.Fatalf("%s refuses %s %s: %s", is.Node, r.Type, r.Resource, r.Error)
			}
			if is.Synced && is.Generation == st.Generation {
				synced++
			}
		}
		if want := len(p.members) - 1; synced != want {
			return fmt.Errorf("%d of %d proxies have generation %d", synced, want, st.Generation)
		}
		for _, m := range p.members {
			if m.sidecar == nil {
				continue
			}
			page, err := m.sidecar.Get("/stats?filter=warming")
			if err != nil {
				return err
			}
			if strings.Count(page, ": 0\n") != strings.Count(page, "\n") {
				return fmt.Errorf("%s: %s", m.name, page)
			}
		}
		return nil
	})
}
