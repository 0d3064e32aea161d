package xds_test

import (
	"cmp"
	"strings"
	"testing"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

const clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

func TestTyped(t *testing.T) {
	named := func(field string) *structpb.Struct {
		return &structpb.Struct{Fields: map[string]*structpb.Value{field: structpb.NewStringValue("x")}}
	}
	for _, c := range []struct {
		name    string
		in      proto.Message
		want    proto.Message // nil: an error
		names   string        // URL of the type, "": that of what comes in
		problem string
	}{
		{"a message", &clusterv3.Cluster{Name: "x"}, &clusterv3.Cluster{Name: "x"}, "", ""},
		{"the older form", &udpav1.TypedStruct{TypeUrl: clusterURL, Value: named("name")}, &clusterv3.Cluster{Name: "x"}, clusterURL, ""},
		{"the newer form", &xdsv3.TypedStruct{TypeUrl: clusterURL, Value: named("alt_stat_name")}, &clusterv3.Cluster{AltStatName: "x"}, clusterURL, ""},
		{"another spelling", &xdsv3.TypedStruct{TypeUrl: clusterURL, Value: named("altStatName")}, &clusterv3.Cluster{AltStatName: "x"}, clusterURL, ""},
		{"no value", &xdsv3.TypedStruct{TypeUrl: clusterURL}, &clusterv3.Cluster{}, clusterURL, ""},
		{"a type that is not known", &udpav1.TypedStruct{TypeUrl: "type.googleapis.com/stats.PluginConfig", Value: named("a")},
			&udpav1.TypedStruct{TypeUrl: "type.googleapis.com/stats.PluginConfig", Value: named("a")}, "type.googleapis.com/stats.PluginConfig", ""},
		{"a field that is not known", &udpav1.TypedStruct{TypeUrl: clusterURL, Value: named("nothing")}, nil, "", `unknown field "nothing"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := anypb.New(c.in)
			if err != nil {
				t.Fatal(err)
			}
			got, url, err := xds.Typed(in)
			if c.want == nil {
				if err == nil || !strings.Contains(err.Error(), c.problem) {
					t.Fatalf("%v, want %s", err, c.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m, err := got.UnmarshalNew()
			if err != nil || !proto.Equal(m, c.want) {
				t.Errorf("%v %v, want %v", m, err, c.want)
			}
			if want := cmp.Or(c.names, in.GetTypeUrl()); url != want {
				t.Errorf("%s, want %s", url, want)
			}
		})
	}
	if got, url, err := xds.Typed(nil); got != nil || url != "" || err != nil {
		t.Errorf("of nothing: %v %q %v", got, url, err)
	}
}
