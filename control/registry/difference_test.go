package registry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/control/config"
)

// set decodes objects; those that an older set has as they are stay the same objects.
func set(t *rapid.T, text string, old *config.Set) *config.Set {
	objects, problems := config.DecodeYAML("test.yaml", []byte(text))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	for i, o := range objects {
		o.Source.Line = 0
		if before := old.Get(o.Kind, o.Namespace, o.Name); before != nil && before.Equal(o) {
			objects[i] = before
		}
	}
	return config.NewSet(old.Generation()+1, objects)
}

// drawn is a mesh of few objects, in few states each.
func drawn(t *rapid.T) string {
	var b strings.Builder
	pick := func(format string, of ...string) {
		fmt.Fprintf(&b, format+"\n", rapid.SampledFrom(of).Draw(t, "state"))
	}
	for n := range 3 {
		if rapid.Bool().Draw(t, "entry") {
			continue
		}
		fmt.Fprintf(&b, "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e%d, namespace: a}\nspec:\n", n)
		pick("  hosts: [%s]", "x.test", "y.test", "s.a.svc.cluster.local")
		pick("  resolution: %s", "STATIC", "STATIC", "STATIC", "DNS")
		pick("  ports: [{number: %s, name: http, protocol: HTTP}]", "80", "80", "81")
		pick("  %s", "endpoints: [{address: 10.0.0.1}]", "endpoints: [{address: 10.0.0.1}, {address: 10.0.0.2, serviceAccount: b}]",
			"endpoints: [{address: 10.0.0.3, labels: {v: v1}}]", "workloadSelector: {labels: {app: w}}")
	}
	pick("---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: w, namespace: a}\nspec: {address: %s, labels: {app: w}}", "10.0.1.1", "10.0.1.2")
	pick("---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\nspec: {clusterIP: %s, ports: [{name: http, port: 80}]}", "10.96.0.1", "10.96.0.1", "None")
	pick("---\napiVersion: v1\nkind: Service\nmetadata: {name: alias, namespace: a}\nspec: {type: ExternalName, externalName: %s}", "x.test", "s.a.svc.cluster.local")
	pick("---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, namespace: a, labels: {kubernetes.io/service-name: s}}\n"+
		"addressType: IPv4\nendpoints: [{addresses: [%s]}]\nports: [{name: http, port: 8080}]", "10.0.2.1", "10.0.2.2")
	return b.String()
}

// TestNext: a registry that takes parts over from an older one is the one that is built anew,
// and all that Since does not name is the same in both.
func TestNext(t *testing.T) {
	same := []cmp.Option{cmpopts.IgnoreFields(Service{}, "Origin")}
	rapid.Check(t, func(t *rapid.T) {
		var old *Registry
		var before *config.Set
		for range 4 {
			s := set(t, drawn(t), before)
			next, fresh := Next(old, s, Options{}), Build(s, Options{})
			if diff := cmp.Diff(fresh.services, next.services, same...); diff != "" {
				t.Fatal(diff)
			}
			d := next.Since(old)
			for i, svc := range next.services {
				if diff := cmp.Diff(fresh.endpoints[fresh.services[i]], next.endpoints[svc]); diff != "" {
					t.Fatal(svc.Host, diff)
				}
				if d.Services {
					continue
				}
				if diff := cmp.Diff(old.services[i], svc, same...); diff != "" {
					t.Fatal("nothing is said of", diff)
				}
				changed := !cmp.Equal(old.endpoints[old.services[i]], next.endpoints[svc])
				if named := strings.Contains(strings.Join(d.Endpoints, " "), svc.Host); changed && !named {
					t.Fatalf("endpoints of %s differ, %q is said", svc.Host, d.Endpoints)
				}
			}
			for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.2.1"} {
				if diff := cmp.Diff(fresh.Instances([]string{a}), next.Instances([]string{a}), same...); diff != "" {
					t.Fatal(diff)
				}
			}
			if again := Next(next, s, Options{}).Since(next); again.Services || again.Endpoints != nil {
				t.Fatalf("the same differs in %+v", again)
			}
			old, before = next, s
		}
	})
}
