package admin

import (
	"strings"
	"testing"

	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	chainPEM = "-----BEGIN CERTIFICATE-----"
	keyPEM   = "-----BEGIN PRIVATE KEY-----"
)

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestDumpsShowNoKeys: a key that stands in the configuration itself is in no dump,
// however deep it lies, and in whichever form; its certificate is.
func TestDumpsShowNoKeys(t *testing.T) {
	text := func(s string) *corepb.DataSource {
		return &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: s}}
	}
	cert := &tlspb.TlsCertificate{CertificateChain: text(chainPEM), PrivateKey: text(keyPEM), Password: text(keyPEM)}
	up := &tlspb.UpstreamTlsContext{CommonTlsContext: &tlspb.CommonTlsContext{TlsCertificates: []*tlspb.TlsCertificate{cert}}}
	socket := func(a *anypb.Any) *clusterpb.Cluster {
		return &clusterpb.Cluster{Name: "c", TransportSocket: &corepb.TransportSocket{ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: a}}}
	}
	asText, err := protojson.Marshal(up)
	if err != nil {
		t.Fatal(err)
	}
	value := &structpb.Struct{}
	if err := protojson.Unmarshal(asText, value); err != nil {
		t.Fatal(err)
	}
	loose := &udpapb.TypedStruct{TypeUrl: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", Value: value}
	for name, m := range map[string]proto.Message{
		"a secret of the bootstrap": &adminpb.BootstrapConfigDump{Bootstrap: &bootstrappb.Bootstrap{StaticResources: &bootstrappb.Bootstrap_StaticResources{
			Secrets: []*tlspb.Secret{{Name: "s", Type: &tlspb.Secret_TlsCertificate{TlsCertificate: cert}}}}}},
		"a cluster's transport socket": &adminpb.ClustersConfigDump{DynamicActiveClusters: []*adminpb.ClustersConfigDump_DynamicCluster{{Cluster: pack(t, socket(pack(t, up)))}}},
		"a TypedStruct":                socket(pack(t, loose)),
		"ticket keys":                  &tlspb.TlsSessionTicketKeys{Keys: []*corepb.DataSource{text(keyPEM)}},
	} {
		t.Run(name, func(t *testing.T) {
			before := proto.Clone(m)
			b, err := encode(m, false)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "PRIVATE") || !strings.Contains(string(b), redacted) {
				t.Errorf("%s", b)
			}
			if name != "ticket keys" && !strings.Contains(string(b), chainPEM) {
				t.Errorf("the certificate is gone: %s", b)
			}
			if !proto.Equal(before, m) {
				t.Error("the message itself has changed")
			}
		})
	}
}
