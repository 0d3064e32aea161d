package compile

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

const (
	wildcardAddress = "0.0.0.0"
	// handshakeTimeout bounds TLS handshakes with clients, as the original does.
	handshakeTimeout = 15 * time.Second
)

// Listeners returns the listeners of the proxy, gateways by port, sidecars outbound
// by port and the two capture listeners last.
func Listeners(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) []ir.Listener {
	b := newListenerBuilder(s, scope, p)
	if p.Type == mesh.Router {
		return b.guardTCP(b.countTCP(b.gatewayListeners()))
	}
	return b.guardTCP(b.countTCP(b.sidecarListeners()))
}

// listenerBuilder holds what all listeners of one proxy have in common.
type listenerBuilder struct {
	snapshot *mesh.Snapshot
	scope    *mesh.Scope
	proxy    *mesh.Proxy
	config   *meshconfig.ProxyConfig
	logs     []ir.AccessLog
	tracing  *ir.Tracing
	metrics  bool
	bound    boundRules // of a gateway

	authorization *authorization // once it is asked for
}

func newListenerBuilder(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) *listenerBuilder {
	config := proxyConfig(s, p)
	return &listenerBuilder{
		snapshot: s,
		scope:    scope,
		proxy:    p,
		config:   config,
		logs:     accessLogs(s.MeshConfig, scope, p),
		tracing:  tracing(s, config, scope, p),
		metrics:  metrics(s.MeshConfig),
		bound:    boundRules{},
	}
}

// proxyConfig is the mesh's default settings of proxies with those over it that the
// proxy was started with.
func proxyConfig(s *mesh.Snapshot, p *mesh.Proxy) *meshconfig.ProxyConfig {
	out := &meshconfig.ProxyConfig{}
	if d := s.MeshConfig.GetDefaultConfig(); d != nil {
		out = proto.Clone(d).(*meshconfig.ProxyConfig)
	}
	own, ok := p.Metadata["PROXY_CONFIG"]
	if !ok {
		return out
	}
	text, err := json.Marshal(own)
	if err != nil {
		return out
	}
	given := &meshconfig.ProxyConfig{}
	if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, given) != nil {
		return out // written by the proxy's own agent; unreadable is as good as absent
	}
	proto.Merge(out, given)
	return out
}

// listenerName is the name of a listener on an address and port.
func listenerName(address string, port uint32) string { return fmt.Sprintf("%s_%d", address, port) }

// newListener returns a listener with its own socket.
func (b *listenerBuilder) newListener(name, address string, port uint32) ir.Listener {
	return ir.Listener{
		Name: name, Address: address, Port: port,
		AcceptsPerEvent: 1,
		AccessLogs:      noRouteLogs(b.logs),
	}
}

// http1Legacy reports whether the proxy was started to serve HTTP/1.0.
func (b *listenerBuilder) http1Legacy() bool {
	v := fmt.Sprint(b.proxy.Metadata["HTTP10"])
	return v == "1" || strings.EqualFold(v, "true")
}

// paths is the mesh's setting for request paths.
func (b *listenerBuilder) paths() ir.PathNormalization {
	switch b.snapshot.MeshConfig.GetPathNormalization().GetNormalization() {
	case meshconfig.MeshConfig_ProxyPathNormalization_NONE:
		return ir.PathNormalization{}
	case meshconfig.MeshConfig_ProxyPathNormalization_MERGE_SLASHES:
		return ir.PathNormalization{Normalize: true, MergeSlashes: true}
	case meshconfig.MeshConfig_ProxyPathNormalization_DECODE_AND_MERGE_SLASHES:
		return ir.PathNormalization{Normalize: true, MergeSlashes: true, Unescape: true}
	}
	return ir.PathNormalization{Normalize: true}
}

// connectionManager returns what HTTP on all listeners has in common.
func (b *listenerBuilder) connectionManager(statPrefix string) *ir.HTTPConnectionManager {
	return &ir.HTTPConnectionManager{
		StatPrefix: statPrefix,
		AccessLogs: b.logs,
		Paths:      b.paths(),
		HTTP10:     b.http1Legacy(),
		Tracing:    b.tracing,
	}
}
