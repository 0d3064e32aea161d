package dump_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/cli/dump"
)

// unknown is an extension of a type that this program does not have, with a message of a
// known one in it.
const unknown = `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump", "ecds_filters": [{"ecds_filter": {
	"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", "name": "mine",
	"typed_config": {"@type": "type.example.com/example.Mine", "size": 9007199254740991, "of": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}}}}]},
	{"@type": "type.example.com/example.Part", "is": "left out"}]}`

func TestUnknownType(t *testing.T) {
	d, err := dump.Parse([]byte(unknown))
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Extensions()
	if err != nil {
		t.Fatal(err)
	}
	var table, whole bytes.Buffer
	if err := l.Write(&table, "short"); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(&whole, "json"); err != nil {
		t.Fatal(err)
	}
	if want := "ECDS NAME     TYPE\nmine          example.Mine\n"; table.String() != want {
		t.Errorf("table\n%s\nwant\n%s", &table, want)
	}
	for _, want := range []string{`"typeUrl": "type.example.com/example.Mine"`, `"size": 9007199254740991`, `"@type": "type.googleapis.com/google.protobuf.Duration"`} {
		if !strings.Contains(whole.String(), want) {
			t.Errorf("no %s in\n%s", want, &whole)
		}
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat(`{"configs":[`, 20000)
	for name, c := range map[string]struct{ text, want string }{
		"no JSON":          {"configs:", "configuration dump: invalid character 'c'"},
		"two":              {"{} {}", "more than one JSON value"},
		"deep":             {deep, "exceeded max depth"},
		"wrong kind":       {`{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "static_clusters": 1}]}`, "unexpected token 1"},
		"no configuration": {`{"configs": [{"name": "x"}]}`, "configs[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := dump.Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

// TestLacks: what a dump does not have is said, not shown as nothing.
func TestLacks(t *testing.T) {
	d, err := dump.Parse([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	for kind, list := range lists(d) {
		if _, err := list(); err == nil || !strings.Contains(err.Error(), kind) {
			t.Errorf("%s: error %v", kind, err)
		}
	}
}

func lists(d *dump.Dump) map[string]func() (*dump.List, error) {
	return map[string]func() (*dump.List, error){
		"bootstrap":  d.Bootstrap,
		"clusters":   func() (*dump.List, error) { return d.Clusters(dump.ClusterFilter{}) },
		"listeners":  func() (*dump.List, error) { return d.Listeners(dump.ListenerFilter{}, false) },
		"routes":     func() (*dump.List, error) { return d.Routes(dump.RouteFilter{}, false) },
		"secrets":    func() (*dump.List, error) { return d.Secrets(time.Unix(0, 0)) },
		"endpoints":  func() (*dump.List, error) { return d.Endpoints(dump.EndpointFilter{}) },
		"extensions": d.Extensions,
	}
}

// FuzzParse: what can be read can be printed in every form, a line for each row.
func FuzzParse(f *testing.F) {
	f.Add([]byte(unknown))
	f.Add([]byte(sidecar))
	f.Fuzz(func(t *testing.T, text []byte) {
		if h, err := dump.ParseHosts(text); err == nil {
			print(t, h.List(dump.EndpointFilter{}))
		}
		d, err := dump.Parse(text)
		if err != nil {
			return
		}
		for _, list := range lists(d) {
			if l, err := list(); err == nil {
				print(t, l)
			}
		}
		var out bytes.Buffer
		_ = dump.Compare(&out, d, d)
		if strings.Contains(out.String(), "Don't") {
			t.Errorf("a dump differs from itself:\n%s", &out)
		}
		_ = d.WriteAll(&out, "short", dump.All{Headers: true}, time.Unix(0, 0))
	})
}

func print(t *testing.T, l *dump.List) {
	for _, form := range []string{"short", "json", "yaml"} {
		if err := l.Write(new(bytes.Buffer), form); err != nil {
			t.Errorf("%s: %v", form, err)
		}
	}
}
