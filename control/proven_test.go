package control_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/wellknown"
)

// TestAnonymous: whoever reaches the port in plain text may claim to be the gateway, and gets no
// key of it (EN-007, SX-020); nor does a workload join a group there (SE-019).
func TestAnonymous(t *testing.T) {
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue("httpbin.org")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, map[string]string{
		"gateway.yaml": gateway,
		"secret.yaml":  fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: web-cert, namespace: istio-system}\ntype: kubernetes.io/tls\nstringData: {tls.crt: %q, tls.key: %q}\n", cert, key),
		"group.yaml":   "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: shop, namespace: shop}\nspec: {template: {serviceAccount: shop}}\n",
	}, func(o *control.Options) { o.GRPC = "0.0.0.0:0," + o.GRPC })
	tcp := func(host string) string {
		return net.JoinHostPort(host, fmt.Sprint(p.server.GRPCAddr().(*net.TCPAddr).Port))
	}
	other := outsideAddress()
	if other == "" {
		t.Skip("this machine has no address beside loopback to call from")
	}
	gatewayNode := nodeOf(t, "router~127.0.2.1~gw.istio-system~istio-system.svc.cluster.local", "")
	for _, tt := range []struct {
		from string
		want int
	}{{"127.0.0.1", 1}, {other, 0}} {
		c := p.connectAt(tcp(tt.from), gatewayNode, wellknown.SecretType, "kubernetes://web-cert")
		if m := c.next(""); len(m.Resources) != tt.want {
			t.Errorf("from %s: %d secrets, want %d", tt.from, len(m.Resources), tt.want)
		}
	}
	wait(t, func() bool { return strings.Contains(p.log.String(), "asks in plain text") })
	joining := nodeOf(t, "sidecar~10.0.0.1~vm.shop~shop.svc.cluster.local", "shop")
	joining.Metadata.Fields["AUTO_REGISTER_GROUP"] = structpb.NewStringValue("shop")
	_, err = p.connectAt(tcp(other), joining, wellknown.ClusterType).stream.Recv()
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "secure port") {
		t.Errorf("joining from %s: %v", other, err)
	}
	if _, err := p.connectAt(tcp("127.0.0.1"), joining, wellknown.ClusterType).stream.Recv(); err != nil {
		t.Errorf("joining from within: %v", err)
	}
}

// TestJoiningByCredentials: the group's account is what the credentials must be of (SE-019).
func TestJoiningByCredentials(t *testing.T) {
	group := func(account string) string {
		return "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: " + account + ", namespace: web}\nspec: {template: {serviceAccount: " + account + "}}\n"
	}
	p := start(t, map[string]string{"a.yaml": group("default"), "b.yaml": group("admin")}, secure(nil))
	token, root := p.joinToken("web")
	own, err := p.certificate(root, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]codes.Code{"default": codes.OK, "admin": codes.InvalidArgument} {
		node := &corepb.Node{Id: webNode, Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"AUTO_REGISTER_GROUP": structpb.NewStringValue(name)}}}
		if err := p.subscribe(root, "", own, node); status.Code(err) != want {
			t.Errorf("group %s: %v, want %s", name, err, want)
		}
	}
}
