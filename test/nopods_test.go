package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/test/ports"
)

// TestWithoutNamespaces starts a mesh where the kernel permits no network namespaces: the
// gateway serves what the API has, and the reason why there are no pods is shown.
func TestWithoutNamespaces(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the API: not in short runs")
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("unshare is not installed, which takes the permission away")
	}
	bin, state, port := engineDir(t), openTemp(t), strconv.Itoa(ports.One())
	script := `set -e
echo 0 > /proc/sys/user/max_net_namespaces || { echo not to be forbidden; exit 0; }
lateen up --detach --pods --state ` + state + ` --publish 80=` + port + ` ../samples/httpbin/httpbin-gateway.yaml
curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:` + port + `/status/200
lateen status --state ` + state + `
lateen down --state ` + state
	cmd := exec.Command("unshare", "--user", "--map-root-user", "bash", "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	text := string(out)
	if strings.Contains(text, "not to be forbidden") {
		t.Skip("this kernel's limit of network namespaces cannot be set here")
	}
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(state, "logs", "up.log"))
		t.Fatalf("%v\n%s\n%s", err, text, log)
	}
	for _, want := range []string{"503\n", "no pods can run on this machine: ", "sysctl user.max_net_namespaces=", "default/httpbin-gateway", "mesh ended"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}
