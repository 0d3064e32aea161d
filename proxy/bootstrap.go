package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	connectionspb "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/tracing"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A Bootstrap is the file that a proxy starts from, checked.
type Bootstrap struct {
	// Proto is the message as given, less what Ignored names.
	Proto *bootstrappb.Bootstrap
	// Ignored names parts of the file that this proxy does not have and that change
	// nothing in what it serves.
	Ignored []string

	adminAddress  string // "ip:port", "" for no admin pages
	globalLimit   int64  // of downstream connections, 0: none
	runtime       *runtime.Values
	flushInterval time.Duration   // of stats
	tracer        *tracing.Tracer // nil: connection managers that name no provider trace nothing
}

// Load reads a bootstrap from a file (JSON or YAML by its content; "" for none), with
// overlay, which is JSON or YAML text, merged over it: maps are merged, other values
// replaced, lists appended, as Envoy's --config-yaml does. Unknown fields are errors
// unless lax.
func Load(path, overlay string, lax bool) (*Bootstrap, error) {
	if path == "" && overlay == "" {
		return nil, errors.New("At least one of --config-path or --config-yaml should be non-empty") //nolint:staticcheck // Envoy's words
	}
	b := &bootstrappb.Bootstrap{}
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("Invalid path: %s: %w", path, err) //nolint:staticcheck // Envoy's words
		}
		if err := decodeInto(b, text, filepath.Ext(path), lax); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if overlay != "" {
		over := &bootstrappb.Bootstrap{}
		if err := decodeInto(over, []byte(overlay), ".yaml", lax); err != nil {
			return nil, fmt.Errorf("--config-yaml: %w", err)
		}
		proto.Merge(b, over)
	}
	return check(b)
}

func decodeInto(b *bootstrappb.Bootstrap, text []byte, ext string, lax bool) error {
	if ext == ".pb" {
		return proto.Unmarshal(text, b)
	}
	if !json.Valid(text) {
		var v any
		if err := yaml.Unmarshal(text, &v); err != nil {
			return err
		}
		var err error
		if text, err = json.Marshal(v); err != nil {
			return err
		}
	}
	err := protojson.UnmarshalOptions{DiscardUnknown: lax}.Unmarshal(text, b)
	if err != nil {
		return fmt.Errorf("Protobuf message (type envoy.config.bootstrap.v3.Bootstrap): %s", withoutValues(err.Error())) //nolint:staticcheck // Envoy's words
	}
	return nil
}

// The values that protojson repeats in its errors: a bootstrap may hold private keys
// (inline_bytes, inline_string), which do not belong into a log.
var repeated = []*regexp.Regexp{
	regexp.MustCompile(`(?s)(invalid value for (?:bytes|string) field [^ :]+): .*`),
	regexp.MustCompile(`(?s)(unexpected token) [^a-z{}\[\],:].*`),
}

func withoutValues(text string) string {
	text = strings.ReplaceAll(text, "\u00a0", " ") // with which protojson keeps others from comparing
	for _, r := range repeated {
		text = r.ReplaceAllString(text, "$1")
	}
	return text
}

// The fields of a Bootstrap that the proxy acts on, and those that may be left out
// without changing what is served: they report, protect or speed up.
var (
	bootstrapFields = []protoreflect.Name{
		"node", "static_resources", "dynamic_resources", "admin", "stats_config", "layered_runtime", "overload_manager",
		"typed_dns_resolver_config", "dns_resolution_config", "use_tcp_for_dns_lookups", "cluster_manager", "default_config_source",
		"tracing", "stats_flush_interval", "stats_flush_on_admin",
	}
	harmlessFields = []protoreflect.Name{
		"application_log_config", "bootstrap_extensions", "deferred_stat_options", "stats_sinks", "stats_eviction_interval", "watchdogs", "watchdog", "flags_path", "header_prefix",
		"stats_server_version_override", "fatal_actions", "perf_tracing_file_path", "memory_allocator_manager",
		"node_context_params", "enable_dispatcher_stats", "grpc_async_client_manager_config", "cluster_manager_config", "default_regex_engine",
	}
	// quiet are harmless fields that every bootstrap of the original has and whose
	// absence nobody can notice.
	quiet = []protoreflect.Name{"application_log_config", "deferred_stat_options", "stats_eviction_interval", "stats_sinks"}
)

// check refuses what the proxy would need and does not have.
func check(p *bootstrappb.Bootstrap) (*Bootstrap, error) {
	b := &Bootstrap{Proto: p}
	p.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if slices.Contains(harmlessFields, f.Name()) && !slices.Contains(quiet, f.Name()) {
			b.Ignored = append(b.Ignored, string(f.Name()))
		}
		return true
	})
	if err := xds.Only(p, append(bootstrapFields, harmlessFields...)...); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		field string
		check func() error
	}{
		{"admin", b.checkAdmin}, {"dynamic_resources", b.checkDynamic}, {"static_resources", b.checkStatic},
		{"layered_runtime", b.checkRuntime}, {"overload_manager", b.checkOverload}, {"cluster_manager", b.checkClusterManager},
		{"tracing", b.checkTracing}, {"stats_flush_interval", b.checkFlush},
	} {
		if err := step.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.field, err)
		}
	}
	return b, nil
}

