package metadataexchange

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func node(t testing.TB, workload string) *corev3.Node {
	t.Helper()
	m, err := structpb.NewStruct(map[string]any{"WORKLOAD_NAME": workload, "NAMESPACE": "ns", "LABELS": map[string]any{"app": workload}})
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Node{Id: "sidecar~1.2.3.4~" + workload + ".ns~ns.svc", Metadata: m}
}

// pair are both ends of a connection over loopback.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	if err == nil {
		server, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func ends(t *testing.T) (client, server *exchange) {
	a, b := pair(t)
	return newExchange(transport.NewConn(a), frame(node(t, "client"))), newExchange(transport.NewConn(b), frame(node(t, "server")))
}

func reads(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("%v: read %q, want %q", err, b, want)
	}
}

func writes(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// TestBothKnowEachOther whoever speaks first, and the application sees its own bytes only.
func TestBothKnowEachOther(t *testing.T) {
	t.Run("OB-013 the client speaks first", func(t *testing.T) {
		client, server := ends(t)
		writes(t, client, "hello")
		reads(t, server, "hello")
		writes(t, server, "hi")
		reads(t, client, "hi")
		know(t, client, server)
	})
	t.Run("OB-013 the server speaks first", func(t *testing.T) {
		client, server := ends(t)
		writes(t, server, "220 ready")
		if err := client.WaitReadable(); err != nil {
			t.Fatal(err)
		}
		reads(t, client, "220 ready")
		writes(t, client, "EHLO")
		reads(t, server, "EHLO")
		know(t, client, server)
	})
}

func know(t *testing.T, client, server *exchange) {
	t.Helper()
	if w := client.Workload(); w == nil || w.Name != "server" || w.Service != "server" {
		t.Errorf("the client knows %+v", w)
	}
	if w := server.Workload(); w == nil || w.Name != "client" || w.Namespace != "ns" {
		t.Errorf("the server knows %+v", w)
	}
}

// TestPeerThatDoesNotTell: its bytes are the application's.
func TestPeerThatDoesNotTell(t *testing.T) {
	for _, text := range []string{"GET / HTTP/1.1", "=", "=\x23\x04x and more", "\x3d#"} {
		client, raw := pair(t)
		server := newExchange(transport.NewConn(raw), frame(node(t, "server")))
		writes(t, client, text)
		if err := client.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(server)
		if err != nil || string(got) != text {
			t.Errorf("%q: read %q, %v", text, got, err)
		}
		if server.Workload() != nil {
			t.Errorf("%q: it is known", text)
		}
	}
}

// TestFramesAreBounded: a length that nobody sends ends the connection.
func TestFramesAreBounded(t *testing.T) {
	client, raw := pair(t)
	server := newExchange(transport.NewConn(raw), nil)
	head := binary.BigEndian.AppendUint32(nil, magic)
	if _, err := client.Write(binary.BigEndian.AppendUint32(head, 1<<31)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 10)); err == nil || !strings.Contains(err.Error(), "larger than 65536 bytes") {
		t.Errorf("%v", err)
	}
}

// TestFrameThatCannotBeRead leaves the peer unknown and the connection as it is.
func TestFrameThatCannotBeRead(t *testing.T) {
	client, raw := pair(t)
	server := newExchange(transport.NewConn(raw), nil)
	head := binary.BigEndian.AppendUint32(nil, magic)
	if _, err := client.Write(append(binary.BigEndian.AppendUint32(head, 3), "\xff\xff\xffhello"...)); err != nil {
		t.Fatal(err)
	}
	reads(t, server, "hello")
	if server.Workload() != nil {
		t.Error("it is known")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(frame(node(f, "w"))[headLen:])
	f.Add([]byte("\x0a\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parse(b) })
}
