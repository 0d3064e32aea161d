package dump

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Bootstrap is what a proxy was started with; short is its versions.
func (d *Dump) Bootstrap() (*List, error) {
	if d.bootstrap == nil {
		return nil, errLacks("bootstrap")
	}
	node := d.bootstrap.GetBootstrap().GetNode()
	l := &List{kind: "bootstrap", padding: 1, single: true, messages: []proto.Message{d.bootstrap}}
	for _, line := range [][2]string{
		{"Istio Version:", metadataText(node, "ISTIO_VERSION")},
		{"Istio Proxy Version:", strings.TrimPrefix(metadataText(node, "ISTIO_PROXY_SHA"), "istio-proxy:")},
		{"Envoy Version:", envoyVersion(node)},
	} {
		l.rows = append(l.rows, line[:])
	}
	return l, nil
}

func metadataText(n *corepb.Node, key string) string {
	return n.GetMetadata().GetFields()[key].GetStringValue()
}

// envoyVersion is the number, the state of the sources, the kind of build and the TLS library.
func envoyVersion(n *corepb.Node) string {
	b := n.GetUserAgentBuildVersion()
	v := b.GetVersion()
	parts := []string{fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())}
	for _, key := range []string{"revision.status", "build.type", "ssl.version"} {
		if text := b.GetMetadata().GetFields()[key].GetStringValue(); text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "/")
}

// Extensions are the filters that a proxy got by ECDS, by type and name.
func (d *Dump) Extensions() (*List, error) {
	if d.ecds == nil {
		return nil, errLacks("extensions")
	}
	var bodies []*anypb.Any
	for _, f := range d.ecds.GetEcdsFilters() {
		bodies = append(bodies, f.GetEcdsFilter())
	}
	all, err := unpack[*corepb.TypedExtensionConfig]("extensions", bodies)
	if err != nil {
		return nil, err
	}
	l := &List{kind: "ecds", padding: 5, single: true, header: []string{"ECDS NAME", "TYPE"}, messages: []proto.Message{d.ecds}}
	for _, e := range all {
		l.rows = append(l.rows, []string{e.GetName(), typeOf(e.GetTypedConfig())})
	}
	slices.SortFunc(l.rows, func(a, b []string) int { return cmp.Or(cmp.Compare(a[1], b[1]), cmp.Compare(a[0], b[0])) })
	return l, nil
}

// An All chooses what `proxy-config all` prints of a dump.
type All struct {
	Clusters  ClusterFilter
	Listeners ListenerFilter
	Routes    RouteFilter
	Endpoints EndpointFilter
	Brief     bool // one row for each listener and route configuration
	Headers   bool // a line before each table says what it is
}

// WriteAll prints all kinds, as tables or, in the form json or yaml, the dump itself.
func (d *Dump) WriteAll(w io.Writer, form string, a All, now time.Time) error {
	if form != "short" {
		return WriteMessage(w, form, d.whole)
	}
	sections := []struct {
		title string
		has   bool
		list  func() (*List, error)
	}{
		{"BOOTSTRAP", d.bootstrap != nil, d.Bootstrap},
		{"CLUSTER", d.clusters != nil, func() (*List, error) { return d.Clusters(a.Clusters) }},
		{"LISTENER", d.listeners != nil, func() (*List, error) { return d.Listeners(a.Listeners, a.Brief) }},
		{"ROUTE", d.routes != nil, func() (*List, error) { return d.Routes(a.Routes, a.Brief) }},
		{"SECRET", d.secrets != nil, func() (*List, error) { return d.Secrets(now) }},
		{"ENDPOINTS", d.endpoints != nil, func() (*List, error) { return d.Endpoints(a.Endpoints) }},
		{"ECDS", d.ecds != nil, d.Extensions},
	}
	between := ""
	for _, s := range sections {
		if !s.has {
			continue
		}
		list, err := s.list()
		if err != nil {
			return err
		}
		fmt.Fprint(w, between)
		between = "\n"
		if a.Headers {
			fmt.Fprintf(w, "------ %s INFO ------\n\n", s.title)
		}
		print := list.WriteNamed
		if list.header == nil { // nothing to name
			print = func(w io.Writer) error { return list.Write(w, "short") }
		}
		if err := print(w); err != nil {
			return err
		}
	}
	return nil
}
