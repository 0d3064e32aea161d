package crds_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/install/crds"
	"github.com/lateen-mesh/lateen/test/material"
)

// A server does with schemas what an API server does, but for CEL rules: those
// need the server itself, see TestTheServerSaysWhatTheOriginalsSay.
type server map[string]*spec.Schema // by group/version/kind

func newServer(t testing.TB) server {
	t.Helper()
	all := server{}
	for _, definition := range definitions(t, crds.All()) {
		group, kind := definition["spec"].(object)["group"].(string), definition["spec"].(object)["names"].(object)["kind"].(string)
		for version, schema := range schemas(definition) {
			text, err := json.Marshal(schema)
			if err != nil {
				t.Fatal(err)
			}
			parsed := new(spec.Schema)
			if err := json.Unmarshal(text, parsed); err != nil {
				t.Fatal(err)
			}
			all[group+"/"+version+"/"+kind] = parsed
		}
	}
	return all
}

// problems are what the server has against an object: what it refuses, and fields
// that it would drop.
func (s server) problems(o object) (all []string) {
	schema := s[fmt.Sprint(o["apiVersion"], "/", o["kind"])]
	if schema == nil {
		return []string{fmt.Sprint("no such kind: ", o["apiVersion"], "/", o["kind"])}
	}
	result := validate.NewSchemaValidator(schema, nil, "", strfmt.Default).Validate(o)
	for _, err := range result.Errors {
		all = append(all, err.Error())
	}
	for _, top := range []string{"spec", "status"} {
		all = append(all, unknown(top, o[top], schema.Properties[top])...)
	}
	return all
}

// unknown are the fields of a value that its schema has not.
func unknown(path string, value any, schema spec.Schema) (all []string) {
	switch v := value.(type) {
	case []any:
		for i, e := range v {
			if schema.Items != nil && schema.Items.Schema != nil {
				all = append(all, unknown(fmt.Sprintf("%s[%d]", path, i), e, *schema.Items.Schema)...)
			}
		}
	case object:
		for name, e := range v {
			below, known := schema.Properties[name]
			switch {
			case known:
				all = append(all, unknown(path+"."+name, e, below)...)
			case schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil:
				all = append(all, unknown(path+"."+name, e, *schema.AdditionalProperties.Schema)...)
			case schema.Extensions["x-kubernetes-preserve-unknown-fields"] != true:
				all = append(all, fmt.Sprintf("unknown field %q", path+"."+name))
			}
		}
	}
	return all
}

