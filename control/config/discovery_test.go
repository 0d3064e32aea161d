package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/control/config"
)

const spaces = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: web, env: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: lab, labels: {env: test}}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: lab}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: c, namespace: unlabelled}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: d, namespace: istio-system}
spec: {ports: [{port: 80}]}
`

func TestDiscovered(t *testing.T) {
	objects, problems := config.DecodeYAML("test.yaml", []byte(spaces))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	set := config.NewSet(3, objects)
	for _, c := range []struct{ name, selectors, want string }{
		{"MC-052 none", "[]", "a b c d"},
		{"MC-052 matchLabels", "[{matchLabels: {team: web}}]", "a d"},
		{"MC-052 all of one item", "[{matchLabels: {team: web, env: test}}]", "d"},
		{"MC-052 one of several items", "[{matchLabels: {team: web}}, {matchLabels: {env: test}}]", "a b d"},
		{"MC-052 In", "[{matchExpressions: [{key: env, operator: In, values: [test, dev]}]}]", "b d"},
		{"MC-052 NotIn", "[{matchExpressions: [{key: env, operator: NotIn, values: [test]}]}]", "a c d"},
		{"MC-052 Exists", "[{matchExpressions: [{key: env, operator: Exists}]}]", "a b d"},
		{"MC-052 DoesNotExist", "[{matchExpressions: [{key: env, operator: DoesNotExist}]}]", "c d"},
		{"MC-052 the name of a namespace", "[{matchLabels: {kubernetes.io/metadata.name: unlabelled}}]", "c d"},
		{"MC-052 an empty item selects all", "[{}]", "a b c d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mc, problems := config.DecodeMeshConfig("mesh.yaml", []byte("discoverySelectors: "+c.selectors))
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			found := config.Discovered(set, mc)
			var got []string
			for _, o := range found.List(config.Service) {
				got = append(got, o.Name)
				if found.Get(config.Service, o.Namespace, o.Name) != o || set.Get(config.Service, o.Namespace, o.Name) != o {
					t.Errorf("%s is not the same object", o.Key)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("services (-want +got):\n%s", diff)
			}
			if n := len(found.List(config.Namespace)); n != 2 || found.Generation() != 3 {
				t.Errorf("%d Namespaces at generation %d", n, found.Generation())
			}
		})
	}
	t.Run("MC-052 a selector that is none", func(t *testing.T) {
		_, problems := config.DecodeMeshConfig("mesh.yaml", []byte("discoverySelectors: [{matchExpressions: [{key: env, operator: Near}]}]"))
		if !config.HasErrors(problems) || problems[0].Field != "discoverySelectors[0]" {
			t.Errorf("problems %v", problems)
		}
	})
}
