package xds

import (
	"errors"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
)

// TestDetailFitsTheWire: whatever a refused resource holds, its NACK can be sent.
func TestDetailFitsTheWire(t *testing.T) {
	for name, text := range map[string]string{
		"cut within a letter": strings.Repeat("ü", maxDetail),
		"no UTF-8":            "name \xff",
	} {
		if _, err := proto.Marshal(detail(errors.New("x" + text))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzNameOf: the name that is read without decoding a resource is the one that decoding finds.
func FuzzNameOf(f *testing.F) {
	for _, m := range []proto.Message{&clusterv3.Cluster{Name: "a", AltStatName: "b"}, &clusterv3.Cluster{AltStatName: "b"}, &clusterv3.Cluster{}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x0a"))
	f.Fuzz(func(t *testing.T, in []byte) {
		name := nameOf(in)
		var c clusterv3.Cluster
		if proto.Unmarshal(in, &c) == nil && strings.Count(string(in), "\x0a") <= 1 && name != c.GetName() {
			t.Fatalf("%q: %q, decoded %q", in, name, c.GetName())
		}
	})
}
