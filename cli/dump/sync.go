package dump

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statuspb "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/nametable"
	"github.com/lateen-mesh/lateen/wellknown"
)

// syncTypes are the types of resources in the order of their columns, with their keys of
// /debug/syncz. The last ones have no column.
var syncTypes = []struct{ name, key, url string }{
	{"CDS", "cluster", wellknown.ClusterType}, {"LDS", "listener", wellknown.ListenerType}, {"EDS", "endpoint", wellknown.EndpointType},
	{"RDS", "route", wellknown.RouteType}, {"ECDS", "extensionconfig", wellknown.ExtensionType},
	{"SDS", "secret", wellknown.SecretType}, {"NDS", "nametable", nametable.Type},
}

// columns is how many of those types have one.
const columns = 5

// A SyncedProxy is what a control plane says of one proxy. A type that the proxy does not
// subscribe to has no entry.
type SyncedProxy struct {
	name, cluster, plane, version string
	sent, acked, refused          map[string]string // by key of the type
}

// state is that of a type.
func (s SyncedProxy) state(key string) statuspb.ConfigStatus {
	sent, subscribed := s.sent[key]
	switch {
	case !subscribed:
		return statuspb.ConfigStatus_UNKNOWN
	case s.refused[key] != "":
		return statuspb.ConfigStatus_ERROR
	case sent == "":
		return statuspb.ConfigStatus_NOT_SENT
	case sent == s.acked[key]:
		return statuspb.ConfigStatus_SYNCED
	}
	return statuspb.ConfigStatus_STALE
}

func (s SyncedProxy) subscribed() (types []string) {
	for _, t := range syncTypes {
		if _, ok := s.sent[t.key]; ok {
			types = append(types, t.name)
		}
	}
	return types
}

// ParseSync reads /debug/syncz of one control plane, ours or Istio's.
func ParseSync(plane string, text []byte) ([]SyncedProxy, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("/debug/syncz of %s: more than %d bytes", plane, MaxSize)
	}
	var list []map[string]any
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("/debug/syncz of %s: %w", plane, err)
	}
	var all []SyncedProxy
	for _, e := range list {
		field := func(key string) string {
			s, _ := e[key].(string)
			return s
		}
		p := SyncedProxy{name: field("proxy"), cluster: field("cluster_id"), plane: plane, version: field("istio_version"),
			sent: map[string]string{}, acked: map[string]string{}, refused: map[string]string{}}
		for _, t := range syncTypes {
			if _, ok := e[t.key+"_sent"]; ok {
				p.sent[t.key], p.acked[t.key], p.refused[t.key] = field(t.key+"_sent"), field(t.key+"_acked"), field(t.key+"_error")
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// WriteSync prints all proxies by name: in the form table, with the types that each
// subscribes to or with the state of each type, else, as json or yaml, the client
// configurations of Envoy's client status API.
func WriteSync(w io.Writer, form string, states bool, all []SyncedProxy) error {
	all = slices.SortedFunc(slices.Values(all), func(a, b SyncedProxy) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.cluster, b.cluster), strings.Compare(a.plane, b.plane))
	})
	if form != "table" {
		var messages []proto.Message
		for _, p := range all {
			m, err := p.message()
			if err != nil {
				return err
			}
			messages = append(messages, m)
		}
		return WriteMessages(w, form, messages)
	}
	t := tabwriter.NewWriter(w, 0, 8, 5, ' ', 0)
	if states {
		fmt.Fprintln(t, "NAME\tCLUSTER\tCDS\tLDS\tEDS\tRDS\tECDS\tISTIOD\tVERSION")
	} else {
		fmt.Fprintln(t, "NAME\tCLUSTER\tISTIOD\tVERSION\tSUBSCRIBED TYPES")
	}
	for _, p := range all {
		row := []string{p.name, p.cluster}
		if states {
			for _, s := range syncTypes[:columns] {
				row = append(row, stateText(p.state(s.key)))
			}
			row = append(row, p.plane, p.version)
		} else {
			types := p.subscribed()
			row = append(row, p.plane, p.version, fmt.Sprintf("%d (%s)", len(types), strings.Join(types, ",")))
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// stateText is a state in a table.
func stateText(s statuspb.ConfigStatus) string {
	if s == statuspb.ConfigStatus_UNKNOWN {
		return "IGNORED"
	}
	return strings.ReplaceAll(s.String(), "_", " ")
}

func (s SyncedProxy) message() (*statuspb.ClientConfig, error) {
	metadata, err := structpb.NewStruct(map[string]any{"CLUSTER_ID": s.cluster, "ISTIO_VERSION": s.version, "ISTIOD": s.plane})
	if err != nil {
		return nil, err
	}
	m := &statuspb.ClientConfig{Node: &corepb.Node{Id: s.name, Metadata: metadata}}
	for _, t := range syncTypes {
		state := s.state(t.key)
		if state == statuspb.ConfigStatus_UNKNOWN {
			continue
		}
		c := &statuspb.ClientConfig_GenericXdsConfig{TypeUrl: t.url, ConfigStatus: state}
		if why := s.refused[t.key]; why != "" {
			c.ErrorState = &adminpb.UpdateFailureState{Details: why}
		}
		m.GenericXdsConfigs = append(m.GenericXdsConfigs, c)
	}
	return m, nil
}
