package setfilterstate

import (
	"net"
	"slices"
	"testing"

	setpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

func build(t *testing.T, text string) (network.Built, error) {
	t.Helper()
	var c setpb.Config
	if err := protojson.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	cfg, err := anypb.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	return Factory().New(cfg, network.Env{})
}

// TestObjects: each factory makes what its readers want.
func TestObjects(t *testing.T) {
	b, err := build(t, `{"on_new_connection": [
		{"object_key": "a", "factory_key": "envoy.string", "format_string": {"text_format_source": {"inline_string": "x %CONNECTION_ID%"}}},
		{"object_key": "envoy.network.application_protocols", "format_string": {"text_format_source": {"inline_string": "h2,http/1.1"}}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	one, other := net.Pipe()
	defer func() { _, _ = one.Close(), other.Close() }()
	c := &network.Conn{Conn: transport.NewConn(one), Info: &streaminfo.Info{ConnectionID: 7}}
	if !b.Filter.OnConnect(c) {
		t.Error("the connection is refused")
	}
	alpn, _ := c.Info.FilterState[upstream.ALPNKey].([]string)
	if c.Info.FilterState["a"] != "x 7" || !slices.Equal(alpn, []string{"h2", "http/1.1"}) {
		t.Errorf("state %v", c.Info.FilterState)
	}
}

// TestRefused: what is not known is refused by name.
func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"on_new_connection": [{"object_key": "nope", "format_string": {"text_format_source": {"inline_string": "x"}}}]}`:                        "on_new_connection[0]: 'nope' does not have an object factory",
		`{"on_downstream_tls_handshake": [{"object_key": "envoy.string", "format_string": {"text_format_source": {"inline_string": "%NOPE%"}}}]}`: `on_downstream_tls_handshake[0].format_string: text_format_source: position 0: %NOPE%: unknown or not supported`,
		`{"on_downstream_data": [{"object_key": "envoy.string", "format_string": {"text_format_source": {"inline_string": "x"}}}]}`:               "on_downstream_data: not supported",
	} {
		if _, err := build(t, text); err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
}
