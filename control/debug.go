package control

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/wellknown"
)

// syncz is one entry a proxy, under the original's keys: the nonces last sent and last
// acknowledged of each type that the proxy subscribes to, and our own: why it refuses what.
func (s *Server) syncz(*http.Request) (any, error) {
	keys := map[string]string{
		"CDS": "cluster", "EDS": "endpoint", "LDS": "listener", "RDS": "route", "SDS": "secret", "ECDS": "extensionconfig", "NDS": "nametable",
	}
	list := []map[string]string{}
	for _, c := range s.ads.Conns() {
		e := map[string]string{
			"cluster_id": c.Proxy.ClusterID, "proxy": c.Proxy.Name + "." + c.Proxy.Namespace,
			"proxy_type": string(c.Proxy.Type), "istio_version": c.Proxy.IstioVersion,
		}
		for _, w := range c.Watches {
			key := keys[w.Type.Name]
			if w.Type.Name == "VHDS" { // a part of the routes: what is behind counts
				key = "route"
				if w.Nonce == w.Acked && len(w.Refused) == 0 {
					continue
				}
			}
			if key != "" {
				e[key+"_sent"], e[key+"_acked"] = w.Nonce, w.Acked
				for _, r := range w.Refused {
					e[key+"_error"] = r.Resource + ": " + r.Error
				}
			}
		}
		list = append(list, e)
	}
	return list, nil
}

type adsClient struct {
	ConnectionID string              `json:"connectionId"`
	ConnectedAt  time.Time           `json:"connectedAt"`
	Address      string              `json:"address"`
	Labels       map[string]string   `json:"labels,omitempty"`
	Metadata     map[string]any      `json:"metadata,omitempty"`
	ProxyType    string              `json:"proxyType,omitempty"`
	Watches      map[string][]string `json:"watches,omitempty"`
}

type adsClients struct {
	Total   int         `json:"totalClients"`
	Clients []adsClient `json:"clients"`
}

func (s *Server) adsz(*http.Request) (any, error) {
	out := adsClients{Clients: []adsClient{}}
	for _, c := range s.ads.Conns() {
		a := client(c)
		a.Labels, a.Metadata, a.ProxyType = c.Proxy.Labels, c.Proxy.Metadata, string(c.Proxy.Type)
		a.Watches = map[string][]string{}
		for _, w := range c.Watches {
			a.Watches[w.Type.URL] = w.Names
		}
		out.Clients = append(out.Clients, a)
	}
	out.Total = len(out.Clients)
	return out, nil
}

func (s *Server) connections(*http.Request) (any, error) {
	out := adsClients{Clients: []adsClient{}}
	for _, c := range s.ads.Conns() {
		out.Clients = append(out.Clients, client(c))
	}
	out.Total = len(out.Clients)
	return out, nil
}

func client(c ads.ConnStatus) adsClient {
	return adsClient{ConnectionID: c.ID, ConnectedAt: c.Connected.UTC(), Address: c.Address}
}

// configz lists the objects in force as users write them; Secrets without their data,
// of which annotations hold a copy where kubectl has applied the object.
func (s *Server) configz(*http.Request) (any, error) {
	list := []any{}
	set, _ := s.objects()
	for _, o := range set.All() {
		spec, err := specJSON(o)
		if err != nil {
			return nil, err
		}
		meta := map[string]any{"name": o.Name}
		if o.Namespace != "" {
			meta["namespace"] = o.Namespace
		}
		if len(o.Labels) > 0 {
			meta["labels"] = o.Labels
		}
		if len(o.Annotations) > 0 && o.Kind != config.Secret {
			meta["annotations"] = o.Annotations
		}
		if !o.CreationTime.IsZero() {
			meta["creationTimestamp"] = o.CreationTime.UTC()
		}
		list = append(list, map[string]any{"kind": o.Kind, "apiVersion": o.APIVersion, "metadata": meta, "spec": spec, "source": o.Source.String()})
	}
	return list, nil
}

