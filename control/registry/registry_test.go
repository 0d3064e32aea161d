package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networking "istio.io/api/networking/v1alpha3"
	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/control/config"
)

func build(t *testing.T, text string) *Registry {
	t.Helper()
	objects, problems := config.DecodeYAML("test.yaml", []byte(text))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	return Build(config.NewSet(1, objects), Options{})
}

func TestProtocolOf(t *testing.T) {
	for _, tc := range []struct {
		transport, name, app string
		want                 Protocol
	}{
		{"TCP", "http", "", HTTP},
		{"TCP", "http-web", "", HTTP},
		{"TCP", "HTTP2-x", "", HTTP2},
		{"TCP", "grpc", "", GRPC},
		{"TCP", "grpc-web", "", GRPCWeb},
		{"TCP", "grpc-web-x", "", GRPCWeb},
		{"TCP", "grpc-webby", "", GRPC},
		{"TCP", "https-x", "", HTTPS},
		{"TCP", "tls", "", TLS},
		{"TCP", "tcp-db", "", TCP},
		{"TCP", "mongo", "", Mongo},
		{"TCP", "redis", "", Redis},
		{"TCP", "mysql", "", MySQL},
		{"TCP", "", "", Unsupported},
		{"TCP", "web-http", "", Unsupported},
		{"TCP", "httpx", "", Unsupported},
		{"TCP", "web", "http", HTTP},
		{"TCP", "http", "tcp", TCP},
		{"TCP", "web", "kubernetes.io/h2c", HTTP2},
		{"TCP", "web", "kubernetes.io/ws", HTTP},
		{"TCP", "http", "example.com/own", HTTP},
		{"UDP", "http", "", UDP},
	} {
		if got := ProtocolOf(tc.transport, tc.name, tc.app); got != tc.want {
			t.Errorf("ProtocolOf(%q, %q, %q) = %s, want %s", tc.transport, tc.name, tc.app, got, tc.want)
		}
	}
}

const twoHosts = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, namespace: %s}
spec:
  hosts: [%s]
  ports: [{number: %d, name: p%[4]d, protocol: HTTP}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints: [{address: %s}]
---`

func entry(name, namespace, host string, port int, address string) string {
	return fmt.Sprintf(twoHosts, name, namespace, host, port, address)
}

func TestConflicts(t *testing.T) {
	r := build(t, entry("squat", "aaa", "web.default.svc.cluster.local", 80, "10.0.0.1")+
		entry("b", "default", "shared.test", 80, "10.0.0.2")+
		entry("a", "default", "shared.test", 81, "10.0.0.3")+
		entry("more", "default", "web.default.svc.cluster.local", 80, "10.0.0.4")+`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80, name: p80, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: second.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: second, namespace: default}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: circle, namespace: default}
