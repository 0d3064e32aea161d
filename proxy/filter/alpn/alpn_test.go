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

func TestAcceptedAndWithoutEffect(t *testing.T) {
	f, err := alpn.Factory().New(config(t, `,"alpnOverride":[{"alpnOverride":["istio-http/1.0","istio","http/1.0"]},
		{"alpnOverride":["istio-http/1.1","istio","http/1.1"],"upstreamProtocol":"HTTP11"},{"alpnOverride":["istio-h2","istio","h2"],"upstreamProtocol":"HTTP2"}]`), http.Env{})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Stream{}
	s.Begin(nil, 1, nil)
	if f.OnRequest(s, 0) != http.Continue || f.OnResponse(s, 0) != http.Continue || s.State(0) != nil || s.Info.FilterState != nil {
		t.Error("the stream is not as it was")
	}
}

func TestRefused(t *testing.T) {
	for want, text := range map[string]string{
		"alpn_override[1]: upstream_protocol: 9 is not known":      `,"alpnOverride":[{},{"upstreamProtocol":9}]`,
		"alpn_override[0]: alpn_override: a protocol's name has 1": `,"alpnOverride":[{"alpnOverride":[""]}]`,
	} {
		if _, err := alpn.Factory().New(config(t, text), http.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