func specJSON(o *config.Config) (json.RawMessage, error) {
	if o.Kind == config.Secret {
		return json.RawMessage(`"redacted"`), nil
	}
	if m, ok := o.Spec.(proto.Message); ok {
		return protojson.Marshal(m)
	}
	return json.Marshal(o.Spec)
}

// registryz lists services under the original's keys.
func (s *Server) registryz(*http.Request) (any, error) {
	list := []any{}
	snap := s.snapshot.Load()
	if snap == nil {
		return list, nil
	}
	for _, svc := range snap.Registry.Services() {
		ports := []any{}
		for _, p := range svc.Ports {
			ports = append(ports, map[string]any{"name": p.Name, "port": p.Number, "protocol": p.Protocol})
		}
		from, address, cluster := "Kubernetes", "0.0.0.0", cmp.Or(s.o.ClusterID, "Kubernetes")
		if svc.FromEntry {
			from = "External"
		}
		if len(svc.Addresses) > 0 {
			address = svc.Addresses[0]
		}
		list = append(list, map[string]any{
			"hostname": svc.Host, "ports": ports, "Resolution": resolutionNumber(svc.Resolution), "MeshExternal": svc.MeshExternal,
			"clusterVIPs":    map[string]any{"Addresses": map[string][]string{cluster: svc.Addresses}},
			"defaultAddress": address, "autoAllocatedIPv4Address": svc.AutoAddress, "creationTime": svc.CreationTime,
			"Attributes": map[string]any{"ServiceRegistry": from, "Name": svc.Name, "Namespace": svc.Namespace, "Labels": svc.Labels,
				"ExportTo": svc.ExportTo, "LabelSelectors": svc.Selector},
		})
	}
	return list, nil
}

// resolutionNumber is how the original counts resolutions.
func resolutionNumber(r registry.Resolution) int {
	return map[registry.Resolution]int{registry.ClientSideLB: 0, registry.DNSLB: 1, registry.Passthrough: 2, registry.DNSRoundRobin: 3, registry.DynamicDNS: 5}[r]
}

// clusterz is the one cluster that there is, as the original lists them.
func (s *Server) clusterz(*http.Request) (any, error) {
	state := "synced"
	if s.snapshot.Load() == nil {
		state = "syncing"
	}
	return []any{map[string]string{"id": cmp.Or(s.o.ClusterID, "Kubernetes"), "secretName": "", "syncStatus": state}}, nil
}

type portEndpoints struct {
	Service   string               `json:"svc"` // host:port name
	Endpoints []*registry.Endpoint `json:"ep"`
}

func (s *Server) endpointz(*http.Request) (any, error) {
	list := []portEndpoints{}
	if snap := s.snapshot.Load(); snap != nil {
		for _, svc := range snap.Registry.Services() {
			for _, p := range svc.Ports {
				list = append(list, portEndpoints{svc.Host + ":" + p.Name, snap.Registry.Endpoints(svc, p)})
			}
		}
	}
	return list, nil
}

func (s *Server) meshz(*http.Request) (any, error) {
	snap := s.snapshot.Load()
	if snap == nil {
		return nil, pageError{http.StatusServiceUnavailable, "configuration not read yet"}
	}
	raw, err := protojson.Marshal(snap.MeshConfig)
	return json.RawMessage(raw), err
}

// connectedProxy is the one that a request names.
func (s *Server) connectedProxy(r *http.Request) (ads.ConnStatus, error) {
	id := r.FormValue("proxyID")
	if id == "" {
		return ads.ConnStatus{}, pageError{http.StatusBadRequest, "say which proxy: ?proxyID=NAME.NAMESPACE"}
	}
	for _, c := range s.ads.Conns() {
		name := c.Proxy.Name + "." + c.Proxy.Namespace
		if id == c.ID || id == name || strings.HasPrefix(name, id+".") {
			return c, nil
		}
	}
	return ads.ConnStatus{}, pageError{http.StatusNotFound, "no proxy " + id + " is connected"}
}

