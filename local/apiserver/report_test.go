package main_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReport prints what the server weighs and how long it takes, with -v. It fails
// for nothing that depends on how busy the machine is.
func TestReport(t *testing.T) {
	if info, err := os.Stat(serverBinary); err == nil {
		t.Logf("program: %.1f MB", float64(info.Size())/1e6)
	}
	began := time.Now()
	s := start(t, os.Geteuid())
	t.Logf("first start: serves after %v", time.Since(began).Round(time.Millisecond))
	s.must("", "get", "pods")
	t.Logf("first start: kubectl get answered after %v", time.Since(began).Round(time.Millisecond))
	t.Logf("a further kubectl get: %v", duration(func() { s.must("", "get", "pods") }))
	reportMemory(t, s, "no definitions")
	reportPods(t, s)

	for _, definitions := range sharedDefinitions(t) {
		s.args = []string{"--crds", definitions}
		s.restart()
		began = time.Now()
		eventually(t, "ready", func() bool { status, _ := get(t, s.socket(), "http://lateen/readyz"); return status == http.StatusOK })
		t.Logf("definitions of %s applied after %v", filepath.Base(definitions), time.Since(began).Round(time.Millisecond))
		reportMemory(t, s, "after they were applied")
		s.stop()
		began = time.Now()
		s.restart()
		t.Logf("restart with them: serves after %v", time.Since(began).Round(time.Millisecond))
		s.must("", "get", "pods")
		t.Logf("restart with them: kubectl get answered after %v", time.Since(began).Round(time.Millisecond))
		reportMemory(t, s, "after a restart with them")
	}
}

func duration(work func()) time.Duration {
	began := time.Now()
	work()
	return time.Since(began).Round(time.Millisecond)
}

// sharedDefinitions are those that the acceptance material has, if it is there.
func sharedDefinitions(t *testing.T) []string {
	root := os.Getenv("LATEEN_SHARED")
	if root == "" {
		root = "../../../shared"
	}
	path, err := filepath.Abs(filepath.Join(root, "data/crds/istio/crd-all.gen.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Log("shared acceptance material not present: no figures with definitions of a mesh")
		return nil
	}
	return []string{path}
}

// reportMemory waits until the process has settled and prints its memory.
func reportMemory(t *testing.T, s *server, when string) {
	t.Helper()
	var rest, last string
	eventually(t, "memory stays as it is", func() bool {
		time.Sleep(5 * time.Second) // what is waited for is that nothing happens
		last, rest = rest, memory(t, s)
		return last == rest
	})
	t.Logf("memory, %s: %s", when, rest)
}

func memory(t *testing.T, s *server) string {
	t.Helper()
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(rollup)) {
		fields := strings.Fields(line)
		var kB int
		if len(fields) == 3 && (fields[0] == "Pss:" || fields[0] == "Pss_Anon:" || fields[0] == "Pss_File:") {
			fmt.Sscan(fields[1], &kB)
			all = append(all, fmt.Sprintf("%s %d MB", fields[0], kB>>10))
		}
	}
	return strings.Join(all, ", ")
}

// reportPods measures what the API adds to the start of pods: from kubectl apply of
// twelve until all are said to be Ready, with a node that takes no time.
func reportPods(t *testing.T, s *server) {
	runNode(t, s)
	many := strings.Replace(testdata(t, "hello.yaml"), "replicas: 2", "replicas: 12", 1)
	began := time.Now()
	s.must(many, "apply", "-f", "-")
	applied := time.Since(began)
	s.must("", "wait", "--for=jsonpath={.status.readyReplicas}=12", "deployment/hello", "--timeout=60s")
	t.Logf("12 pods: applied after %v, all Ready after %v", applied.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	t.Logf("delete them: %v", duration(func() {
		s.must("", "delete", "deployment", "hello")
		s.must("", "wait", "--for=delete", "pod", "-l", "app=hello", "--timeout=60s")
	}))
	s.must("", "create", "namespace", "short")
	t.Logf("delete a namespace: %v", duration(func() { s.must("", "delete", "namespace", "short") }))
}
