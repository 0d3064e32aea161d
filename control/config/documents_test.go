package config

import "testing"

func TestDocuments(t *testing.T) {
	text := `apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
  data: {k: "yes"}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: b, namespace: x}
  spec:
    paused: yes
---
# nothing
---
kind: Pod
---
apiVersion: v1
kind: Service
metadata:
  name: c
spec:
  ports:
  - port: 80
---
a: [
`
	docs, problems := Documents("f.yaml", []byte(text))
	want := []struct {
		key, json string
		line      int
	}{
		{"ConfigMap a", `{"apiVersion":"v1","data":{"k":"yes"},"kind":"ConfigMap","metadata":{"name":"a"}}`, 4},
		{"Deployment x/b", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"b","namespace":"x"},"spec":{"paused":true}}`, 8},
		{"Service c", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},"spec":{"ports":[{"port":80}]}}`, 18},
	}
	if len(docs) != len(want) {
		t.Fatalf("%d documents, want %d", len(docs), len(want))
	}
	for i, w := range want {
		d := docs[i]
		if d.Object.String() != w.key || string(d.JSON) != w.json || d.Source.Line != w.line {
			t.Errorf("document %d: %s %s line %d, want %s %s line %d", i, d.Object, d.JSON, d.Source.Line, w.key, w.json, w.line)
		}
	}
	if line := docs[2].Line("spec.ports[0].port"); line != 24 {
		t.Errorf("spec.ports[0].port is on line %d, want 24", line)
	}
	wantProblems := []string{
		"f.yaml:16: a document must be a mapping with apiVersion and kind, got a mapping",
		"f.yaml:26: YAML syntax: did not find expected node content",
	}
	for i, p := range problems {
		if i >= len(wantProblems) || p.Error() != wantProblems[i] {
			t.Errorf("problem %q", p.Error())
		}
	}
	if len(problems) != len(wantProblems) {
		t.Errorf("%d problems, want %d", len(problems), len(wantProblems))
	}
}
