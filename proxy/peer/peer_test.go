package peer_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/peer"
)

func node(t testing.TB) *structpb.Struct {
	t.Helper()
	m, err := structpb.NewStruct(map[string]any{
		"NAME": "web-1", "NAMESPACE": "default", "WORKLOAD_NAME": "web-v1", "CLUSTER_ID": "c1", "SERVICE_ACCOUNT": "web",
		"PROXY_CONFIG": map[string]any{"secret": "not told"}, "LABELS": map[string]any{"app": "web", "version": "v1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestToldIsRead: what a proxy tells of itself is what its peer knows.
func TestToldIsRead(t *testing.T) {
	got, err := peer.Decode(peer.Encode(node(t)))
	if err != nil {
		t.Fatal(err)
	}
	want := &peer.Workload{Name: "web-v1", Namespace: "default", Cluster: "c1", Service: "web", Revision: "v1", App: "web", Version: "v1",
		Instance: "web-1", ServiceAccount: "web", Labels: map[string]string{"app": "web", "version": "v1",
			"service.istio.io/canonical-name": "web", "service.istio.io/canonical-revision": "v1"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnreadable(t *testing.T) {
	for name, header := range map[string]string{
		"no base64": "!", "no protobuf": "////", "too large": strings.Repeat("A", 100<<10),
	} {
		if _, err := peer.Decode([]byte(header)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFromEndpoint(t *testing.T) {
	got := peer.FromEndpoint("details-0;default;details;v1;Kubernetes")
	want := &peer.Workload{Name: "details-0", Namespace: "default", Service: "details", Revision: "v1", Cluster: "Kubernetes"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if peer.FromEndpoint("a;b") != nil {
		t.Error("half a text is a workload")
	}
}

func TestFromBaggage(t *testing.T) {
	got, err := peer.FromBaggage([]byte("k8s.cluster.name=c1,k8s.namespace.name=ns, k8s.deployment.name = web-v1;p=1,service.name=web,service.version=v%201,other=x"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&peer.Workload{Name: "web-v1", Namespace: "ns", Cluster: "c1", Service: "web", Revision: "v 1"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, s := range []string{"user=1", "", "service.name=%zz"} {
		if w, err := peer.FromBaggage([]byte(s)); err == nil {
			t.Errorf("%q: %+v", s, w)
		}
	}
}

// TestMemory: a peer is read once, also one that cannot be read, and there is no end of
// peers that a stranger can make us remember.
func TestMemory(t *testing.T) {
	var m peer.Memory
	reads := 0
	read := func(b []byte) (*peer.Workload, error) {
		reads++
		if strings.HasPrefix(string(b), "bad") {
			return nil, fmt.Errorf("no")
		}
		return &peer.Workload{Name: string(b)}, nil
	}
	for range 3 {
		if w, err := m.Read([]byte("a"), read); err != nil || w.Name != "a" {
			t.Fatalf("%v, %v", w, err)
		}
		if w, err := m.Read([]byte("bad"), read); err == nil || w != nil {
			t.Fatalf("%v, %v", w, err)
		}
	}
	if reads != 2 {
		t.Errorf("%d reads", reads)
	}
	text := []byte("a")
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Read(text, read) }); n != 0 {
		t.Errorf("%v allocations for a peer that is known", n)
	}
	for i := range 10_000 {
		_, _ = m.Read(fmt.Append(nil, i), read)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(peer.Encode(node(f)))
	f.Add([]byte("////"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = peer.Decode(b) })
}

func FuzzFromBaggage(f *testing.F) {
	f.Add([]byte("k8s.cluster.name=c1,service.name=a%20b;x"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = peer.FromBaggage(b) })
}