func (b *Bootstrap) checkAdmin() error {
	a := b.Proto.GetAdmin()
	if a == nil {
		return nil
	}
	if err := xds.Only(a, "access_log", "access_log_path", "profile_path", "address", "socket_options", "ignore_global_conn_limit"); err != nil {
		return err
	}
	if a.GetAddress().GetPipe() != nil {
		return errors.New("address.pipe: not supported")
	}
	if s := a.GetAddress().GetSocketAddress(); s != nil {
		b.adminAddress = net.JoinHostPort(s.GetAddress(), fmt.Sprint(s.GetPortValue()))
	}
	return nil
}

func (b *Bootstrap) checkDynamic() error {
	d := b.Proto.GetDynamicResources()
	for name, source := range map[string]*corepb.ConfigSource{"lds_config": d.GetLdsConfig(), "cds_config": d.GetCdsConfig()} {
		if source.GetAds() != nil && d.GetAdsConfig() == nil {
			return fmt.Errorf("%s: ads without ads_config", name)
		}
	}
	if d.GetLdsResourcesLocator() != "" || d.GetCdsResourcesLocator() != "" {
		return errors.New("lds_resources_locator, cds_resources_locator: not supported")
	}
	return nil
}

// checkStatic takes compressors out of static listeners: a response is as good
// without, and the original's own stats listener has three.
func (b *Bootstrap) checkStatic() error {
	for _, l := range b.Proto.GetStaticResources().GetListeners() {
		for _, chain := range l.GetFilterChains() {
			for _, f := range chain.GetFilters() {
				dropped, err := dropCompressors(f.GetTypedConfig())
				if err != nil {
					return fmt.Errorf("listeners %q: %w", l.GetName(), err)
				}
				for _, name := range dropped {
					b.Ignored = append(b.Ignored, fmt.Sprintf("listener %s: %s", l.GetName(), name))
				}
			}
		}
	}
	return nil
}

func dropCompressors(cfg *anypb.Any) ([]string, error) {
	if !strings.HasSuffix(cfg.GetTypeUrl(), ".HttpConnectionManager") {
		return nil, nil
	}
	var c hcmpb.HttpConnectionManager
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	var dropped []string
	kept := make([]*hcmpb.HttpFilter, 0, len(c.GetHttpFilters()))
	for _, f := range c.GetHttpFilters() {
		if strings.HasSuffix(f.GetTypedConfig().GetTypeUrl(), "/envoy.extensions.filters.http.compressor.v3.Compressor") {
			dropped = append(dropped, f.GetName())
			continue
		}
		kept = append(kept, f)
	}
	if dropped == nil {
		return nil, nil
	}
	c.HttpFilters = kept
	return dropped, cfg.MarshalFrom(&c)
}

const connectionsMonitor = "envoy.resource_monitors.global_downstream_max_connections"

// checkOverload understands the limit of downstream connections; other monitors
// protect Envoy's heap, which GOMEMLIMIT does here.
func (b *Bootstrap) checkOverload() error {
	for _, m := range b.Proto.GetOverloadManager().GetResourceMonitors() {
		if m.GetName() != connectionsMonitor {
			b.Ignored = append(b.Ignored, "overload_manager: "+m.GetName())
			continue
		}
		var c connectionspb.DownstreamConnectionsConfig
		if err := m.GetTypedConfig().UnmarshalTo(&c); err != nil {
			return err
		}
		b.globalLimit = c.GetMaxActiveDownstreamConnections()
	}
	if n := len(b.Proto.GetOverloadManager().GetActions()); n > 0 {
		b.Ignored = append(b.Ignored, "overload_manager.actions")
	}
	return nil
}

// checkClusterManager: of the fields that are not about sockets, none changes what is
// served without the features that they belong to.
func (b *Bootstrap) checkClusterManager() error {
	m := b.Proto.GetClusterManager()
	if err := xds.Only(m, "upstream_bind_config", "local_cluster_name", "outlier_detection", "load_stats_config", "enable_deferred_cluster_creation"); err != nil {
		return err
	}
	if err := cluster.CheckBind(m.GetUpstreamBindConfig()); err != nil {
		return fmt.Errorf("upstream_bind_config: %w", err)
	}
	return nil
}

// checkFlush: an interval is one millisecond to five minutes, five seconds by default.
func (b *Bootstrap) checkFlush() error {
	b.flushInterval = 5 * time.Second
	if d := b.Proto.GetStatsFlushInterval(); d != nil {
		b.flushInterval = d.AsDuration()
	}
	if b.flushInterval < time.Millisecond || b.flushInterval >= 5*time.Minute {
		return errors.New("value must be inside range [1ms, 5m0s)")
	}
	for i, sink := range b.Proto.GetStatsSinks() {
		b.Ignored = append(b.Ignored, fmt.Sprintf("stats_sinks[%d] %s", i, sink.GetName()))
	}
	return nil
}

// checkTracing takes providers whose headers are known. Others are for whoever collects
// their spans, which nothing here reports.
func (b *Bootstrap) checkTracing() error {
	p := b.Proto.GetTracing().GetHttp()
	if p == nil {
		return nil
	}
	var err error
	if b.tracer, err = tracing.New(p); err != nil {
		b.Ignored = append(b.Ignored, "tracing: "+err.Error())
	}
	return nil
}

// clusterProto finds a static cluster by name.
func (b *Bootstrap) clusterProto(name string) *clusterpb.Cluster {
	for _, c := range b.Proto.GetStaticResources().GetClusters() {
		if c.GetName() == name {
			return c
		}
	}
	return nil
}