spec: {type: ExternalName, externalName: circle.default.svc.cluster.local}
`)
	t.Run("a Kubernetes Service goes before an entry that claims its host", func(t *testing.T) {
		s := lookup(r, "web.default.svc.cluster.local")
		if s == nil || s.FromEntry {
			t.Fatalf("got %+v", s)
		}
		if own := in(r, s.Host, "aaa"); own == nil || !own.FromEntry {
			t.Errorf("the entry is not kept for its own namespace: %+v", own)
		}
	})
	t.Run("the endpoints of an entry of the same namespace join the Service", func(t *testing.T) {
		s := lookup(r, "web.default.svc.cluster.local")
		if got := addresses(r.Endpoints(s, s.Ports[0])); !slices.Equal(got, []string{"10.0.0.4"}) {
			t.Errorf("endpoints %v", got)
		}
		if !slices.Equal(s.Addresses, []string{"10.96.0.1"}) {
			t.Errorf("addresses %v", s.Addresses)
		}
	})
	t.Run("SE-001 two entries of one host unite ports and endpoints", func(t *testing.T) {
		s := lookup(r, "shared.test")
		got := map[uint32][]string{}
		for _, p := range s.Ports {
			got[p.Number] = addresses(r.Endpoints(s, p))
		}
		want := map[uint32][]string{81: {"10.0.0.3"}, 80: {"10.0.0.2"}}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("ExternalName is another name of its target", func(t *testing.T) {
		s := lookup(r, "web.default.svc.cluster.local")
		if want := []string{"alias.default.svc.cluster.local", "second.default.svc.cluster.local"}; !slices.Equal(s.Aliases, want) {
			t.Errorf("aliases %v, want %v", s.Aliases, want)
		}
		if lookup(r, "circle.default.svc.cluster.local") != nil {
			t.Error("an alias of itself became a service")
		}
	})
	t.Run("services come in order of name and namespace", func(t *testing.T) {
		var got []string
		for _, s := range r.Services() {
			got = append(got, s.Name+"."+s.Namespace)
		}
		if !slices.IsSorted(got) {
			t.Errorf("order %v", got)
		}
	})
}

func addresses(list []*Endpoint) []string {
	var got []string
	for _, e := range list {
		got = append(got, e.Address)
	}
	return got
}

func TestInstances(t *testing.T) {
	r := build(t, entry("a", "default", "a.test", 80, "10.0.0.1")+entry("b", "default", "b.test", 90, "10.0.0.1")+
		entry("c", "default", "c.test", 90, "10.0.0.2"))
	var got []string
	for _, i := range r.Instances([]string{"10.0.0.1", "10.0.0.9"}) {
		got = append(got, fmt.Sprintf("%s:%d", i.Service.Host, i.Port.Number))
	}
	if want := []string{"a.test:80", "b.test:90"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAllocateAddresses(t *testing.T) {
	dns := func(name, host, more string) string {
		return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: %s, namespace: default}\n"+
			"spec:\n  hosts: [%q]\n  ports: [{number: 80, name: tcp, protocol: TCP}]\n  %s\n---\n", name, host, more)
	}
	r := build(t, dns("a", "a.test", "resolution: DNS")+dns("b", "b.test", "resolution: DNS")+
		dns("vip", "vip.test", "resolution: DNS\n  addresses: [10.1.1.1]")+
		dns("none", "none.test", "resolution: NONE")+dns("wild", "*.wild.test", "resolution: NONE"))
	t.Run("SE-002 a host without addresses gets one of 240.240.0.0/16", func(t *testing.T) {
		a, b := lookup(r, "a.test").AutoAddress, lookup(r, "b.test").AutoAddress
		if !strings.HasPrefix(a, "240.240.") || !strings.HasPrefix(b, "240.240.") || a == b {
			t.Errorf("got %q and %q", a, b)
		}
	})
	for _, host := range []string{"vip.test", "none.test", "*.wild.test"} {
		if got := lookup(r, host).AutoAddress; got != "" {
			t.Errorf("%s got %s", host, got)
		}
	}
}

// An address is never given twice, never ends in 0 or 255, and stays when other
// hosts come, unless its place was taken by one that is served earlier.
func TestAllocateAddressesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,8}\.test`), 1, 200, rapid.ID).Draw(t, "hosts")
		services := func(hosts []string) []*Service {
			var list []*Service
			for _, h := range hosts {
				list = append(list, &Service{Host: h, Namespace: "default", FromEntry: true, Resolution: DNSLB})
			}
			allocateAddresses(list)
			return list
		}
		all := services(hosts)
		seen := map[string]bool{}
		for _, s := range all {
			last := s.AutoAddress[strings.LastIndexByte(s.AutoAddress, '.')+1:]
			if seen[s.AutoAddress] || last == "0" || last == "255" {
				t.Fatalf("%s got %s", s.Host, s.AutoAddress)
			}
			seen[s.AutoAddress] = true
		}
		for i, s := range services(hosts[:len(hosts)/2+1]) {
			if s.AutoAddress != all[i].AutoAddress {
				t.Fatalf("%s moved from %s to %s", s.Host, s.AutoAddress, all[i].AutoAddress)
			}
		}
	})
}

func TestLocality(t *testing.T) {
	for text, want := range map[string]Locality{
		"":          {},
		"r1":        {Region: "r1"},
		"r1/z1":     {Region: "r1", Zone: "z1"},
		"r1/z1/s1":  {Region: "r1", Zone: "z1", SubZone: "s1"},
		"r1/z1/s/x": {Region: "r1", Zone: "z1", SubZone: "s/x"},
	} {
		if got := ParseLocality(text); got != want || got.String() != text {
			t.Errorf("ParseLocality(%q) = %+v, which prints as %q", text, got, got)
		}
	}
}

// lookup is the service that wins a host, nil if there is none.
func lookup(r *Registry, host string) *Service {
	for _, s := range r.Hosts(host) {
		return s
	}
	return nil
}

// in is the service that a namespace defines for a host.
func in(r *Registry, host, namespace string) *Service {
	for _, s := range r.Hosts(host) {
		if s.Namespace == namespace {
			return s
		}
	}
	return nil
}

// TestSelectedProperties holds the index of labels against going through all
// WorkloadEntries.
func TestSelectedProperties(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "b", "c"})
	labels := rapid.MapOfN(word, word, 0, 3)
	rapid.Check(t, func(t *rapid.T) {
		var objects []*config.Config
		for i := range rapid.IntRange(0, 8).Draw(t, "workloads") {
			objects = append(objects, &config.Config{
				Key:    config.Key{Kind: config.WorkloadEntry, Namespace: word.Draw(t, "namespace"), Name: fmt.Sprint(i)},
				Labels: labels.Draw(t, "metadata"),
				Spec:   &networking.WorkloadEntry{Address: fmt.Sprint(i), Labels: labels.Draw(t, "spec")},
			})
		}
		b := builder{set: config.NewSet(1, objects)}
		s := &Service{Namespace: word.Draw(t, "of"), Selector: rapid.MapOfN(word, word, 1, 3).Draw(t, "selector"), Ports: []Port{{Number: 80}}}
		var got, want []string
		for _, e := range b.selected(s) {
			got = append(got, e.Address)
		}
		for _, o := range b.set.List(config.WorkloadEntry) {
			if o.Namespace == s.Namespace && selects(s.Selector, o.Labels, o.Spec.(*networking.WorkloadEntry).Labels) {
				want = append(want, o.Name)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("selected %v, want %v", got, want)
		}
	})
}
