package local

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/agent/bootstrap"
	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/local/outside"
	"github.com/lateen-mesh/lateen/wellknown"
)

// startGateway runs control plane and gateway on this machine, without pods.
func (s *supervisor) startGateway(ctx context.Context, spawn func(func(context.Context))) error {
	spawn(s.control.run)
	return s.awaitProcesses(ctx, spawn)
}

// awaitProcesses waits for a control plane on this machine, then starts the gateway there.
func (s *supervisor) awaitProcesses(ctx context.Context, spawn func(func(context.Context))) error {
	s.progress("starting the control plane")
	if err := s.await(ctx, s.control, "the control plane", func() error { _, err := s.Status(ctx); return err }); err != nil || ctx.Err() != nil {
		return err
	}
	spawn(s.proxy.run)
	return s.await(ctx, s.proxy, "the gateway", func() error { return s.gatewayReady(ctx) })
}

// prepareGateway chooses the ports of a gateway on this machine and writes its bootstrap.
func (s *supervisor) prepareGateway() error {
	program, err := s.gatewayProgram()
	if err != nil {
		return err
	}
	if err := s.choosePorts(); err != nil {
		return err
	}
	if len(s.o.Resolve) > 0 {
		if s.dns, err = outside.NewResolver(outside.Options{Resolve: s.o.Resolve}); err != nil {
			return err
		}
		s.gateway.DNS = s.dns.Port()
	}
	text, err := s.gateway.JSON()
	if err != nil {
		return err
	}
	if err := s.state.write("gateway.json", text); err != nil {
		return err
	}
	s.proxy, err = s.newProcess("gateway", []string{program, "-c", s.state.path("gateway.json"),
		"--concurrency", "2", "-l", "warning", "--component-log-level", "misc:error", "--file-flush-interval-msec", "200",
		"--drain-time-s", strconv.Itoa(int(drainTime.Seconds())), "--use-dynamic-base-id"})
	return err
}

func (s *supervisor) gatewayProgram() (string, error) {
	if s.o.Proxy != "" {
		return executable(s.o.Proxy)
	}
	return s.o.binary("lateen-proxy")
}

// gatewayBootstrap is that of a gateway on this machine, but for its ports.
func gatewayBootstrap(xds string) bootstrap.Input {
	return bootstrap.Input{
		Type: "router", Name: gatewayName + "-local", Namespace: gatewayNamespace, Addresses: []string{gatewayAddress}, XDSSocket: xds,
		Metadata: map[string]any{"CLUSTER_ID": "Kubernetes", "MESH_ID": "cluster.local", "WORKLOAD_NAME": gatewayName, "SERVICE_ACCOUNT": gatewayName + "-service-account"},
		Labels: map[string]string{
			"app": gatewayName, "istio": "ingressgateway",
			"service.istio.io/canonical-name": gatewayName, "service.istio.io/canonical-revision": "latest",
		},
	}
}

// choosePorts finds the gateway's own ports and where those of Gateways are published.
func (s *supervisor) choosePorts() error {
	s.gateway = gatewayBootstrap(s.state.socket(xdsSocket))
	g := &s.gateway
	for _, p := range []struct {
		port   *int
		wanted int
	}{{&g.Admin, wellknown.ProxyAdminPort}, {&g.Health, wellknown.ProxyStatusPort}, {&g.Metrics, wellknown.ProxyMetricsPort}} {
		var err error
		if *p.port, err = s.state.ports.loopback(p.wanted); err != nil {
			return err
		}
	}
	node, err := s.node()
	if err != nil {
		return err
	}
	ports, offset, err := s.state.ports.publishing(s.o, s.stdin, node)
	if err != nil {
		return err
	}
	g.Publish, g.Offset = publishList(ports), offset
	return nil
}

// node is the gateway's, as its bootstrap will have it.
func (s *supervisor) node() (*corepb.Node, error) {
	text, err := s.gateway.NodeJSON()
	if err != nil {
		return nil, err
	}
	n := &corepb.Node{}
	return n, protojson.Unmarshal(text, n)
}

// gatewayReady reports what the gateway still waits for: its own readiness, and the
// newest generation active. What it refuses does not keep it from serving the rest.
func (s *supervisor) gatewayReady(ctx context.Context) error {
	status, err := s.Status(ctx)
	if err != nil {
		return err
	}
	active := slices.ContainsFunc(status.Control.Proxies, func(p control.ProxyStatus) bool {
		return p.Synced || len(p.Refused) > 0
	})
	if !active {
		return errors.New("the configuration is not active yet")
	}
	url := "http://127.0.0.1:" + strconv.Itoa(s.gateway.Admin) + "/ready"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(r)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return errors.New("its /ready says " + reply.Status)
	}
	return nil
}
