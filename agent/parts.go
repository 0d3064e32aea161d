package agent

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/agent/health"
	"github.com/lateen-mesh/lateen/agent/names"
	"github.com/lateen-mesh/lateen/agent/relay"
	"github.com/lateen-mesh/lateen/agent/secrets"
	"github.com/lateen-mesh/lateen/agent/status"
	"github.com/lateen-mesh/lateen/nametable"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Files that the pod has.
const (
	resolvConf           = "/etc/resolv.conf"
	identityDirectory    = "/var/run/secrets/workload-spiffe-uds"
	identitySocket       = "socket"
	credentialsDirectory = "/var/run/secrets/workload-spiffe-credentials" //nolint:gosec // a path, no credential
)

// startParts starts what the proxy needs.
func (a *agent) startParts(ctx context.Context) error {
	for _, start := range []func(context.Context) error{a.startNames, a.startIdentity, a.startRelay, a.startSecrets, a.startTrust, a.startStatus, a.startHealth} {
		if err := start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// spawn runs a part; its error ends the agent.
func (a *agent) spawn(name string, run func() error) {
	a.tasks.Go(func() {
		if err := run(); err != nil {
			select {
			case a.failed <- fmt.Errorf("%s: %w", name, err):
			default: // one is enough
			}
		}
	})
}

// startNames answers the pod's DNS questions, if the pod's questions come here.
func (a *agent) startNames(ctx context.Context) error {
	if a.pod.env("ISTIO_META_DNS_CAPTURE") != "true" || a.f.kind != "sidecar" {
		return nil
	}
	resolver, err := names.ReadResolver(a.f.resolvConf)
	if err != nil {
		return fmt.Errorf("DNS of the pod: %w", err)
	}
	a.names, err = names.Listen(names.Options{
		Address:   cmp.Or(a.pod.env("DNS_PROXY_ADDR"), "127.0.0.1:"+strconv.Itoa(wellknown.DNSPort)),
		Namespace: a.pod.input.Namespace, Domain: a.pod.input.Domain, Search: resolver.Search, Servers: resolver.Servers,
		Control: a.control, Logger: a.log.Scope("dns"),
	})
	if err != nil {
		return fmt.Errorf("DNS of the pod: %w", err)
	}
	a.spawn("DNS of the pod", func() error { return a.names.Run(ctx) })
	return nil
}

func (a *agent) startRelay(ctx context.Context) error {
	text, err := a.pod.input.NodeJSON()
	if err != nil {
		return err
	}
	node := &corepb.Node{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, node); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	_, address := a.controlPlane()
	o := relay.Options{
		Node: node, Socket: a.pod.input.XDSSocket, Journal: filepath.Join(a.pod.dir, journalName), Address: address, Logger: a.log.Scope("relay"),
		Dial: a.dialControl, Token: a.token, Trust: a.trustSays,
	}
	if a.names != nil {
		o.Names = func(t nametable.Table) { a.names.Update(t) }
	}
	programs := a.pod.env(grpcBootstrap)
	o.Shared = programs != ""
	if a.relay, err = relay.Listen(o); err != nil {
		return err
	}
	a.tasks.Go(func() { a.relay.Run(ctx) })
	return a.writeGRPC(programs)
}

// grpcBootstrap is the variable of the environment with the path of the file from which gRPC
// programs of the pod start that speak xDS themselves. They read it by the variable
// GRPC_XDS_BOOTSTRAP of their own, and the directories of the file and of the agent's socket
// are volumes of theirs.
const grpcBootstrap = "GRPC_XDS_BOOTSTRAP"

// writeGRPC writes that file, at once as a whole: programs wait for it. No path is no file.
func (a *agent) writeGRPC(path string) error {
	if path == "" {
		return nil
	}
	text, err := a.pod.input.GRPC()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755) //nolint:gosec // programs of other users read beside it
	}
	if err == nil {
		err = os.WriteFile(path+".part", text, 0o644) //nolint:gosec // it holds no secret, and programs of other users read it
	}
	if err == nil {
		err = os.Rename(path+".part", path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", grpcBootstrap, err)
	}
	return nil
}

// controlPlane is the socket of the engine, where there is one or will be, or the configured address.
func (a *agent) controlPlane() (network, address string) {
	if exists(a.f.sockets) {
		return "unix", filepath.Join(a.f.sockets, "xds.sock")
	}
	return "tcp", a.pod.config.GetDiscoveryAddress()
}

// Of a socket of this machine: a try costs nothing, and the mesh starts as one.
const (
	socketStep = 20 * time.Millisecond
	socketWait = time.Second
)

// dialControl connects to the control plane. A socket is waited for a while.
func (a *agent) dialControl(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Control: a.control}
	network, address := a.controlPlane()
	c, err := d.DialContext(ctx, network, address)
	if err == nil && network != "unix" {
		return a.secured(ctx, c, address, a.pod.env("XDS_ROOT_CA"))
	}
	if err == nil || network != "unix" {
		return c, err
	}
	ctx, cancel := context.WithTimeout(ctx, socketWait)
	defer cancel()
	again := time.NewTicker(socketStep)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, err
		case <-again.C:
		}
		if c, err = d.DialContext(ctx, network, address); err == nil {
			return c, nil
		}
	}
}

