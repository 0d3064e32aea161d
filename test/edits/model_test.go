package edits

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A config is all that users have written, as a model: it renders to files, and it knows
// who may answer a request.
type config struct {
	services []*service
	sites    []*site
	more     bool // the Gateway has a second port
	listed   bool // the Gateway lists its hosts
	fresh    int  // for names that were never used before
}

// A service is a host with endpoints and, by a DestinationRule, subsets.
type service struct {
	id        int
	host      string
	object    string // name of its objects
	dns       bool
	policy    int
	endpoints []endpoint
	subsets   []subset // none: there is no DestinationRule
}

type endpoint struct {
	backend int
	version string
}

type subset struct{ name, version string }

// A site is a VirtualService: of a host at the gateway, or of a service's in the mesh.
type site struct {
	host   string // "" in the mesh
	inMesh int    // the service's id, of one in the mesh
	object string
	routes []route
}

// A route takes paths with a prefix. Its destinations' weights are equal, or it has one.
type route struct {
	prefix string
	to     []destination
}

type destination struct{ service, subset int } // id, index or -1

// versions of endpoints; each service has endpoints of all of them, so that no subset is empty.
var versions = []string{"v1", "v2", "v3"}

func (c *config) clone() *config {
	n := *c
	n.services, n.sites = nil, nil
	for _, s := range c.services {
		d := *s
		d.endpoints, d.subsets = slices.Clone(s.endpoints), slices.Clone(s.subsets)
		n.services = append(n.services, &d)
	}
	for _, v := range c.sites {
		d := *v
		d.routes = nil
		for _, r := range v.routes {
			d.routes = append(d.routes, route{r.prefix, slices.Clone(r.to)})
		}
		n.sites = append(n.sites, &d)
	}
	return &n
}

// name is one that was not used before.
func (c *config) name(kind string) string {
	c.fresh++
	return fmt.Sprintf("%s%d", kind, c.fresh)
}

func (c *config) service(id int) *service {
	for _, s := range c.services {
		if s.id == id {
			return s
		}
	}
	panic(fmt.Sprintf("no service %d", id))
}

func (c *config) hostOf(v *site) string {
	if v.host != "" {
		return v.host
	}
	return c.service(v.inMesh).host
}

// A target is what a request asks for.
type target struct{ via, host, path string }

const (
	atGateway = "gateway"
	atMore    = "gateway, second port"
	atSidecar = "sidecar"
)

// answers are the backends that may answer by these routes when clusters are those of
// another configuration, which may be in force a moment sooner; false when there is no route.
func (c *config) answers(t target, clusters *config) (map[int]bool, bool) {
	if t.via == atMore && !c.more {
		return nil, false
	}
	set := map[int]bool{}
	for _, v := range c.sites {
		if c.hostOf(v) != t.host || (t.via == atSidecar) != (v.host == "") {
			continue
		}
		for _, r := range v.routes {
			if strings.HasPrefix(t.path, r.prefix) {
				for _, d := range r.to {
					clusters.cluster(set, c.service(d.service), d.subset)
				}
				return set, true
			}
		}
		return nil, false
	}
	for _, s := range c.services {
		if t.via == atSidecar && s.host == t.host {
			clusters.cluster(set, s, -1)
			return set, true
		}
	}
	return nil, false
}

// cluster adds the backends that are behind the name of another's subset, -1 for the whole.
func (c *config) cluster(set map[int]bool, named *service, index int) {
	for _, s := range c.services {
		for _, e := range s.endpoints {
			if s.host == named.host && (index < 0 || slices.Contains(s.subsets, subset{named.subsets[index].name, e.version})) {
				set[e.backend] = true
			}
		}
	}
}

// targets are all that can be asked for.
func (c *config) targets() (list []target) {
	for _, v := range c.sites {
		via := []string{atSidecar}
		if v.host != "" {
			via = []string{atGateway}
			if c.more {
				via = append(via, atMore)
			}
		}
		for _, r := range v.routes {
			for _, via := range via {
				list = append(list, target{via, c.hostOf(v), strings.TrimSuffix(r.prefix, "/") + "/x"})
			}
		}
	}
	for _, s := range c.services {
		list = append(list, target{atSidecar, s.host, "/x"})
	}
	return list
}

// files renders it: an object a file.
func (c *config) files(servicePort int, backends []int) map[string]string {
	files := map[string]string{"a-gateway.yaml": c.gateway()}
	for _, s := range c.services {
		files["c-entry-"+s.object+".yaml"] = s.entry(servicePort, backends)
		if len(s.subsets) > 0 {
			files["b-rule-"+s.object+".yaml"] = s.rule()
		}
	}
	for _, v := range c.sites {
		files["d-routes-"+v.object+".yaml"] = c.virtualService(v)
	}
	return files
}

func (c *config) gateway() string {
	hosts := []string{`"*"`}
	if c.listed {
		hosts = []string{"nobody.test"}
		for _, v := range c.sites {
			if v.host != "" {
				hosts = append(hosts, v.host)
			}
		}
	}
	text := `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
`
	for _, port := range []int{80, 8080} {
		if port == 80 || c.more {
			text += fmt.Sprintf("  - {port: {number: %d, name: http-%d, protocol: HTTP}, hosts: [%s]}\n", port, port, strings.Join(hosts, ", "))
		}
	}
	return text
}

func (s *service) entry(port int, backends []int) string {
	resolution := "STATIC"
	if s.dns {
		resolution = "DNS"
	}
	text := fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, namespace: default}
spec:
  hosts: [%s]
  location: MESH_EXTERNAL
  resolution: %s
  ports: [{number: %d, name: http, protocol: HTTP}]
  endpoints:
`, s.object, s.host, resolution, port)
	for _, e := range s.endpoints {
		text += fmt.Sprintf("  - {address: 127.0.0.1, ports: {http: %d}, labels: {version: %s}}\n", backends[e.backend], e.version)
	}
	return text
}

func (s *service) rule() string {
	text := fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %s, namespace: default}
spec:
  host: %s
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: %d}}, loadBalancer: {simple: %s}}
  subsets:
`, s.object, s.host, 100+s.policy, []string{"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"}[s.policy%3])
	for _, sub := range s.subsets {
		text += fmt.Sprintf("  - {name: %s, labels: {version: %s}}\n", sub.name, sub.version)
	}
	return text
}

func (c *config) virtualService(v *site) string {
	gateway := "gw"
	if v.host == "" {
		gateway = "mesh"
	}
	text := fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s, namespace: default}
spec:
  hosts: [%s]
  gateways: [%s]
  http:
`, v.object, c.hostOf(v), gateway)
	for _, r := range v.routes {
		text += fmt.Sprintf("  - match: [{uri: {prefix: %s}}]\n    retries: {attempts: 0}\n    route:\n", r.prefix)
		for i, d := range r.to {
			weight := 100 / len(r.to)
			if i == 0 {
				weight = 100 - weight*(len(r.to)-1)
			}
			s := c.service(d.service)
			to := "host: " + s.host
			if d.subset >= 0 {
				to += ", subset: " + s.subsets[d.subset].name
			}
			text += fmt.Sprintf("    - {destination: {%s}, weight: %d}\n", to, weight)
		}
	}
	return text
}

// worst is the order in which files are written: what others need goes first and what
// needs it is changed last.
func worst(before, after map[string]string) (names []string) {
	for name := range before {
		if _, stays := after[name]; !stays {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if before[name] != after[name] {
			names = append(names, name)
		}
	}
	return names
}
