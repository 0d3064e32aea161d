package proxy

import (
	"crypto/fips140"
	"fmt"
	"runtime/debug"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/wellknown"
)

// release is this program's version; hot restart and wire formats are not counted by it.
var release = &typepb.SemanticVersion{MajorNumber: 0, MinorNumber: 1, Patch: 0}

// Version is the line of --version and of /server_info: revision/version/state/type/TLS
// library, five parts as Envoy's, which tools take apart.
func Version() string {
	revision, state := "unknown", "Clean"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				state = "Modified"
			}
		}
	}
	library := "Go"
	if fips140.Enabled() {
		library += "-FIPS"
	}
	return fmt.Sprintf("%s/%d.%d.%d/%s/RELEASE/%s", revision, release.MajorNumber, release.MinorNumber, release.Patch, state, library)
}

// node is what the proxy says of itself to control planes: who it is and what this
// build can do.
func (s *server) node() *corepb.Node {
	n := s.identity()
	n.UserAgentName = "lateen-proxy"
	n.UserAgentVersionType = &corepb.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corepb.BuildVersion{
		Version:  release,
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"build.type": structpb.NewStringValue("RELEASE"), "revision.sha": structpb.NewStringValue(strings.SplitN(Version(), "/", 2)[0])}},
	}}
	n.Extensions = s.extensions()
	n.ClientFeatures = append(n.ClientFeatures, wellknown.HostsFeature)
	return n
}

// identity is the bootstrap's node with what the command line overrides.
func (s *server) identity() *corepb.Node {
	n := &corepb.Node{}
	if given := s.boot.Proto.GetNode(); given != nil {
		n = proto.Clone(given).(*corepb.Node)
	}
	if s.opts.ServiceNode != "" {
		n.Id = s.opts.ServiceNode
	}
	if s.opts.ServiceCluster != "" {
		n.Cluster = s.opts.ServiceCluster
	}
	if s.opts.ServiceZone != "" {
		if n.Locality == nil {
			n.Locality = &corepb.Locality{}
		}
		n.Locality.Zone = s.opts.ServiceZone
	}
	return n
}

// extensions lists every filter of the tables and what else can be asked for.
func (s *server) extensions() []*corepb.Extension {
	var list []*corepb.Extension
	add := func(category, name string, urls ...string) {
		e := &corepb.Extension{Category: category, Name: name}
		for _, u := range urls {
			if u = u[strings.LastIndexByte(u, '/')+1:]; u != "" {
				e.TypeUrls = append(e.TypeUrls, u)
			}
		}
		list = append(list, e)
	}
	for _, f := range s.networkFilters() {
		add("envoy.filters.network", f.Name, f.TypeURLs...)
	}
	for _, f := range s.httpFilters() {
		add("envoy.filters.http", f.Name, f.TypeURLs...)
	}
	for _, e := range extensions {
		add(e.category, e.name, e.typeURL)
	}
	return list
}