// istio are the Istio objects of the YAML files below dir, by file and name.
func istio(t *testing.T, dir string) map[string]object {
	t.Helper()
	found := map[string]object{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		short, _ := filepath.Rel(dir, path)
		for i, part := range bytes.Split(text, []byte("\n---")) {
			var o object
			if sigsyaml.Unmarshal(part, &o) != nil {
				continue // a template, or no YAML on purpose
			}
			group, _, _ := strings.Cut(fmt.Sprint(o["apiVersion"]), "/")
			if strings.HasSuffix(group, ".istio.io") && group != "install.istio.io" {
				found[fmt.Sprintf("%s#%d", short, i)] = o
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Every Istio object that users have and that Istio takes is taken, and nothing of
// it is dropped.
func TestWhatIsValidIsTakenWhole(t *testing.T) {
	root, api := material.Path(t), newServer(t)
	for _, dir := range []string{"samples", "scenarios", "golden", "data/samples-extra", "data/authz", "data/gatewayapi/ingress"} {
		t.Run("VS-001 VS-002 "+dir, func(t *testing.T) { api.takes(t, filepath.Join(root, dir)) })
	}
}

func TestOurSamplesAreTakenWhole(t *testing.T) { newServer(t).takes(t, "../../samples") }

// takes expects no problem with any Istio object below dir.
func (s server) takes(t *testing.T, dir string) {
	objects := istio(t, dir)
	for name, o := range objects {
		for _, problem := range s.problems(o) {
			t.Errorf("%s: %s", name, problem)
		}
	}
	if len(objects) == 0 {
		t.Error("no Istio object found: nothing was proven")
	}
}

// The cases of data/validation that are valid.
func TestValidCasesAreTaken(t *testing.T) {
	root, api := material.Path(t), newServer(t)
	files, err := filepath.Glob(filepath.Join(root, "data/validation/cases/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		var cases []struct {
			Name  string
			Valid bool
			YAML  string
		}
		if err := yaml.Unmarshal(read(t, file), &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			var o object
			if !c.Valid {
				continue
			}
			if err := sigsyaml.Unmarshal([]byte(c.YAML), &o); err != nil {
				t.Fatal(err)
			}
			for _, problem := range api.problems(o) {
				t.Errorf("%s %s: %s", filepath.Base(file), c.Name, problem)
			}
		}
	}
	for _, pattern := range []string{"data/validation/crd/*-valid.yaml", "data/validation/crd-server/*-valid.yaml"} {
		files, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, file := range files {
			for i, o := range documents(t, read(t, file)) {
				for _, problem := range slices.DeleteFunc(api.problems(o), isNewer) {
					t.Errorf("%s#%d: %s", filepath.Base(file), i, problem)
				}
			}
		}
	}
}

// isNewer tells a problem that is due to a field of a younger istio.io/api.
func isNewer(problem string) bool {
	return slices.ContainsFunc(newer, func(field string) bool { return strings.HasSuffix(problem, "."+field+`"`) })
}

func TestMistakesAreNamed(t *testing.T) {
	api := newServer(t)
	for _, tt := range []struct{ name, object, want string }{
		{"unknown field", "{apiVersion: networking.istio.io/v1, kind: VirtualService, spec: {http: [{routes: []}]}}", `unknown field "spec.http[0].routes"`},
		{"wrong enum", "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, spec: {mtls: {mode: STRIKT}}}", "spec.mtls.mode"},
		{"wrong type", "{apiVersion: networking.istio.io/v1, kind: Gateway, spec: {servers: [{port: {number: eighty, name: http, protocol: HTTP}, hosts: ['*']}]}}", "spec.servers[0].port.number"},
		{"required field", "{apiVersion: networking.istio.io/v1, kind: DestinationRule, spec: {}}", "spec.host"},
		{"two of a oneof", "{apiVersion: networking.istio.io/v1, kind: VirtualService, spec: {http: [{match: [{uri: {exact: /, prefix: /}}]}]}}", "spec.http[0].match[0].uri"},
		{"required by neither name", "{apiVersion: networking.istio.io/v1, kind: VirtualService, spec: {tls: [{match: [{port: 443}]}]}}", "spec.tls[0].match[0]"},
		{"second spelling, wrong type", "{apiVersion: networking.istio.io/v1, kind: VirtualService, spec: {tls: [{match: [{sni_hosts: a}]}]}}", "sni_hosts"},
		{"version that is not served", "{apiVersion: networking.istio.io/v2, kind: Gateway}", "no such kind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o object
			if err := sigsyaml.Unmarshal([]byte(tt.object), &o); err != nil {
				t.Fatal(err)
			}
			problems := api.problems(o)
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, tt.want) }) {
				t.Errorf("%s\nproblems %q, want one with %q", tt.object, problems, tt.want)
			}
		})
	}
}

// A field is known by its name in the .proto file as well.
func TestSecondSpellingIsKept(t *testing.T) {
	api := newServer(t)
	for _, tt := range []struct{ name, object string }{
		{"VS-002 sni_hosts, which is required", "{apiVersion: networking.istio.io/v1alpha3, kind: VirtualService, spec: {tls: [{match: [{port: 443, sni_hosts: [a.example]}]}]}}"},
		{"VS-002 retry_on, a scalar", "{apiVersion: networking.istio.io/v1, kind: VirtualService, spec: {http: [{retries: {attempts: 2, retry_on: 5xx}}]}}"},
		{"VS-002 connection_pool, an object with more of them", "{apiVersion: networking.istio.io/v1, kind: DestinationRule, spec: {host: a, traffic_policy: {connection_pool: {tcp: {max_connections: 1}}}}}"},
		{"VS-002 a member of a oneof", "{apiVersion: networking.istio.io/v1, kind: VirtualService, spec: {http: [{fault: {abort: {http_status: 500, percentage: {value: 1}}}}]}}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o object
			if err := sigsyaml.Unmarshal([]byte(tt.object), &o); err != nil {
				t.Fatal(err)
			}
			if problems := api.problems(o); len(problems) > 0 {
				t.Errorf("problems: %q", problems)
			}
		})
	}
}
