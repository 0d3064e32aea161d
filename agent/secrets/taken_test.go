package secrets

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretpb "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// What the proxy has is what it has accepted, not what it was sent.
func TestTaken(t *testing.T) {
	dir, err := os.MkdirTemp("", "sds") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := Listen(Options{Socket: filepath.Join(dir, "socket"), Credentials: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	want := errors.New("it is the old one")
	check := func(secret *tlspb.Secret) error {
		if secret.GetName() != "ROOTCA" {
			return errors.New("of another name")
		}
		return want
	}
	// state waits until it is as it should be.
	state := func(text string, refused bool) {
		t.Helper()
		for {
			moved, no, why := s.Taken(check)
			got := ""
			if why != nil {
				got = why.Error()
			}
			if got == text && no == refused {
				return
			}
			select {
			case <-moved:
			case <-t.Context().Done():
				t.Fatalf("%q, %t; want %q, %t", got, no, text, refused)
			}
		}
	}
	state("", false) // nobody asks
	conn, err := grpc.NewClient("unix:"+s.o.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	open, end := context.WithCancel(t.Context())
	stream, err := secretpb.NewSecretDiscoveryServiceClient(conn).StreamSecrets(open)
	if err != nil {
		t.Fatal(err)
	}
	say := func(m *discoverypb.DiscoveryRequest) {
		t.Helper()
		m.ResourceNames = []string{"ROOTCA"}
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	say(&discoverypb.DiscoveryRequest{})
	state("the proxy waits for ROOTCA", false)
	write(t, filepath.Join(dir, "root-cert.pem"), "CERTIFICATE", "root")
	say(&discoverypb.DiscoveryRequest{}) // has the file looked at
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	state("the proxy waits for ROOTCA", false)
	say(&discoverypb.DiscoveryRequest{ResponseNonce: m.GetNonce(), ErrorDetail: &statuspb.Status{Message: "no such curve"}})
	state("the proxy refuses ROOTCA: no such curve", true)
	say(&discoverypb.DiscoveryRequest{ResponseNonce: m.GetNonce()})
	state(want.Error(), false)
	want = nil
	state("", false)
	say(&discoverypb.DiscoveryRequest{ResponseNonce: "of long ago"})
	want = errors.New("it is old again")
	state(want.Error(), false)
	end()
	state("", false) // that proxy is gone
}