// ndsz is the table of names of a connected proxy, under the original's keys.
func (s *Server) ndsz(r *http.Request) (any, error) {
	c, err := s.connectedProxy(r)
	if err != nil {
		return nil, err
	}
	type name struct {
		Addresses []string `json:"ips"`
		Registry  string   `json:"registry"`
		ShortName string   `json:"shortname,omitempty"`
		Namespace string   `json:"namespace,omitempty"`
	}
	snap, table := s.snapshot.Load(), map[string]name{}
	for host, n := range compile.Names(snap, snap.Scope(c.Proxy), c.Proxy) {
		table[host] = name(n)
	}
	return map[string]any{"table": table}, nil
}

// configDump makes what a connected proxy is given, in the form of its own dump.
// Secrets show names only.
func (s *Server) configDump(r *http.Request) (any, error) {
	c, err := s.connectedProxy(r)
	if err != nil {
		return nil, err
	}
	whole := *c.Proxy
	whole.HostsApart = false // as its own dump shows route tables
	d := dump{view: s.viewAlone(&whole), conn: c}
	raw, err := protojson.Marshal(&adminpb.ConfigDump{Configs: d.sections()})
	if err == nil {
		err = d.err
	}
	return json.RawMessage(raw), err
}

// A dump collects the sections of a configuration dump; the first error stays.
type dump struct {
	view ads.View
	conn ads.ConnStatus
	err  error
}

func (d *dump) sections() []*anypb.Any {
	clusters, listeners, routes := &adminpb.ClustersConfigDump{}, &adminpb.ListenersConfigDump{}, &adminpb.RoutesConfigDump{}
	endpoints, secrets := &adminpb.EndpointsConfigDump{}, &adminpb.SecretsConfigDump{}
	for _, r := range d.resources(wellknown.ClusterType) {
		clusters.DynamicActiveClusters = append(clusters.DynamicActiveClusters, &adminpb.ClustersConfigDump_DynamicCluster{VersionInfo: r.Version, Cluster: r.Body})
	}
	for _, r := range d.resources(wellknown.ListenerType) {
		listeners.DynamicListeners = append(listeners.DynamicListeners, &adminpb.ListenersConfigDump_DynamicListener{
			Name: r.Name, ActiveState: &adminpb.ListenersConfigDump_DynamicListenerState{VersionInfo: r.Version, Listener: r.Body}})
	}
	for _, r := range d.resources(wellknown.RouteType) {
		routes.DynamicRouteConfigs = append(routes.DynamicRouteConfigs, &adminpb.RoutesConfigDump_DynamicRouteConfig{VersionInfo: r.Version, RouteConfig: r.Body})
	}
	for _, r := range d.resources(wellknown.EndpointType) {
		endpoints.DynamicEndpointConfigs = append(endpoints.DynamicEndpointConfigs, &adminpb.EndpointsConfigDump_DynamicEndpointConfig{VersionInfo: r.Version, EndpointConfig: r.Body})
	}
	for _, r := range d.resources(wellknown.SecretType) {
		secrets.DynamicActiveSecrets = append(secrets.DynamicActiveSecrets, &adminpb.SecretsConfigDump_DynamicSecret{Name: r.Name, VersionInfo: r.Version})
	}
	return []*anypb.Any{d.pack(clusters), d.pack(listeners), d.pack(routes), d.pack(secrets), d.pack(endpoints)}
}

// resources are what the proxy subscribes to.
func (d *dump) resources(typeURL string) []ads.Resource {
	for _, w := range d.conn.Watches {
		if w.Type.URL != typeURL {
			continue
		}
		names := append([]string{}, w.Names...)
		if w.Wildcard {
			names = nil
		}
		list, err := d.view.Resources(typeURL, names)
		d.note(err)
		return list
	}
	return nil
}

func (d *dump) pack(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	d.note(err)
	return a
}

func (d *dump) note(err error) {
	if d.err == nil {
		d.err = err
	}
}
