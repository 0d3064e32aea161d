package local

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/config"
)

// podful is a mesh with pods, and something wrong everywhere.
func podful() Status {
	now := time.Now()
	return Status{State: "/s", PID: 1, Kubeconfig: "/s/kubeconfig", Objects: 2, Files: 1, Published: map[int]int{80: 8080},
		Parts: []Part{{Name: "istiod", PID: 12, State: "running", Since: now}, {Name: "apiserver", State: "restarting", Restarts: 3, Since: now}},
		Pods: []Pod{{Namespace: "default", Name: "sleep-1", Status: "Running", Ready: true, Up: 1, Of: 1, Address: "10.244.0.3", Since: now},
			{Namespace: "default", Name: "app-1", Status: "ErrImagePull", Of: 2, Since: now, Problem: "container app: no such image"}},
		Problems: []config.Problem{{Source: config.Source{File: "a.yaml", Line: 7}, Object: config.Key{Kind: "Deployment", Name: "x"}, Field: "spec.replica", Message: "unknown field", Hint: "look"}},
		Control: &control.Status{Generation: 4, Proxies: []control.ProxyStatus{{ID: "gw.istio-system", Generation: 3, Refused: []control.Refusal{{Type: "LDS", Resource: "0.0.0.0_81", Error: "no"}},
			Listeners: []control.ListenerPort{{Port: 80, HostPort: 80, Address: "0.0.0.0", Protocol: "HTTP", Hosts: []string{"a", "b", "c", "d", "e"}, Objects: []string{"default/web"}},
				{Port: 81, HostPort: 81, Address: "0.0.0.0"}, {Port: 82, HostPort: 82, Address: "0.0.0.0"}}}}}}
}

func TestPrint(t *testing.T) { synctest.Test(t, testPrint) } // where time stands still: ages

func testPrint(t *testing.T) {
	hosted := Status{Parts: []Part{{Name: "gateway", PID: 7, State: "running", Since: time.Now()}},
		Control: &control.Status{Objects: 3, Files: []control.FileStatus{{Path: "a.yaml", Stale: true}, {Path: "b.yaml"}},
			Proxies: []control.ProxyStatus{{ID: "gw", Synced: true, Listeners: []control.ListenerPort{{Port: 80, HostPort: 8080, Address: "0.0.0.0"}}}}}}
	for name, c := range map[string]struct {
		status Status
		want   string
	}{
		"pods, and what is wrong": {podful(), `PART        PID   STATE        RESTARTS   AGE
istiod      12    running      0          0s
apiserver   -     restarting   3          0s

NAMESPACE   POD       READY   STATUS         RESTARTS   AGE   IP
default     sleep-1   1/1     Running        0          0s    10.244.0.3
default     app-1     0/2     ErrImagePull   0          0s    -

GATEWAY PORT   LISTENS ON     PROTOCOL   HOSTS               OBJECT
80             0.0.0.0:8080   HTTP       a,b,c + 2 more...   default/web
81             refused        -          -                   -
82             -              -          -                   -

PROXY             GENERATION   SYNCED   REFUSED
gw.istio-system   3 of 4       no       1

2 objects applied from 1 file

error: a.yaml:7: Deployment x: spec.replica: unknown field
hint: look
error: Pod default/app-1: container app: no such image
hint: see: lateen describe pod -n default app-1
error: gw.istio-system refuses LDS 0.0.0.0_81: no
`},
		"without pods": {hosted, `PART      PID   STATE     RESTARTS   AGE
gateway   7     running   0          0s

GATEWAY PORT   LISTENS ON     PROTOCOL   HOSTS   OBJECT
80             0.0.0.0:8080   -          -       -

PROXY   GENERATION   SYNCED   REFUSED
gw      0 of 0       yes      0

3 objects from 2 files, 1 of them stale

warning: a.yaml: stale: objects of it are in force as they were before
`},
		"the control plane is away": {Status{Parts: hosted.Parts, Problem: "connection refused"}, `PART      PID   STATE     RESTARTS   AGE
gateway   7     running   0          0s

the control plane does not answer: connection refused
`},
	} {
		var out bytes.Buffer
		c.status.Print(&out)
		if out.String() != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, out.String(), c.want)
		}
	}
}

func TestPrintReady(t *testing.T) {
	var out, errs bytes.Buffer
	Ready{Took: 1234 * time.Millisecond, Status: podful()}.Print(&out, &errs)
	if got := out.String(); !strings.HasSuffix(got, "\n1 of 2 pods ready: lateen status shows them\nkubectl: export KUBECONFIG=/s/kubeconfig\nmesh ready in 1.23 s, with 3 problems\n") {
		t.Errorf("got %s", got)
	}
	if got := errs.String(); strings.Count(got, "error: ") != 3 || strings.Contains(out.String(), "error: ") {
		t.Errorf("errors: %s", got)
	}
	errs.Reset()
	Ready{Status: Status{NoPods: "no user namespaces (a cure)"}}.Print(&out, &errs)
	if got := errs.String(); got != "warning: no pods can run on this machine: no user namespaces (a cure)\n" {
		t.Errorf("got %q", got)
	}
}

// What the control plane says about objects of the API gets the line that the object has
// in a file.
func TestLocate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.yaml")
	for name, text := range map[string]string{
		path:                            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: web}\nspec:\n  servers:\n  - hosts: ['*']\n    tls: {credentialName: absent}\n",
		filepath.Join(dir, appliedName): `[{"Group":"networking.istio.io","Kind":"Gateway","Namespace":"default","Name":"web","version":"v1","file":"` + path + `","line":1,"hash":"x"}]`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	problems := []control.Problem{{Object: "Gateway default/web", Field: "servers[0].tls.credentialName", Message: "no secret"},
		{Object: "Gateway default/other", Message: "of nobody's file"}, {Object: "Gateway default/web", Place: "there:1"}, {Message: "of the mesh"}}
	st := &control.Status{Kubernetes: &control.APIStatus{}, Problems: problems}
	locate(st, dir)
	for i, want := range []string{path + ":7", "", "there:1", ""} {
		if got := st.Problems[i].Place; got != want {
			t.Errorf("%s: %q, want %q", st.Problems[i], got, want)
		}
	}
}
