package proxy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/test/material"
)

func TestBootstrapsOfTheOriginal(t *testing.T) {
	b, err := Load(material.Path(t, "golden", "bootstrap", "sidecar-bootstrap.json"), "", false)
	if err != nil {
		t.Fatal(err)
	}
	if b.adminAddress != "127.0.0.1:15000" || b.globalLimit != 2147483647 || b.runtime.Whole("re2.max_program_size.error_level", 0) != 32768 {
		t.Errorf("%+v", b)
	}
	want := []string{"bootstrap_extensions", "listener 0.0.0.0_15090: envoy.filters.http.compressor.brotli",
		"listener 0.0.0.0_15090: envoy.filters.http.compressor.zstd", "listener 0.0.0.0_15090: envoy.filters.http.compressor.gzip"}
	if !slices.Equal(b.Ignored, want) {
		t.Errorf("ignored: %q", b.Ignored)
	}
	files, err := filepath.Glob(filepath.Join(material.Path(t, "data/bootstrap"), "*.json"))
	if err != nil || len(files) == 0 {
		t.Skip("shared acceptance material not present: data/bootstrap")
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			if _, err := Load(f, "", false); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("EN-037 YAML, with more YAML merged over it", func(t *testing.T) {
		write("node: {id: a, cluster: c}\nstatic_resources: {clusters: [{name: one}]}\n")
		b, err := Load(file, `{"node": {"id": "b"}, "static_resources": {"clusters": [{"name": "two"}]}}`, false)
		if err != nil {
			t.Fatal(err)
		}
		n := b.Proto.GetNode()
		if n.GetId() != "b" || n.GetCluster() != "c" || b.clusterProto("one") == nil || b.clusterProto("two") == nil {
			t.Error(b.Proto)
		}
	})
	for _, c := range []struct{ text, want string }{
		{`{"foo": 1}`, `unknown field "foo"`},
		{"a: [", "yaml"},
		{`{"hds_config": {}}`, "hds_config: not supported"},
		{`{"cluster_manager": {"upstream_bind_config": {"additional_source_addresses": [{}]}}}`, "cluster_manager: upstream_bind_config: Bootstrap's upstream binding config has extra/additional source addresses"},
		{`{"cluster_manager": {"upstream_bind_config": {"source_address": {"address": "x", "port_value": 1}}}}`, "cluster_manager: upstream_bind_config: source_address: malformed"},
		{`{"dynamic_resources": {"lds_config": {"ads": {}}}}`, "dynamic_resources: lds_config: ads without ads_config"},
		{`{"layered_runtime": {"layers": [{"name": "a", "static_layer": {"b": [1]}}]}}`, `layered_runtime: layers[0] "a": Invalid runtime entry value for b`},
		{`{"layered_runtime": {"layers": [{"name": "a", "admin_layer": {}}, {"name": "b", "admin_layer": {}}]}}`, "layered_runtime: Too many admin layers"},
		{`{"static_resources": {"listeners": [{"filter_chains": [{"filters": [{"typed_config": {"@type": "type.googleapis.com/no.such.Type"}}]}]}]}}`, "no.such.Type"},
	} {
		write(c.text)
		if _, err := Load(file, "", false); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "\u00a0", " "), c.want) {
			t.Errorf("%s: %v", c.text, err)
		}
	}
	if _, err := Load("/no/such/file", "", false); err == nil || !strings.HasPrefix(err.Error(), "Invalid path: /no/such/file") {
		t.Error(err)
	}
	if _, err := Load("", "", false); err == nil {
		t.Error("nothing to load was accepted")
	}
	write(`{"foo": 1}`)
	if _, err := Load(file, "", true); err != nil {
		t.Errorf("--allow-unknown-static-fields: %v", err)
	}
}

// TestErrorsTellNoSecrets: a bootstrap that cannot be read is described without what may
// be a private key.
func TestErrorsTellNoSecrets(t *testing.T) {
	const key = "-----BEGIN PRIVATE KEY-----MIIEv"
	secret := func(value string) string {
		return `{"static_resources": {"secrets": [{"name": "s", "tls_certificate": {"private_key": ` + value + `}}]}}`
	}
	for _, c := range []struct{ name, text, want string }{
		{"not base64", secret(`{"inline_bytes": "` + key + `"}`), "invalid value for bytes field inline"},
		{"a list", secret(`{"inline_string": ["` + key + `"]}`), "inline"},
		{"a text where fields belong", secret(`"` + key + `"`), "unexpected token"},
		{"twice", secret(`{"inline_string": "a", "inline_bytes": "` + key + `"}`), "oneof"},
		{"YAML", "static_resources: {secrets: [{tls_certificate: {private_key: {inline_bytes: '" + key + "'}}}]}", "invalid value for bytes field inline"},
		{"broken YAML", "static_resources: {secrets: [{tls_certificate: {private_key: {inline_bytes: '" + key + "'", ""},
		{"YAML of two documents", "'" + key + "'\n---\n'" + key + "'", ""},
		{"a number", secret(`{"filename": 12345}`), "invalid value for string field filename"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load("", c.text, false)
			if err == nil || strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), "12345") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
