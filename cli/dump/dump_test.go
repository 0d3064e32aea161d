package dump_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/cli/dump"
	"github.com/lateen-mesh/lateen/test/material"
)

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestOriginal prints dumps of real proxies as the original did.
func TestOriginal(t *testing.T) {
	dir := material.Path(t, "data", "cli")
	const envoy = "writer/envoy/configdump/"
	routes := func(d *dump.Dump) (*dump.List, error) { return d.Routes(dump.RouteFilter{}, false) }
	endpoints := func(port int) func(*dump.Dump) (*dump.List, error) {
		return func(d *dump.Dump) (*dump.List, error) { return d.Endpoints(dump.EndpointFilter{Port: port}) }
	}
	for _, c := range []struct {
		name, dump, form, want string
		list                   func(*dump.Dump) (*dump.List, error)
	}{
		{"CL-027 routes of a gateway without any", envoy + "routes/empty-gateway/configdump.json", "short", envoy + "routes/empty-gateway/output.txt", routes},
		{"CL-027 routes of a Gateway", envoy + "routes/istio-gateway-http-route-prefix/configdump.json", "short", envoy + "routes/istio-gateway-http-route-prefix/output.txt", routes},
		{"CL-027 routes of an HTTPRoute", envoy + "routes/k8s-gateway-http-route-path-prefix/configdump.json", "short", envoy + "routes/k8s-gateway-http-route-path-prefix/output.txt", routes},
		{"CL-028 eds", envoy + "endpoint/configdump.json", "short", envoy + "endpoint/emptyfilter_output.txt", endpoints(0)},
		{"CL-028 eds json", envoy + "endpoint/configdump.json", "json", envoy + "endpoint/emptyfilter_output.json", endpoints(0)},
		{"CL-028 eds yaml", envoy + "endpoint/configdump.json", "yaml", envoy + "endpoint/emptyfilter_output.yaml", endpoints(0)},
		{"CL-028 eds of a port", envoy + "endpoint/configdump.json", "short", envoy + "endpoint/portfilter_output.txt", endpoints(8080)},
		{"CL-028 eds of a port json", envoy + "endpoint/configdump.json", "json", envoy + "endpoint/portfilter_output.json", endpoints(8080)},
		{"CL-028 eds of a port yaml", envoy + "endpoint/configdump.json", "yaml", envoy + "endpoint/portfilter_output.yaml", endpoints(8080)},
		{"CL-033 ecds", envoy + "ecds/configdump.json", "short", envoy + "ecds/output.txt", (*dump.Dump).Extensions},
		{"CL-033 ecds json", envoy + "ecds/configdump.json", "json", envoy + "ecds/output.json", (*dump.Dump).Extensions},
		{"CL-033 ecds yaml", envoy + "ecds/configdump.json", "yaml", envoy + "ecds/output.yaml", (*dump.Dump).Extensions},
		{"CL-029 versions", envoy + "configdump.json", "short", envoy + "versionsummary.txt", (*dump.Dump).Bootstrap},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := dump.Parse(read(t, dir, c.dump))
			if err != nil {
				t.Fatal(err)
			}
			list, err := c.list(d)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := list.Write(&out, c.form); err != nil {
				t.Fatal(err)
			}
			same(t, c.form, out.Bytes(), read(t, dir, c.want))
		})
	}
}

// TestOriginalAll does that with all tables of a waypoint.
func TestOriginalAll(t *testing.T) {
	dir := material.Path(t, "data", "cli")
	d, err := dump.Parse(read(t, dir, "proxyconfig/config_dump.json"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for file, a := range map[string]dump.All{"config_dump_summary.txt": {}, "config_dump_summary_withheaders.txt": {Headers: true}} {
		t.Run("CL-030 CL-032 "+file, func(t *testing.T) {
			var out bytes.Buffer
			if err := d.WriteAll(&out, "short", a, now); err != nil {
				t.Fatal(err)
			}
			same(t, "short", out.Bytes(), read(t, dir, "proxyconfig", file))
		})
	}
}

// TestOriginalAuthorization shows what a proxy allows and denies, and asks others about.
func TestOriginalAuthorization(t *testing.T) {
	d, err := dump.Parse(read(t, material.Path(t, "data", "cli"), "authz", "configdump.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Authorization()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("CL-037 authz check", func(t *testing.T) {
		var out bytes.Buffer
		if err := l.Write(&out, "short"); err != nil {
			t.Fatal(err)
		}
		same(t, "short", out.Bytes(), []byte(`ACTION   AuthorizationPolicy         RULES
ALLOW    _anonymous_match_nothing_   1
ALLOW    httpbin.default             1
CUSTOM   ext-authz.default           1
`))
	})
}

var blanks = regexp.MustCompile(` {2,}`)

// sameTable compares what a list prints in the form short.
func sameTable(t *testing.T, l *dump.List, want string) {
	t.Helper()
	var out bytes.Buffer
	if err := l.Write(&out, "short"); err != nil {
		t.Fatal(err)
	}
	same(t, "short", out.Bytes(), []byte(strings.TrimPrefix(want, "\n")))
}

// same compares JSON and YAML by what they mean, tables cell by cell.
func same(t *testing.T, form string, got, want []byte) {
	t.Helper()
	var a, b any
	if form == "short" {
		a, b = cells(got), cells(want)
	} else if err := yaml.Unmarshal(got, &a); err != nil {
		t.Fatal(err)
	} else if err := yaml.Unmarshal(want, &b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, a); diff != "" {
		t.Errorf("(-original +ours)\n%s", diff)
	}
	if form == "json" && !json.Valid(got) {
		t.Error("is no JSON")
	}
}

func cells(text []byte) (rows [][]string) {
	for line := range strings.Lines(string(text)) {
		rows = append(rows, blanks.Split(strings.TrimRight(line, " \n"), -1))
	}
	return rows
}
