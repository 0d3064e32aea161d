package cluster

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

const typedHTTP = `"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
	"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", `

// TestVersions: what a cluster speaks for a client of each version.
func TestVersions(t *testing.T) {
	for _, c := range []struct {
		name, options string
		one, two      upstream.Version
	}{
		{"by default", ``, upstream.HTTP1, upstream.HTTP1},
		{"HTTP/1", typedHTTP + `"explicit_http_config": {"http_protocol_options": {}}}}`, upstream.HTTP1, upstream.HTTP1},
		{"HTTP/2", typedHTTP + `"explicit_http_config": {"http2_protocol_options": {}}}}`, upstream.HTTP2, upstream.HTTP2},
		{"HTTP/2 by the older field", `"http2_protocol_options": {}`, upstream.HTTP2, upstream.HTTP2},
		{"as the client", typedHTTP + `"use_downstream_protocol_config": {"http2_protocol_options": {}}}}`, upstream.HTTP1, upstream.HTTP2},
		{"as the client by the older field", `"protocol_selection": "USE_DOWNSTREAM_PROTOCOL"`, upstream.HTTP1, upstream.HTTP2},
		{"by ALPN", typedHTTP + `"auto_config": {"http2_protocol_options": {}}}},
			"transport_socket": {"name": "tls", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}`,
			upstream.ALPN, upstream.ALPN},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := `{"name": "a", "load_assignment": ` + to("127.0.0.1:1")
			if c.options != "" {
				text += ", " + c.options
			}
			a := statics(t, text+"}").Get("a")
			h := a.Endpoints()[0].Owner.(*host)
			for client, want := range map[http.Protocol]upstream.Version{http.HTTP11: c.one, http.HTTP2: c.two} {
				if got := a.named(h, &upstream.Wish{Client: client}).version; got != want {
					t.Errorf("%s: speaks %d, want %d", client, got, want)
				}
			}
		})
	}
}

// TestWishes: requests that wish for different connections do not share a pool.
func TestWishes(t *testing.T) {
	a := statics(t, `{"name": "a", "load_assignment": `+to("127.0.0.1:1")+`, "transport_socket": {"name": "tls", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}}`).Get("a")
	ep := a.Endpoints()[0]
	common := a.HTTP(ep, upstream.Wish{})
	state := func(key string, v any) upstream.Wish { return upstream.Wish{State: map[string]any{key: v}} }
	for name, w := range map[string]upstream.Wish{
		"high priority": {Priority: 1}, "ALPN": state(upstream.ALPNKey, []string{"istio"}), "server name": state(upstream.NameKey, "b.test"),
	} {
		if p := a.HTTP(ep, w); p == common || p != a.HTTP(ep, w) {
			t.Errorf("%s: the common pool, or another one each time", name)
		}
	}
	if a.HTTP(ep, state("other", "x")) != common {
		t.Error("a filter state that does not matter makes a pool")
	}
}

// TestPoolsOfClients: where the endpoint is told of the client, each has connections of its
// own, of which only so many are kept; the proxy's own requests have the common ones.
func TestPoolsOfClients(t *testing.T) {
	a := statics(t, `{"name": "a", "load_assignment": `+to("127.0.0.1:1")+`, "transport_socket": {"name": "pp", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
		"transport_socket": {"name": "envoy.transport_sockets.raw_buffer"}}}}`).Get("a")
	ep := a.Endpoints()[0]
	from := func(text string) upstream.Wish {
		return upstream.Wish{From: netip.MustParseAddrPort(text), To: netip.MustParseAddrPort("10.0.0.1:80")}
	}
	first := from("192.0.2.1:1")
	told := upstream.Wish{From: netip.MustParseAddrPort("192.0.2.7:7"), State: map[string]any{transport.ProxiedKey: &transport.Proxied{From: first.From, To: first.To}}}
	pool, common := a.HTTP(ep, first), a.HTTP(ep, upstream.Wish{})
	switch {
	case pool == common:
		t.Error("a client has the common pool")
	case pool != a.HTTP(ep, first) || pool != a.HTTP(ep, told):
		t.Error("one client has several pools")
	case pool == a.HTTP(ep, from("192.0.2.1:2")):
		t.Error("two clients have one pool")
	}
	for n := range maxClients + 10 {
		a.HTTP(ep, upstream.Wish{From: netip.AddrPortFrom(first.From.Addr(), uint16(n+3)), To: first.To})
	}
	if n := len(ep.Owner.(*host).byName); n != maxClients {
		t.Errorf("%d pools are kept, want %d", n, maxClients)
	}
}

// TestRefusedProtocols: what is not spoken is refused by name.
func TestRefusedProtocols(t *testing.T) {
	for want, options := range map[string]string{
		"explicit_http_config.http3_protocol_options":                typedHTTP + `"explicit_http_config": {"http3_protocol_options": {}}}}`,
		"auto_config.http3_protocol_options":                         typedHTTP + `"auto_config": {"http3_protocol_options": {}}}}`,
		"http2_protocol_options.allow_metadata":                      typedHTTP + `"explicit_http_config": {"http2_protocol_options": {"allow_metadata": true}}}}`,
		"http2_protocol_options.connection_keepalive.timeout":        typedHTTP + `"explicit_http_config": {"http2_protocol_options": {"connection_keepalive": {"timeout": "0s"}}}}}`,
		"ALPN configured for cluster a which has a non-ALPN":         typedHTTP + `"auto_config": {}}}`,
		"http2_protocol_options.initial_stream_window_size: must be": typedHTTP + `"explicit_http_config": {"http2_protocol_options": {"initial_stream_window_size": 1}}}}`,
	} {
		cs := New(Options{})
		t.Cleanup(cs.Close)
		err := cs.AddStatic(newCluster(t, `{"name": "a", "load_assignment": `+to("127.0.0.1:1")+`, `+options+`}`))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
