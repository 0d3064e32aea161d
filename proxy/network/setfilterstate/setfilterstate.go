// Package setfilterstate is the network filter envoy.filters.network.set_filter_state: it
// writes values into the filter state of a connection, which logs, headers, routes and the
// filters behind it read, those of the connection's HTTP streams, too.
//
// What a value may be is its factory's to say. There are those for plain strings and those
// for what the proxy itself reads; others are refused by name.
package setfilterstate

import (
	"cmp"
	"fmt"
	"strings"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/network/tcpproxy"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Factory makes the filter known to listeners.
func Factory() network.Factory {
	return network.Factory{
		Name:     "envoy.filters.network.set_filter_state",
		TypeURLs: []string{"envoy.extensions.filters.network.set_filter_state.v3.Config"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			var c setpb.Config
			if err := cfg.UnmarshalTo(&c); cfg != nil && err != nil {
				return network.Built{}, err
			}
			f, err := compile(&c)
			if err != nil {
				return network.Built{}, err
			}
			return network.Built{Filter: f}, nil
		},
	}
}

// factories make the objects, by the keys of Envoy's factories.
var factories = map[string]func(text string) any{
	"envoy.string":          plain,
	"envoy.hashable_string": plain,
	tcpproxy.ClusterKey:     plain,
	upstream.NameKey:        plain,
	upstream.ALPNKey:        func(text string) any { return strings.Split(text, ",") },
}

func plain(text string) any { return text }

type filter struct{ early, late []value }

// A value is one entry of the filter state that is to be made.
type value struct {
	key       string
	text      *format.Format
	object    func(text string) any
	skipEmpty bool
}

func compile(c *setpb.Config) (*filter, error) {
	if err := xds.Only(c, "on_new_connection", "on_downstream_tls_handshake"); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil { // the constraints that the schema itself states
		return nil, err
	}
	early, err := compileValues(c.GetOnNewConnection())
	if err != nil {
		return nil, fmt.Errorf("on_new_connection%w", err)
	}
	late, err := compileValues(c.GetOnDownstreamTlsHandshake())
	if err != nil {
		return nil, fmt.Errorf("on_downstream_tls_handshake%w", err)
	}
	return &filter{early, late}, nil
}

func compileValues(list []*commonpb.FilterStateValue) (values []value, err error) {
	for i, pb := range list {
		v := value{key: pb.GetObjectKey(), skipEmpty: pb.GetSkipIfEmpty()}
		factory := cmp.Or(pb.GetFactoryKey(), v.key)
		if v.object = factories[factory]; v.object == nil {
			return nil, fmt.Errorf("[%d]: '%s' does not have an object factory", i, factory)
		}
		if pb.GetFormatString() == nil {
			return nil, fmt.Errorf("[%d].format_string: value is required", i)
		}
		if v.text, err = format.New(pb.GetFormatString()); err != nil {
			return nil, fmt.Errorf("[%d].format_string: %w", i, err)
		}
		values = append(values, v)
	}
	return values, nil
}

// OnConnect makes the values. Those of a new connection are made of what is known of it
// before its handshake.
func (f *filter) OnConnect(c *network.Conn) bool {
	before := c.Info
	if c.TLS() != nil && len(f.early) > 0 {
		before = unshaken(c.Info)
	}
	set(c.Info, before, f.early)
	set(c.Info, c.Info, f.late) // of plain connections, too: they are ready at once
	return true
}

// unshaken is what was known of a connection before its TLS handshake.
func unshaken(i *streaminfo.Info) *streaminfo.Info {
	before := *i
	before.Handshake, before.TLSVersion, before.TLSCipher = 0, "", ""
	before.Peer, before.PeerSubject, before.PeerIssuer = nil, "", ""
	before.PeerURISANs, before.PeerDNSSANs = nil, nil
	return &before
}

func set(i, known *streaminfo.Info, values []value) {
	for _, v := range values {
		text := string(v.text.Append(nil, format.Record{Info: known}))
		if text != "" || !v.skipEmpty {
			i.SetState(v.key, v.object(text))
			known.FilterState = i.FilterState // what is set is known to the next
		}
	}
}
