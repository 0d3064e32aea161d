package test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/local/namespace"
	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/material"
	"github.com/lateen-mesh/lateen/test/replay"
)

var (
	scenariosFlag = flag.String("scenarios", "short", "which scenarios replay in a mesh with pods: short, those of every run; all; or their numbers, with commas")
	timesFlag     = flag.Int("times", 1, "how often each scenario replays, one time right after the other")
	proxyFlag     = flag.String("proxy", "lateen", "the proxy of all pods: lateen, or envoy, a real one")
)

// short are the scenarios of every run: the installed mesh, Bookinfo, its gateway, sites outside.
// All the others are left to make replay: they install again and again, ask for thousands of
// pages, or wait as their users do.
var short = []string{"04", "05", "21", "24", "46", "47", "50", "54"}

// TestReplayPods replays the scenarios of a mesh with pods, one after the other in one mesh,
// as root of a machine with its commands: what is expected is in replay/scenarios.
func TestReplayPods(t *testing.T) {
	if testing.Short() {
		t.Skip("pods take their time: not in short runs")
	}
	if engine() != "standalone" {
		t.Skipf("engine %q is not built yet: the scenarios replay on the standalone engine only", engine())
	}
	shared := material.Dir()
	if shared == "" {
		t.Skip("shared acceptance material not present: the scenarios are part of it")
	}
	scripts, err := filepath.Glob("replay/scenarios/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	place := replayMesh(t, shared)
	for _, file := range scripts {
		number := strings.TrimSuffix(filepath.Base(file), ".txtar")
		if !asked(number) {
			continue
		}
		for range *timesFlag {
			t.Run("scenario "+number, func(t *testing.T) { replayOne(t, place, shared, file, number) })
		}
	}
}

// asked reports whether the flag names a scenario.
func asked(number string) bool {
	switch *scenariosFlag {
	case "all":
		return true
	case "short":
		return slices.Contains(short, number)
	}
	return slices.Contains(strings.Split(*scenariosFlag, ","), number)
}

func replayOne(t *testing.T, place replay.Place, shared, file, number string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	script, err := replay.Parse(number, text)
	if err != nil {
		t.Fatal(err)
	}
	folders, _ := filepath.Glob(filepath.Join(shared, "scenarios", number+"-*"))
	if len(folders) != 1 {
		t.Fatalf("scenario %s is in %d folders", number, len(folders))
	}
	script.Run(t, place, folders[0])
}

// replayMesh brings up a mesh with nothing but what `lateen up` starts with, and the sites
// of the scenarios.
func replayMesh(t *testing.T, shared string) replay.Place {
	t.Helper()
	bin := engineDir(t)
	if asked("45") {
		if _, err := build.OPA(bin); err != nil {
			t.Fatal(err)
		}
	}
	var refusal *namespace.Refusal
	if _, err := namespace.Probe(t.Context(), filepath.Join(bin, "lateen-engine")); errors.As(err, &refusal) {
		t.Skipf("%v (%s)", err, refusal.Hint)
	}
	work := openTemp(t)
	state, sites := filepath.Join(work, "state"), filepath.Join(work, "sites")
	argv := []string{"up", "--detach", "--pods", "--state", state}
	if fortio := fixture.FortioImage(); fortio != "" {
		argv = append(argv, "--image", "fortio/fortio=oci:"+fortio)
	}
	argv = append(argv, startSites(t, filepath.Join(bin, "lateen-sample"), sites)...)
	switch *proxyFlag {
	case "lateen":
	case "envoy":
		envoy := fixture.EnvoyPath()
		if envoy == "" {
			t.Skip("the real Envoy is not installed: run `make peers`")
		}
		argv = append(argv, "--proxy", envoy)
	default:
		t.Fatalf("no proxy %q: lateen or envoy", *proxyFlag)
	}
	prelude, err := os.ReadFile("replay/prelude.sh")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + work, "KUBECONFIG=" + filepath.Join(state, "kubeconfig"),
		"SCENARIOS=" + filepath.Join(shared, "scenarios"), "CA=" + filepath.Join(sites, "testca.crt")}
	lateen := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "lateen"), args...)
		cmd.Env = env
		return cmd
	}
	t.Cleanup(func() {
		if out, err := lateen("down", "--state", state).CombinedOutput(); err != nil {
			t.Logf("lateen down: %v\n%s", err, out)
		}
	})
	out, err := lateen(argv...).CombinedOutput()
	if t.Logf("%s", out); err != nil {
		t.Fatalf("lateen up: %v\n%s", err, logsOf(state))
	}
	if *proxyFlag == "envoy" {
		saysEnvoy(t, env)
	}
	return replay.Place{Work: work, Samples: absolute("../samples"), Prelude: string(prelude), Env: env}
}

// saysEnvoy has a proxy of the mesh tell what it is: only a real Envoy knows of the library
// that it has its TLS from.
func saysEnvoy(t *testing.T, env []string) {
	t.Helper()
	cmd := exec.Command("kubectl", "exec", "-n", "istio-system", "deploy/istio-ingressgateway", "--", "pilot-agent", "request", "GET", "server_info")
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "BoringSSL") {
		t.Fatalf("the gateway's proxy is no real Envoy: %v\n%s", err, out)
	}
}

// logsOf are the logs of a mesh's parts.
func logsOf(state string) string {
	var all strings.Builder
	files, _ := filepath.Glob(filepath.Join(state, "logs", "*.log"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		all.WriteString(filepath.Base(file) + ":\n" + string(text))
	}
	return all.String()
}
