package alpn_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/alpn"
	"github.com/lateen-mesh/lateen/proxy/http"
)

func config(t *testing.T, text string) *anypb.Any {
	t.Helper()
	var a anypb.Any
	if err := protojson.Unmarshal([]byte(`{"@type":"type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"`+text+`}`), &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

// TestOffers: what is offered goes by the version that the cluster speaks.
func TestOffers(t *testing.T) {
	speaks := func(cluster string, client http.Protocol) (http.Protocol, bool) {
		switch cluster {
		case "h1":
			return http.HTTP11, true
		case "h2":
			return http.HTTP2, true
		case "follows":
			return client, true
		}
		return 0, false
	}
	f, err := alpn.Factory(speaks).New(config(t, `,"alpnOverride":[{"alpnOverride":["istio-http/1.0","istio","http/1.0"]},
		{"alpnOverride":["istio-http/1.1","istio","http/1.1"],"upstreamProtocol":"HTTP11"},{"alpnOverride":["istio-h2","istio","h2"],"upstreamProtocol":"HTTP2"}]`), http.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cluster string
		client  http.Protocol
		want    string
	}{
		{"h1", http.HTTP2, "istio-http/1.1,istio,http/1.1"}, {"h2", http.HTTP11, "istio-h2,istio,h2"}, {"follows", http.HTTP2, "istio-h2,istio,h2"},
		{"follows", http.HTTP10, "istio-http/1.0,istio,http/1.0"}, {"nobody", http.HTTP11, ""},
	} {
		s := &http.Stream{}
		s.Begin(nil, 1, nil)
		s.Info.Cluster, s.Request.Protocol = c.cluster, c.client
		if f.OnRequest(s, 0) != http.Continue || f.OnResponse(s, 0) != http.Continue || s.Info.UpstreamALPN != c.want {
			t.Errorf("%s: offers %q, want %q", c.cluster, s.Info.UpstreamALPN, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for want, text := range map[string]string{
		"alpn_override[1]: upstream_protocol: 9 is not known":      `,"alpnOverride":[{},{"upstreamProtocol":9}]`,
		"alpn_override[0]: alpn_override: a protocol's name has 1": `,"alpnOverride":[{"alpnOverride":[""]}]`,
	} {
		if _, err := alpn.Factory(nil).New(config(t, text), http.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
