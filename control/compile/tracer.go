package compile

import (
	"cmp"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

const (
	zipkinPath = "/api/v2/spans"
	// spanTimeout bounds a report to Zipkin, otlpTimeout one of OpenTelemetry over HTTP, where
	// the provider does not.
	spanTimeout = 5 * time.Second
	otlpTimeout = 3 * time.Second
)

// providedTracer is that of defaultProviders.tracing, the first that is a tracer the proxy
// has, and how long the path in a span may be (0: as elsewhere). It is nil without any, and
// where the service that spans would go to is not known.
func providedTracer(m *meshconfig.MeshConfig, scope *mesh.Scope, p *mesh.Proxy) (*ir.Tracer, uint32) {
	for provider := range namedProviders(m, m.GetDefaultProviders().GetTracing()) {
		switch zipkin, otlp := provider.GetZipkin(), provider.GetOpentelemetry(); {
		case zipkin != nil && p.Has(extZipkin):
			return zipkinTracer(zipkin, scope), zipkin.GetMaxTagLength()
		case otlp != nil && p.Has(extOpenTelemetry):
			return openTelemetryTracer(otlp, scope, p), otlp.GetMaxTagLength()
		}
	}
	return nil, 0
}

func zipkinTracer(z *meshconfig.MeshConfig_ExtensionProvider_ZipkinTracingProvider, scope *mesh.Scope) *ir.Tracer {
	out := spansTo(scope, z.GetService(), z.GetPort())
	if out == nil {
		return nil
	}
	out.Form, out.Path, out.Timeout = ir.Zipkin, cmp.Or(z.GetPath(), zipkinPath), timeoutOr(z.GetTimeout(), spanTimeout)
	out.ShortIDs = z.GetEnable_64BitTraceId()
	out.BothB3 = z.GetTraceContextOption() == meshconfig.MeshConfig_ExtensionProvider_ZipkinTracingProvider_USE_B3_WITH_W3C_PROPAGATION
	out.Headers = providerHeaders(z.GetHeaders())
	return out
}

func openTelemetryTracer(o *meshconfig.MeshConfig_ExtensionProvider_OpenTelemetryTracingProvider, scope *mesh.Scope, p *mesh.Proxy) *ir.Tracer {
	out := spansTo(scope, o.GetService(), o.GetPort())
	if out == nil {
		return nil
	}
	out.Form, out.Timeout, out.Headers = ir.OTLP, o.GetGrpc().GetTimeout().AsDuration(), providerHeaders(o.GetGrpc().GetInitialMetadata())
	if http := o.GetHttp(); http != nil {
		out.Form, out.Path, out.Timeout = ir.OTLPHTTP, "/"+strings.TrimPrefix(http.GetPath(), "/"), timeoutOr(http.GetTimeout(), otlpTimeout)
		out.Headers = providerHeaders(http.GetHeaders())
	}
	out.Service = spanServiceName(workloadLabels(scope, p), p,
		o.GetServiceAttributeEnrichment() == meshconfig.MeshConfig_ExtensionProvider_OTEL_SEMANTIC_CONVENTIONS)
	out.Environment, out.Dynatrace = o.GetResourceDetectors().GetEnvironment() != nil, o.GetResourceDetectors().GetDynatrace() != nil
	return out
}

// spanServiceName is the workload's name in spans: "app.namespace", or as OpenTelemetry's
// conventions for Kubernetes have it.
func spanServiceName(labels map[string]string, p *mesh.Proxy, conventions bool) string {
	if conventions {
		return cmp.Or(labels["app.kubernetes.io/instance"], labels["app.kubernetes.io/name"], p.WorkloadName, "unknown_service")
	}
	return cmp.Or(labels["app"], p.WorkloadName, "istio-proxy") + "." + p.Namespace
}

// spansTo is a Tracer to a provider's service, nil where the proxy sees none.
func spansTo(scope *mesh.Scope, service string, port uint32) *ir.Tracer {
	cluster, host, ok := providerCluster(scope, service, port)
	if !ok {
		return nil
	}
	return &ir.Tracer{Cluster: cluster, Host: host}
}

// providerHeaders have their value written, or taken from the control plane's environment.
func providerHeaders(headers []*meshconfig.MeshConfig_ExtensionProvider_HttpHeader) []ir.HeaderValue {
	var out []ir.HeaderValue
	for _, h := range headers {
		value := h.GetValue()
		if h.GetEnvName() != "" {
			value = os.Getenv(h.GetEnvName())
		}
		out = append(out, ir.HeaderValue{Name: h.GetName(), Value: value})
	}
	return out
}

func timeoutOr(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}
