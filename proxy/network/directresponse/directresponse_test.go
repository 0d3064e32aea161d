package directresponse

import (
	"context"
	"io"
	"net"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	directresponsepb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

func TestAnswer(t *testing.T) {
	config, err := anypb.New(&directresponsepb.Config{Response: &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: "go away"}}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Factory().New(config, network.Env{})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	go b.Terminal.Serve(context.Background(), &network.Conn{Conn: transport.NewConn(near), Info: &streaminfo.Info{}})
	if got, err := io.ReadAll(far); err != nil || string(got) != "go away" {
		t.Errorf("%q, %v", got, err)
	}
}
