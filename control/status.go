package control

import (
	"cmp"
	"io"
	"slices"
	"strings"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
	"github.com/lateen-mesh/lateen/control/ingress"
	"github.com/lateen-mesh/lateen/control/kube"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A Status is what `lateen status` shows: the page /debug/status as JSON.
type Status struct {
	Version    string        `json:"version"`
	Ready      bool          `json:"ready"`
	Generation uint64        `json:"generation"`
	Objects    int           `json:"objects"`
	Files      []FileStatus  `json:"files"`
	Kubernetes *APIStatus    `json:"kubernetes,omitempty"`
	Problems   []Problem     `json:"problems"` // of the mesh configuration, of objects of the API, and of objects in force that cannot be put to use
	Proxies    []ProxyStatus `json:"proxies"`
}

// An APIStatus is the Kubernetes API that objects are read from.
type APIStatus struct {
	Server  string `json:"server"`
	Synced  bool   `json:"synced"`            // all was read since the start
	Saved   bool   `json:"saved"`             // what is in force is what the last run left
	Objects int    `json:"objects"`           // in force from it
	Stale   int    `json:"stale"`             // of these in an older state
	Trouble string `json:"trouble,omitempty"` // why it cannot be read now
}

// A FileStatus is one file of the configuration.
type FileStatus struct {
	Path     string    `json:"path"`
	Objects  int       `json:"objects"` // in force from it
	Stale    bool      `json:"stale"`   // an object is in force in an older state
	Problems []Problem `json:"problems,omitempty"`
}

// A Problem is a config.Problem, flat.
type Problem struct {
	Place    string `json:"place,omitempty"` // file:line
	Object   string `json:"object,omitempty"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
	Severity string `json:"severity"`
}

// String is "error: place: object: field: message", with the hint on a line of its own.
func (p Problem) String() string {
	text := cmp.Or(p.Severity, config.Error.String()) + ": " + p.text()
	if p.Hint != "" {
		text += "\nhint: " + p.Hint
	}
	return text
}

// text is "place: object: field: message" as far as they are known.
func (p Problem) text() string {
	var parts []string
	for _, s := range []string{p.Place, p.Object, p.Field, p.Message} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// A ProxyStatus is one connected proxy.
type ProxyStatus struct {
	ID         string         `json:"id"`   // "name.namespace"
	Node       string         `json:"node"` // node id
	Type       string         `json:"type"`
	Connected  time.Time      `json:"connected"`
	Generation uint64         `json:"generation"` // acknowledged in all types
	Synced     bool           `json:"synced"`     // that is the newest, and nothing is refused
	Refused    []Refusal      `json:"refused,omitempty"`
	Listeners  []ListenerPort `json:"listeners,omitempty"` // of a gateway
}

// A Refusal is a resource that the proxy refused.
type Refusal struct {
	Type     string `json:"type"` // "CDS"
	Resource string `json:"resource"`
	Error    string `json:"error"`
	// Patched are the EnvoyFilters that had a part in the resource.
	Patched []string `json:"patched,omitempty"`
}

// A ListenerPort is an address and port of a gateway and where its machine has it.
type ListenerPort struct {
	Port     uint32   `json:"port"`
	HostPort uint32   `json:"hostPort"`
	Address  string   `json:"address"` // 0.0.0.0 unless a Gateway says bind
	Protocol string   `json:"protocol,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`   // of the Gateways that claim it
	Objects  []string `json:"objects,omitempty"` // these Gateways
}

// Status describes the server now.
func (s *Server) Status() Status {
	st := Status{Version: wellknown.Version(), Files: []FileStatus{}, Proxies: []ProxyStatus{}}
	for _, f := range s.files.Status() {
		st.Files = append(st.Files, fileStatus(f))
	}
	st.Problems = s.problems(time.Now())
	if s.api != nil {
		st.addAPI(s.api.Status())
	}
	snap := s.snapshot.Load()
	if snap == nil {
		return st
	}
	st.Ready, st.Generation, st.Objects = true, snap.Generation, snap.Config.Len()
	for _, c := range s.ads.Conns() {
		st.Proxies = append(st.Proxies, proxyStatus(snap, c))
	}
	return st
}

// addAPI tells what the source of the API says about itself and about objects.
func (st *Status) addAPI(from kube.Status) {
	st.Kubernetes = &APIStatus{Server: from.Server, Synced: from.Synced, Saved: from.Saved,
		Objects: from.Objects, Stale: from.Stale, Trouble: from.Trouble}
	if from.Trouble != "" {
		found := Problem{Object: "Kubernetes API " + from.Server, Message: "cannot be read, what is in force stays: " + from.Trouble, Severity: config.Warning.String()}
		switch {
		case from.Saved:
			found.Message = "cannot be read, what the last run left is in force: " + from.Trouble
		case !from.Synced:
			found.Message, found.Severity = "cannot be read, nothing is served before it is: "+from.Trouble, config.Error.String()
		}
		st.Problems = append(st.Problems, found)
	}
	for _, p := range from.Problems {
		st.Problems = append(st.Problems, problem(p))
	}
}

func fileStatus(f file.Status) FileStatus {
	out := FileStatus{Path: f.Path, Objects: f.Objects, Stale: f.Stale}
	for _, p := range f.Problems {
		out.Problems = append(out.Problems, problem(p))
	}
	return out
}

func problem(p config.Problem) Problem {
	out := Problem{Place: p.Source.String(), Field: p.Field, Message: p.Message, Hint: p.Hint, Severity: p.Severity.String()}
	if p.Object != (config.Key{}) {
		out.Object = p.Object.String()
	}
	return out
}

func proxyStatus(snap *mesh.Snapshot, c ads.ConnStatus) ProxyStatus {
	out := ProxyStatus{
		ID: c.Proxy.Name + "." + c.Proxy.Namespace, Node: c.Proxy.ID, Type: string(c.Proxy.Type),
		Connected: c.Connected.UTC(), Generation: c.Applied,
	}
	for _, w := range c.Watches {
		for _, r := range w.Refused {
			out.Refused = append(out.Refused, Refusal{Type: w.Type.Name, Resource: r.Resource, Error: r.Error,
				Patched: patchers(snap, c.Proxy, w.Type.URL, r.Resource)})
		}
	}
	out.Synced = out.Generation >= snap.Generation && len(out.Refused) == 0 && len(c.Watches) > 0
	if c.Proxy.Type == mesh.Router {
		out.Listeners = listenerPorts(snap, c.Proxy)
	}
	return out
}

// GatewayPorts are the ports on which a gateway would listen for the configuration
// of some paths as it is now, by number. It fails when a path does not exist.
func GatewayPorts(paths []string, stdin io.Reader, node *corepb.Node) ([]uint32, error) {
	store, quiet := config.NewStore(), logging.Discard().Scope("config")
	if err := file.New(store, file.Options{Paths: paths, Stdin: stdin, Log: quiet}).Load(); err != nil {
		return nil, err
	}
	self, err := mesh.ParseProxy(node)
	if err != nil {
		return nil, err
	}
	mc, _ := config.MeshConfigOf(store.Current(), config.DefaultRootNamespace)
	if mc == nil {
		mc = config.DefaultMeshConfig()
	}
	var ingresses ingress.Translation
	set, _ := ingresses.Join(store.Current(), mc, "cluster.local")
	var ports []uint32
	for _, l := range listenerPorts(mesh.Build(set, mesh.Options{MeshConfig: mc}), self) {
		ports = append(ports, l.Port)
	}
	return slices.Compact(ports), nil
}

// listenerPorts are the ports that a gateway listens on, by number and address.
func listenerPorts(snap *mesh.Snapshot, p *mesh.Proxy) []ListenerPort {
	published, scope := publishingOf(p), snap.Scope(p)
	var ports []ListenerPort
	for _, l := range compile.Listeners(snap, scope, p) {
		if l.Port == 0 {
			continue
		}
		port := ListenerPort{Port: l.Port, HostPort: published.hostPort(l.Port), Address: l.Address}
		for _, g := range scope.Gateways() {
			port.claim(g)
		}
		ports = append(ports, port)
	}
	slices.SortFunc(ports, func(a, b ListenerPort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Address, b.Address))
	})
	return ports
}

// claim adds what a Gateway has on the port.
func (l *ListenerPort) claim(g *mesh.Gateway) {
	for _, server := range g.Spec.GetServers() {
		if server.GetPort().GetNumber() != l.Port || cmp.Or(server.GetBind(), "0.0.0.0") != l.Address {
			continue
		}
		l.Protocol = cmp.Or(l.Protocol, server.GetPort().GetProtocol())
		for _, h := range server.GetHosts() {
			if !slices.Contains(l.Hosts, h) {
				l.Hosts = append(l.Hosts, h)
			}
		}
		if name := g.FullName(); !slices.Contains(l.Objects, name) {
			l.Objects = append(l.Objects, name)
		}
	}
}