// startSecrets serves certificates, unless somebody else does on the same socket.
func (a *agent) startSecrets(ctx context.Context) error {
	path := filepath.Join(a.f.identity, identitySocket)
	// The control plane takes a proxy that expects names of it for one that has certificates.
	a.pod.input.SDSSocket, a.pod.input.PilotSAN = path, []string{hostOf(a.pod.config.GetDiscoveryAddress())}
	if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		a.say.Info("certificates come from the server that is there", "socket", path)
		return c.Close()
	}
	s, err := secrets.Listen(secrets.Options{Socket: path, Credentials: credentialsDirectory, Workload: a.identity, Logger: a.log.Scope("sds")})
	if err != nil {
		a.say.Warn("no certificates are served: what speaks TLS with files of the agent does not work", "error", err)
		a.pod.input.SDSSocket, a.pod.input.PilotSAN = "", nil
		return nil
	}
	a.secrets = s
	a.spawn("certificates", func() error { return s.Run(ctx) })
	return nil
}

func (a *agent) startStatus(ctx context.Context) error {
	port := int(a.pod.config.GetStatusPort())
	if port == 0 {
		return nil // health is then the admin API's
	}
	o := status.Options{
		Admin: a.admin(), Address: a.pod.input.Addresses[0], Logger: a.log.Scope("healthcheck"),
		Probes: getenv("ISTIO_KUBE_APP_PROBERS"), Scrape: getenv("ISTIO_PROMETHEUS_ANNOTATIONS"),
		Metrics: a.metrics, Leaving: a.leaving.Load, Quit: a.quit, Drain: func() { a.drainListeners(ctx) },
	}
	if getenv("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION") == "true" {
		o.Address = "localhost"
	}
	if a.names != nil {
		o.Names = func() any { return a.names.Table() }
	}
	s, err := status.New(o)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("pages of the agent: %w", err)
	}
	a.spawn("pages of the agent", func() error { return s.Serve(ctx, l) })
	return nil
}

// startHealth looks after the application where no kubelet does.
func (a *agent) startHealth(ctx context.Context) error {
	probe := a.pod.config.GetReadinessProbe()
	if probe == nil {
		return nil
	}
	a.spawn("health of the application", func() error {
		return health.Run(ctx, health.Options{Probe: probe, Address: a.pod.input.Addresses[0], Control: a.control, Tell: func(wrong string) {
			if wrong == "" {
				a.say.Info("the application is healthy")
			} else {
				a.say.Warn("the application is not healthy", "error", wrong)
			}
			a.relay.Health(wrong)
		}})
	})
	return nil
}

// metrics are the agent's own.
func (a *agent) metrics(w io.Writer) {
	type metric struct {
		name, kind, help string
		value            uint64
	}
	s := a.relay.Status()
	connected := uint64(0)
	if s.Connected {
		connected = 1
	}
	all := []metric{
		{"istio_agent_xds_proxy_requests", "counter", "The total number of requests to the control plane.", s.Requests},
		{"istio_agent_xds_proxy_responses", "counter", "The total number of responses of the control plane.", s.Responses},
		{"istio_agent_xds_proxy_rejects", "counter", "The total number of responses that the proxy refused.", s.Refused},
		{"istio_agent_xds_proxy_connected", "gauge", "Whether the control plane is connected.", connected},
	}
	if a.names != nil {
		c := a.names.Counts()
		all = append(all, metric{"istio_agent_dns_requests_total", "counter", "The total number of DNS questions.", c.Questions},
			metric{"istio_agent_dns_upstream_requests_total", "counter", "The total number of DNS questions that were forwarded.", c.Forwarded},
			metric{"istio_agent_dns_upstream_failures_total", "counter", "The total number of forwarded DNS questions without answer.", c.Failed})
	}
	for _, m := range all {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", m.name, m.help, m.name, m.kind, m.name, m.value)
	}
	fmt.Fprintf(w, "# HELP istio_build Istio component build info\n# TYPE istio_build gauge\nistio_build{component=\"agent\",tag=%q} 1\n", wellknown.Version())
}

// admin is where the proxy's admin API is.
func (a *agent) admin() string {
	return net.JoinHostPort("localhost", strconv.Itoa(int(a.pod.config.GetProxyAdminPort())))
}

// drainListeners has the proxy take no more connections; a sidecar's application may still
// make its own.
func (a *agent) drainListeners(ctx context.Context) {
	a.drained.Do(func() {
		path := "/drain_listeners?graceful"
		if a.f.kind == "sidecar" {
			path += "&inboundonly"
		}
		ctx, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		if err := request(ctx, io.Discard, a.admin(), http.MethodPost, path, ""); err != nil {
			a.say.Warn("the proxy's listeners stay as they are", "error", err)
		}
	})
}
