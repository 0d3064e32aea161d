package analyze_test

import (
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/lateen-mesh/lateen/control/analyze"
)

// TestMessages has a case for each message: testdata/messages.txtar holds, one after the
// other, a file with objects and the lines that they give of its code. What is there more
// is said by other cases.
func TestMessages(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/messages.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(archive.Files); i += 2 {
		input, want := archive.Files[i], archive.Files[i+1]
		t.Run(input.Name, func(t *testing.T) {
			_, code, _ := strings.Cut(input.Name, " ")
			code, _, _ = strings.Cut(code, " ")
			m := analyze.NewMesh(analyze.Options{Files: true})
			if problems := m.AddText("in.yaml", input.Data); len(problems) > 0 {
				t.Fatal(problems)
			}
			var got strings.Builder
			for _, f := range m.Messages(analyze.Selection{}) {
				if string(f.Code) == code {
					got.WriteString(f.String() + "\n")
				}
			}
			if got.String() != string(want.Data) {
				t.Errorf("says:\n%s\nwant:\n%s", got.String(), want.Data)
			}
			if !analyze.Known(analyze.Code(code)) || want.Name != "says" {
				t.Errorf("not a case: %s, %s", input.Name, want.Name)
			}
		})
	}
}

// TestObjectsOfAnAPI gives what objects say that an API server holds, which have no lines,
// and lets those of files stand over them.
func TestObjectsOfAnAPI(t *testing.T) {
	m := analyze.NewMesh(analyze.Options{})
	for _, text := range []string{
		`{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"name":"a","namespace":"one"},
		  "spec":{"hosts":["a"],"http":[{"route":[{"destination":{"host":"nobody"}}]}]}}`,
		`{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"name":"b","namespace":"one"},
		  "spec":{"hosts":["b"],"http":[{"route":[{"destination":{"host":"nobody"}}]}]}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":"b","namespace":"one"},"spec":{"ports":[{"port":80,"name":"http"}]}}`,
		`{"apiVersion":"example.com/v1","kind":"Unknown","metadata":{"name":"a"}}`,
	} {
		if err := m.AddObject([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	m.AddText("b.yaml", []byte(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: one}
spec: {hosts: [b], http: [{route: [{destination: {host: b}}]}]}
`))
	check(t, m.Messages(analyze.Selection{}), `Error [IST0101] (VirtualService one/a) Referenced host not found: "nobody"`,
		"Warning [LAT0002] (VirtualService one/b b.yaml:5) http[0].route[0].destination: requests to b go nowhere: "+
			"Service one/b has no selector, and no EndpointSlice has an address for it. Give it one of both.")
	check(t, m.Messages(analyze.Selection{Namespace: "other"}))
	check(t, m.Messages(analyze.Selection{Analyzers: []string{"webhook.Analyzer"}}))
	m.Lacks(analyze.Resource{Kind: "Service"})
	check(t, m.Messages(analyze.Selection{}))
	if run, left := m.Split(analyze.Selection{}); len(run) == 0 || !strings.Contains(strings.Join(left, " "), "virtualservice.DestinationHostAnalyzer") {
		t.Errorf("runs %v, leaves out %v", run, left)
	}
}

// TestNetworks finds a network of a cluster that is not known.
func TestNetworks(t *testing.T) {
	t.Run("AC-017 IST0126", func(t *testing.T) {
		m := analyze.NewMesh(analyze.Options{})
		m.AddText("in.yaml", []byte(`
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  meshNetworks: |
    networks:
      home: {endpoints: [{fromRegistry: Kubernetes}, {fromRegistry: second}]}
      away: {endpoints: [{fromRegistry: nobody}]}
---
apiVersion: v1
kind: Secret
metadata: {name: remote, namespace: istio-system, labels: {istio/multiCluster: "true"}}
stringData: {second: kubeconfig}
`))
		check(t, m.Messages(analyze.Selection{}), "Error [IST0126] (MeshNetworks istio-system/meshnetworks) Unknown service registry nobody in network away")
	})
}

// TestSuppressions leaves out what an annotation or the caller does not want to hear.
func TestSuppressions(t *testing.T) {
	const text = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: one, annotations: {galley.istio.io/analyze-suppress: "CODES"}}
spec: {selector: {app: none}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
`
	for _, c := range []struct {
		name, annotation, flag string
		silent                 bool
	}{
		{"AN-023 nothing", "", "", false},
		{"AN-023 the code", "IST0101", "", true},
		{"AN-023 of several", "IST0132, IST0101", "", true},
		{"AN-023 another code", "IST0102", "", false},
		{"AN-023 all", "*", "", true},
		{"flag", "", "IST0101=Gateway front.one", true},
		{"flag for many", "", "IST0101=Gateway *.one", true},
		{"flag for another namespace", "", "IST0101=Gateway *.two", false},
		{"flag for another kind", "", "IST0101=Pod *.one", false},
		{"flag of another code", "", "IST0102=Gateway front.one", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := analyze.NewMesh(analyze.Options{})
			m.AddText("a.yaml", []byte(strings.Replace(text, "CODES", c.annotation, 1)))
			var want analyze.Selection
			if c.flag != "" {
				s, err := analyze.ParseSuppression(c.flag)
				if err != nil {
					t.Fatal(err)
				}
				want.Suppress = append(want.Suppress, s)
			}
			if found := m.Messages(want); (len(found) == 0) != c.silent {
				t.Errorf("says %v", found)
			}
		})
	}
	for _, wrong := range []string{"", "IST0101", "=Pod a", "IST0101=", "IST0101=[", "IST0101=a=b"} {
		if _, err := analyze.ParseSuppression(wrong); err == nil {
			t.Errorf("suppression %q is taken", wrong)
		}
	}
}

func check(t *testing.T, found []analyze.Message, want ...string) {
	t.Helper()
	var got []string
	for _, f := range found {
		got = append(got, f.String())
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("says:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// FuzzAddText looks for texts that end the analysis: whatever is written, there are
// messages about it, and none says that an analyzer failed.
func FuzzAddText(f *testing.F) {
	archive, err := txtar.ParseFile("testdata/messages.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(archive.Files); i += 2 {
		f.Add(archive.Files[i].Data)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m := analyze.NewMesh(analyze.Options{Files: true})
		m.AddText("a.yaml", text)
		for _, found := range m.Messages(analyze.Selection{}) {
			if found.Code == analyze.InternalError {
				t.Error(found)
			}
		}
	})
}
