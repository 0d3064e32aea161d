package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/lateen-mesh/lateen/agent/secrets"
	"github.com/lateen-mesh/lateen/test/fixture"
)

const spireID = "spiffe://spire.example/ns/default/sa/web"

// spire serves certificates on the socket that an agent finds in its pod.
func (w *world) spire() {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	own, err := url.Parse(spireID)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), URIs: []*url.URL{own}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "identity"), 0o755); err != nil {
		w.t.Fatal(err)
	}
	w.file(chainName, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})))
	w.file(keyName, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	s, err := secrets.Listen(secrets.Options{Socket: filepath.Join(w.dir, "identity", identitySocket), Credentials: w.dir})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
}

// Certificates are those of the server whose socket is in the pod, not the agent's.
func TestSPIRE(t *testing.T) {
	proxies(t, func(t *testing.T, proxy string) {
		w := newWorld(t)
		w.spire()
		w.control.Set("web", message(t, &listenerpb.Listener{}, fmt.Sprintf(`{"name": "web", "address": {"socketAddress": {"address": "127.0.0.1", "portValue": %d}}, "filterChains": [{
			"transportSocket": {"name": "tls", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "commonTlsContext": {"tlsCertificateSdsSecretConfigs":
				[{"name": "default", "sdsConfig": {"resourceApiVersion": "V3", "apiConfigSource": {"apiType": "GRPC", "transportApiVersion": "V3", "grpcServices": [{"envoyGrpc": {"clusterName": "sds-grpc"}}]}}}]}}},
			"filters": [{"name": "envoy.filters.network.tcp_proxy", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "statPrefix": "web", "cluster": "app"}}]}]}`, w.listen)))
		r := w.start(proxy)
		w.ready()
		fixture.Eventually(t, "SX-008 the certificate of the server that is there", func() error {
			c, err := tls.Dial("tcp", "127.0.0.1:"+strconv.Itoa(w.listen), &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				return err
			}
			defer c.Close()
			if got := c.ConnectionState().PeerCertificates[0].URIs[0].String(); got != spireID {
				return fmt.Errorf("it is of %s", got)
			}
			return nil
		})
		if !strings.Contains(r.log.String(), "certificates come from the server that is there") {
			t.Error("SX-008 the agent does not say so")
		}
	})
}
