package config

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	meshconfig "istio.io/api/mesh/v1alpha1"
)

// validateProviders checks the services that MeshConfig names for authorization,
// tracing and logs.
func validateProviders(p place, all []*meshconfig.MeshConfig_ExtensionProvider) {
	names := map[string]bool{}
	for i, e := range all {
		at := p.at("extensionProviders", i)
		if names[e.Name] || e.Name == "" {
			at.field("name").errorf("must be unique and not empty, got %q", shorten(e.Name))
		}
		names[e.Name] = true
		m := e.ProtoReflect()
		kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("provider"))
		if kind == nil {
			at.errorf("does not say what it provides: one of envoyExtAuthzHttp, envoyExtAuthzGrpc, opentelemetry, zipkin, envoyFileAccessLog and others is required")
			continue
		}
		validateProvider(at.field(kind.JSONName()), m.Get(kind).Message().Interface())
	}
}

// validateProvider checks one, by the fields that its message has.
func validateProvider(p place, provider any) {
	if s, ok := provider.(interface {
		GetService() string
		GetPort() uint32
	}); ok {
		p.field("service").wrong(providerService(s.GetService()))
		p.field("port").wrong(port(int64(s.GetPort())))
	}
	if s, ok := provider.(interface{ GetStatusOnError() string }); ok && s.GetStatusOnError() != "" {
		if code, err := strconv.Atoi(s.GetStatusOnError()); err != nil || http.StatusText(code) == "" {
			p.field("statusOnError").errorf("must be an HTTP status, got %q", shorten(s.GetStatusOnError()))
		}
	}
	switch v := provider.(type) {
	case *meshconfig.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationHttpProvider:
		if _, err := url.Parse(v.PathPrefix); err != nil || v.PathPrefix != "" && v.PathPrefix[0] != '/' {
			p.field("pathPrefix").errorf("must be a path that begins with /, got %q", shorten(v.PathPrefix))
		}
	case *meshconfig.MeshConfig_ExtensionProvider_LightstepTracingProvider:
		p.field("accessToken").required(v.AccessToken)
	case *meshconfig.MeshConfig_ExtensionProvider_OpenTelemetryTracingProvider:
		if v.Grpc != nil && v.Http != nil {
			p.field("grpc").errorf("cannot be set together with http")
		}
	}
}

// providerService checks `host`, an IP address or `namespace/host`.
func providerService(s string) error {
	ns, host, split := strings.Cut(s, "/")
	switch {
	case !split && isIP(s):
		return nil
	case !split:
		return fqdn(s)
	case !isDNSLabel(ns):
		return fmt.Errorf("%q is not a namespace", shorten(ns))
	}
	return fqdn(host)
}
